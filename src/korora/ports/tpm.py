"""The host's TPM 2.0. Blocking calls (a TPM does one thing at a time): run them off the event loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from korora.model.evidence import PcrValues, Quote
from korora.model.identity import Secret
from korora.model.tpm import Credential, WrappedKey, WrappingKey

__all__ = ["Credential", "Tpm", "WrappedKey", "WrappingKey"]


class Tpm(Protocol):
    """Every method raises ToolError when the TPM cannot be reached or refuses."""

    def endorsement_certificate(self) -> bytes:
        """The EK certificate, DER."""
        ...

    def endorsement_public(self) -> bytes:
        """TPM2B_PUBLIC of the EK."""
        ...

    def attestation_public(self) -> bytes:
        """TPM2B_PUBLIC of the AK: a restricted ECDSA P-256 signing key in the endorsement hierarchy."""
        ...

    def activate_credential(self, credential: Credential) -> Secret:
        """Prove that AK and EK live in this TPM. ToolError when the credential is for another."""
        ...

    def read_pcrs(self, pcrs: Sequence[int]) -> PcrValues: ...

    def quote(self, pcrs: Sequence[int], qualifying_data: bytes) -> Quote:
        """Signed by the AK, SHA-256 bank."""
        ...

    def seal(self, secret: Secret, pcrs: Sequence[int], counter: int | None = None) -> bytes:
        """Seal under the present PCR values and, if given, under an NV counter's present value."""
        ...

    def unseal(self, sealed: bytes) -> Secret:
        """RefusedError(kind="sealed") when the PCRs or the counter moved on, or another TPM sealed it."""
        ...

    def counter_create(self, counter: int) -> None:
        """Define the NV counter if it is not there. `counter` is an NV index handle."""
        ...

    def counter_read(self, counter: int) -> int: ...

    def counter_increment(self, counter: int) -> int: ...

    def counter_remove(self, counter: int) -> None: ...

    def create_wrapping_key(self, nonce: bytes, pcrs: Sequence[int]) -> WrappingKey:
        """Make and remember one migration's wrapping key, named by its nonce."""
        ...

    def open_wrapped(self, nonce: bytes, wrapped: WrappedKey, context: bytes) -> Secret:
        """RefusedError(kind="wrapped-key") if the key, context or PCRs are not those it was wrapped for."""
        ...

    def forget_wrapping_key(self, nonce: bytes) -> None: ...

    def close(self) -> None: ...
