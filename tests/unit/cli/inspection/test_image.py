"""`korora image`: roots, verdicts and differences by exit code and JSON; packages with their manifest."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from fakes.disk_images import MIB, converted, disk_content, qemu_img, root_of
from korora.cli.main import answer

CONTENT = disk_content()
UNREAD = {"files": [], "more_files": False, "beside": ["volume 1 (unknown), whose files are not read"]}
SPACE = "http://schemas.dmtf.org/ovf/envelope/1"


class Command:
    """`korora image`, as a script calls it."""

    def __init__(self, printed: pytest.CaptureFixture[str], folder: Path) -> None:
        self._printed = printed
        self.raw = folder / "disk.raw"
        self.raw.write_bytes(CONTENT)

    def run(self, *words: str | Path) -> tuple[int, str]:
        code = answer(["image", *map(str, words)])
        told = self._printed.readouterr()
        return code, told.out + told.err

    def answered(self, *words: str | Path) -> tuple[int, Any]:
        """One JSON document, whatever happens."""
        code = answer(["image", *map(str, words), "--json"])
        return code, json.loads(self._printed.readouterr().out)


@pytest.fixture
def image(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    return Command(capsys, tmp_path)


def test_digest_says_the_root(image: Command) -> None:
    root = root_of(CONTENT)
    assert image.run("digest", image.raw) == (0, f"{root}  disk.raw\n")
    disk = {"name": "", "format": "raw", "size": len(CONTENT), "root": root}
    expected = {"version": 1, "kind": "korora-image", "image": "disk.raw", "root": root, "disks": [disk]}
    assert image.answered("digest", image.raw) == (0, expected)


def test_verify_takes_a_root_or_a_record(image: Command, tmp_path: Path) -> None:
    copy, record = converted(image.raw, "a.qcow2", "qcow2"), tmp_path / "record"
    record.write_text(json.dumps(image.answered("digest", image.raw)[1]))
    for expected in (root_of(CONTENT), str(record)):
        assert image.run("verify", copy, expected)[0] == 0
        code, told = image.answered("verify", copy, expected)
        assert (code, told) == (0, {"same": True, "root": root_of(CONTENT), "changed": []})
    other = root_of(bytes(512))
    code, text = image.run("verify", copy, other)
    assert (code, "is not what it was" in text) == (5, True)
    code, told = image.answered("verify", copy, other)
    assert (code, told["same"], told["changed"]) == (5, False, ["its content"])


@pytest.mark.parametrize("expected", ["blake3:00", "blake3:" + "g" * 64, "nothing", "/", "a\0b"])
def test_verify_refuses_what_is_no_root_and_no_record(expected: str, image: Command) -> None:
    code, told = image.answered("verify", image.raw, expected)
    assert (code, told["error"]["kind"]) == (2, "no-record")


def test_diff_names_the_chunks_that_differ(image: Command, tmp_path: Path) -> None:
    copy = converted(image.raw, "a.vdi", "vdi")
    assert image.answered("diff", image.raw, copy)[0] == 0
    assert image.run("diff", image.raw, copy) == (0, "✓ the same to a guest\n")
    changed = tmp_path / "b.raw"
    changed.write_bytes(CONTENT[: 2 * MIB] + b"x" + CONTENT[2 * MIB + 1 :] + bytes(512))
    code, told = image.answered("diff", copy, changed)
    assert code == 5
    assert told == {
        "same": False,
        "sizes": [8 * MIB, 8 * MIB + 512],
        "bytes_in_differing_chunks": MIB + 512,
        "ranges": [
            {"offset": 2 * MIB, "length": MIB} | UNREAD,
            {"offset": 8 * MIB, "length": 512} | UNREAD,
        ],
        "problems": told["problems"],
    }
    assert [one["where"] for one in told["problems"]] == [
        "a.vdi: volume 1 (unknown)",
        "b.raw: volume 1 (unknown)",
    ]
    code, text = image.run("diff", copy, changed)
    assert (code, "2 ranges differ; one has 8388608 bytes, the other 8389120" in text) == (5, True)


def test_info_names_what_a_person_should_know(image: Command, tmp_path: Path) -> None:
    code, told = image.answered("info", image.raw)
    assert (code, told["findings"]) == (0, [])
    assert (told["disks"][0]["format"], told["disks"][0]["virtual_size"]) == ("raw", len(CONTENT))
    top = tmp_path / "top.qcow2"
    qemu_img("create", "-f", "qcow2", "-b", "disk.raw", "-F", "raw", top)
    code, told = image.answered("info", top)
    assert (code, [one["kind"] for one in told["findings"]]) == (5, ["backing"])
    assert image.run("info", top, "--allow", image.raw)[0] == 0
    assert image.run("digest", top)[0] == 3
    assert image.answered("digest", top, "--allow", image.raw)[1]["root"] == root_of(CONTENT)


def test_names_in_an_image_do_not_reach_the_terminal_as_they_are(image: Command, tmp_path: Path) -> None:
    copy = converted(image.raw, "a.qcow2", "qcow2")
    qemu_img("snapshot", "-c", "\x1b[31mred", copy)
    code, text = image.run("info", copy)
    assert (code, "\x1b" in text, "red" in text) == (0, False, True)


def test_a_format_that_is_unclear_is_asked_for(image: Command, tmp_path: Path) -> None:
    converted(image.raw, "a.qcow2", "qcow2").rename(tmp_path / "a.raw")
    code, told = image.answered("digest", tmp_path / "a.raw")
    assert (code, told["error"]["kind"]) == (2, "format-unclear")
    assert image.answered("digest", tmp_path / "a.raw", "--format", "qcow2")[1]["root"] == root_of(CONTENT)
    raw = root_of((tmp_path / "a.raw").read_bytes())
    assert image.answered("digest", tmp_path / "a.raw", "--format", "raw")[1]["root"] == raw


# -- packages ----------------------------------------------------------------------------------------------


def descriptor(*names: str, more: str = "") -> bytes:
    listed = "".join(f'<File ovf:href="{name}" ovf:id="{name}"{more}/>' for name in names)
    return (
        f'<Envelope xmlns="{SPACE}" xmlns:ovf="{SPACE}"><References>{listed}</References></Envelope>'.encode()
    )


def manifest(members: dict[str, bytes], algorithm: str = "SHA256") -> bytes:
    lines = [
        f"{algorithm}({name})= {hashlib.new(algorithm, content).hexdigest()}"
        for name, content in members.items()
    ]
    return ("\n".join(lines) + "\n").encode()


@pytest.fixture
def members(image: Command) -> dict[str, bytes]:
    """A package of two disks."""
    one = converted(image.raw, "a.vmdk", "vmdk", "-o", "subformat=streamOptimized").read_bytes()
    other = converted(image.raw, "b.vmdk", "vmdk").read_bytes()
    return {"p.ovf": descriptor("a.vmdk", "b.vmdk"), "a.vmdk": one, "b.vmdk": other}


def ova(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def folder(path: Path, members: dict[str, bytes]) -> Path:
    path.mkdir()
    for name, content in members.items():
        (path / name).write_bytes(content)
    return path / "p.ovf"


@pytest.fixture(params=["ova", "ovf"])
def package(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "ova":
        return lambda members: ova(tmp_path / "p.ova", members)
    return lambda members: folder(tmp_path / "package", members)


def test_a_package_has_a_root_over_its_disks(image: Command, members: dict[str, bytes], package: Any) -> None:
    path = package(members | {"p.mf": manifest(members)})
    code, told = image.answered("info", path)
    assert (code, told["findings"]) == (0, [])
    code, told = image.answered("digest", path)
    assert code == 0
    assert [(disk["name"], disk["root"]) for disk in told["disks"]] == [
        ("a.vmdk", root_of(CONTENT)),
        ("b.vmdk", root_of(CONTENT)),
    ]
    assert told["root"] != root_of(CONTENT)
    assert image.run("digest", path)[1].count("blake3:") == 3
    record = path.with_name("record")
    record.write_text(json.dumps(told))
    assert image.run("verify", path, record)[0] == 0
    assert image.run("diff", path, image.raw)[0] == 2
    assert image.run("digest", path, "--state", path.with_name("state"))[0] == 2


def test_a_disk_that_changed_is_named(image: Command, members: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "record").write_text(
        json.dumps(image.answered("digest", ova(tmp_path / "p.ova", members))[1])
    )
    image.raw.write_bytes(b"changed" + CONTENT[7:])
    members["b.vmdk"] = converted(image.raw, "b.vmdk", "vmdk").read_bytes()
    code, told = image.answered("verify", ova(tmp_path / "p.ova", members), tmp_path / "record")
    assert (code, told["changed"]) == (5, ["b.vmdk"])


def test_the_same_package_in_a_folder_has_the_same_root(
    image: Command, members: dict[str, bytes], tmp_path: Path
) -> None:
    one, other = ova(tmp_path / "p.ova", members), folder(tmp_path / "package", members)
    assert image.answered("digest", one)[1]["root"] == image.answered("digest", other)[1]["root"]


def test_what_the_manifest_does_not_say_is_critical_or_told(
    image: Command, members: dict[str, bytes], package: Any
) -> None:
    wrong = members | {"a.vmdk": members["a.vmdk"] + b"more"}
    lines = manifest(wrong) + manifest({"gone.vmdk": b""}) + manifest({"p.ovf": b"again"})
    path = package(members | {"p.mf": lines})
    code, told = image.answered("info", path)
    assert code == 5
    assert {one["kind"] for one in told["findings"] if one["severity"] == "critical"} == {
        "changed",
        "missing",
        "manifest",
    }
    assert image.answered("digest", path)[1]["error"]["kind"] == "image-refused"


def kinds(image: Command, path: Path) -> set[tuple[str, str]]:
    return {(one["severity"], one["kind"]) for one in image.answered("info", path)[1]["findings"]}


def test_a_file_that_the_manifest_does_not_name_is_told(
    image: Command, members: dict[str, bytes], tmp_path: Path
) -> None:
    more = members | {"extra.iso": b"x", "p.mf": manifest(members, "SHA1")}
    assert kinds(image, ova(tmp_path / "p.ova", more)) == {
        ("warning", "unnamed"),
        ("warning", "uncovered"),
        ("info", "weak-digest"),
    }
    assert kinds(image, ova(tmp_path / "p.ova", members)) == {("warning", "no-manifest")}


def test_a_disk_that_is_missing_or_compressed_or_elsewhere_is_critical(
    image: Command, members: dict[str, bytes], package: Any
) -> None:
    members["p.ovf"] = descriptor("a.vmdk", "gone.vmdk", "../../disk.raw", "/etc/shadow")
    assert ("critical", "missing") in kinds(image, package(members))


def test_a_compressed_disk_is_critical(image: Command, members: dict[str, bytes], package: Any) -> None:
    members["p.ovf"] = descriptor("a.vmdk", "b.vmdk", more=' ovf:compression="gzip"')
    assert ("critical", "altered") in kinds(image, package(members))


def test_a_package_without_a_disk_has_no_root(image: Command, package: Any) -> None:
    code, told = image.answered("digest", package({"p.ovf": descriptor()}))
    assert (code, told["error"]["kind"]) == (2, "no-disk")


def test_a_package_without_a_descriptor_is_none(
    image: Command, members: dict[str, bytes], tmp_path: Path
) -> None:
    del members["p.ovf"]
    code, told = image.answered("digest", ova(tmp_path / "p.ova", members))
    assert (code, told["error"]["kind"]) == (5, "bad-package")


def test_a_package_that_is_declared_raw_is_a_disk(
    image: Command, members: dict[str, bytes], tmp_path: Path
) -> None:
    path = ova(tmp_path / "p.ova", members)
    assert image.answered("digest", path, "--format", "raw")[1]["root"] == root_of(path.read_bytes())


def test_a_link_beside_a_descriptor_is_not_followed(
    image: Command, members: dict[str, bytes], tmp_path: Path
) -> None:
    path = folder(tmp_path / "package", members)
    (tmp_path / "package" / "b.vmdk").unlink()
    (tmp_path / "package" / "b.vmdk").symlink_to(image.raw)
    code, told = image.answered("digest", path)
    assert (code, told["error"]["kind"]) == (5, "image-escape")


def test_a_disk_in_a_package_that_names_parts_is_an_escape(
    image: Command, members: dict[str, bytes], tmp_path: Path
) -> None:
    text = b'# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 8 FLAT "a.vmdk" 0\n'
    path = ova(tmp_path / "p.ova", members | {"b.vmdk": text})
    code, told = image.answered("digest", path)
    assert (code, told["error"]["kind"]) == (5, "image-escape")
