"""Reference values: which measured states of a host are trusted. Read from TOML, compared, written.

A state says for each of PCRs 0 to 7, in exactly one place, what is wanted: fixed values (`pcrs`), a list of
digests of which every event must be one (`events`), or nothing (`ignored`). It may ask for events
(`required`) and for Secure Boot. An event digest under `revoked` refuses a host whatever its state.

    version = 1
    revoked = ["<SHA-256 hex>"]
    [[state]]
    name = "firmware 1.2"
    ignored = [1]
    secure_boot = true
    [state.pcrs]
    0 = ["<hex>", "<or this hex>"]
    [state.events]
    4 = ["<SHA-256 hex>", "<…>"]
    [state.required]
    7 = ["<SHA-256 hex>"]
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec

from korora.errors import UsageError
from korora.model.evidence import PcrValues
from korora.policy.event_log import EventLog, EventType
from korora.policy.measured_boot import described, secure_boot
from korora.policy.pcrs import PCR_COUNT, PLATFORM_PCRS

_HEX: Final = "^[0-9a-f]{64}$"


@dataclass(frozen=True, slots=True)
class ReferenceState:
    """One trusted state. Digests and values are lower-case hex of SHA-256."""

    name: str
    pcrs: dict[int, tuple[str, ...]]
    events: dict[int, frozenset[str]] = field(default_factory=dict)
    ignored: frozenset[int] = frozenset()
    required: dict[int, tuple[str, ...]] = field(default_factory=dict)
    secure_boot: bool | None = None

    @property
    def named(self) -> frozenset[int]:
        """The PCRs that this state speaks of."""
        return frozenset({*self.pcrs, *self.events, *self.required, *self.ignored})


@dataclass(frozen=True, slots=True)
class ReferenceValues:
    states: tuple[ReferenceState, ...]
    revoked: frozenset[str] = frozenset()

    @property
    def pcrs(self) -> tuple[int, ...]:
        """The PCRs that a host must quote to be compared."""
        named = {pcr for state in self.states for pcr in state.named}
        return tuple(sorted(named | set(PLATFORM_PCRS)))


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why a host is in no trusted state. `kind`: pcr-mismatch, event-refused, event-revoked, secure-boot."""

    kind: str
    reason: str


def compared(pcrs: PcrValues, log: EventLog, reference: ReferenceValues) -> str | tuple[Mismatch, ...]:
    """The name of the first state that fits, or what is wrong with the state that comes closest.

    `log` must replay to `pcrs`, and `pcrs` must cover `reference.pcrs`.
    """
    revoked = tuple(_revoked(log, reference.revoked))
    if revoked:
        return revoked
    closest: tuple[Mismatch, ...] | None = None
    for state in reference.states:
        found = (*_wrong_values(pcrs, state), *_wrong_events(log, state))
        if not found:
            return state.name
        if closest is None or len(found) < len(closest):
            closest = found
    return closest or (Mismatch("pcr-mismatch", "no state is trusted: the reference values are empty"),)


def learned(name: str, pcrs: PcrValues, log: EventLog) -> ReferenceState:
    """The state that a known-good host is in now, all of its PCRs fixed."""
    return ReferenceState(
        name, {pcr: (pcrs[pcr],) for pcr in sorted(pcrs)}, secure_boot=secure_boot(log) or None
    )


def parse(text: str) -> ReferenceValues:
    """Read reference.toml. UsageError(kind="bad-reference-values") names the mistake."""
    try:
        read = msgspec.convert(tomllib.loads(text), _File, str_keys=True)
    except (ValueError, msgspec.ValidationError, RecursionError) as error:
        raise _bad(str(error)) from error
    if read.version != 1:
        raise _bad(f"version {read.version} is not known")
    names = [state.name for state in read.state]
    if len(set(names)) != len(names):
        raise _bad("two states have the same name")
    return ReferenceValues(tuple(map(_state, read.state)), frozenset(read.revoked))


def rendered(values: ReferenceValues) -> str:
    """The TOML text that `parse` reads back to the same values."""
    lines = ["version = 1", f"revoked = {_list(sorted(values.revoked))}"]
    for state in values.states:
        lines += ["", "[[state]]", f"name = {_quoted(state.name)}"]
        lines.append(f"ignored = {sorted(state.ignored)}")
        if state.secure_boot is not None:
            lines.append(f"secure_boot = {str(state.secure_boot).lower()}")
        lines += _table("pcrs", state.pcrs)
        lines += _table("events", state.events)
        lines += _table("required", state.required)
    return "\n".join(lines) + "\n"


def _revoked(log: EventLog, revoked: frozenset[str]) -> list[Mismatch]:
    return [
        Mismatch("event-revoked", f"the host booted something that was revoked: {described(event)}")
        for event in log.events
        if event.sha256 is not None and event.sha256.hex() in revoked
    ]


def _wrong_values(pcrs: PcrValues, state: ReferenceState) -> list[Mismatch]:
    return [
        Mismatch("pcr-mismatch", f"PCR {pcr} is {pcrs[pcr]}, which state {state.name!r} does not allow")
        for pcr, allowed in state.pcrs.items()
        if pcrs[pcr] not in allowed
    ]


def _wrong_events(log: EventLog, state: ReferenceState) -> list[Mismatch]:
    measured = [event for event in log.events if event.kind != EventType.EV_NO_ACTION]
    seen = {(event.pcr, event.sha256.hex()) for event in measured if event.sha256 is not None}
    found = [
        Mismatch("event-refused", f"state {state.name!r} does not allow the event: {described(event)}")
        for event in measured
        if event.pcr in state.events
        and (event.sha256 is None or event.sha256.hex() not in state.events[event.pcr])
    ]
    found += [
        Mismatch(
            "event-refused", f"state {state.name!r} asks for event {digest} in PCR {pcr}; it is not there"
        )
        for pcr, digests in state.required.items()
        for digest in digests
        if (pcr, digest) not in seen
    ]
    if state.secure_boot is not None and secure_boot(log) is not state.secure_boot:
        wanted = "on" if state.secure_boot else "off"
        found.append(Mismatch("secure-boot", f"Secure Boot is not {wanted}, as state {state.name!r} asks"))
    return found


_Digest = Annotated[str, msgspec.Meta(pattern=_HEX)]
_Pcr = Annotated[int, msgspec.Meta(ge=0, lt=PCR_COUNT)]


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    pcrs: dict[_Pcr, tuple[_Digest, ...]] = {}
    events: dict[_Pcr, tuple[_Digest, ...]] = {}
    ignored: tuple[_Pcr, ...] = ()
    required: dict[_Pcr, tuple[_Digest, ...]] = {}
    secure_boot: bool | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    state: tuple[_State, ...]
    revoked: tuple[_Digest, ...] = ()


def _state(read: _State) -> ReferenceState:
    """Every platform PCR has its place: what is forgotten must not count as allowed."""
    said = [*read.pcrs, *read.events, *read.ignored]
    twice = sorted({pcr for pcr in said if said.count(pcr) > 1})
    if twice:
        raise _bad(f"state {read.name!r} says two things about PCR {twice[0]}")
    forgotten = sorted(set(PLATFORM_PCRS) - set(said))
    if forgotten:
        raise _bad(
            f"state {read.name!r} says nothing about PCR {forgotten[0]}: put it under `ignored` if so meant"
        )
    events = {pcr: frozenset(digests) for pcr, digests in read.events.items()}
    return ReferenceState(
        read.name, read.pcrs, events, frozenset(read.ignored), read.required, read.secure_boot
    )


def _list(texts: Iterable[str]) -> str:
    return "[" + ", ".join(map(_quoted, texts)) + "]"


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()  # a JSON string is a TOML basic string


def _table(name: str, entries: Mapping[int, Iterable[str]]) -> list[str]:
    return [f"[state.{name}]", *(f"{pcr} = {_list(sorted(entries[pcr]))}" for pcr in sorted(entries))]


def _bad(reason: str) -> UsageError:
    return UsageError(
        f"the reference values cannot be used: {reason}",
        kind="bad-reference-values",
        remedy="mend reference.toml; `korora host attest` prints a host's present values",
    )
