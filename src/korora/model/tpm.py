"""What passes between hosts and their TPMs: credentials and the wrapping keys of migrations. Only values."""

from __future__ import annotations

from dataclasses import dataclass

from korora.model.evidence import Quote


@dataclass(frozen=True, slots=True)
class Credential:
    """TPM2_MakeCredential's output: TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET, marshalled."""

    blob: bytes
    encrypted_secret: bytes


@dataclass(frozen=True, slots=True)
class WrappingKey:
    """The public parts of a TPM key that was made for one migration and is usable only while the PCRs hold.

    `public` is a TPM2B_PUBLIC; `creation_data` a TPM2B_CREATION_DATA; `certification` is
    TPM2_CertifyCreation by the AK with the migration's nonce as qualifying data.
    """

    public: bytes
    creation_data: bytes
    certification: Quote


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """The per-migration key for one WrappingKey: ephemeral P-256 point (x‖y, 64 bytes) and ciphertext."""

    ephemeral: bytes
    ciphertext: bytes
