"""Ask a service for a hash. Only the hash leaves this host, with the key that the service gave.

Promise: a question that fails, takes too long, is over the quota, or is answered in a way that is not
documented, is *unknown*. Answers are read up to a bound, and redirections are not followed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from korora.adapters.scanner.online.quota import Quota
from korora.model.scan import Answer

ANSWER_MAX_BYTES: Final = 8 << 20
ASKED_WITHIN_S: Final = 15.0
_REFUSALS: Final = {
    401: "it does not know the key",
    403: "it does not allow it with this key",
    429: "its own quota is spent",
}


@dataclass(frozen=True, slots=True)
class Told:
    """`answer` is None when the service does not know the file, which says nothing of it."""

    answer: Answer | None
    words: str


@dataclass(frozen=True, slots=True)
class Question:
    method: str
    url: str
    headers: dict[str, str] = field(repr=False)  # with the key
    form: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """One service's way to ask and to answer. `understood` gets the status and the document."""

    name: str
    url: str
    per_minute: int
    per_day: int
    question: Callable[[str, str, str], Question]  # base URL, key, SHA-256
    understood: Callable[[int, Any], Told]


class Service:
    """One service, with a key and a quota."""

    def __init__(
        self, kind: Kind, key: str, quota: Quota, *, url: str | None = None, proxy: str | None = None
    ) -> None:
        self._kind = kind
        self._key = key
        self._quota = quota
        self._url = (url or kind.url).rstrip("/")
        import httpx

        # Proxies of the environment are not used: what leaves, and by which way, stands in the configuration.
        self._client = httpx.Client(proxy=proxy, trust_env=False, follow_redirects=False)

    @property
    def name(self) -> str:
        return self._kind.name

    def ask(self, sha256: str, within_s: float) -> Told:
        import httpx

        refused = self._quota.spend(time.time())
        if refused:
            return self._unknown(refused)
        try:
            status, content = self._fetched(sha256, min(within_s, ASKED_WITHIN_S))
            told = self._kind.understood(status, _document(content))
        except httpx.TimeoutException:
            return self._unknown("it did not answer in time")
        except (httpx.HTTPError, ValueError) as error:
            return self._unknown(str(error)[:200] or type(error).__name__)
        return Told(told.answer, f"{self.name}: {told.words}")

    def close(self) -> None:
        self._client.close()

    def _fetched(self, sha256: str, within_s: float) -> tuple[int, bytes]:
        import httpx

        asked = self._kind.question(self._url, self._key, sha256)
        deadline = time.monotonic() + within_s
        headers = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "korora"}
        with self._client.stream(
            asked.method, asked.url, headers=headers | asked.headers, data=asked.form, timeout=within_s
        ) as response:
            content = b""
            for piece in response.iter_raw():
                content += piece
                if len(content) > ANSWER_MAX_BYTES:
                    raise ValueError("its answer is too long")
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("too slow")
            return response.status_code, content

    def _unknown(self, words: str) -> Told:
        return Told(Answer.UNKNOWN, f"{self.name}: {words}")


def _document(content: bytes) -> Any:
    """None when it is no JSON: some errors come without."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def refusal(status: int) -> Told:
    """An answer that is none."""
    return Told(Answer.UNKNOWN, _REFUSALS.get(status, f"it answered with status {status}"))


def at(document: Any, *keys: str) -> Any:
    """What stands in nested objects, or None."""
    for key in keys:
        if not isinstance(document, dict):
            return None
        document = document.get(key)
    return document


def number(value: Any) -> int:
    """A count; 0 for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def text(value: Any) -> str:
    return value[:200] if isinstance(value, str) else ""
