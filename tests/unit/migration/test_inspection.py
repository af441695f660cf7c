"""What was found in a VM before it leaves: it blocks, is told, goes with the VM, and is in the receipt."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from fakes.migration_site import OPERATOR, VM, LabHost, Site, Tell
from korora.errors import RefusedError, ToolError
from korora.migration import inspection
from korora.model.flag import Flag, FlagKind, Original, Place
from korora.model.identity import HostName, OperatorName
from korora.model.inspection import Check, Disposition, Found
from korora.model.inspection_policy import InspectionPolicy, parse_inspection_policy
from korora.model.plan import Inquiry, Mode
from korora.protocol import flag, messages
from korora.protocol.dsse import KeyPair
from korora.protocol.flag import FlagRecord, Resolution
from korora.protocol.receipt import document
from korora.protocol.receipt.document import Limit, Receipt
from korora.supervision.inspection import dossier

INFECTED = Found(
    kind=FlagKind.INFECTED,
    place=Place(disk="disk0", volume=1, path=b"/srv/evil"),
    content="blake3:" + "0" * 64,
    reason="clamav: Eicar",
)


def policy(**checks: str) -> InspectionPolicy:
    told = "\n".join(f'{name} = "{word}"' for name, word in checks.items())
    return parse_inspection_policy(f"[checks]\n{told}\n", "inspection.toml")


def receipt_of(site: Site, host: str, session: str) -> Receipt:
    bundle = document.parse_bundle((site[host].directory / "receipts" / f"{session}.json").read_bytes())
    return document.peek(bytes(bundle.receipt))


def directory(site: Site, host: str) -> Path:
    return site[host].directory / "vms" / VM


async def started(host: LabHost) -> None:
    """The source knows of the outcome a little earlier than the destination is done."""
    async with asyncio.timeout(60):
        while True:
            with suppress(RefusedError):
                await host.do(lambda: host.guests.start(VM))
                return
            await asyncio.sleep(0.01)


def flags_at(site: Site, host: str) -> FlagRecord:
    return dossier.read_flags(directory(site, host), VM)


@pytest.mark.parametrize("mode", Mode)
def test_without_a_policy_nobody_looks_and_the_receipt_says_so(tell: Tell, mode: Mode) -> None:
    async def story(site: Site) -> None:
        outcome = await site.migrate("a", "b", mode)
        told = receipt_of(site, "b", outcome["session"])
        assert (told.inspection, told.flags) == (None, None)
        assert Limit.NOT_INSPECTED in told.limits
        assert site["a"].inspector.orders == []

    tell(story)


def test_a_finding_that_blocks_keeps_the_vm_where_it_runs_and_is_flagged_there(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site["a"].policy, site["a"].inspector.found = policy(malware="block"), (INFECTED,)
        outcome = await site.migrate("a", "b")
        assert (outcome["outcome"], outcome["error"]["kind"]) == ("refused", "flagged")
        assert "/srv/evil" in outcome["error"]["message"]
        assert outcome["error"]["vm_runs_on"] == "a"
        await site.recover()
        site.runs_only_on("a")
        (raised,) = flags_at(site, "a").flags
        assert (raised.kind, raised.is_open, raised.raised_by) == (FlagKind.INFECTED, True, "a")

    tell(story)


def test_a_check_says_in_the_words_of_the_move_that_flags_keep_the_vm_until_they_are_resolved(
    tell: Tell,
) -> None:
    async def story(site: Site) -> None:
        host = site["a"]
        host.policy, host.inspector.found = policy(malware="block"), (INFECTED,)
        asked = Inquiry(VM, HostName("b"), operator=OperatorName("alice"))
        assert await host.do(lambda: host.migrations.check(asked)) == []
        error = (await site.migrate("a", "b"))["error"]
        orders = len(host.inspector.orders)
        (finding,) = await host.do(lambda: host.migrations.check(asked))
        assert (finding.check, finding.host) == ("flags", "a")
        assert (finding.message, finding.remedy) == (error["message"], error["remedy"])
        host.policy = policy(malware="flag")
        assert await host.do(lambda: host.migrations.check(asked)) == []
        host.policy = policy(malware="block")
        record = flags_at(site, "a")
        dossier.write_flags(
            directory(site, "a"), FlagRecord(vm=VM, flags=tuple(accepted(one) for one in record.flags))
        )
        assert await host.do(lambda: host.migrations.check(asked)) == []
        assert len(host.inspector.orders) == orders  # nobody looked

    tell(story)


def test_a_check_tells_of_flags_that_cannot_be_read_as_the_move_does(tell: Tell) -> None:
    async def story(site: Site) -> None:
        host = site["a"]
        host.policy = policy(malware="flag")
        dossier.write_flags(directory(site, "a"), FlagRecord(vm=VM))
        (dossier.folder(directory(site, "a")) / dossier.FLAGS).write_bytes(b"{")
        asked = Inquiry(VM, HostName("b"), operator=OperatorName("alice"))
        (finding,) = await host.do(lambda: host.migrations.check(asked))
        error = (await site.migrate("a", "b"))["error"]
        assert (finding.check, error["kind"]) == ("flags", "unreadable-flags")
        assert (finding.message, finding.remedy) == (error["message"], error["remedy"])

    tell(story)


def accepted(raised: Flag, by: str = "alice", key: KeyPair = OPERATOR) -> Flag:
    said = Resolution(
        by=by,
        vm=VM,
        flag=raised.id,
        choice="accept",
        reason="seen",
        nonce="0" * 64,
        issued_at=1,
        not_after=2,
    )
    return flag.resolved(raised, flag.signed(said, key))


def test_what_is_flagged_goes_with_the_vm_into_the_receipt_and_through_further_moves(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site["a"].policy, site["a"].inspector.found = policy(malware="flag"), (INFECTED,)
        for source, destination in (("a", "b"), ("b", "c"), ("c", "a")):
            outcome = await site.migrate(source, destination)
            assert outcome["outcome"] == "completed", outcome["error"]
            await site.recover()
            site.runs_only_on(destination)
            (travelled,) = flags_at(site, destination).flags
            assert (travelled.raised_by, travelled.reason) == ("a", "clamav: Eicar")
            told = receipt_of(site, destination, outcome["session"])
            assert told.flags is not None
            assert (told.flags.open, told.flags.listed) == (1, ((travelled.id, FlagKind.INFECTED),))
            looked = source == "a"
            assert (told.inspection is not None) is looked
            assert (Limit.NOT_INSPECTED in told.limits) is not looked

    tell(story, hosts="abc")


@pytest.mark.parametrize("word", ["report", "off"])
def test_what_is_only_reported_or_not_looked_at_raises_no_flag(tell: Tell, word: str) -> None:
    async def story(site: Site) -> None:
        site["a"].policy, site["a"].inspector.found = policy(malware=word), (INFECTED,)
        outcome = await site.migrate("a", "b")
        told = receipt_of(site, "a", outcome["session"])
        assert told.inspection is not None
        result = told.inspection.result(Check.MALWARE)
        assert (result is None) is (word == "off")
        if result is not None:
            assert (result.found, result.open, result.disposition) == (1, 0, Disposition.REPORT)
        assert told.flags is not None
        assert told.flags.open == 0

    tell(story)


def test_the_report_in_the_receipt_is_the_one_that_lies_beside_the_vm(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site["a"].policy = policy()
        outcome = await site.migrate("a", "b")
        told = receipt_of(site, "b", outcome["session"])
        assert told.inspection == dossier.read_report(directory(site, "b"))
        assert told.inspection is not None
        assert (told.inspection.vm, told.inspection.host, told.inspection.running) == (VM, "a", True)
        assert dossier.has_run(directory(site, "b"))

    tell(story)


def test_a_stopped_vm_is_looked_into_and_arrives_as_one_that_has_not_run_since(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site["a"].policy = policy()
        await site["a"].do(lambda: site["a"].guests.stop(VM, force=True))
        outcome = await site.migrate("a", "b", Mode.OFFLINE)
        assert outcome["outcome"] == "completed", outcome["error"]
        report = dossier.read_report(directory(site, "b"))
        assert report is not None
        assert not report.running
        assert not dossier.has_run(directory(site, "b"))
        await started(site["b"])
        assert dossier.has_run(directory(site, "b"))

    tell(story)


def test_a_word_on_a_flag_closes_it_elsewhere_only_if_a_person_whom_that_host_knows_has_signed_it(
    tell: Tell,
) -> None:
    others = [msgspec.structs.replace(INFECTED, content="blake3:" + digit * 64) for digit in "123"]
    flags = [flag.raised(VM, one, "a", 1) for one in others]
    forger = KeyPair(ed25519.Ed25519PrivateKey.generate())

    async def story(site: Site) -> None:
        good = accepted(flags[0])
        forged, strange = accepted(flags[1], key=forger), accepted(flags[2], "nobody", forger)
        dossier.write_flags(directory(site, "a"), flag.with_found(FlagRecord(vm=VM), [good, forged, strange]))
        outcome = await site.migrate("a", "b")
        assert outcome["outcome"] == "completed", outcome["error"]
        assert {one.id for one in flags_at(site, "b").flags if one.is_open} == {forged.id, strange.id}
        assert flags_at(site, "b").flag(good.id) == good

    tell(story)


def test_an_original_goes_along(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site["a"].policy, site["a"].inspector.found = policy(malware="flag"), (INFECTED,)
        kept = Original(digest="sha256:" + "1" * 64, size=5)
        raised = flag.raised(VM, msgspec.structs.replace(INFECTED, original=kept), "a", 1)
        place = directory(site, "a")
        dossier.write_flags(place, flag.with_found(FlagRecord(vm=VM), [raised]))
        dossier.original(place, raised.id).write_bytes(b"a bag")
        assert (await site.migrate("a", "b"))["outcome"] == "completed"
        assert dossier.original(directory(site, "b"), raised.id).read_bytes() == b"a bag"

    tell(story)


def test_originals_that_are_too_large_to_go_along_keep_the_vm(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(site: Site) -> None:
        raised = flag.raised(VM, INFECTED, "a", 1)
        place = directory(site, "a")
        dossier.write_flags(place, flag.with_found(FlagRecord(vm=VM), [raised]))
        dossier.original(place, raised.id).write_bytes(b"x" * 50_000)
        monkeypatch.setattr(dossier, "PACKED_MAX_BYTES", 20_000)
        outcome = await site.migrate("a", "b")
        assert (outcome["outcome"], outcome["error"]["kind"]) == ("refused", "dossier")
        await site.recover()
        site.runs_only_on("a")
        assert dossier.original(place, raised.id).stat().st_size == 50_000

    tell(story)


def test_an_inspection_that_fails_ends_the_move_and_the_vm_runs_on(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site["a"].policy = policy()
        site["a"].inspector.error = ToolError("the inspector died", kind="inspection")
        outcome = await site.migrate("a", "b")
        assert (outcome["outcome"], outcome["error"]["kind"]) == ("failed", "inspection")
        await site.recover()
        site.runs_only_on("a")
        assert dossier.read_report(directory(site, "a")) is None

    tell(story)


def test_a_move_is_cancelled_while_the_vm_is_looked_into(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site["a"].policy, site["a"].inspector.gate = policy(), asyncio.Event()
        name = await site.begin("a", "b")
        while not site["a"].inspector.orders:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await site["a"].do(lambda: site["a"].migrations.cancel(name))
        outcome = await site.follow("a", name)
        assert outcome["outcome"] == "cancelled"
        await site.recover()
        site.runs_only_on("a")
        assert list(directory(site, "a").glob("inspection-*")) == []

    tell(story)


def test_a_destination_waits_as_long_as_it_is_told_that_somebody_looks(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(site: Site) -> None:
        monkeypatch.setattr(inspection, "HEARTBEAT_S", 0.02)
        monkeypatch.setattr(inspection, "VISIT_DEADLINE_S", 0.5)
        site["a"].policy, site["a"].inspector.gate = policy(), asyncio.Event()
        name = await site.begin("a", "b")
        while not site["a"].inspector.orders:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await asyncio.sleep(1.0)  # twice as long as a silent source would be waited for
        site["a"].inspector.gate.set()
        assert (await site.follow("a", name))["outcome"] == "completed"

    tell(story)


# -- what the destination demands -----------------------------------------------------------------------


def test_a_destination_takes_only_what_was_seen_to_be_well(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site["b"].policy = replace(InspectionPolicy(), arrivals=(Check.MALWARE,))
        for source_policy, found, arrives in (
            (InspectionPolicy(), (), False),
            (policy(malware="off"), (), False),
            (policy(malware="flag"), (INFECTED,), False),
            (policy(malware="report"), (), True),
        ):
            site["a"].policy, site["a"].inspector.found = source_policy, found
            outcome = await site.migrate("a", "b")
            if not arrives:
                assert outcome["error"]["kind"] == "not-inspected", outcome
                await site.recover()
                site.runs_only_on("a")
                dossier.lay(directory(site, "a"), {})
        assert outcome["outcome"] == "completed", outcome["error"]

    tell(story)


def test_a_policy_that_cannot_be_read_lets_nothing_leave_or_arrive(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> InspectionPolicy:
        return parse_inspection_policy("nonsense", "inspection.toml")

    async def story(site: Site) -> None:
        for host in ("a", "b"):
            with monkeypatch.context() as patched:
                patched.setattr(site[host].setting.examiner, "policy", broken)
                outcome = await site.migrate("a", "b")
                assert outcome["error"]["kind"] == "bad-definition"
            await site.recover()
            site.runs_only_on("a")

    tell(story)


# -- what is not what it should be ----------------------------------------------------------------------


def changed_dossier(change: str) -> object:
    """What host a says, with the dossier changed on its way (or by a itself)."""

    def said(body: bytes) -> bytes:
        message = messages.decode(body)
        if not isinstance(message, messages.Enclosed):
            return body
        match change:
            case "a byte":
                data = bytearray(message.data)
                data[600] ^= 1
                return messages.encode(messages.Enclosed(bytes(data), last=message.last))
            case "no end":
                return messages.encode(messages.Enclosed(message.data, last=False))
            case "noise":
                return messages.encode(messages.Enclosed(b"noise", last=True))
            case "another VM's":
                record = flag.FlagRecord(vm="db")
                return messages.encode(messages.Enclosed(_packed(record), last=True))
            case _:
                raise AssertionError(change)

    return said


def _packed(record: FlagRecord) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        dossier.write_flags(Path(folder), record)
        packed = dossier.pack(Path(folder))
    assert packed is not None
    return packed.data


@pytest.mark.parametrize("change", ["a byte", "no end", "noise", "another VM's"])
def test_a_dossier_that_is_not_what_the_source_signed_is_not_taken(tell: Tell, change: str) -> None:
    async def story(site: Site) -> None:
        site["a"].policy, site["a"].inspector.found = policy(malware="flag"), (INFECTED,)
        site["a"].change = changed_dossier(change)  # type: ignore[assignment]
        outcome = await site.migrate("a", "b")
        assert outcome["outcome"] in {"failed", "refused"}, outcome
        site["a"].change = None
        await site.recover()
        site.runs_only_on("a")
        assert len(flags_at(site, "a").flags) == 1

    tell(story)
