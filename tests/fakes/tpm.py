"""A host TPM in memory: PCRs, sealing, NV counters. Quotes and wrapping keys are not in it."""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from korora.errors import RefusedError, ToolError
from korora.model.evidence import PcrValues, Quote
from korora.model.identity import Secret
from korora.ports.tpm import Credential, WrappedKey, WrappingKey

MAX_SEALED = 128  # MAX_SYM_DATA of a TPM


@dataclass
class FakeTpm:
    pcrs: dict[int, bytes] = field(default_factory=lambda: dict.fromkeys(range(24), bytes(32)))
    counters: dict[int, int] = field(default_factory=dict)
    highest: int = 0  # no counter ever starts at or below one that was removed
    seed: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    calls: list[str] = field(default_factory=list)
    fail_before: str | None = None  # "method" or "method:n" (its n-th call from now): the power goes

    def extend(self, pcr: int, digest: bytes) -> None:
        self.pcrs[pcr] = hashlib.sha256(self.pcrs[pcr] + digest).digest()

    def read_pcrs(self, pcrs: Sequence[int]) -> PcrValues:
        self._called("read_pcrs")
        return {pcr: self.pcrs[pcr].hex() for pcr in pcrs}

    def seal(self, secret: Secret, pcrs: Sequence[int], counter: int | None = None) -> bytes:
        self._called("seal")
        if len(secret) > MAX_SEALED:
            raise ToolError("too large to seal")
        policy = struct.pack(">IB", counter or 0, len(pcrs)) + bytes(pcrs)
        key = self._key(policy)
        nonce = secrets.token_bytes(12)
        return policy + nonce + AESGCM(key).encrypt(nonce, secret.reveal(), policy)

    def unseal(self, sealed: bytes) -> Secret:
        self._called("unseal")
        try:
            policy, rest = sealed[: 5 + sealed[4]], sealed[5 + sealed[4] :]
            return Secret(AESGCM(self._key(policy)).decrypt(rest[:12], rest[12:], policy))
        except (InvalidTag, IndexError, ValueError, ToolError) as error:
            raise RefusedError("it does not unseal here and now", kind="sealed") from error

    def counter_create(self, counter: int) -> None:
        self._called("counter_create")
        if counter not in self.counters:
            self.highest += 1
            self.counters[counter] = self.highest

    def counter_read(self, counter: int) -> int:
        self._called("counter_read")
        return self._counter(counter)

    def counter_increment(self, counter: int) -> int:
        self._called("counter_increment")
        self.counters[counter] = self._counter(counter) + 1
        self.highest = max(self.highest, self.counters[counter])
        return self.counters[counter]

    def counter_remove(self, counter: int) -> None:
        self._called("counter_remove")
        self._counter(counter)
        del self.counters[counter]

    def close(self) -> None:
        pass

    def endorsement_certificate(self) -> bytes:
        raise NotImplementedError

    def endorsement_public(self) -> bytes:
        raise NotImplementedError

    def attestation_public(self) -> bytes:
        raise NotImplementedError

    def activate_credential(self, credential: Credential) -> Secret:
        raise NotImplementedError

    def quote(self, pcrs: Sequence[int], qualifying_data: bytes) -> Quote:
        raise NotImplementedError

    def create_wrapping_key(self, nonce: bytes, pcrs: Sequence[int]) -> WrappingKey:
        raise NotImplementedError

    def open_wrapped(self, nonce: bytes, wrapped: WrappedKey, context: bytes) -> Secret:
        raise NotImplementedError

    def forget_wrapping_key(self, nonce: bytes) -> None:
        raise NotImplementedError

    def _called(self, method: str) -> None:
        self.calls.append(method)
        if self.fail_before is None:
            return
        name, _, left = self.fail_before.partition(":")
        if name == method:
            remaining = int(left or 1) - 1
            self.fail_before = f"{name}:{remaining}" if remaining else None
            if not remaining:
                raise PowerCutError(method)

    def _counter(self, counter: int) -> int:
        if counter not in self.counters:
            raise ToolError(f"no NV index {counter:#x}")
        return self.counters[counter]

    def _key(self, policy: bytes) -> bytes:
        """Derived from everything that must still hold when it is opened."""
        (counter,) = struct.unpack_from(">I", policy)
        value = self._counter(counter) if counter else 0
        pcrs = b"".join(self.pcrs[pcr] for pcr in policy[5:])
        return hashlib.sha256(self.seed + policy + value.to_bytes(8, "big") + pcrs).digest()


class PowerCutError(Exception):
    """Nothing of Korora catches this: what was on disk is what is left."""
