"""Who is who: operators with their keys and groups, labels of hosts and VMs, maintenance windows (S2).

The part of authorization that needs no engine: policies, in Cedar, decide upon the facts that this gives.
Promise: a text with anything unknown or misspelt in it is refused whole. Limit: whether a request was really
signed, is fresh and unused is the session's to check.

    uncovered = "deny"                 # what no policy speaks of; "question": a person is asked

    [operators.alice]
    key = "<32 bytes of an Ed25519 public key, in hex or base64>"
    groups = ["web-team"]
    account = "alice"                  # on this machine: what it may watch and cancel without being root

    [hosts.south]
    labels = ["rack-2"]

    [[vms]]
    names = "web-*"                    # a shell pattern
    labels = ["stateless"]

    [windows.weekend]
    days = ["sat", "sun"]              # of its beginning
    from = "22:00"
    to = "06:00"                       # the next day, if it is not later than `from`
    zone = "Europe/Berlin"             # UTC, unless it is said
"""

from __future__ import annotations

import base64
import binascii
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from fnmatch import fnmatchcase
from typing import Final, Literal

import msgspec

from korora.errors import UsageError
from korora.model.identity import HostName, OperatorName, VmName, checked_name
from korora.model.plan import MigrationRequest

ACTIONS: Final = ("migrate", "approve", "govern", "cancel", "observe", "resolve")
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


@dataclass(frozen=True, slots=True)
class Window:
    """Minutes from midnight, local to the zone; it ends the next day if `until` is not after `since`."""

    days: tuple[str, ...]
    since: int
    until: int
    zone: tzinfo

    def open_at(self, now: float) -> bool:
        local = datetime.fromtimestamp(now, UTC).astimezone(self.zone)
        minute = local.hour * 60 + local.minute
        today, yesterday = DAYS[local.weekday()], DAYS[(local - timedelta(days=1)).weekday()]
        if self.since < self.until:
            return today in self.days and self.since <= minute < self.until
        return (today in self.days and minute >= self.since) or (
            yesterday in self.days and minute < self.until
        )


@dataclass(frozen=True, slots=True)
class Facts:
    """What policies are asked about. `day` and `minute` are of UTC; `windows` are those open now."""

    operator: OperatorName
    groups: tuple[str, ...]
    action: str
    vm: VmName
    vm_labels: tuple[str, ...]
    source: HostName
    source_labels: tuple[str, ...]
    destination: HostName
    destination_labels: tuple[str, ...]
    mode: str
    day: str
    minute: int
    windows: tuple[str, ...]
    peer_state: str | None


@dataclass(frozen=True, slots=True)
class Roster:
    """One host's authorization.toml."""

    keys: Mapping[OperatorName, bytes]
    groups: Mapping[OperatorName, tuple[str, ...]]
    accounts: Mapping[str, OperatorName]
    host_labels: Mapping[str, tuple[str, ...]]
    vm_labels: tuple[tuple[str, tuple[str, ...]], ...]
    windows: Mapping[str, Window]
    asks: bool

    def facts(self, request: MigrationRequest, now: float, peer_state: str | None) -> Facts:
        moment = datetime.fromtimestamp(now, UTC)
        return Facts(
            operator=request.operator,
            groups=self.groups.get(request.operator, ()),
            action=request.procedure,
            vm=request.vm,
            vm_labels=tuple(sorted(self._labels_of(request.vm))),
            source=request.source,
            source_labels=self.host_labels.get(request.source, ()),
            destination=request.destination,
            destination_labels=self.host_labels.get(request.destination, ()),
            mode=request.mode.value,
            day=DAYS[moment.weekday()],
            minute=moment.hour * 60 + moment.minute,
            windows=tuple(name for name, window in self.windows.items() if window.open_at(now)),
            peer_state=peer_state,
        )

    def _labels_of(self, vm: str) -> set[str]:
        return {label for pattern, labels in self.vm_labels if fnmatchcase(vm, pattern) for label in labels}


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class _Operator(_Strict, frozen=True):
    key: str
    groups: tuple[str, ...] = ()
    account: str = ""


class _Host(_Strict, frozen=True):
    labels: tuple[str, ...] = ()


class _Vms(_Strict, frozen=True):
    names: str
    labels: tuple[str, ...]


class _Window(_Strict, frozen=True, rename={"since": "from", "until": "to"}):
    since: str
    until: str
    days: tuple[Day, ...] = DAYS
    zone: str = "UTC"


class _File(_Strict, frozen=True):
    uncovered: Literal["deny", "question"] = "deny"
    operators: dict[str, _Operator] = {}
    hosts: dict[str, _Host] = {}
    vms: tuple[_Vms, ...] = ()
    windows: dict[str, _Window] = {}


def parse(text: str, zone: Callable[[str], tzinfo]) -> Roster:
    """Read authorization.toml. UsageError(kind="bad-authorization") names the first thing that is wrong.

    `zone` finds a time zone by its name; LookupError, ValueError or OSError if there is none.
    """
    try:
        read = msgspec.convert(tomllib.loads(text), _File)
    except (ValueError, msgspec.ValidationError, RecursionError) as error:
        raise malformed(str(error)) from error
    for kind, names in (("operator", read.operators), ("host", read.hosts), ("window", read.windows)):
        _check_names(kind, names)
    keys = {OperatorName(name): _public_key(name, entry.key) for name, entry in read.operators.items()}
    _refuse_two_names(keys)
    for entry in read.vms:
        if not entry.names:
            raise malformed("[[vms]] must name something; write names = '*' for all")
    return Roster(
        keys,
        {OperatorName(name): entry.groups for name, entry in read.operators.items()},
        _accounts(read.operators),
        {name: entry.labels for name, entry in read.hosts.items()},
        tuple((entry.names, entry.labels) for entry in read.vms),
        {name: _window(name, entry, zone) for name, entry in read.windows.items()},
        read.uncovered == "question",
    )


def _refuse_two_names(keys: Mapping[OperatorName, bytes]) -> None:
    """One person under two names could agree to what he asked for himself."""
    owner: dict[bytes, OperatorName] = {}
    for name, key in keys.items():
        if key in owner:
            raise malformed(f"operators {owner[key]!r} and {name!r} have the same key: they are one person")
        owner[key] = name


def _accounts(operators: Mapping[str, _Operator]) -> dict[str, OperatorName]:
    found: dict[str, OperatorName] = {}
    for name, entry in operators.items():
        if entry.account in found:
            raise malformed(f"operators {found[entry.account]!r} and {name!r} have the same account")
        if entry.account:
            found[entry.account] = OperatorName(name)
    return found


def _window(name: str, entry: _Window, zone: Callable[[str], tzinfo]) -> Window:
    try:
        return Window(entry.days, _minutes(entry.since), _minutes(entry.until), zone(entry.zone))
    except (ValueError, LookupError, OSError) as error:
        raise malformed(f"window {name!r}: {error}") from error


def _minutes(text: str) -> int:
    match = _CLOCK.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no time of day; write it as 22:00")
    return int(match[1]) * 60 + int(match[2])


def _check_names(kind: str, names: Iterable[str]) -> None:
    for name in names:
        try:
            checked_name(name, kind)
        except UsageError as error:
            raise malformed(error.message) from error


def _public_key(name: str, text: str) -> bytes:
    for key in _decoded(text):
        if len(key) == 32:
            return key
    raise malformed(f"the key of operator {name!r} is not 32 bytes in hex or base64")


def _decoded(text: str) -> Iterator[bytes]:
    for decode in (bytes.fromhex, _strict_base64):
        try:
            yield decode(text)
        except (ValueError, binascii.Error):
            continue


def _strict_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def malformed(problem: str) -> UsageError:
    return UsageError(
        f"the rules cannot be used: {problem}",
        kind="bad-authorization",
        remedy="correct it, and see `korora policy check`",
    )
