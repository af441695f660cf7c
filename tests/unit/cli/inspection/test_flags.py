"""`korora flags`, `korora vm inspect` and `korora vm verify` against scripted daemons."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from fakes import receipts
from fakes.cli_site import CliSite, cli_site, documents, knows, vm
from fakes.daemon import Answer, lines, refusal
from korora.adapters.flags import bag
from korora.cli.inspection.showing import progress
from korora.cli.main import answer
from korora.model.flag import Flag, FlagKind, Original, Place
from korora.model.identity import sha256
from korora.model.inspection import (
    Check,
    Compared,
    ConfigurationFacts,
    DiskVerified,
    Examined,
    FileVerified,
    Found,
    Looked,
    Verification,
)
from korora.protocol import flag
from korora.protocol.dsse import KeyPair
from korora.protocol.flag import Resolution, peek

Captured = pytest.CaptureFixture[str]
FLAGS = ("GET", "/v1/flags")
RESOLVE = ("POST", "/v1/flags/resolutions")
CONTENT = b"what was found"
EVIL = Found(
    kind=FlagKind.INFECTED,
    place=Place(disk="disk0", volume=1, path=b"/srv/\x1b[31mevil"),
    content="blake3:" + "0" * 64,
    reason="clamav: Eicar\x1b]0;",
    original=Original(digest=sha256(CONTENT), size=len(CONTENT)),
)
CHUNK = Found(
    kind=FlagKind.UNREADABLE,
    place=Place(disk="disk0", offset=1 << 20, length=1 << 20),
    reason="EIO",
    original=Original(left="nothing of it could be read"),
)
RAISED = flag.raised("web", EVIL, "a", 1000)
BROKEN = flag.raised("web", CHUNK, "b", 2000)


def told(*flags: Flag) -> Answer:
    found = [{"vm": "web", "flag": msgspec.to_builtins(one)} for one in flags]
    return Answer({"flags": found, "unreadable": []})


def unreadable(name: str, *flags: Flag) -> Answer:
    """The flags, and that those of the VM of that name are not known."""
    answered = told(*flags)
    error = {"kind": "unreadable-flags", "message": f"the flags of {name} cannot be read", "exit_code": 5}
    answered.body["unreadable"] = [{"vm": name, "error": {**error, "remedy": "put back a good copy"}}]
    return answered


@pytest.fixture
def site(tmp_path: Path) -> Iterator[CliSite]:
    with cli_site(tmp_path) as made:
        made.a.routes[FLAGS] = told(RAISED)
        made.b.routes[FLAGS] = told(BROKEN)
        knows(made.a, vm("web"))
        knows(made.b)
        yield made


def test_flags_of_all_hosts_are_listed_and_no_guest_reaches_the_terminal(
    site: CliSite, capsys: Captured
) -> None:
    assert answer(site.command("flags", "list")) == 0
    out = capsys.readouterr().out
    assert RAISED.id[:8] in out
    assert BROKEN.id[:8] in out
    assert "2 open flags" in out
    assert "\x1b" not in out


def test_a_host_that_does_not_answer_is_named_and_keeps_no_other_from_it(
    site: CliSite, capsys: Captured
) -> None:
    site.b.routes[FLAGS] = refusal("not-known-here", "nobody knows you", exit_code=3, status=403)
    assert answer(site.command("flags", "list")) == 3
    shown = capsys.readouterr()
    assert RAISED.id[:8] in shown.out
    assert "not every host told" in shown.out
    assert "nobody knows you" in shown.err
    site.a.routes[FLAGS] = site.b.routes[FLAGS]
    assert answer(site.command("flags", "list")) == 3


@pytest.mark.parametrize("more", [(), ("--json",), ("--vm", "web"), ("--vm", "other")])
def test_flags_that_cannot_be_told_are_never_none(
    site: CliSite, capsys: Captured, more: tuple[str, ...]
) -> None:
    site.a.routes[FLAGS] = told()
    site.b.routes[FLAGS] = refusal("bad-statement", "the record was changed", exit_code=5, status=500)
    assert answer(site.command("flags", "list", *more)) == 5
    assert "the record was changed" in capsys.readouterr().err


@pytest.mark.parametrize("more", [(), ("--json",), ("--vm", "web"), ("--vm", "db")])
def test_a_vm_whose_flags_cannot_be_read_is_named_with_its_host_beside_the_flags_of_others(
    site: CliSite, capsys: Captured, more: tuple[str, ...]
) -> None:
    site.a.routes[FLAGS] = unreadable("db", RAISED)
    asked_for_others = more == ("--vm", "web")
    assert answer(site.command("flags", "list", *more)) == (0 if asked_for_others else 5)
    shown = capsys.readouterr()
    assert (RAISED.id[:8] in shown.out) is (more != ("--vm", "db"))
    assert ("a: the flags of db cannot be read" in shown.err) is not asked_for_others
    assert ("what to do: put back a good copy" in shown.err) is not asked_for_others
    if not more:
        assert "of 1 VMs they cannot be read" in shown.out


def test_a_flag_is_found_beside_a_vm_whose_flags_cannot_be_read(site: CliSite, capsys: Captured) -> None:
    site.a.routes[FLAGS] = unreadable("db", RAISED)
    assert answer(site.command("flags", "show", RAISED.id)) == 0
    assert answer(site.command("flags", "show", "0" * 32)) == 2
    assert "the flags of db cannot be read" in capsys.readouterr().err


def test_a_vm_that_no_host_knows_has_no_list_of_flags(site: CliSite, capsys: Captured) -> None:
    assert answer(site.command("flags", "list", "--vm", "wbe")) == 2
    assert "there is no VM 'wbe'" in capsys.readouterr().err
    site.a.routes[FLAGS] = site.b.routes[FLAGS] = told()
    assert answer(site.command("flags", "list", "--vm", "web")) == 0
    assert "0 open flags" in capsys.readouterr().out


def test_a_flag_is_shown_whole_with_its_placeholder_and_why_no_original_is_kept(
    site: CliSite, capsys: Captured
) -> None:
    assert answer(site.command("flags", "show", BROKEN.id[:6])) == 0
    out = capsys.readouterr().out
    for said in (
        BROKEN.id,
        "bytes 1048576 to 2097152",
        "nothing of it could be read",
        "KORORA FLAG",
        "host b",
    ):
        assert said in out
    assert answer(site.command("flags", "show", RAISED.id, "--json")) == 0
    (document,) = documents(capsys.readouterr().out)
    assert (document["host"], document["state"], document["flag"]["id"]) == ("a", "open", RAISED.id)


@pytest.mark.parametrize("name", ["", "7", RAISED.id[:3], "zzzz", "0" * 32])
def test_a_name_that_is_none_is_refused(site: CliSite, name: str) -> None:
    assert answer(site.command("flags", "show", name)) == 2


def test_a_word_is_signed_for_just_this_flag_and_goes_to_its_host(site: CliSite, capsys: Captured) -> None:
    sent: list[Any] = []

    def resolve(body: Any) -> Answer:
        sent.append(body)
        return Answer(msgspec.to_builtins(flag.resolved(RAISED, body["resolution"].encode())))

    site.a.routes[RESOLVE] = resolve
    command = site.command("flags", "resolve", RAISED.id[:8], "accept", "--reason", "a test file")
    assert answer(command) == 0, capsys.readouterr().err
    said = peek(sent[0]["resolution"].encode())
    assert (said.vm, said.flag, said.choice, said.reason) == ("web", RAISED.id, "accept", "a test file")
    assert "accepted by" in capsys.readouterr().out
    assert RESOLVE not in [(request.method, request.path) for request in site.b.asked]


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ((), "a reason"),
        (("--reason", " \t"), "a reason"),
        (("--reason", "x" * 1025), "1025 characters"),
        (("--reason", "x\udcff"), "UTF-8"),
    ],
)
def test_nobody_accepts_a_flag_without_a_reason_that_can_be_kept(
    site: CliSite, capsys: Captured, reason: tuple[str, ...], said: str
) -> None:
    assert answer(site.command("flags", "resolve", RAISED.id, "accept", *reason)) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "what to do" in shown
    assert site.a.asked == []


def test_a_flag_that_is_mended_is_restored_without_a_reason(site: CliSite) -> None:
    site.a.routes[RESOLVE] = lambda body: Answer(
        msgspec.to_builtins(flag.resolved(RAISED, body["resolution"].encode()))
    )
    assert answer(site.command("flags", "resolve", RAISED.id, "restore")) == 0


def test_a_word_that_the_host_does_not_take_is_3(site: CliSite, capsys: Captured) -> None:
    site.a.routes[RESOLVE] = refusal("not-restored", "it was found again", exit_code=3, status=403)
    assert answer(site.command("flags", "resolve", RAISED.id, "restore")) == 3
    assert "it was found again" in capsys.readouterr().err


def packed(content: bytes = CONTENT) -> bytes:
    return bag.written(bag.Bag(RAISED.id, "web", RAISED.kind, RAISED.place, RAISED.reason, content))


def test_an_original_is_exported_once_its_digests_fit(
    site: CliSite, tmp_path: Path, capsys: Captured
) -> None:
    path = ("GET", f"/v1/vms/web/flags/{RAISED.id}/original")
    site.a.routes[path] = Answer(packed())
    out = tmp_path / "original.tar"
    assert answer(site.command("flags", "export", RAISED.id, str(out))) == 0, capsys.readouterr().err
    assert bag.opened(out.read_bytes(), RAISED.id)["data/original"] == CONTENT
    assert out.stat().st_mode & 0o077 == 0
    assert answer(site.command("flags", "export", RAISED.id, str(out))) == 2  # nothing is overwritten


def test_an_original_goes_into_a_folder_by_its_flags_name(site: CliSite, tmp_path: Path) -> None:
    site.a.routes["GET", f"/v1/vms/web/flags/{RAISED.id}/original"] = Answer(packed())
    (tmp_path / "originals").mkdir()
    assert answer(site.command("flags", "export", RAISED.id, str(tmp_path / "originals"))) == 0
    (written,) = (tmp_path / "originals").iterdir()
    assert (written.name, written.read_bytes()) == (f"original-{RAISED.id}.tar", packed())


def test_an_original_for_which_there_is_no_room_leaves_no_piece_of_it(
    site: CliSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def full(descriptor: int, mode: str) -> Any:
        out = open(descriptor, mode)  # noqa: SIM115
        out.write = lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))  # type: ignore[method-assign]
        return out

    site.a.routes["GET", f"/v1/vms/web/flags/{RAISED.id}/original"] = Answer(packed())
    monkeypatch.setattr("korora.cli.inspection.flags.os.fdopen", full)
    assert answer(site.command("flags", "export", RAISED.id, str(tmp_path / "x.tar"))) == 2
    assert "No space left" in capsys.readouterr().err
    assert not (tmp_path / "x.tar").exists()


def test_nothing_is_written_through_a_link(site: CliSite, tmp_path: Path) -> None:
    site.a.routes["GET", f"/v1/vms/web/flags/{RAISED.id}/original"] = Answer(packed())
    (tmp_path / "link.tar").symlink_to(tmp_path / "elsewhere")
    assert answer(site.command("flags", "export", RAISED.id, str(tmp_path / "link.tar"))) == 2
    assert not (tmp_path / "elsewhere").exists()


OTHERS = bag.written(bag.Bag(BROKEN.id, "web", RAISED.kind, RAISED.place, RAISED.reason, CONTENT))


@pytest.mark.parametrize("wrong", [packed(b"something else"), b"noise", OTHERS])
def test_an_original_that_is_another_is_not_written(site: CliSite, tmp_path: Path, wrong: bytes) -> None:
    site.a.routes["GET", f"/v1/vms/web/flags/{RAISED.id}/original"] = Answer(wrong)
    assert answer(site.command("flags", "export", RAISED.id, str(tmp_path / "x.tar"))) == 5
    assert not (tmp_path / "x.tar").exists()


# -- looking into a VM ----------------------------------------------------------------------------------

INSPECT = ("POST", "/v1/vms/web/inspection")
VERIFY = ("POST", "/v1/vms/web/verification")
WELL = receipts.INSPECTION


def events(last: dict[str, Any]) -> Answer:
    return Answer(lines({"told": "disk disk0: 1 of 2 MiB"}, json.loads(msgspec.json.encode(last))))


def with_check(**changed: int) -> Any:
    checks = tuple(
        msgspec.structs.replace(one, **changed) if one.check is Check.MALWARE else one for one in WELL.checks
    )
    return msgspec.structs.replace(WELL, checks=checks)


@pytest.mark.parametrize(
    ("report", "code"),
    [
        (WELL, 0),
        (with_check(found=1, open=1), 5),
        (with_check(unknown=2), 6),
        (with_check(found=1, unknown=1), 5),
    ],
)
def test_an_inspection_is_shown_and_its_code_says_what_came_of_it(
    site: CliSite, capsys: Captured, report: Any, code: int
) -> None:
    site.a.routes[INSPECT] = events({"inspection": report, "flags": [RAISED]})
    assert answer(site.command("vm", "inspect", "web")) == code
    out = capsys.readouterr().out
    for said in ("malware", "disk0", WELL.disks[0].root or "", RAISED.id[:8]):
        assert said in out
    assert "\x1b" not in out
    site.a.routes[INSPECT] = events({"inspection": report, "flags": [RAISED]})
    assert answer(site.command("vm", "inspect", "web", "--json")) == code
    (document,) = documents(capsys.readouterr().out)
    assert document["inspection"]["vm"] == "web"


@pytest.mark.parametrize(
    "said",
    [
        lines({"told": "looks"}),
        lines({"told": "looks"}, {"surprise": 1}),
        lines({"told": 1}),
        lines({"told": "looks"}, {"inspection": {}, "flags": []}),
        lines({"told": "looks", "error": {}}),
        iter([b'{"told":"looks"}\n', b"[" * 100_000, b"\n"]),
        iter([b'{"told":"looks"}\n{"inspection":']),
        lines({"verification": json.loads(msgspec.json.encode(receipts.INSPECTION))}),
    ],
)
def test_a_daemon_that_says_something_else_is_an_error_and_no_result(
    site: CliSite, capsys: Captured, said: Iterator[bytes]
) -> None:
    site.a.routes[INSPECT] = Answer(said)
    assert answer(site.command("vm", "inspect", "web")) not in {0, 1}
    shown = capsys.readouterr()
    assert "korora:" in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_a_verification_is_no_inspection(site: CliSite, capsys: Captured) -> None:
    site.a.routes[INSPECT] = events({"verification": verification()})
    assert answer(site.command("vm", "inspect", "web")) not in {0, 1}
    assert "not in the contract" in capsys.readouterr().err


def test_an_inspection_that_fails_in_the_middle_is_its_error(site: CliSite, capsys: Captured) -> None:
    failure = {"kind": "inspection", "message": "it died", "remedy": "", "vm_runs_on": None, "exit_code": 6}
    site.a.routes[INSPECT] = events({"error": failure})
    assert answer(site.command("vm", "inspect", "web")) == 6
    assert "it died" in capsys.readouterr().err


ROOT = WELL.disks[0].root
ANOTHER = "blake3:" + "9" * 64
LOOKED = tuple(Looked(check=check, examined=5) for check in Check)
SAME = DiskVerified(name="disk0", before=ROOT, now=ROOT, chunks_same=9, chunks_differ=0)
GONE = FileVerified(
    disk="disk0", volume=1, path=b"/etc/\x1bpasswd\n\xe2\x9c\x93 all is well", change="removed"
)
DIFFERS = Found(kind=FlagKind.DIFFERS, place=CHUNK.place, reason="it is not the chunk that was measured")


def disk(**changed: Any) -> DiskVerified:
    return msgspec.structs.replace(SAME, **changed)


def verification(
    disks: tuple[DiskVerified, ...] = (SAME,),
    files: tuple[FileVerified, ...] = (),
    files_same: int | None = 4,
    found: tuple[Found, ...] = (),
    looked: tuple[Looked, ...] = LOOKED,
    more: int = 0,
    **changed: Any,
) -> Verification:
    compared = Compared(
        examined=Examined(looked=looked, found=found),
        disks=disks,
        files_same=files_same,
        files=files,
        files_more=more,
    )
    fields = {"ran": False, "proved": True, "running": False} | changed
    return Verification(vm="web", host="a", at=5000, of=WELL, compared=compared, **fields)


OTHER = disk(now=ANOTHER, chunks_same=8, chunks_differ=1)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({}, 0),
        ({"ran": True, "files": (GONE,), "disks": (OTHER,), "found": (DIFFERS,)}, 0),
        ({"files": (GONE,)}, 5),
        ({"more": 1}, 5),
        ({"disks": (OTHER,)}, 5),
        ({"disks": (disk(now=None, chunks_same=8, chunks_differ=1),)}, 5),
        ({"disks": (disk(now=ANOTHER, chunks_same=None, chunks_differ=None),)}, 5),
        ({"proved": False}, 5),
        ({"ran": True, "found": (EVIL,)}, 5),
        ({"ran": True, "found": (CHUNK,)}, 5),
        ({"found": (EVIL,), "looked": ()}, 5),
        # Nothing unread is called clean:
        ({"disks": ()}, 6),
        ({"ran": True, "disks": ()}, 6),
        ({"disks": (disk(now=None),)}, 6),
        ({"disks": (disk(before=None),)}, 6),
        ({"disks": (disk(chunks_same=None, chunks_differ=None),)}, 6),
        ({"files_same": None}, 6),
        ({"looked": LOOKED[:-2] + LOOKED[-1:]}, 6),
        ({"looked": (*LOOKED[:-1], Looked(check=Check.UNKNOWN, unknown=1))}, 6),
    ],
    ids=str,
)
def test_a_verification_fails_for_what_no_run_explains_and_is_unknown_where_nobody_looked(
    site: CliSite, capsys: Captured, changed: dict[str, Any], code: int
) -> None:
    said = verification(**changed)
    site.a.routes[VERIFY] = events({"verification": said})
    assert answer(site.command("vm", "verify", "web")) == code
    out = capsys.readouterr().out
    assert ("removed: disk0, volume 1: /etc/" in out) is bool(changed.get("files"))
    assert "\x1b" not in out
    assert "\n✓ all is well" not in out
    assert ("✓ disk disk0" in out) is (said.compared.disks == (SAME,))
    assert ("could not be looked at now" in out) is (said.compared.disks == ())


def test_words_of_a_guest_make_no_line_of_their_own(site: CliSite, capsys: Captured) -> None:
    forged = "x\n✓ nothing was found\tby anybody\r\x9b2J"
    evil = Found(
        kind=FlagKind.INFECTED,
        place=Place(disk="disk0", path=b"/a\n\xe2\x9c\x93 forged", file=forged),
        reason=forged,
        original=Original(left=forged),
    )
    site.a.routes[FLAGS] = told(raised := flag.raised("web", evil, "a", 1000))
    checks = tuple(msgspec.structs.replace(one, words=forged) for one in WELL.checks)
    settings = (ConfigurationFacts(file=forged, format="toml"),)
    report = msgspec.structs.replace(WELL, checks=checks, configuration=settings)
    site.a.routes[INSPECT] = events({"inspection": report, "flags": [raised]})
    site.a.routes[VERIFY] = events({"verification": verification(found=(evil,))})
    for words in (
        ["flags", "list"],
        ["flags", "show", raised.id],
        ["vm", "inspect", "web"],
        ["vm", "verify", "web"],
    ):
        answer(site.command(*words))
        out = capsys.readouterr().out
        assert "forged" in out or "nothing was found" in out
        assert not [line for line in out.splitlines() if line.startswith(("✓ nothing", "✓ forged"))]
        assert not set(out) & {"\r", "\t", "\x9b", "\x1b"}


def test_a_name_that_looks_like_markup_is_told_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress(quiet=False) as tell:
        tell("disk [/x]: [red]1 of 2 MiB\x1b]0;")


def test_who_resolved_a_flag_is_told_with_his_reason_and_that_nobody_checked_his_signature_here(
    site: CliSite, capsys: Captured
) -> None:
    said = Resolution(
        by="carol",
        vm="web",
        flag=RAISED.id,
        choice="restore",
        reason="mended\nstate  open",
        nonce="0" * 64,
        issued_at=1000,
        not_after=2000,
    )
    key = KeyPair(ed25519.Ed25519PrivateKey.generate())
    site.a.routes[FLAGS] = told(flag.resolved(RAISED, flag.signed(said, key)))
    assert answer(site.command("flags", "show", RAISED.id)) == 0
    out = capsys.readouterr().out
    for words in (
        "restored by carol",
        "mended\\nstate",
        "1970-01-01 00:16:40Z",
        "signature is not checked here",
    ):
        assert words in out
    assert answer(site.command("flags", "list")) == 0
    assert RAISED.id[:8] not in capsys.readouterr().out
    assert answer(site.command("flags", "list", "--all", "--vm", "web")) == 0
    out = capsys.readouterr().out
    assert out.index(BROKEN.id[:8]) < out.index(RAISED.id[:8])  # open ones first
    knows(site.a, vm("web"), vm("db"))
    assert answer(site.command("flags", "list", "--all", "--vm", "db", "--json")) == 0
    assert documents(capsys.readouterr().out) == [[]]
