"""Disks that move with their VM: the same at the destination, wiped at the source, or left as they were."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fakes.faults import Fault
from fakes.hypervisor import FakeHypervisor, Trouble
from fakes.migration_site import LabHost, Site, Tell
from fakes.moving_disks import FakeImages, FakeMovingDisks, overlays
from korora.agents.integrity.disks.gaps import Gaps
from korora.errors import RefusedError, ToolError
from korora.migration.crossing.disks import looking, manner
from korora.model.definition import parse_definition
from korora.model.identity import HostName, VmName
from korora.model.kept import KeptDisk
from korora.model.ownership import Status
from korora.model.plan import Inquiry, Mode
from korora.model.storage import ALL, Beneath, DiskOrder, DisksAsked, StorageMode
from korora.model.vm import Backing
from korora.protocol import canonical, dsse, messages, statements
from korora.protocol.content_tree import leaf
from korora.protocol.dedup import have
from korora.protocol.dedup.names import Grain
from korora.protocol.receipt import document
from korora.protocol.receipt.document import Limit

STORE = VmName("store")
MIB = 1 << 20
CONTENT = {
    "root": random.Random(1).randbytes(3 * MIB) + bytes(5 * MIB) + b"end".ljust(512),
    "data": bytes(2 * MIB),
}


async def run_with_disks(site: Site, host: str = "a") -> None:
    text = f'name = "{STORE}"\nmemory = "16M"\n'
    for name, content in CONTENT.items():
        path = site[host].directory / f"{name}.raw"
        path.write_bytes(content)
        text += f'[[disks]]\nname = "{name}"\npath = "{path}"\n'
    await site[host].do(lambda: site[host].guests.run(text))


async def move(
    site: Site, source: str, to: str, disks: Sequence[str] = (ALL,), mode: Mode = Mode.LIVE, **how: Any
) -> Any:
    envelope = site.request(source, to, mode, vm=STORE, disks=DisksAsked(tuple(disks), **how))
    migrations = site[source].migrations
    name = await site[source].do(lambda: migrations.begin(envelope, None))
    return await site.follow(source, name)


def disks_of(host: LabHost) -> dict[str, Path]:
    record = host.disk.vms[STORE]
    return {disk.name: Path(disk.path) for disk in parse_definition(record.definition).disks}


def manifest_of(site: Site, host: str, session: str) -> statements.Manifest:
    bundle = document.parse_bundle((site[host].directory / "receipts" / f"{session}.json").read_bytes())
    receipt = document.peek(bytes(bundle.receipt))
    return canonical.decoded(dsse.parse(receipt.ownership.manifest).payload, statements.Manifest)


@pytest.mark.parametrize("mode", Mode)
def test_disks_move_with_their_vm_and_are_wiped_where_they_were(tell: Tell, mode: Mode) -> None:
    async def story(site: Site) -> None:
        await run_with_disks(site)
        outcome = await move(site, "a", "b", mode=mode)
        assert outcome["outcome"] == "completed", outcome["error"]
        await site.recover()
        there = disks_of(site["b"])
        assert {name: path.read_bytes() for name, path in there.items()} == CONTENT
        assert all(path.is_relative_to(site["b"].directory) for path in there.values())
        assert not any((site["a"].directory / f"{name}.raw").exists() for name in CONTENT)
        told = statements.read_disks(manifest_of(site, "b", outcome["session"]).disks)
        assert {one.name: one.size for one in told} == {name: len(data) for name, data in CONTENT.items()}

    tell(story)


def test_a_guest_that_writes_elsewhere_meanwhile_leaves_nothing_there(tell: Tell, tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await run_with_disks(site)
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        aside: dict[str, Any] = {"storage_mode": StorageMode.OUTSOURCE, "replacement": str(elsewhere)}
        site.world.trouble("send", Trouble.FAIL, "a")
        outcome = await move(site, "a", "b", **aside)
        await site.recover()
        assert outcome["outcome"] == "failed"
        assert not list(elsewhere.iterdir())
        outcome = await move(site, "a", "b", **aside)
        assert outcome["outcome"] == "completed", outcome["error"]
        await site.recover()
        assert not list(elsewhere.iterdir())
        assert {name: path.read_bytes() for name, path in disks_of(site["b"]).items()} == CONTENT
        outcome = await move(site, "b", "a", storage_mode=StorageMode.OUTSOURCE)
        assert outcome["outcome"] == "completed", outcome["error"]

    tell(story)


@pytest.mark.parametrize("folds", [True, False])
def test_what_a_guest_wrote_elsewhere_is_in_what_is_kept_or_nothing_is(
    tell: Tell, tmp_path: Path, folds: bool
) -> None:
    async def story(site: Site) -> None:
        await run_with_disks(site)
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        if not folds:
            site.world.trouble("fold_back", Trouble.FAIL, "a")
        aside: dict[str, Any] = {"storage_mode": StorageMode.OUTSOURCE, "replacement": str(elsewhere)}
        outcome = await move(site, "a", "b", incremental=True, **aside)
        await site.recover()
        assert outcome["outcome"] == "completed", outcome["error"]
        assert ("a", "fold_back") in site.world.steps
        assert kept_at(site["a"]) == (CONTENT if folds else {})
        assert not list(elsewhere.iterdir())
        assert not any((site["a"].directory / f"{name}.raw").exists() for name in CONTENT)

    tell(story)


def test_where_nobody_can_say_what_a_guest_wrote_elsewhere_nothing_is_kept_and_the_wipe_admits_it(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(_host: FakeHypervisor, _directory: Path) -> tuple[str, ...]:
        raise ToolError("the record cannot be read", kind="outsourced-record")

    async def story(site: Site) -> None:
        await run_with_disks(site)
        monkeypatch.setattr(FakeHypervisor, "replacements", unreadable)
        outcome = await move(site, "a", "b", incremental=True, storage_mode=StorageMode.OUTSOURCE)
        await site.recover()
        assert outcome["outcome"] == "completed", outcome["error"]
        assert kept_at(site["a"]) == {}
        assert not any((site["a"].directory / f"{name}.raw").exists() for name in CONTENT)
        receipts = site["b"].directory / "receipts"
        bundle = document.parse_bundle((receipts / f"{outcome['session']}.json").read_bytes())
        steps = document.peek(bytes(bundle.receipt)).wipe.steps
        assert [step.note for step in steps if not step.verified] == ["not wiped: the record cannot be read"]

    tell(story)


def test_a_guest_writes_nowhere_that_the_host_keeps_vms_out_of(tell: Tell, tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await run_with_disks(site)
        for folder in ("/etc/secrets", str(tmp_path / "nowhere")):
            outcome = await move(site, "a", "b", storage_mode=StorageMode.OUTSOURCE, replacement=folder)
            assert outcome["error"]["kind"] == "replacement", outcome
            assert outcome["error"]["vm_runs_on"] == "a"
            await site.recover()

    tell(story)


def test_a_check_finds_a_folder_that_a_move_would_refuse_and_moves_nothing(
    tell: Tell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(site: Site) -> None:
        await run_with_disks(site)
        nowhere = str(tmp_path / "nowhere")

        async def found(**how: Any) -> list[tuple[str, str]]:
            asked = Inquiry(STORE, HostName("b"), disks=DisksAsked((ALL,), **how))
            findings = await site["a"].do(lambda: site["a"].migrations.check(asked))
            assert all(one.remedy for one in findings)
            return [(one.check, one.host) for one in findings]

        outsource, refused = StorageMode.OUTSOURCE, [("replacement", "a")]
        assert await found(incremental=True) == []
        assert await found(storage_mode=outsource) == []  # the VM's own folder
        assert await found(storage_mode=outsource, replacement=str(tmp_path)) == []
        assert await found(storage_mode=outsource, replacement=nowhere) == refused
        assert await found(storage_mode=outsource, replacement="/etc/secrets") == refused
        assert await found(replacement="/etc/secrets") == refused
        assert await found(replacement=nowhere) == []  # then it is mirrored
        assert await found(storage_mode=StorageMode.MIRROR, replacement="/etc/secrets") == []
        monkeypatch.setattr(FakeMovingDisks, "refuse_unfit", no_room)
        assert await found(storage_mode=outsource) == [("replacement-room", "a")]
        assert {name: path.read_bytes() for name, path in disks_of(site["a"]).items()} == CONTENT
        assert not overlays(site["a"].directory / "vms" / STORE)

    tell(story)


def no_room(_disks: FakeMovingDisks, folder: Path) -> None:
    raise RefusedError(f"{folder} is full", kind="replacement-room", remedy="name another")


def test_disks_for_whose_writes_there_is_no_room_are_not_even_looked_at(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: Any) -> Any:
        raise AssertionError

    async def story(site: Site) -> None:
        await run_with_disks(site)
        monkeypatch.setattr(FakeMovingDisks, "refuse_unfit", no_room)
        monkeypatch.setattr(looking, "look", never)
        monkeypatch.setattr(FakeMovingDisks, "outsource", never)
        outcome = await move(site, "a", "b", storage_mode=StorageMode.OUTSOURCE)
        assert (outcome["error"]["kind"], outcome["error"]["vm_runs_on"]) == ("replacement-room", "a")

    tell(story)


def test_a_check_of_disks_that_the_daemon_reads_asks_for_no_folder(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(site: Site) -> None:
        await run_with_disks(site)
        how = DisksAsked(("data",), storage_mode=StorageMode.OUTSOURCE, replacement="/etc/secrets")
        outsource = Inquiry(STORE, HostName("b"), disks=how)
        check = site["a"].migrations.check
        assert [one.check for one in await site["a"].do(lambda: check(outsource))] == ["replacement"]
        monkeypatch.setattr(manner, "gaps_of", lambda _at, _vm: {"data": Gaps({0: "f1"})})
        assert await site["a"].do(lambda: check(outsource)) == []
        rest = replace(outsource, disks=replace(how, names=("root",)))
        assert [one.check for one in await site["a"].do(lambda: check(rest))] == ["replacement"]

    tell(story)


def test_disks_of_a_stopped_vm_move_too_and_it_starts_there(tell: Tell) -> None:
    async def story(site: Site) -> None:
        await run_with_disks(site)
        await site["a"].do(lambda: site["a"].guests.stop(STORE, force=True))
        outcome = await move(site, "a", "b", mode=Mode.OFFLINE)
        assert outcome["outcome"] == "completed", outcome["error"]
        await site.recover()
        assert {name: path.read_bytes() for name, path in disks_of(site["b"]).items()} == CONTENT
        assert not any((site["a"].directory / f"{name}.raw").exists() for name in CONTENT)
        await site["b"].do(lambda: site["b"].guests.start(STORE))

    tell(story)


@pytest.mark.parametrize("mode", [StorageMode.AUTO, StorageMode.OUTSOURCE, StorageMode.MIRROR])
@pytest.mark.parametrize("how", [Mode.LIVE, Mode.OFFLINE, "stopped"])
def test_what_the_destination_has_already_is_not_sent_but_by_a_mirror(
    tell: Tell, mode: StorageMode, how: str
) -> None:
    async def story(site: Site) -> None:
        await run_with_disks(site)
        if how == "stopped":
            await site["a"].do(lambda: site["a"].guests.stop(STORE, force=True))
        has_some_of_root(site, "b")
        asked = Mode.LIVE if how == Mode.LIVE else Mode.OFFLINE
        outcome = await move(site, "a", "b", mode=asked, storage_mode=mode)
        assert outcome["outcome"] == "completed", outcome["error"]
        await site.recover()
        assert {name: path.read_bytes() for name, path in disks_of(site["b"]).items()} == CONTENT
        payload = manifest_of(site, "b", outcome["session"]).carried.payload_bytes
        assert (payload < 5 * MIB // 2) is (mode is not StorageMode.MIRROR)
        assert {path.name for _, path in site["b"].contents.learnt} == {"root.raw", "data.raw"}
        assert site["a"].contents.learnt == []

    tell(story)


BASE = random.Random(8).randbytes(4 * MIB)
TOP = BASE[:MIB] + b"written here".ljust(4096, b".") + BASE[MIB + 4096 :] + bytes(4 * MIB)


async def run_over_base(site: Site) -> Path:
    """A disk that looks like TOP, over BASE at this path."""
    base, top = site["a"].directory / "base.raw", site["a"].directory / "top.qcow2"
    base.write_bytes(BASE)
    top.write_bytes(TOP)
    text = f'name = "{STORE}"\nmemory = "16M"\n[[disks]]\nname = "root"\npath = "{top}"\nformat = "qcow2"\n'
    text += f'[[disks.backing]]\npath = "{base}"\nformat = "raw"\n'
    await site["a"].do(lambda: site["a"].guests.run(text))
    return base


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("how", [Mode.LIVE, Mode.OFFLINE, "stopped"])
def test_a_disk_comes_over_the_same_images_or_as_one(tell: Tell, keep: bool, how: str) -> None:
    async def story(site: Site) -> None:
        base = await run_over_base(site)
        if how == "stopped":
            await site["a"].do(lambda: site["a"].guests.stop(STORE, force=True))
        asked = Mode.LIVE if how == Mode.LIVE else Mode.OFFLINE
        outcome = await move(site, "a", "b", mode=asked, keep_backing=keep)
        assert outcome["outcome"] == "completed", outcome["error"]
        await site.recover()
        [disk] = parse_definition(site["b"].disk.vms[STORE].definition).disks
        assert disk.backing == ((Backing(str(base), "raw"),) if keep else ())
        assert Path(disk.path).read_bytes() == TOP
        assert base.read_bytes() == BASE
        assert not (site["a"].directory / "top.qcow2").exists()
        payload = manifest_of(site, "b", outcome["session"]).carried.payload_bytes
        assert (payload < 2 * MIB) is keep
        [told] = statements.read_disks(manifest_of(site, "b", outcome["session"]).disks)
        assert told.beneath is (Beneath.KEPT if keep else Beneath.FLATTENED)
        bundle = document.parse_bundle(
            (site["b"].directory / "receipts" / f"{outcome['session']}.json").read_bytes()
        )
        assert Limit.BACKING_STAYS in document.peek(bytes(bundle.receipt)).limits

    tell(story)


def test_a_base_that_is_another_one_there_costs_bytes_alone(tell: Tell) -> None:
    async def story(site: Site) -> None:
        base = await run_over_base(site)
        base.write_bytes(random.Random(9).randbytes(4 * MIB))  # a fake image has all of its content itself
        outcome = await move(site, "a", "b", keep_backing=True)
        assert outcome["outcome"] == "completed", outcome["error"]
        await site.recover()
        assert disks_of(site["b"])["root"].read_bytes() == TOP

    tell(story)


def test_a_disk_that_becomes_one_image_there_is_wiped_and_not_kept_for_a_return(tell: Tell) -> None:
    async def story(site: Site) -> None:
        await run_over_base(site)
        outcome = await move(site, "a", "b", incremental=True)
        assert outcome["outcome"] == "completed", outcome["error"]
        await site.recover()
        assert not (site["a"].directory / "top.qcow2").exists()
        assert kept_at(site["a"]) == {}
        back = await move(site, "b", "a", incremental=True)
        assert back["outcome"] == "completed", back["error"]
        await site.recover()
        assert disks_of(site["a"])["root"].read_bytes() == TOP

    tell(story)


@pytest.fixture
def headers() -> Iterator[dict[int, str]]:
    yield FakeImages.beneath
    FakeImages.beneath.clear()


@pytest.mark.parametrize(
    ("back_over", "named", "used"),
    [(True, "base", True), (True, "other", False), (True, "base.raw", False), (False, "base", False)],
    ids=["the same", "a header that names another", "a name that is no path", "back as one image"],
)
def test_a_disk_over_others_is_kept_for_its_return_over_the_same(
    tell: Tell, headers: dict[int, str], back_over: bool, named: str, used: bool
) -> None:
    async def story(site: Site) -> None:
        base = await run_over_base(site)
        top = site["a"].directory / "top.qcow2"
        headers[top.stat().st_ino] = {"base": str(base), "other": "/srv/other.raw"}.get(named, named)
        first = await move(site, "a", "b", incremental=True, keep_backing=True)
        assert first["outcome"] == "completed", first["error"]
        await site.recover()
        assert kept_at(site["a"]) == {"root": TOP}
        receipt = (site["b"].directory / "receipts" / f"{first['session']}.json").read_bytes()
        limits = document.peek(bytes(document.parse_bundle(receipt).receipt)).wipe.limits
        assert {Limit.DISKS_KEPT, Limit.BACKING_STAYS} <= set(limits)
        base.write_bytes(random.Random(7).randbytes(4 * MIB))  # what lies beneath is not believed either
        [there] = disks_of(site["b"]).values()
        there.write_bytes(changed := TOP[:-4096] + b"later".ljust(4096))
        back = await move(site, "b", "a", incremental=True, keep_backing=back_over)
        assert back["outcome"] == "completed", back["error"]
        await site.recover()
        [here] = disks_of(site["a"]).values()
        assert here.read_bytes() == changed
        assert (here.stat().st_ino in headers) is used
        assert kept_at(site["a"]) == ({} if used else {"root": TOP})
        payload = manifest_of(site, "a", back["session"]).carried.payload_bytes
        assert (payload < 2 * MIB) is used

    tell(story)


@pytest.mark.parametrize("missing", ["gone", "given to nobody"])
def test_without_the_base_there_nothing_begins(tell: Tell, missing: str) -> None:
    async def story(site: Site) -> None:
        base = await run_over_base(site)
        if missing == "gone":
            site["b"].premises.absent.add(str(base))
        else:
            site["b"].premises.refused.add(str(base))
        outcome = await move(site, "a", "b", keep_backing=True)
        await site.recover()
        assert outcome["error"]["kind"] == "precheck", outcome
        assert outcome["error"]["vm_runs_on"] == "a"
        assert not (site["b"].directory / "vms" / STORE).exists()

    tell(story)


def test_a_destination_compares_what_nobody_asked_it_to_and_the_move_ends(tell: Tell) -> None:
    def changed(data: bytes) -> bytes:
        said = messages.decode(data)
        return messages.encode(messages.Open(("root",))) if isinstance(said, messages.Open) else data

    async def story(site: Site) -> None:
        await run_over_base(site)
        site["b"].change = changed
        outcome = await move(site, "a", "b")
        await site.recover()
        assert outcome["error"]["kind"] == "bad-hashes", outcome
        assert outcome["error"]["vm_runs_on"] == "a"

    tell(story)


def orders_differently(change: Callable[[DiskOrder], Sequence[DiskOrder]]) -> Callable[[bytes], bytes]:
    """A source whose order is not what it agreed with its operator; `change`: what it says of each disk."""

    def changed(data: bytes) -> bytes:
        said = messages.decode(data)
        if not isinstance(said, messages.Order):
            return data
        disks = tuple(told for disk in said.disks for told in change(disk))
        return messages.encode(msgspec.structs.replace(said, disks=disks))

    return changed


async def is_refused_as_unasked(site: Site, told: str, disks: Sequence[str] = (ALL,), **asked: Any) -> None:
    outcome = await move(site, "a", "b", disks, **asked)
    await site.recover()
    assert outcome["error"]["kind"] == "request-mismatch", outcome
    assert told in outcome["error"]["message"]
    assert outcome["error"]["vm_runs_on"] == "a"
    assert not (site["b"].directory / "vms" / STORE).exists()
    assert ("b", "make_disk") not in site.world.steps


@pytest.mark.parametrize(
    ("change", "disks", "asked", "told"),
    [
        (lambda disk: [disk, replace(disk, name="data")], ["root"], {}, "data was not to move"),
        (lambda disk: [disk] if disk.name == "root" else [], [ALL], {}, "data was to move too"),
        (lambda disk: [replace(disk, name="data")], ["root"], {}, "data was not to move"),
        (lambda disk: [disk, disk], ["root"], {}, "root comes more than once"),
        (lambda disk: [replace(disk, format="qcow2")], ["root"], {}, "root would come as qcow2"),
        (lambda disk: [replace(disk, format="raw")], ["root"], {"format": "qcow2"}, "come as raw"),
    ],
    ids=["one more", "one less", "another name", "twice", "another format", "not the format asked for"],
)
def test_a_source_cannot_order_other_disks_than_the_operator_signed_for(
    tell: Tell, change: Any, disks: list[str], asked: dict[str, Any], told: str
) -> None:
    async def story(site: Site) -> None:
        await run_with_disks(site)
        site["a"].change = orders_differently(change)
        await is_refused_as_unasked(site, told, disks, **asked)

    tell(story)


@pytest.mark.parametrize("asked", [True, False])
def test_a_source_cannot_lay_a_disk_over_images_or_not_as_the_operator_did_not_ask(
    tell: Tell, asked: bool
) -> None:
    async def story(site: Site) -> None:
        await run_over_base(site)
        site["a"].change = orders_differently(lambda disk: [replace(disk, keeps_backing=not asked)])
        told = "root would come as one image" if asked else "root would lie over images of this host"
        await is_refused_as_unasked(site, told, keep_backing=asked)

    tell(story)


def test_a_raw_disk_over_other_images_is_refused_before_anything_is_asked_there(tell: Tell) -> None:
    async def story(site: Site) -> None:
        await run_over_base(site)
        outcome = await move(site, "a", "b", keep_backing=True, format="raw")
        assert outcome["error"]["kind"] == "backing", outcome
        assert outcome["error"]["vm_runs_on"] == "a"

    tell(story)


def has_some_of_root(site: Site, host: str) -> None:
    root = CONTENT["root"]
    site[host].contents.put(*(root[at : at + MIB] for at in range(0, len(root), MIB) if at != MIB))


async def is_as_it_was(site: Site) -> None:
    """The VM runs at a on its own disks, nothing of it is at b, and it can move."""
    assert {name: (site["a"].directory / f"{name}.raw").read_bytes() for name in CONTENT} == CONTENT
    assert not (site["b"].directory / "vms" / STORE).exists()
    again = await move(site, "a", "b")
    assert again["outcome"] == "completed", again["error"]
    assert {name: path.read_bytes() for name, path in disks_of(site["b"]).items()} == CONTENT


def test_a_destination_that_says_it_put_what_it_did_not_is_found_out_before_the_vm_is_given_up(
    tell: Tell,
) -> None:
    def changed(data: bytes) -> bytes:
        """As if all were there; nothing is put, and nothing lacking."""
        said = messages.decode(data)
        if not isinstance(said, messages.Parts):
            return data
        told = have.decode(said.said)
        if isinstance(told, have.Held):
            site_asked.append(told.batch)
            told = msgspec.structs.replace(told, bits=b"\xc0" if len(site_asked) == 1 else told.bits)
        return messages.encode(messages.Parts(said.disk, have.encode(told)))

    site_asked: list[int] = []

    async def story(site: Site) -> None:
        await run_with_disks(site)
        has_some_of_root(site, "b")
        site["b"].change = changed
        outcome = await move(site, "a", "b")
        await site.recover()
        assert site_asked
        assert outcome["outcome"] != "completed"
        assert outcome["error"]["vm_runs_on"] == "a"
        site["b"].change = None
        await is_as_it_was(site)

    tell(story)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda said: messages.Parts("other", said.said),
        lambda said: messages.Parts(said.disk, b"\x80"),
        lambda said: messages.Parts(said.disk, have.encode(have.Settled(0, ()))),
        lambda said: messages.Parts(said.disk, have.encode(have.Put(77, (), ()))),
        lambda said: messages.Parts(
            said.disk, have.encode(have.Coming(0, Grain.CHUNK, random.Random(2).randbytes(32 * 100)))
        ),
    ],
    ids=["another disk", "not a message", "the other side's", "a batch unasked", "more names than parts"],
)
@pytest.mark.parametrize("by", ["a", "b"])
def test_what_the_protocol_of_parts_does_not_have_ends_the_move_and_costs_nothing(
    tell: Tell, wrong: Any, by: str
) -> None:
    def changed(data: bytes) -> bytes:
        said = messages.decode(data)
        return messages.encode(wrong(said)) if isinstance(said, messages.Parts) else data

    async def story(site: Site) -> None:
        await run_with_disks(site)
        has_some_of_root(site, "b")
        site[by].change = changed
        outcome = await move(site, "a", "b")
        await site.recover()
        assert outcome["outcome"] != "completed"
        assert outcome["error"]["vm_runs_on"] == "a"
        site[by].change = None
        await is_as_it_was(site)

    tell(story)


def test_parts_that_nobody_shares_are_not_asked_for_and_an_answer_unasked_ends_it(tell: Tell) -> None:
    def changed(data: bytes) -> bytes:
        said = messages.decode(data)
        if not isinstance(said, messages.Open):
            return data
        return messages.encode(msgspec.structs.replace(said, shares=True))

    async def story(site: Site) -> None:
        await run_with_disks(site)
        site["b"].change = changed
        outcome = await move(site, "a", "b")
        await site.recover()
        assert outcome["error"]["kind"] == "out-of-order", outcome
        site["b"].change = None
        await is_as_it_was(site)

    tell(story)


@pytest.mark.parametrize("point", [f"{host}:say Parts#{number}" for host in "ab" for number in (1, 2, 3, 4)])
@pytest.mark.parametrize("fault", [Fault.CRASH, Fault.FAIL])
def test_a_daemon_that_dies_over_what_is_shared_leaves_one_vm_with_its_disks(
    tell: Tell, point: str, fault: Fault
) -> None:
    async def story(site: Site) -> None:
        await run_with_disks(site)
        has_some_of_root(site, "b")
        site.plan.faults[point] = fault
        outcome = await move(site, "a", "b")
        await site.recover()
        assert outcome.get("outcome") != "completed"  # nobody tells where the source died
        site.plan.faults.clear()
        await is_as_it_was(site)

    tell(story)


def test_they_move_on_and_come_back(tell: Tell) -> None:
    async def story(site: Site) -> None:
        await run_with_disks(site)
        for source, to in (("a", "b"), ("b", "c"), ("c", "a")):
            outcome = await move(site, source, to)
            assert outcome["outcome"] == "completed", outcome["error"]
            await site.recover()
        assert {name: path.read_bytes() for name, path in disks_of(site["a"]).items()} == CONTENT

    tell(story, hosts="abc")


def test_those_that_are_not_named_stay_where_both_hosts_see_them(tell: Tell) -> None:
    async def story(site: Site) -> None:
        await run_with_disks(site)
        outcome = await move(site, "a", "b", ["data"])
        assert outcome["outcome"] == "completed", outcome["error"]
        await site.recover()
        shared = site["a"].directory / "root.raw"
        assert disks_of(site["b"])["root"] == shared
        assert shared.read_bytes() == CONTENT["root"]
        assert not (site["a"].directory / "data.raw").exists()

    tell(story)


@pytest.mark.parametrize(
    ("step", "host"),
    [
        ("moving_disks", "a"),
        ("make_disk", "b"),
        ("moving_disks", "b"),
        ("listen", "b"),
        ("send", "a"),
        ("switch_over", "a"),
    ],
)
def test_whatever_fails_the_vm_runs_on_with_its_disks_and_nothing_is_left_there(
    tell: Tell, step: str, host: str
) -> None:
    async def story(site: Site) -> None:
        await run_with_disks(site)
        site.world.trouble(step, Trouble.FAIL, host)
        outcome = await move(site, "a", "b")
        await site.recover()
        assert outcome["outcome"] == "failed"
        assert outcome["error"]["vm_runs_on"] == "a"
        assert {name: (site["a"].directory / f"{name}.raw").read_bytes() for name in CONTENT} == CONTENT
        assert not (site["b"].directory / "vms" / STORE).exists()
        assert not list((site["a"].directory / "vms" / STORE).glob("*.sock"))
        again = await move(site, "a", "b")
        assert again["outcome"] == "completed", again["error"]

    tell(story)


def test_a_disk_that_the_vm_does_not_have_is_refused_before_anything_happens(tell: Tell) -> None:
    async def story(site: Site) -> None:
        await run_with_disks(site)
        outcome = await move(site, "a", "b", ["root", "swap"])
        assert outcome["error"]["kind"] == "no-such-disk"
        assert "swap" in outcome["error"]["message"]
        assert "root" in outcome["error"]["remedy"]

    tell(story)


def test_where_there_is_no_room_they_do_not_begin_to_come(tell: Tell) -> None:
    async def story(site: Site) -> None:
        await run_with_disks(site)
        site["b"].premises.storage = MIB
        outcome = await move(site, "a", "b")
        assert outcome["outcome"] == "refused"
        assert "disk-room" in str(outcome["error"]) or "room for 1 MiB" in outcome["error"]["message"]

    tell(story)


def test_a_destination_that_tells_of_another_disk_is_not_believed(tell: Tell) -> None:
    def changed(data: bytes) -> bytes:
        said = messages.decode(data)
        if not isinstance(said, messages.Manifest):
            return data
        return messages.encode(msgspec.structs.replace(said, envelope=b"{}"))

    async def story(site: Site) -> None:
        await run_with_disks(site)
        site["a"].change = changed
        outcome = await move(site, "a", "b")
        await site.recover()
        assert outcome["outcome"] != "completed"
        assert {name: (site["a"].directory / f"{name}.raw").read_bytes() for name in CONTENT} == CONTENT

    tell(story)


def kept_at(host: LabHost) -> dict[str, bytes]:
    folder = host.directory / "kept" / STORE
    return {path.stem: path.read_bytes() for path in folder.glob("*.image")}


@pytest.mark.parametrize("mode", Mode)
def test_a_vm_that_returns_finds_what_was_kept_and_only_what_differs_is_sent(tell: Tell, mode: Mode) -> None:
    async def story(site: Site) -> None:
        await run_with_disks(site)
        if mode is Mode.OFFLINE:
            await site["a"].do(lambda: site["a"].guests.stop(STORE, force=True))
        first = await move(site, "a", "b", incremental=True, mode=mode)
        assert first["outcome"] == "completed", first["error"]
        await site.recover()
        assert kept_at(site["a"]) == CONTENT
        assert not any((site["a"].directory / f"{name}.raw").exists() for name in CONTENT)
        bundle = document.parse_bundle(
            (site["b"].directory / "receipts" / f"{first['session']}.json").read_bytes()
        )
        receipt = document.peek(bytes(bundle.receipt))
        assert Limit.DISKS_KEPT in receipt.limits
        assert Limit.DISKS_KEPT in receipt.wipe.limits

        there = disks_of(site["b"])["root"]
        changed = bytearray(CONTENT["root"])
        changed[MIB + 5 : MIB + 15] = b"0123456789"
        there.write_bytes(changed)
        heard: list[messages.AnyMessage] = []

        def change(data: bytes) -> bytes:
            heard.append(messages.decode(data))
            return data

        site["b"].change = change
        back = await move(site, "b", "a", incremental=True, mode=mode)
        assert back["outcome"] == "completed", back["error"]
        await site.recover()
        assert {name: path.read_bytes() for name, path in disks_of(site["a"]).items()} == {
            **CONTENT,
            "root": changed,
        }
        compared = [one for one in heard if isinstance(one, messages.Compare)]
        assert [(one.disk, one.chunks) for one in compared] == [("root", (1,))]
        assert kept_at(site["a"]) == {}
        assert kept_at(site["b"]) == {**CONTENT, "root": changed}

    tell(story)


@pytest.mark.parametrize("point", ["a:machine.quit#1", "a:vtpms.wipe#1", "b:say Running#1"])
def test_a_source_that_dies_before_all_is_wiped_keeps_its_disks_when_it_is_back(
    tell: Tell, point: str
) -> None:
    async def story(site: Site) -> None:
        await run_with_disks(site)
        site.plan.faults[point] = Fault.CRASH
        await move(site, "a", "b", incremental=True)
        await site.recover()
        async with asyncio.timeout(60):  # `recover` looks at another VM
            while site["a"].disk.vms[STORE].ownership != Status.WIPED:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert {name: path.read_bytes() for name, path in disks_of(site["b"]).items()} == CONTENT
        assert kept_at(site["a"]) == CONTENT
        kept = site["a"].setting.kept.all()
        assert all(one.root.startswith("blake3:") for one in kept)
        back = await move(site, "b", "a", incremental=True)
        assert back["outcome"] == "completed", back["error"]

    tell(story)


def test_another_vm_of_the_same_name_is_told_nothing_of_what_was_kept(tell: Tell) -> None:
    async def story(site: Site) -> None:
        await run_with_disks(site)
        assert (await move(site, "a", "b", incremental=True))["outcome"] == "completed"
        await site.recover()
        record = site["a"].directory / "kept" / STORE / "root.json"
        told = msgspec.json.decode(record.read_bytes(), type=KeptDisk)
        assert told.uuid
        record.write_bytes(msgspec.json.encode(msgspec.structs.replace(told, uuid="another's")))
        heard: list[messages.AnyMessage] = []

        def change(data: bytes) -> bytes:
            heard.append(messages.decode(data))
            return data

        site["a"].change = change
        assert (await move(site, "b", "a", incremental=True))["outcome"] == "completed"
        await site.recover()
        (opened,) = [one for one in heard if isinstance(one, messages.Open)]
        assert opened.kept == ("data",)
        assert {name: path.read_bytes() for name, path in disks_of(site["a"]).items()} == CONTENT

    tell(story)


def test_without_the_word_nothing_is_kept_and_nothing_kept_is_used(tell: Tell) -> None:
    async def story(site: Site) -> None:
        await run_with_disks(site)
        assert (await move(site, "a", "b", incremental=True))["outcome"] == "completed"
        await site.recover()
        assert (await move(site, "b", "a"))["outcome"] == "completed"
        await site.recover()
        assert kept_at(site["b"]) == {}
        assert {name: path.read_bytes() for name, path in disks_of(site["a"]).items()} == CONTENT
        assert (await move(site, "a", "b", incremental=True))["outcome"] == "completed"
        await site.recover()
        assert kept_at(site["a"]) == CONTENT

    tell(story)


def test_what_was_kept_in_another_format_or_size_is_not_used(tell: Tell) -> None:
    async def story(site: Site) -> None:
        await run_with_disks(site)
        assert (await move(site, "a", "b", incremental=True))["outcome"] == "completed"
        await site.recover()
        with disks_of(site["b"])["data"].open("r+b") as file:
            file.truncate(3 * MIB)
        (site["a"].directory / "kept" / STORE / "root.image").write_bytes(b"short")
        back = await move(site, "b", "a", incremental=True)
        assert back["outcome"] == "completed", back["error"]
        await site.recover()
        found = {name: path.read_bytes() for name, path in disks_of(site["a"]).items()}
        assert found == {**CONTENT, "data": bytes(3 * MIB)}

    tell(story)


@pytest.mark.parametrize(
    ("step", "host"), [("moving_disks", "a"), ("moving_disks", "b"), ("switch_over", "b")]
)
def test_a_return_that_fails_puts_back_what_was_kept(tell: Tell, step: str, host: str) -> None:
    async def story(site: Site) -> None:
        await run_with_disks(site)
        assert (await move(site, "a", "b", incremental=True))["outcome"] == "completed"
        await site.recover()
        site.world.trouble(step, Trouble.FAIL, host)
        back = await move(site, "b", "a", incremental=True)
        await site.recover()
        assert (back["outcome"], back["error"]["vm_runs_on"]) == ("failed", "b"), back
        assert {name: path.read_bytes() for name, path in disks_of(site["b"]).items()} == CONTENT
        assert kept_at(site["a"]) == CONTENT
        assert not (site["a"].directory / "vms" / STORE).exists()
        again = await move(site, "b", "a", incremental=True)
        assert again["outcome"] == "completed", again["error"]

    tell(story)


@pytest.mark.parametrize(
    "said",
    [
        messages.Open(("swap",)),
        messages.Open(("root", "root")),
        messages.Leaves("data", bytes(32 * 3), last=True),
        messages.Leaves("root", bytes(32), last=True),
        messages.Leaves("root", bytes(32 * 400), last=False),
        messages.Grains((b"",)),
    ],
    ids=lambda said: f"{type(said).__name__}-{len(str(said))}",
)
def test_a_destination_that_tells_nonsense_of_what_it_kept_ends_the_move(
    tell: Tell, said: messages.Message
) -> None:
    def changed(data: bytes) -> bytes:
        return messages.encode(said) if type(messages.decode(data)) is type(said) else data

    async def story(site: Site) -> None:
        await run_with_disks(site)
        assert (await move(site, "a", "b", incremental=True))["outcome"] == "completed"
        await site.recover()
        disks_of(site["b"])["root"].write_bytes(random.Random(9).randbytes(len(CONTENT["root"])))
        site["a"].change = changed
        back = await move(site, "b", "a", incremental=True)
        await site.recover()
        assert back["outcome"] == "failed", back
        assert back["error"]["vm_runs_on"] == "b"

    tell(story)


def test_hashes_that_lie_are_found_out_by_the_roots_and_the_vm_runs_on(tell: Tell) -> None:
    lies: list[bytes] = []

    def changed(data: bytes) -> bytes:
        match messages.decode(data):
            case messages.Leaves("root", _, last=last):
                return messages.encode(messages.Leaves("root", lies[0], last))
        return data

    async def story(site: Site) -> None:
        await run_with_disks(site)
        assert (await move(site, "a", "b", incremental=True))["outcome"] == "completed"
        await site.recover()
        now = random.Random(9).randbytes(len(CONTENT["root"]))
        disks_of(site["b"])["root"].write_bytes(now)
        lies.append(b"".join(leaf(now[at : at + MIB]) for at in range(0, len(now), MIB)))
        site["a"].change = changed
        back = await move(site, "b", "a", incremental=True)
        await site.recover()
        assert back["outcome"] == "failed", back
        assert back["error"]["vm_runs_on"] == "b"
        assert disks_of(site["b"])["root"].read_bytes() == now

    tell(story)


def test_a_vm_without_disks_is_refused_where_all_of_them_were_to_move(tell: Tell) -> None:
    async def story(site: Site) -> None:
        text = f'name = "{STORE}"\nmemory = "16M"\n'
        await site["a"].do(lambda: site["a"].guests.run(text))
        outcome = await move(site, "a", "b")
        assert (outcome["error"]["kind"], outcome["error"]["vm_runs_on"]) == ("no-such-disk", "a")

    tell(story)
