"""Flags that travel: their names, their placeholders, the record they stand in, and how one is resolved (E5).

A flag's name is the first 32 hex digits of

    BLAKE3-derive-key("Korora 2026 flag", JSON of [vm, kind, place, content])

so the same problem of the same VM is the same flag on every host, and other content is another one. What
cannot be loaded has a placeholder, a line for each 512 bytes that no file system takes for data of its own:

    KORORA FLAG <name>: the data that belongs here could not be loaded.\\n

filled up with spaces; the last line as long as there is room. docs/FLAGS.md has vectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Final, Literal

import msgspec
from blake3 import blake3

from korora.errors import IntegrityError, UsageError
from korora.model.flag import Flag, FlagId, FlagKind, Place
from korora.model.inspection import Found
from korora.protocol import canonical, dsse
from korora.protocol.statements import Name, Nonce, Time

VERSION: Final = 1
TYPE: Final = "application/vnd.korora.resolution+json"
MAX_RESOLUTION_BYTES: Final = 16 * 1024
MAX_REASON_CHARS: Final = 1024
MAX_FLAGS: Final = 10_000
MAX_FOUND_BYTES: Final = 8 << 20
"""Of a record when flags are put into it: guests choose how long paths are. Resolutions come on top."""
LINE_BYTES: Final = 512
_NAMED: Final = "Korora 2026 flag"
SETTING_PREFIX: Final = "korora-flag:"
"""A setting that could not be parsed has this, and the flag's name, for its value."""


def name(vm: str, kind: FlagKind, place: Place, content: str) -> FlagId:
    told = canonical.encoded([vm, kind, place, content])
    return blake3(told, derive_key_context=_NAMED).hexdigest()[:32]


def placeholder(flag: FlagId, length: int) -> bytes:
    """So many bytes."""
    line = f"KORORA FLAG {flag}: the data that belongs here could not be loaded.\n".encode()
    whole = line.ljust(LINE_BYTES)
    return (whole * -(-length // LINE_BYTES))[:length]


def raised(vm: str, found: Found, host: str, now: int) -> Flag:
    return Flag(
        id=name(vm, found.kind, found.place, found.content),
        kind=found.kind,
        place=found.place,
        content=found.content,
        reason=found.reason,
        raised_by=host,
        raised_at=now,
        seen_at=now,
        original=found.original,
    )


# -- the record ---------------------------------------------------------------------------------------------


class FlagRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All flags of one VM, open and resolved, by name. It goes where the VM goes."""

    version: int = VERSION
    vm: Name
    flags: Annotated[tuple[Flag, ...], msgspec.Meta(max_length=MAX_FLAGS)] = ()

    def flag(self, flag: str) -> Flag | None:
        return next((one for one in self.flags if one.id == flag), None)


def parse_record(text: bytes, vm: str) -> FlagRecord:
    """IntegrityError(kind="malformed-statement") unless each flag has the name that it must have."""
    record = canonical.decoded(text, FlagRecord)
    names = [flag.id for flag in record.flags]
    if record.version != VERSION or record.vm != vm or names != sorted(set(names)):
        raise _malformed("it is of another version or another VM, or its flags are not in order")
    for flag in record.flags:
        if flag.id != name(vm, flag.kind, flag.place, flag.content):
            raise _malformed(f"flag {flag.id} does not have the name of what it is about")
        if flag.resolution:
            _about(peek(flag.resolution), vm, flag)
    return record


def with_found(record: FlagRecord, found: Iterable[Flag]) -> FlagRecord:
    """These were seen (again). One that was said to be mended is open once more; one accepted stays so.

    Beyond MAX_FLAGS, and beyond MAX_FOUND_BYTES, resolved ones give way first, then the newest are left out.
    """
    flags = {flag.id: flag for flag in record.flags}
    for flag in found:
        known = flags.get(flag.id)
        flags[flag.id] = flag if known is None else _seen_again(known, flag)
    by_weight = sorted(flags.values(), key=lambda one: (not one.is_open, one.raised_at, one.id))
    kept = _first(by_weight[:MAX_FLAGS], MAX_FOUND_BYTES)
    return FlagRecord(vm=record.vm, flags=tuple(sorted(kept, key=lambda one: one.id)))


def _first(flags: Iterable[Flag], room: int) -> Iterator[Flag]:
    """As many of the first as have room, in bytes."""
    for flag in flags:
        room -= len(canonical.encoded(flag)) + 1
        if room < 0:
            return
        yield flag


def _seen_again(known: Flag, now: Flag) -> Flag:
    accepted = bool(known.resolution) and peek(known.resolution).choice == "accept"
    original = known.original if known.original.digest else now.original
    return msgspec.structs.replace(
        known,
        reason=now.reason,
        seen_at=max(known.seen_at, now.seen_at),
        original=original,
        resolution=known.resolution if accepted else b"",
    )


# -- a person's word ----------------------------------------------------------------------------------------


class Resolution(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`by` looked at the flag. *accept*: it may stay as it is; *restore*: it is mended, which the host holds
    against its newest inspection. Good until `not_after`, once.
    """

    version: int = VERSION
    by: Name
    vm: Name
    flag: FlagId
    choice: Literal["accept", "restore"]
    reason: Annotated[str, msgspec.Meta(max_length=MAX_REASON_CHARS)]
    nonce: Nonce
    issued_at: Time
    not_after: Time


def check_reason(choice: str, reason: str) -> None:
    """UsageError(kind="no-reason") for an accept without one, UsageError(kind="bad-reason")."""
    if choice == "accept" and not reason.strip():
        raise UsageError(
            "to accept a flag takes a reason: whoever meets it after a move sees no more than that",
            kind="no-reason",
            remedy="say why it may stay as it is: korora flags resolve FLAG accept --reason WHY",
        )
    if len(reason) > MAX_REASON_CHARS:
        raise UsageError(
            f"the reason has {len(reason)} characters, more than {MAX_REASON_CHARS}",
            kind="bad-reason",
            remedy="say it more shortly, and name where more is written",
        )
    if any("\ud800" <= one <= "\udfff" for one in reason):
        raise UsageError("the reason is no text in UTF-8", kind="bad-reason", remedy="write it in UTF-8")


def signed(resolution: Resolution, key: dsse.SigningKey) -> bytes:
    return dsse.envelope(TYPE, canonical.encoded(resolution), [key])


def peek(envelope: bytes) -> Resolution:
    """What it claims, nothing verified: only good for looking up whose key to verify it with."""
    read = dsse.parse(envelope, limit=MAX_RESOLUTION_BYTES)
    if read.payload_type != TYPE:
        raise _malformed(f"it is a {read.payload_type[:100]!r}, not a resolution")
    return canonical.decoded(read.payload, Resolution)


def opened(envelope: bytes, signer: dsse.PublicKey) -> Resolution:
    """The resolution, once this very key is seen to have signed it. IntegrityError otherwise."""
    trusted = {dsse.key_id(signer): signer}
    resolution = canonical.decoded(
        dsse.opened(envelope, TYPE, trusted, limit=MAX_RESOLUTION_BYTES), Resolution
    )
    if resolution.version != VERSION:
        raise _malformed(f"version {resolution.version} of it is not known here")
    return resolution


def resolved(flag: Flag, envelope: bytes) -> Flag:
    """With this resolution, which was checked."""
    return msgspec.structs.replace(flag, resolution=envelope)


def _about(resolution: Resolution, vm: str, flag: Flag) -> None:
    if (resolution.vm, resolution.flag) != (vm, flag.id):
        raise _malformed(f"the resolution of flag {flag.id} is about another one")


class ResolutionEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The leaf of a host's log for a resolution that it took: `digest` (SHA-256) is of the envelope."""

    kind: Literal["resolution"] = "resolution"
    vm: Name
    flag: FlagId
    by: Name
    choice: Literal["accept", "restore"]
    digest: str
    at: Time

    def leaf(self) -> bytes:
        return canonical.encoded(self)


def _malformed(problem: str) -> IntegrityError:
    return IntegrityError(
        f"a flag, or what is said of it, cannot be used: {problem}",
        kind="malformed-statement",
        remedy="keep the VM's record, and ask the host that it came from for its own",
    )
