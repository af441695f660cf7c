"""The real inspector over real disks: everything that a policy can ask for, in one look."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from fakes.failing_file import failing, skip_without_fuse
from fakes.scanner import eicar
from korora.adapters.flags import bag
from korora.adapters.indicators.sqlite import SqliteIndicators
from korora.adapters.inspector.process import ProcessInspector
from korora.model.flag import FlagKind, Place
from korora.model.indicator import Entry, Kind, Provenance
from korora.model.inspection import Check, Compared, Disposition, Examined
from korora.ports.inspector import DiskSource, Order
from korora.protocol import flag

MIB = 1 << 20
LOG = b"GET http://evil.example.org/payload from 198.51.100.7\n"
PACKED = b"#!/bin/sh\nexec login\n"
Inspect = Callable[..., Examined]


def run(*command: str | Path) -> None:
    subprocess.run([*map(str, command)], check=True, capture_output=True, timeout=120)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root with a package database, malware, and a log that names a known host."""
    root = tmp_path / "tree"
    for folder in ("bin", "srv", "var/log", "var/lib/dpkg/info"):
        (root / folder).mkdir(parents=True)
    (root / "bin" / "login").write_bytes(PACKED)
    (root / "bin" / "true").write_bytes(b"true")
    sums = {"bin/login": PACKED, "bin/true": b"true"}
    lines = (f"{hashlib.md5(data).hexdigest()}  {name}\n" for name, data in sums.items())  # noqa: S324
    info = root / "var" / "lib" / "dpkg" / "info"
    (info / "login.md5sums").write_text("".join(lines))
    (info / "login.list").write_text("/bin/login\n/bin/true\n")
    (root / "var" / "lib" / "dpkg" / "status").write_text("Package: login\nStatus: install ok installed\n\n")
    (root / "srv" / "evil.com").write_bytes(eicar())
    (root / "var" / "log" / "syslog").write_bytes(LOG)
    return root


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "indicators.db"
    there = SqliteIndicators(path)
    there.write([[Entry(Kind.DOMAIN, "evil.example.org", Provenance("feed"))]])
    there.close()
    return path


def image_of(tree: Path, path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(24 * MIB)
    run("mkfs.ext4", "-q", "-d", tree, path)
    return path


@pytest.fixture
def inspect(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> Inspect:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def inspected(path: Path, disposition: Disposition = Disposition.FLAG, **changed: object) -> Examined:
        return asyncio.run(ProcessInspector().inspect(asked(path, disposition, **changed), lambda _: None))

    def asked(path: Path, disposition: Disposition, **changed: object) -> Order:
        output = tmp_path / "out"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        fields = {
            "vm": "web",
            "checks": dict.fromkeys(Check, disposition),
            "disks": (DiskSource(name="disk0", format="raw", path=str(path)),),
            "output": str(output),
            "indicators": str(store),
        }
        return Order(**{**fields, **changed})  # type: ignore[arg-type]

    return inspected


def kinds(found: Examined) -> list[FlagKind]:
    return sorted(one.kind for one in found.found)


def test_malware_indicators_and_changed_programs_are_found_inside(
    inspect: Inspect, tree: Path, tmp_path: Path
) -> None:
    (tree / "bin" / "login").write_bytes(b"another program")
    found = inspect(image_of(tree, tmp_path / "disk.raw"))
    by_kind = {one.kind: one for one in found.found}
    assert set(by_kind) == {FlagKind.INFECTED, FlagKind.INDICATOR, FlagKind.SYSTEM_FILE}, found.found
    evil = by_kind[FlagKind.INFECTED]
    assert (evil.place.disk, evil.place.volume, evil.place.path) == ("disk0", 1, b"/srv/evil.com")
    assert "clamav" in evil.reason
    assert by_kind[FlagKind.INDICATOR].place.path == b"/var/log/syslog"
    assert "evil.example.org" in by_kind[FlagKind.INDICATOR].reason
    assert by_kind[FlagKind.SYSTEM_FILE].place.path == b"/bin/login"
    looked = {one.check: one for one in found.looked}
    assert set(looked) == set(Check)
    assert not any(one.unknown for one in found.looked), found.looked
    assert looked[Check.MALWARE].examined == sum(len(files) for _, _, files in os.walk(tree))


def test_a_changed_program_has_its_place_its_content_its_reason_and_its_original(
    inspect: Inspect, tree: Path, tmp_path: Path
) -> None:
    names = set()
    for content in (b"another program", b"yet another one"):
        (tree / "bin" / "login").write_bytes(content)
        found = inspect(image_of(tree, tmp_path / "disk.raw"))
        (one,) = (one for one in found.found if one.kind is FlagKind.SYSTEM_FILE)
        assert one.place == Place(disk="disk0", volume=1, path=b"/bin/login")
        assert one.content == f"blake3:{blake3(content).hexdigest()}"
        assert one.reason == "changed: it is not as the package login brought it"
        names.add(name := flag.name("web", one.kind, one.place, one.content))
        packed = (tmp_path / "out" / f"original-{name}.tar").read_bytes()
        assert bag.opened(packed, name)["data/original"] == content
    assert len(names) == 2  # who accepts the one has not accepted the other


def test_a_program_that_gives_other_rights_than_before_is_another_flag(
    inspect: Inspect, tree: Path, tmp_path: Path
) -> None:
    contents = []
    (tree / "bin" / "gains").write_bytes(b"a program")
    for mode in (0o4755, 0o6755):
        (tree / "bin" / "gains").chmod(mode)
        found = inspect(image_of(tree, tmp_path / "disk.raw"))
        (one,) = (one for one in found.found if one.kind is FlagKind.SYSTEM_FILE)
        assert one.reason == "privileged: who starts it gains rights, and no package brought it"
        assert one.original.size == len(b"a program")
        contents.append(one.content)
    assert len(set(contents)) == 2
    (tree / "bin" / "gains").unlink()
    (tree / "bin" / "login").unlink()
    found = inspect(image_of(tree, tmp_path / "disk.raw"))
    (one,) = (one for one in found.found if one.kind is FlagKind.SYSTEM_FILE)
    assert (one.place.path, one.content) == (b"/bin/login", "")
    assert one.reason == "missing: the package login brought it, and it is not there"
    (tree / "bin" / "login").symlink_to("/srv/evil")
    found = inspect(image_of(tree, tmp_path / "disk.raw"))
    (one,) = (one for one in found.found if one.kind is FlagKind.SYSTEM_FILE)
    assert (one.reason.split(":")[0], one.original.left) == ("not a file", "it is no file, but a symlink")
    assert one.content


def test_an_original_of_many_parts_is_kept_whole(inspect: Inspect, tree: Path, tmp_path: Path) -> None:
    content = b"".join(b"%015d\n" % number for number in range((17 << 20) // 16))
    (tree / "bin" / "login").write_bytes(content)
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    run("mkfs.ext4", "-q", "-d", tree, path)
    found = inspect(path, original_bytes=64 << 20)
    (one,) = (one for one in found.found if one.kind is FlagKind.SYSTEM_FILE)
    assert one.original.digest == f"sha256:{hashlib.sha256(content).hexdigest()}", one.original


def test_malware_in_an_archive_and_in_a_folder_that_is_named_like_one_is_told_by_its_place(
    inspect: Inspect, tree: Path, tmp_path: Path
) -> None:
    (tree / "srv" / "evil.com").unlink()
    (tree / "srv" / "odd!").mkdir()
    (tree / "srv" / "odd!" / "evil.com").write_bytes(eicar())
    with zipfile.ZipFile(tree / "srv" / "packed.zip", "w") as archive:
        archive.writestr("inner/evil.com", eicar())
    found = inspect(image_of(tree, tmp_path / "disk.raw"))
    infected = {one.place.path: one for one in found.found if one.kind is FlagKind.INFECTED}
    assert b"/srv/odd!/evil.com" in infected
    assert b"/srv/packed.zip!/inner/evil.com" in infected
    assert all(one.content and one.original.digest for one in infected.values())


def test_originals_of_what_is_flagged_are_kept_as_they_were(
    inspect: Inspect, tree: Path, tmp_path: Path
) -> None:
    found = inspect(image_of(tree, tmp_path / "disk.raw"))
    for kind, content in ((FlagKind.INFECTED, eicar()), (FlagKind.INDICATOR, LOG)):
        (one,) = (one for one in found.found if one.kind is kind)
        name = flag.name("web", one.kind, one.place, one.content)
        packed = (tmp_path / "out" / f"original-{name}.tar").read_bytes()
        assert bag.opened(packed, name)["data/original"] == content
        assert one.original.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert (tmp_path / "out" / f"original-{name}.tar").stat().st_mode & 0o077 == 0


def test_of_a_disk_that_cannot_be_opened_every_check_is_unknown(inspect: Inspect, tmp_path: Path) -> None:
    found = inspect(tmp_path / "there is none.raw")
    unknown = {one.check for one in found.looked if one.unknown}
    assert unknown == set(Check) - {Check.CONFIGURATION}


def test_what_is_only_reported_has_no_original(inspect: Inspect, tree: Path, tmp_path: Path) -> None:
    found = inspect(image_of(tree, tmp_path / "disk.raw"), Disposition.REPORT)
    assert FlagKind.INFECTED in kinds(found)
    assert list((tmp_path / "out").glob("original-*")) == []


def test_an_original_beyond_the_bound_is_left_where_it_is_and_that_is_told(
    inspect: Inspect, tree: Path, tmp_path: Path
) -> None:
    found = inspect(image_of(tree, tmp_path / "disk.raw"), original_bytes=10)
    originals = [one.original for one in found.found]
    assert originals
    assert all("more than is kept" in one.left for one in originals)


def test_a_disk_that_is_no_file_system_is_unknown_and_still_has_a_root(
    inspect: Inspect, tmp_path: Path
) -> None:
    path = tmp_path / "noise.raw"
    path.write_bytes(os.urandom(2 * MIB))
    found = inspect(path)
    assert kinds(found) == [FlagKind.UNREAD]
    assert (found.disks[0].root is None, found.disks[0].files_root) == (False, None)
    unknown = {one.check for one in found.looked if one.unknown}
    assert unknown == {Check.FILES, Check.PACKAGES, Check.MALWARE, Check.INDICATORS, Check.UNKNOWN}


def test_a_container_that_would_open_another_file_is_found_and_nothing_of_it_is_read(
    inspect: Inspect, tmp_path: Path
) -> None:
    secret, overlay = tmp_path / "secret.raw", tmp_path / "overlay.qcow2"
    secret.write_bytes(b"s" * MIB)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", overlay)
    disks = (DiskSource(name="disk0", format="qcow2", path=str(overlay)),)
    found = inspect(overlay, disks=disks)
    assert set(kinds(found)) == {FlagKind.CONTAINER, FlagKind.UNREAD}
    assert found.disks[0].root is None
    allowed = inspect(overlay, disks=disks, allow=(str(secret),))
    assert FlagKind.CONTAINER not in kinds(allowed)
    assert allowed.disks[0].root is not None


def test_a_guest_that_writes_another_formats_header_is_read_as_the_declared_format(
    inspect: Inspect, tmp_path: Path
) -> None:
    """The classic escape: a raw disk whose guest made it look like an overlay of the host's secrets."""
    overlay = tmp_path / "overlay.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", overlay, "1M")
    found = inspect(overlay)
    assert FlagKind.CONTAINER not in kinds(found)
    sectors = -(-overlay.stat().st_size // 512)
    assert found.disks[0].size == sectors * 512


def test_checks_that_cannot_be_made_are_findings(inspect: Inspect, tree: Path, tmp_path: Path) -> None:
    disk = image_of(tree, tmp_path / "disk.raw")
    nowhere = str(tmp_path / "nowhere")
    found = inspect(disk, indicators=nowhere, engines=nowhere)
    unread = {one.place.file for one in found.found if one.kind is FlagKind.UNREAD}
    assert {f"check of {Check.MALWARE}", f"check of {Check.INDICATORS}"} <= unread
    assert FlagKind.INFECTED not in kinds(found)


def test_what_is_switched_off_is_not_looked_at(inspect: Inspect, tree: Path, tmp_path: Path) -> None:
    off = dict.fromkeys(Check, Disposition.OFF) | {Check.DISKS: Disposition.REPORT}
    found = inspect(image_of(tree, tmp_path / "disk.raw"), checks=off)
    assert [one.check for one in found.looked] == [Check.DISKS]
    assert (found.found, found.disks[0].files) == ((), 0)


def test_a_later_look_names_the_files_that_changed_and_counts_those_that_did_not(
    inspect: Inspect, tree: Path, tmp_path: Path
) -> None:
    disk = image_of(tree, tmp_path / "disk.raw")
    first = inspect(disk)
    shutil.copytree(tmp_path / "out", tmp_path / "baseline")
    (tree / "var" / "log" / "syslog").write_bytes(LOG * 2)
    (tree / "new").write_bytes(b"n")
    (tree / "bin" / "true").unlink()
    image_of(tree, disk)
    (tmp_path / "again").mkdir()
    order = Order(
        vm="web",
        checks=dict.fromkeys(Check, Disposition.REPORT),
        disks=(DiskSource(name="disk0", format="raw", path=str(disk)),),
        output=str(tmp_path / "again"),
        baseline=str(tmp_path / "baseline"),
    )
    found: Compared = asyncio.run(ProcessInspector().compare(order, lambda _: None))
    changes = {(one.change, one.path) for one in found.files}
    assert {
        ("changed", b"/var/log/syslog"),
        ("added", b"/new"),
        ("removed", b"/bin/true"),
    } <= changes
    there = sum(one.change != "removed" for one in found.files)
    assert found.files_same == found.examined.disks[0].files - there
    assert first.disks[0].files_root != found.examined.disks[0].files_root
    assert list((tmp_path / "again").iterdir()) == []


def test_a_setting_that_cannot_be_read_is_flagged_with_its_text_and_a_changed_one_is_told(
    inspect: Inspect, tmp_path: Path
) -> None:
    file = tmp_path / "web.vmx"
    good = 'config.version = "8"\ndisplayName = "web"\nmemsize = "512"\nuefi.secureBoot.enabled = "TRUE"\n'
    file.write_text(f"{good}this is no setting\n")
    alone = dict.fromkeys(Check, Disposition.OFF) | {Check.CONFIGURATION: Disposition.FLAG}
    found = inspect(file, checks=alone, disks=(), configuration=(str(file),))
    (one,) = found.found
    assert (one.kind, one.place.file, one.place.setting) == (FlagKind.SETTING, str(file), "line 5")
    name = flag.name("web", one.kind, one.place, one.content)
    kept = bag.opened((tmp_path / "out" / f"original-{name}.tar").read_bytes(), name)["data/original"]
    assert kept == b"this is no setting"
    (facts,) = found.configuration
    assert (facts.format, facts.placeholders, facts.digest is None) == ("vmware", 1, False)
    shutil.copytree(tmp_path / "out", tmp_path / "baseline")
    file.write_text(good.replace("TRUE", "FALSE"))
    (tmp_path / "again").mkdir()
    order = Order(
        vm="web",
        checks=alone,
        disks=(),
        configuration=(str(file),),
        output=str(tmp_path / "again"),
        baseline=str(tmp_path / "baseline"),
    )
    compared: Compared = asyncio.run(ProcessInspector().compare(order, lambda _: None))
    assert any("Secure Boot: on → off" in words for words in compared.configuration), compared.configuration


def test_a_configuration_file_that_is_not_there_is_unknown(inspect: Inspect, tmp_path: Path) -> None:
    alone = dict.fromkeys(Check, Disposition.OFF)
    alone |= {Check.CONFIGURATION: Disposition.FLAG, Check.UNKNOWN: Disposition.REPORT}
    nowhere = str(tmp_path / "nowhere.xml")
    found = inspect(tmp_path, checks=alone, disks=(), configuration=(nowhere,))
    assert [(one.kind, one.place.file) for one in found.found] == [(FlagKind.UNREAD, nowhere)]
    assert {one.check for one in found.looked if one.unknown} == {Check.CONFIGURATION, Check.UNKNOWN}


def test_a_chunk_that_gives_an_error_is_flagged_with_what_could_be_read_of_it(
    inspect: Inspect, tmp_path: Path
) -> None:
    if shutil.which("nbdkit") is None:
        pytest.skip("nbdkit is not installed: no disk with a broken sector can be made")
    disk, folder = tmp_path / "disk.raw", tmp_path / "sockets"
    disk.write_bytes(b"d" * 3 * MIB)
    folder.mkdir()
    # Reads of the second MiB's second half give EIO.
    script = folder / "broken.sh"
    script.write_text(
        f"""case "$1" in
get_size) echo {3 * MIB} ;;
pread) if [ $(($4 + $3)) -gt {MIB + MIB // 2} ] && [ $4 -lt {2 * MIB} ]; then
         echo "EIO a bad sector" >&2; exit 1; fi
       dd if={disk} iflag=skip_bytes,count_bytes skip=$4 count=$3 bs=65536 status=none ;;
*) exit 2 ;;
esac
"""
    )
    script.chmod(0o755)
    server = subprocess.Popen(
        ["nbdkit", "-f", "--unix", str(folder / "nbd"), "sh", str(script)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            if (folder / "nbd").exists():
                break
            subprocess.run(["sleep", "0.05"], check=True)
        off = dict.fromkeys(Check, Disposition.OFF) | {Check.DISKS: Disposition.FLAG}
        disks = (DiskSource(name="disk0", format="raw", running=True, socket=str(folder / "nbd")),)
        found = inspect(disk, checks=off, disks=disks)
    finally:
        server.kill()
        server.wait(30)
    (one,) = found.found
    assert (one.kind, one.place.offset, one.place.length) == (FlagKind.UNREADABLE, MIB, MIB)
    assert (found.disks[0].root is None, found.disks[0].placeholders) == (False, 1)
    name = flag.name("web", one.kind, one.place, "")
    kept = bag.opened((tmp_path / "out" / f"original-{name}.tar").read_bytes(), name)["data/original"]
    assert kept == b"d" * (MIB // 2) + flag.placeholder(name, 4096) * (MIB // 2 // 4096)


def test_a_disk_whose_first_sector_cannot_be_read_has_a_flag_there(inspect: Inspect, tmp_path: Path) -> None:
    skip_without_fuse()
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"d" * 3 * MIB)
    with failing(disk, 0):
        found = inspect(disk, checks=dict.fromkeys(Check, Disposition.OFF) | {Check.DISKS: Disposition.FLAG})
    (chunk,) = found.found
    assert (chunk.kind, chunk.place.offset, chunk.place.length) == (FlagKind.UNREADABLE, 0, MIB)
