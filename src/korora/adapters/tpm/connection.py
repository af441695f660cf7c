"""One ESAPI context on any TCTI: one user at a time, reconnected when the TPM was restarted.

Promise: whatever the TPM software stack raises leaves here as a KororaError with its cause chained, and an
object loaded through `flushed` is gone afterwards, also on failure. Limit: transient objects that a killed
process left in a TPM without resource manager are flushed only when they are in the way.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

# The library prints each refusal of the TPM on stderr; ours are raised with their reason instead.
os.environ.setdefault("TSS2_LOG", "all+NONE")

from tpm2_pytss import ESAPI, TCTILdr, TSS2_Exception
from tpm2_pytss.constants import TPM2_CAP

from korora.errors import KororaError, RefusedError, ToolError

T = TypeVar("T")

RC_HANDLE: Final = 0x08B  # no such handle
RC_LOCKOUT: Final = 0x921
_OUT_OF_SLOTS: Final = frozenset(
    {0x902, 0x903, 0x905, 0x906}
)  # object, session memory; session, object handles
_TPM, _ESAPI, _MARSHALLING, _TCTI = 0x0, 0x7, 0x9, 0xA  # who speaks (TSS overview, 3.1)
_BROKEN_CONTEXT: Final = frozenset({0x7, 0xA})  # ESAPI: bad sequence, I/O error
_SLOTS: Final = (0x80000000, 0x02000000, 0x03000000)  # transient objects, loaded and saved sessions
_FLUSH_CONTEXT: Final = bytes.fromhex("80010000000e00000165")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A no that the caller expects, rather than a broken TPM.

    It is one of these codes, or the TPM's word that a handle or parameter it was given is wrong.
    """

    codes: frozenset[int]
    kind: str
    message: str
    remedy: str


class Connection:
    """The way to one TPM. Opens on first use, so that a daemon starts without its TPM and says so later."""

    def __init__(self, tcti: str) -> None:
        self._tcti = tcti
        self._lock = threading.Lock()
        self._esys: Any = None

    def run(
        self,
        operation: str,
        work: Callable[[Any], T],
        *,
        refusal: Refusal | None = None,
        repeatable: bool = True,
    ) -> T:
        """Do `work` alone on the TPM.

        It is done a second time when the connection had died or slots were full, unless it is not
        `repeatable`. ToolError when the TPM cannot be reached or refuses; RefusedError as `refusal` says.
        """
        with self._lock:
            try:
                return self._attempt(work, repeatable)
            except TSS2_Exception as error:
                raise _translated(error, operation, self._tcti, refusal) from error
            except (TypeError, ValueError) as error:  # the binding's complaint about malformed structures
                raise _malformed(error, operation, refusal) from error

    def close(self) -> None:
        with self._lock:
            self._disconnect()

    def _attempt(self, work: Callable[[Any], T], repeatable: bool) -> T:
        try:
            return work(self._connected())
        except TSS2_Exception as error:
            if error.rc in _OUT_OF_SLOTS:
                self._flush_leftovers()
            elif not repeatable or not _connection_lost(error):
                raise
        self._disconnect()
        return work(self._connected())

    def _connected(self) -> Any:
        if self._esys is None:
            self._esys = ESAPI(self._tcti)
        return self._esys

    def _disconnect(self) -> None:
        esys, self._esys = self._esys, None
        if esys is not None:
            with suppress(TSS2_Exception):  # the other end may be gone already
                esys.close()

    def _flush_leftovers(self) -> None:
        """Free what earlier processes left loaded. A resource manager shows us only our own."""
        handles = [handle for first in _SLOTS for handle in self._loaded(first)]
        self._disconnect()
        with TCTILdr(*self._tcti.split(":", 1)) as tcti:
            for handle in handles:
                tcti.transmit(_FLUSH_CONTEXT + handle.to_bytes(4, "big"))
                tcti.receive()

    def _loaded(self, first: int) -> list[int]:
        _, found = self._connected().get_capability(TPM2_CAP.HANDLES, first, 64)
        # Sessions are listed with the class of their state, and flushed by their own handle.
        return [int(handle) for handle in found.data.handles]


@contextmanager
def flushed(esys: Any, handle: Any) -> Iterator[Any]:
    """Use a loaded object or session, then free its slot: a TPM has as few as three."""
    try:
        yield handle
    finally:
        with suppress(TSS2_Exception):  # it is gone already when the TPM was reset
            esys.flush_context(handle)


def answered(error: TSS2_Exception, *codes: int) -> bool:
    """Whether the TPM itself answered with one of these codes (part 2, 6.6; without the parameter number)."""
    return _layer(error) == _TPM and _code(error) in codes


def _code(error: TSS2_Exception) -> int:
    return int(error.error if error.fmt1 else error.rc)


def _layer(error: TSS2_Exception) -> int:
    return int(error.rc) >> 16 & 0xFF


def _connection_lost(error: TSS2_Exception) -> bool:
    layer, code = _layer(error), int(error.rc) & 0xFFFF
    return layer == _TCTI or (layer == _ESAPI and code in _BROKEN_CONTEXT)


def _expected(error: TSS2_Exception, refusal: Refusal) -> bool:
    about_input = _layer(error) == _MARSHALLING or (_layer(error) == _TPM and bool(error.fmt1))
    return about_input or answered(error, *refusal.codes)


def _translated(error: TSS2_Exception, operation: str, tcti: str, refusal: Refusal | None) -> KororaError:
    if _connection_lost(error):
        return ToolError(
            f"the TPM at {tcti} cannot be reached ({operation}: {error})",
            kind="tpm-unreachable",
            remedy="check that the TPM (or swtpm) runs and that `tpm` in hostd.toml names it",
        )
    if refusal and _expected(error, refusal):
        return RefusedError(refusal.message, kind=refusal.kind, remedy=refusal.remedy)
    if answered(error, RC_LOCKOUT):
        return ToolError(
            f"the TPM is locked out after failed authorizations ({operation})",
            kind="tpm-lockout",
            remedy="wait for the lockout to end, or clear it: tpm2_dictionarylockout --clear-lockout",
        )
    return ToolError(f"the TPM refused {operation}: {error} (code {error.rc:#x})", kind="tpm")


def _malformed(error: Exception, operation: str, refusal: Refusal | None) -> KororaError:
    if refusal:
        return RefusedError(refusal.message, kind=refusal.kind, remedy=refusal.remedy)
    return ToolError(f"the TPM software stack cannot do the {operation}: {error}", kind="tpm")
