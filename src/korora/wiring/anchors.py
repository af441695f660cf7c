"""Whom a host believes: the files that [site] of hostd.toml names, read anew so that an edit takes effect.

Promise: all of them are looked at when the host starts; each mistake names its file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cryptography import x509

from korora import named_file
from korora.errors import KororaError, UsageError
from korora.model.configuration import SiteTrust
from korora.policy import reference_values
from korora.policy.appraisal import TrustAnchors
from korora.policy.certificates import anchors_in

_T = TypeVar("_T")
Check = Callable[[], object]


@dataclass(frozen=True, slots=True)
class SiteAnchors:
    """UsageError from each method when a file cannot be used: `bad-anchor`, or `bad-reference-values`."""

    site: SiteTrust

    def authority(self) -> x509.Certificate:
        return _read(self.site.authority, anchors_in)[0]

    def all(self) -> TrustAnchors:
        return TrustAnchors(
            authority=self.authority(),
            manufacturers=tuple(
                certificate for path in self.site.manufacturers for certificate in _read(path, anchors_in)
            ),
            reference=_read(self.site.reference_values, lambda data: reference_values.parse(data.decode())),
        )


@dataclass(frozen=True, slots=True)
class SiteFiles:
    """What an administrator edits while the daemon runs. Each check raises the KororaError of its file."""

    checks: Sequence[Check]

    def problems(self) -> list[KororaError]:
        """Why files as they are now refuse every migration; empty when all can be used."""
        return [problem for check in self.checks if (problem := _problem(check)) is not None]


def _problem(check: Check) -> KororaError | None:
    try:
        check()
    except KororaError as error:
        return error
    return None


def _read(path: Path, parse: Callable[[bytes], _T]) -> _T:
    try:
        return parse(named_file.read(path))
    except OSError as error:
        raise _unusable(path, error.strerror or str(error), "put it there") from error
    except UnicodeDecodeError as error:
        raise _unusable(path, "it is not UTF-8 text", "is it the right file?") from error
    except KororaError as error:
        raise _unusable(path, error.message, error.remedy, error.kind) from error


def _unusable(path: Path, problem: str, remedy: str, kind: str = "bad-anchor") -> UsageError:
    return UsageError(
        f"the trust anchor {path} cannot be used: {problem}",
        kind=kind,
        remedy=f"{remedy}; or correct [site] in hostd.toml",
    )
