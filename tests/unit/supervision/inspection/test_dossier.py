"""A VM's dossier: kept, packed, and taken from another host only as what it must be."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import receipts
from korora.errors import IntegrityError
from korora.model.flag import FlagKind, Place
from korora.model.inspection import Found, Inspection
from korora.protocol import flag
from korora.protocol.flag import FlagRecord
from korora.supervision.inspection import dossier

FLAG = flag.raised("web", Found(kind=FlagKind.UNREAD, place=Place(disk="disk0"), reason="r"), "a", 1)
RECORD = flag.with_found(FlagRecord(vm="web"), [FLAG])
REPORT = msgspec.structs.replace(receipts.INSPECTION, running=False)
FILES = {
    "baseline-disk0.chunks": b"chunks",
    "baseline-disk0.files": b"files",
    "configuration-0": b"text",
    f"original-{FLAG.id}.tar": b"a bag",
}


def keep(directory: Path, report: Inspection = REPORT, record: FlagRecord = RECORD) -> None:
    output = directory / "output"
    output.mkdir()
    for name, data in FILES.items():
        (output / name).write_bytes(data)
    (output / "core").write_bytes(b"what does not belong into it")
    dossier.keep(directory, output, report, record)


def names(directory: Path) -> set[str]:
    return {path.name for path in dossier.folder(directory).iterdir()}


def test_what_an_inspection_left_is_kept_and_nothing_else(tmp_path: Path) -> None:
    keep(tmp_path)
    assert names(tmp_path) == {*FILES, "flags.json", "report.json"}
    assert dossier.read_report(tmp_path) == REPORT
    assert dossier.read_flags(tmp_path, "web") == RECORD
    assert all(path.stat().st_mode & 0o077 == 0 for path in [dossier.folder(tmp_path)])


def test_a_vm_without_a_dossier_has_no_flags_and_no_report(tmp_path: Path) -> None:
    assert dossier.read_flags(tmp_path, "web") == FlagRecord(vm="web")
    assert dossier.read_report(tmp_path) is None
    assert dossier.pack(tmp_path) is None
    dossier.note_run(tmp_path)
    assert not dossier.folder(tmp_path).exists()


def test_flags_that_cannot_be_read_are_an_error_and_not_forgotten(tmp_path: Path) -> None:
    keep(tmp_path)
    (dossier.folder(tmp_path) / "flags.json").write_bytes(b"{}")
    with pytest.raises(IntegrityError):
        dossier.read_flags(tmp_path, "web")


def test_a_newer_inspection_takes_the_place_of_the_older_but_for_flags_that_are_still_there(
    tmp_path: Path,
) -> None:
    keep(tmp_path)
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "baseline-disk1.files").write_bytes(b"other")
    dossier.keep(tmp_path, tmp_path / "second", REPORT, RECORD)
    assert names(tmp_path) == {
        "baseline-disk1.files",
        f"original-{FLAG.id}.tar",
        "flags.json",
        "report.json",
    }
    (tmp_path / "third").mkdir()
    dossier.keep(tmp_path, tmp_path / "third", REPORT, FlagRecord(vm="web"))
    assert names(tmp_path) == {"flags.json", "report.json"}


def test_whether_a_vm_ran_since_it_was_inspected_is_remembered(tmp_path: Path) -> None:
    keep(tmp_path)
    assert not dossier.has_run(tmp_path)
    dossier.note_run(tmp_path)
    assert dossier.has_run(tmp_path)
    (tmp_path / "again").mkdir()
    dossier.keep(tmp_path, tmp_path / "again", REPORT, RECORD)
    assert not dossier.has_run(tmp_path)
    (tmp_path / "live").mkdir()
    dossier.keep(tmp_path, tmp_path / "live", msgspec.structs.replace(REPORT, running=True), RECORD)
    assert dossier.has_run(tmp_path)


def test_the_baselines_digest_is_over_names_and_contents(tmp_path: Path) -> None:
    keep(tmp_path)
    place = dossier.folder(tmp_path)
    whole = dossier.baseline_digest(place)
    (place / "baseline-disk0.files").write_bytes(b"filed")
    assert dossier.baseline_digest(place) != whole
    (place / "baseline-disk0.files").write_bytes(b"files")
    assert dossier.baseline_digest(place) == whole
    (place / "baseline-disk0.files").rename(place / "baseline-disk1.files")
    assert dossier.baseline_digest(place) != whole


# -- to another host ------------------------------------------------------------------------------------


def test_a_dossier_arrives_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    keep(tmp_path / "a")
    packed = dossier.pack(tmp_path / "a")
    assert packed is not None
    assert (packed.left, packed.originals_left) == ((), False)
    found = dossier.unpacked(packed.data, "web")
    assert (dossier.report_in(found), dossier.record_in(found, "web")) == (REPORT, RECORD)
    dossier.lay(tmp_path / "b", found)
    assert names(tmp_path / "b") == names(tmp_path / "a")
    again = dossier.pack(tmp_path / "b")
    assert again == packed


def test_baselines_stay_behind_before_originals_and_flags_never_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path)
    (dossier.folder(tmp_path) / "baseline-disk0.files").write_bytes(b"x" * 30_000)
    monkeypatch.setattr(dossier, "PACKED_MAX_BYTES", 20_000)
    packed = dossier.pack(tmp_path)
    assert packed is not None
    assert (packed.left, packed.originals_left) == (("baseline-disk0.files",), False)
    (dossier.folder(tmp_path) / f"original-{FLAG.id}.tar").write_bytes(b"x" * 30_000)
    packed = dossier.pack(tmp_path)
    assert packed is not None
    assert packed.originals_left
    assert dossier.record_in(dossier.unpacked(packed.data, "web"), "web") == RECORD


def test_what_lay_there_before_is_gone_when_a_vm_comes_without_a_dossier(tmp_path: Path) -> None:
    keep(tmp_path)
    dossier.lay(tmp_path, {})
    assert not dossier.folder(tmp_path).exists()


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for member, data in members:
            member.size, member.mode = len(data), 0o600
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def special(name: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/shadow"
    return member


@pytest.mark.parametrize(
    "members",
    [
        [(tarfile.TarInfo("../flags.json"), b"x")],
        [(tarfile.TarInfo("/etc/passwd"), b"x")],
        [(tarfile.TarInfo("baseline-../x.files"), b"x")],
        [(tarfile.TarInfo("original-zz.tar"), b"x")],
        [(tarfile.TarInfo("ran"), b""), (tarfile.TarInfo("ran"), b"")],
        [(special("ran", tarfile.SYMTYPE), b"")],
        [(special("ran", tarfile.LNKTYPE), b"")],
        [(special("ran", tarfile.DIRTYPE), b"")],
        [(special("ran", tarfile.CHRTYPE), b"")],
        [(tarfile.TarInfo("flags.json"), b"{}")],
        [(tarfile.TarInfo("report.json"), b"{}")],
    ],
)
def test_what_does_not_belong_into_a_dossier_is_refused(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with pytest.raises(IntegrityError):
        dossier.unpacked(tar_of(*members), "web")


def test_a_chain_of_long_names_exhausts_no_stack() -> None:
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 512
    with pytest.raises(IntegrityError) as refused:
        dossier.unpacked((member.tobuf(tarfile.GNU_FORMAT) + b"a" * 511 + b"\0") * 5000, "web")
    assert refused.value.kind == "bad-dossier"


def test_another_vms_dossier_is_refused(tmp_path: Path) -> None:
    keep(tmp_path)
    packed = dossier.pack(tmp_path)
    assert packed is not None
    with pytest.raises(IntegrityError):
        dossier.unpacked(packed.data, "db")


def test_a_dossier_beyond_the_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dossier, "PACKED_MAX_BYTES", 1000)
    with pytest.raises(IntegrityError):
        dossier.unpacked(bytes(200_000), "web")


@given(st.binary(max_size=2000))
def test_noise_is_no_dossier_or_an_empty_one(noise: bytes) -> None:
    try:
        assert dossier.unpacked(noise, "web") == {}
    except IntegrityError as refused:
        assert refused.kind in {"bad-dossier", "malformed-statement"}
