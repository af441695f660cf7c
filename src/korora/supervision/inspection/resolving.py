"""A person's word on a flag: taken when signed, in time, once, from somebody whom a policy lets (E5, S2).

Promise: it is in the log before the flag is resolved. *restore* is held against what was seen since: only an
inspection that looked everywhere and did not find it again shows that it is mended.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from korora.errors import RefusedError, UsageError
from korora.model.authorization import Authorized
from korora.model.flag import Flag, FlagKind
from korora.model.identity import HostName, OperatorName, VmName, sha256
from korora.model.inspection import CHECK_OF, Verification
from korora.model.plan import MigrationRequest, Mode
from korora.ports.authorizer import Authorizer
from korora.ports.clock import Clock
from korora.ports.journal import Journal
from korora.protocol import flag as flags
from korora.protocol.content_tree import CHUNK_BYTES
from korora.protocol.flag import FlagRecord, Resolution, ResolutionEntry
from korora.supervision import signed
from korora.supervision.inspection import dossier

LONGEST_DAYS: Final = 7


class Resolver:
    """Of the flags of this host's VMs, whose lock the caller holds."""

    def __init__(self, host: HostName, authorizer: Authorizer, journal: Journal, clock: Clock) -> None:
        self.host = host
        self.authorizer = authorizer
        self._journal = journal
        self._clock = clock

    def may(self, by: OperatorName | None, deed: str, vm: VmName) -> bool:
        """Whether a policy lets this person do that, here; None is the machine's administrator."""
        if by is None:
            return True
        request = MigrationRequest(by, deed, vm, self.host, self.host, Mode.LIVE, "", 0, 0)
        return isinstance(self.authorizer.decide(request, self._clock.now()), Authorized)

    def take(self, envelope: bytes, directory: Path) -> Flag:
        """RefusedError, UsageError(unknown-flag, no-reason), IntegrityError: the flag is as it was."""
        said = flags.opened(envelope, signed.key_of(self, flags.peek(envelope).by))
        by, vm = OperatorName(said.by), VmName(said.vm)
        signed.check_time("resolution", said.issued_at, said.not_after, self._clock.now(), days=LONGEST_DAYS)
        if not self.may(by, "resolve", vm):
            raise RefusedError(
                f"no policy lets {by} resolve flags of {vm}",
                kind="not-allowed",
                remedy="a policy for the action resolve gives that right",
            )
        flags.check_reason(said.choice, said.reason)
        record = dossier.read_flags(directory, vm)
        flag = known_flag(record, said.flag)
        if said.choice == "restore":
            _check_restored(flag, directory)
        if not self._journal.spend_nonce(said.nonce, said.not_after):
            raise RefusedError(
                "this resolution was given before", kind="replayed-resolution", remedy="sign a new one"
            )
        self._journal.append_log(self._leaf(said, envelope))
        done = flags.resolved(flag, envelope)
        others = (one if one.id != flag.id else done for one in record.flags)
        dossier.write_flags(directory, FlagRecord(vm=record.vm, flags=tuple(others)))
        return done

    def _leaf(self, said: Resolution, envelope: bytes) -> bytes:
        return ResolutionEntry(
            vm=said.vm,
            flag=said.flag,
            by=said.by,
            choice=said.choice,
            digest=sha256(envelope),
            at=int(self._clock.now()),
        ).leaf()


def known_flag(record: FlagRecord, name: str) -> Flag:
    found = record.flag(name)
    if found is None:
        raise UsageError(
            f"{record.vm} has no flag {name[:32]!r}", kind="unknown-flag", remedy="see: korora flags list"
        )
    return found


def _check_restored(flag: Flag, directory: Path) -> None:
    """RefusedError(kind="not-restored") unless something looked since, saw all, and did not find it."""
    if flag.kind is FlagKind.DIFFERS:
        looked = _is_back(flag, dossier.read_verification(directory))
        remedy = (
            f"put the chunk back, then hold the VM against its baseline: korora vm verify {directory.name};"
            " a baseline that was made after the flag was raised shows nothing"
        )
    else:
        report = dossier.read_report(directory)
        check = report.result(CHECK_OF[flag.kind]) if report is not None else None
        looked = report is not None and check is not None and report.at > flag.seen_at and not check.unknown
        remedy = f"mend it, then look again: korora vm inspect {directory.name}"
    if not looked:
        raise RefusedError(
            "nothing has shown since that it is mended: it was found when it was last looked for, or not all"
            " of it could be looked at",
            kind="not-restored",
            remedy=remedy + "; to leave it as it is, resolve it by accept, with a reason",
        )


def _is_back(flag: Flag, seen: Verification | None) -> bool:
    """Whether this chunk was held against the baseline that it had differed from, all of it, and fits."""
    if seen is None or seen.at <= flag.seen_at or seen.ran or not seen.proved or seen.of.at > flag.raised_at:
        return False
    disk = next((one for one in seen.compared.disks if one.name == flag.place.disk), None)
    if disk is None or disk.chunks_differ is None or disk.now is None:
        return False
    return disk.before == disk.now or (
        not any(one.offset <= (flag.place.offset or 0) < one.offset + one.length for one in disk.differ)
        and sum(one.length for one in disk.differ) >= (disk.chunks_differ - 1) * CHUNK_BYTES
    )
