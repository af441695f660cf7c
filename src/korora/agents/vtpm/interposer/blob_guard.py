"""Which state may leave or enter a vTPM, and when it may start. No socket, no clock: one object, one table.

Promise: state leaves only encrypted, each blob once per key; state enters only as three verified blobs of
one migration; a TPM whose state has not arrived whole never starts; a retired one never starts again.
Limit: it decides; the lanes must ask it before every GET_STATEBLOB, SET_STATEBLOB and INIT.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

from korora.errors import IntegrityError, KororaError, RefusedError
from korora.model.identity import Digest, Secret, SessionId, VmName, sha256
from korora.protocol.vtpm_blob import BlobType, blob_context, open_blob, seal_blob

Arrived = tuple[int, bytes]  # state flags and plaintext of one verified blob


class Mode(StrEnum):
    HOME = "home"  # the TPM lives here; its state neither leaves nor enters
    SENDING = "sending"
    AWAITING = "awaiting"  # empty, and no key has come yet
    ACCEPTING = "accepting"
    RETIRED = "retired"


class Order(StrEnum):
    SEND_UNDER = "send_under"
    ACCEPT_UNDER = "accept_under"
    LOADED = "loaded"
    STAY = "stay"
    RETIRE = "retire"


TRANSITIONS: dict[tuple[Mode, Order], Mode] = {
    (Mode.HOME, Order.SEND_UNDER): Mode.SENDING,
    (Mode.SENDING, Order.SEND_UNDER): Mode.SENDING,  # a new move, after one that nobody called off
    (Mode.HOME, Order.STAY): Mode.HOME,
    (Mode.SENDING, Order.STAY): Mode.HOME,
    (Mode.AWAITING, Order.ACCEPT_UNDER): Mode.ACCEPTING,
    (Mode.ACCEPTING, Order.LOADED): Mode.HOME,
    **{(mode, Order.RETIRE): Mode.RETIRED for mode in Mode},
}


class BlobGuard:
    """The state of one vTPM's custody. Not thread-safe: callers hold the control channel's lock."""

    def __init__(self, *, incoming: bool) -> None:
        self.mode = Mode.AWAITING if incoming else Mode.HOME
        self.reason = ""  # the first refusal of the present or last move
        self.digests: dict[BlobType, Digest] = {}  # of the blobs that left, or entered and verified
        self.loaded = False
        self._bare = False  # the blobs come as a QEMU that nobody interposed sends them
        self._key: Secret | None = None
        self._context = b""
        self._spent: set[bytes] = set()  # SHA-256 of every key this process has seen
        self._held: dict[BlobType, Arrived] = {}

    def send_under(self, key: Secret, vm: VmName, session: SessionId, epoch: int) -> None:
        """Encrypt what is taken out from now on. The same key again changes nothing."""
        if self.mode is Mode.SENDING and self._is_present(key, vm, session, epoch):
            return
        self._install(Order.SEND_UNDER, key, blob_context(vm, session, epoch))

    def accept_under(self, key: Secret, vm: VmName, session: SessionId, epoch: int) -> None:
        """Let in what opens under this key. The same key again changes nothing."""
        if self.mode is Mode.ACCEPTING and self._is_present(key, vm, session, epoch):
            return
        self._install(Order.ACCEPT_UNDER, key, blob_context(vm, session, epoch))

    def accept_bare(self) -> None:
        """Let in unencrypted state, of a VM whose source had no interposer: only the stream protects it."""
        self._move(Order.ACCEPT_UNDER)
        self._bare = True

    def stay(self) -> None:
        """The move failed: forget the key."""
        self._move(Order.STAY)
        self._forget_key()

    def retire(self) -> None:
        self._move(Order.RETIRE)
        self._forget_key()
        self._held.clear()

    def check_outgoing(self, kind: BlobType) -> None:
        """RefusedError unless this state may leave now: in SENDING, and each type once per key."""
        if self.mode is not Mode.SENDING:
            raise self._note(
                RefusedError(f"{kind.label} state was asked for while {self.mode}", kind="no-key")
            )
        if kind in self.digests:
            message = f"the {kind.label} blob was asked for twice under one key"
            raise self._note(RefusedError(message, kind="sent-twice"))

    def outgoing(self, kind: BlobType, flags: int, state: bytes) -> bytes:
        """The blob that leaves instead of `state`. RefusedError as `check_outgoing`."""
        self.check_outgoing(kind)
        blob = seal_blob(self._present_key(), self._context, kind, flags, state)
        self.digests[kind] = sha256(state)
        return blob

    def incoming(self, kind: BlobType, flags: int, blob: bytes) -> dict[BlobType, Arrived] | None:
        """Verify one blob. Returns all three states with the last one, None before.

        Its IntegrityError or RefusedError spoils the move for good: no later blob is looked at.
        """
        if self.mode is not Mode.ACCEPTING:
            raise self._note(RefusedError(f"a {kind.label} blob came while {self.mode}", kind="no-key"))
        if self.reason:
            raise RefusedError(f"an earlier blob was refused: {self.reason}", kind="spoiled")
        if kind in self.digests:
            raise self._note(IntegrityError(f"the vTPM's {kind.label} blob came twice", kind="vtpm-blob"))
        if self._bare:
            self.digests[kind] = sha256(blob)
            return {kind: (flags, blob)}
        try:
            state = open_blob(self._present_key(), self._context, kind, flags, blob)
        except IntegrityError as refusal:
            raise self._note(refusal) from None
        self.digests[kind], self._held[kind] = sha256(state), (flags, state)
        if len(self.digests) < len(BlobType):
            return None
        whole, self._held = self._held, {}
        return whole

    def check_start(self) -> None:
        """Raise unless the TPM may be initialised now."""
        if self.mode is Mode.RETIRED:
            raise RefusedError("this vTPM moved away and was retired here", kind="retired")
        if self.mode is Mode.AWAITING or (self.mode is Mode.ACCEPTING and not self._is_whole()):
            raise self._note(
                RefusedError(f"INIT came before {self._missing()} had verified", kind="incomplete")
            )

    def started(self) -> None:
        """INIT succeeded. After a move the TPM is at home from here on."""
        if self.mode is Mode.ACCEPTING:
            # An unencrypted move brings no savestate where there is none; QEMU leaves empty ones out.
            self.digests.setdefault(BlobType.SAVESTATE, sha256(b""))
            self._move(Order.LOADED)
            self._forget_key()
            self.loaded = True

    def spoil(self, why: str) -> None:
        """Remember why a move cannot succeed (what the lanes saw); the first reason stays."""
        self.reason = self.reason or why

    def _install(self, order: Order, key: Secret, context: bytes) -> None:
        spent = hashlib.sha256(key.reveal()).digest()
        if spent in self._spent:
            raise RefusedError("this key has served a move already", kind="spent-key")
        self._move(order)
        self._spent.add(spent)
        self._key, self._context = key, context
        self.reason, self.digests, self.loaded, self._held = "", {}, False, {}

    def _move(self, order: Order) -> None:
        after = TRANSITIONS.get((self.mode, order))
        if after is None:
            raise RefusedError(f"{order} does not fit a vTPM that is {self.mode}", kind="wrong-mode")
        self.mode = after

    def _is_present(self, key: Secret, vm: VmName, session: SessionId, epoch: int) -> bool:
        return self._key == key and self._context == blob_context(vm, session, epoch)

    def _is_whole(self) -> bool:
        needed = set(BlobType) - ({BlobType.SAVESTATE} if self._bare else set())
        return not self.reason and needed <= set(self.digests)

    def _missing(self) -> str:
        return ", ".join(kind.label for kind in BlobType if kind not in self.digests) or "every blob"

    def _present_key(self) -> Secret:
        if self._key is None:
            raise RefusedError("no key was given", kind="no-key")
        return self._key

    def _forget_key(self) -> None:
        self._key, self._context = None, b""

    def _note(self, error: KororaError) -> KororaError:
        self.spoil(str(error))
        return error
