"""`korora config`: digests, differences, exit codes, and what is said of what could not be read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from fakes.vm_configurations import KORORA, LIBVIRT, VMWARE, XEN
from korora.cli.main import answer


class Command:
    """`korora config`, as a script calls it."""

    def __init__(self, printed: pytest.CaptureFixture[str], folder: Path) -> None:
        self._printed = printed
        self._folder = folder

    def file(self, name: str, text: str) -> Path:
        path = self._folder / name
        path.write_text(text)
        return path

    def run(self, *words: str | Path) -> tuple[int, str]:
        code = answer(["config", *map(str, words)])
        told = self._printed.readouterr()
        return code, told.out + told.err

    def answered(self, *words: str | Path) -> tuple[int, Any]:
        """One JSON document, whatever happens."""
        code = answer(["config", *map(str, words), "--json"])
        return code, json.loads(self._printed.readouterr().out)


@pytest.fixture
def config(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    return Command(capsys, tmp_path)


def test_digest_is_the_same_however_it_is_written_and_named(config: Command) -> None:
    one = config.file("a.xml", LIBVIRT)
    other = config.file("b.vmx", LIBVIRT.replace("unit='GiB'>2<", "unit='MiB'>2048<"))
    code, told = config.answered("digest", one)
    assert (code, told["format"], told["unparsed"]) == (0, "libvirt", [])
    assert told["digest"].startswith("blake3:")
    assert (told["vm"]["memory"], told["devices"][0]["slot"]) == ("2147483648", "vda")
    assert config.answered("digest", other)[1]["digest"] == told["digest"]
    assert config.run("digest", one) == (0, f"{told['digest']}  {one}\n")


def test_no_password_and_no_argument_of_the_emulator_is_shown(config: Command) -> None:
    path = config.file("a.xml", LIBVIRT)
    other = config.file("b.xml", LIBVIRT.replace("hush", "hash"))
    for words in (("digest", path), ("diff", path, other)):
        _, told = config.answered(*words)
        assert "hush" not in json.dumps(told)
        assert "hush" not in config.run(*words)[1]
    assert "-no-hpet" not in json.dumps(config.answered("digest", path)[1])


def test_what_could_not_be_read_has_no_digest(config: Command) -> None:
    path = config.file("a.cfg", XEN.replace("vcpus = 2", "vcpus = 2 +"))
    code, told = config.answered("digest", path)
    assert (code, told["digest"]) == (6, None)
    assert told["unparsed"] == [{"place": "line 6", "text": "vcpus = 2 +", "why": told["unparsed"][0]["why"]}]
    code, text = config.run("digest", path)
    assert (code, "line 6" in text, "unknown: not all of it could be read" in text) == (6, True, True)


def test_diff_says_what_changed_in_words(config: Command) -> None:
    before = config.file("a.xml", LIBVIRT)
    after = config.file(
        "b.xml", LIBVIRT.replace("secure='yes'", "secure='no'").replace("web-1.qcow2", "b.qcow2")
    )
    code, text = config.run("diff", before, after)
    assert code == 5
    assert "✗ critical: Secure Boot: on → off" in text
    assert "✗ warning: disk 1: path changed: /var/lib/images/web-1.qcow2 → /var/lib/images/b.qcow2" in text
    code, told = config.answered("diff", before, after)
    assert (code, told["same"], told["expected"], told["compared"]) == (5, False, False, "all")
    assert told["changes"][0] == {
        "what": "VM",
        "field": "Secure Boot",
        "before": "on",
        "after": "off",
        "severity": "critical",
        "expected": False,
        "paths": ["domain/os/loader/@secure"],
        "words": "Secure Boot: on → off",
    }
    assert len(set(told["digests"])) == 2


def test_nothing_changed_is_said_so(config: Command) -> None:
    one, other = config.file("a", XEN), config.file("b", "# the same\n" + XEN)
    assert config.run("diff", one, other) == (0, "✓ nothing changed in what was compared\n")
    code, told = config.answered("diff", one, other)
    assert (code, told["same"], told["changes"], told["digests"][0]) == (0, True, [], told["digests"][1])


def test_after_a_move_only_what_is_not_expected_counts(config: Command) -> None:
    before = config.file("a.xml", LIBVIRT)
    moved = LIBVIRT.replace("id='7'", "id='9'").replace("/var/lib/images", "/srv")
    after = config.file("b.xml", moved)
    assert config.run("diff", before, after)[0] == 5
    code, told = config.answered("diff", before, after, "--moved")
    assert (code, told["same"], told["expected"], len(told["changes"])) == (0, False, True, 2)
    assert "– expected: disk 1: path changed" in config.run("diff", before, after, "--moved")[1]
    after.write_text(moved.replace("52:54:00:12:34:57", "52:54:00:00:00:01").replace("br0", "br1"))
    assert config.run("diff", before, after, "--moved")[0] == 5
    assert config.run("diff", before, after, "--moved", "--allow", "mac")[0] == 5
    assert config.run("diff", before, after, "--moved", "--allow", "mac", "--allow", "bridge")[0] == 0
    assert config.run("diff", before, after, "--allow", "uuid")[0] == 2


def test_between_formats_the_common_settings_are_compared_and_that_is_said(config: Command) -> None:
    one, other = config.file("a", LIBVIRT), config.file("b", XEN)
    code, text = config.run("diff", one, other)
    assert (code, "of libvirt and xen the common settings were compared, and no others" in text) == (0, True)
    code, told = config.answered("diff", one, other)
    assert (code, told["compared"], told["formats"]) == (0, "common", ["libvirt", "xen"])
    other.write_text(XEN.replace("memory = 2048", "memory = 1024"))
    assert config.run("diff", one, other)[0] == 5


def test_a_difference_with_something_unread_is_not_well(config: Command) -> None:
    one, other = config.file("a", VMWARE), config.file("b", VMWARE + "garbage\n")
    code, told = config.answered("diff", one, other)
    assert (code, told["changes"], told["unparsed"][0]["file"]) == (6, [], str(other))
    assert told["same"] is None
    code, text = config.run("diff", other, one)
    assert (code, "✓" in text) == (6, False)
    other.write_text(VMWARE.replace('vtpm.present = "TRUE"', "") + "garbage\n")
    assert config.run("diff", one, other)[0] == 5


def test_a_name_that_comes_twice_is_warned_of(config: Command) -> None:
    path = config.file("a", XEN + "vcpus = 4\n")
    code, told = config.answered("digest", path)
    assert (code, told["findings"][0]["severity"], told["findings"][0]["kind"]) == (0, "warning", "twice")
    assert "xl takes the last" in config.run("digest", path)[1]


def test_a_format_that_is_unclear_is_asked_for_and_what_is_declared_holds(config: Command) -> None:
    path = config.file("a", 'name = "a"\nmemory = 536870912\n')
    assert config.answered("digest", path)[1]["error"]["kind"] == "format-unclear"
    assert config.answered("digest", path, "--format", "korora")[1]["format"] == "korora"
    assert config.answered("digest", path, "--format", "xen")[1]["format"] == "xen"
    other = config.file("b", KORORA)
    code, told = config.answered("diff", other, path, "--format2", "korora")
    assert (code, told["formats"]) == (5, ["korora", "korora"])


def test_what_is_no_configuration_is_refused(config: Command, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(1 << 32)  # one line of 4 GiB
    for path, kind in (
        (config.file("text", "hello\n"), "bad-configuration"),
        (large, "bad-configuration"),
        (tmp_path / "pipe", "no-configuration"),
        (tmp_path / "none", "no-configuration"),
        (tmp_path, "no-configuration"),
        (Path("/dev/zero"), "no-configuration"),
    ):
        code, told = config.answered("digest", path)
        assert (code, told["error"]["kind"]) == (2, kind)
        assert str(path) in told["error"]["message"]


def test_names_in_a_file_do_not_reach_the_terminal_as_they_are(config: Command) -> None:
    one, other = (
        config.file("a", XEN),
        config.file("b", XEN.replace('name = "web-1"', r'name = "\x1b[31mred"')),
    )
    code, text = config.run("diff", one, other)
    assert (code, "\x1b" in text, "red" in text) == (5, False, True)
