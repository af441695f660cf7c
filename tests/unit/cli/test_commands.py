"""The command line against scripted daemons: what it prints, asks and exits with."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.cli_site import CliSite, cli_site, documents, knows, vm
from fakes.daemon import Answer, FakeDaemon, refusal, serving
from korora.authority import create_authority
from korora.cli.main import COMMANDS, answer

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[CliSite]:
    with cli_site(tmp_path) as made:
        yield made


@pytest.fixture(autouse=True)
def _no_configuration_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KORORA_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr("korora.cli.site.SYSTEM", tmp_path / "etc" / "korora.toml")


# -- the way in ------------------------------------------------------------------------------------------


def test_help_names_every_command(capsys: Captured) -> None:
    assert answer(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)


def test_the_version_is_told(capsys: Captured) -> None:
    assert answer(["--version"]) == 0
    assert capsys.readouterr().out.startswith("korora 0.")


@pytest.mark.parametrize(
    "words",
    [
        ["lab", "up", "--hosts", "0"],
        [],
        ["song"],
        ["vm"],
        ["vm", "song"],
        ["vm", "show"],
        ["vm", "list", "--song"],
        ["migrate", "web"],
        ["migrate", "web", "--to", "b", "--mode", "teleport"],
        ["-H"],
    ],
)
def test_a_wrong_command_line_is_usage(words: list[str], capsys: Captured) -> None:
    assert answer(words) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out


def test_a_wrong_command_line_with_json_is_an_object_too(capsys: Captured) -> None:
    assert answer(["vm", "show", "--json"]) == 2
    captured = capsys.readouterr()
    (document,) = documents(captured.out)
    assert document["error"]["kind"] == "usage"
    assert "korora vm show --help" in captured.err


def test_importing_the_command_line_imports_nothing_slow() -> None:
    import subprocess

    slow = "httpx, rich, cryptography, msgspec, fastapi, pyroute2, tpm2_pytss, asyncio"
    code = f"import sys, korora.cli.main; print([m for m in '{slow}'.split(', ') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- the configuration -------------------------------------------------------------------------------------


def test_without_any_configuration_the_places_are_named(capsys: Captured, tmp_path: Path) -> None:
    assert answer(["vm", "list"]) == 2
    assert str(tmp_path / "etc" / "korora.toml") in capsys.readouterr().err


def test_the_configuration_is_found_by_environment(
    site: CliSite, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("KORORA_CONFIG", str(site.config))
    assert answer(["host", "list"]) == 0
    assert "10.0.0.2:7000" in capsys.readouterr().out


def test_the_users_own_configuration_is_found(
    site: CliSite, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    place = site.folder / "xdg" / "korora" / "korora.toml"
    place.parent.mkdir(parents=True)
    place.write_text(site.config.read_text().replace('"a.sock"', f'"{site.a.socket}"'))
    assert answer(["-H", "a", "vm", "list"]) == 0
    assert "web" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"[site", b"\xff\xfe", b"hosts = 3", b"[hosts.a]\napi = 1"], ids=repr)
def test_a_malformed_configuration_is_usage_and_names_the_file(
    tmp_path: Path, content: bytes, capsys: Captured
) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    assert answer(["--config", str(path), "vm", "list", "--json"]) == 2
    captured = capsys.readouterr()
    assert str(path) in captured.err
    assert documents(captured.out)[0]["error"]["exit_code"] == 2


@pytest.mark.parametrize("path", ["missing.toml", ".", "korora.toml/below"])
def test_a_configuration_that_cannot_be_read_is_usage(site: CliSite, path: str, capsys: Captured) -> None:
    assert answer(["--config", str(site.folder / path), "vm", "list"]) == 2
    assert "cannot be read" in capsys.readouterr().err


# -- hosts and VMs -------------------------------------------------------------------------------------------


def test_hosts_are_listed_with_those_that_do_not_answer(site: CliSite, capsys: Captured) -> None:
    site.b.socket.unlink()
    assert answer(site.command("host", "list", "--json")) == 0
    (hosts,) = documents(capsys.readouterr().out)
    assert [(host["host"], host["answers"]) for host in hosts] == [("a", True), ("b", False)]
    assert hosts[1]["error"]["kind"] == "daemon-absent"


def test_vms_of_all_hosts_are_listed(site: CliSite, capsys: Captured) -> None:
    knows(site.b, vm("db", state="paused"))
    assert answer(site.command("vm", "list", "--json")) == 0
    (vms,) = documents(capsys.readouterr().out)
    assert [(view["host"], view["name"], view["state"]) for view in vms] == [
        ("a", "web", "running"),
        ("b", "db", "paused"),
    ]


def test_h_asks_one_host_alone(site: CliSite, capsys: Captured) -> None:
    assert answer(site.command("-H", "b", "vm", "list", "--json")) == 0
    assert documents(capsys.readouterr().out) == [[]]
    assert site.a.asked == []


def test_a_list_without_one_host_says_which_is_silent(site: CliSite, capsys: Captured) -> None:
    site.b.socket.unlink()
    assert answer(site.command("vm", "list")) == 0
    captured = capsys.readouterr()
    assert "web" in captured.out
    assert "host 'b'" in captured.err


def test_a_list_that_nobody_answers_fails(site: CliSite, capsys: Captured) -> None:
    site.a.socket.unlink()
    site.b.socket.unlink()
    assert answer(site.command("vm", "list", "--json")) == 6
    assert documents(capsys.readouterr().out)[0]["error"]["kind"] == "daemon-absent"


def test_a_vm_is_shown_at_its_owner(site: CliSite, capsys: Captured) -> None:
    knows(site.b, vm("web", state="migrated", ownership="released", epoch=2))
    knows(site.a, vm("web", epoch=2))
    assert answer(site.command("vm", "show", "web", "--json")) == 0
    (view,) = documents(capsys.readouterr().out)
    assert (view["host"], view["ownership"]) == ("a", "owner")


@pytest.mark.parametrize("words", [("vm", "show"), ("vm", "start"), ("vm", "stop")])
def test_an_unknown_vm_is_usage(site: CliSite, words: tuple[str, ...], capsys: Captured) -> None:
    assert answer(site.command(*words, "nope")) == 2
    assert "there is no VM 'nope'" in capsys.readouterr().err


def test_a_vm_is_not_called_unknown_while_a_host_is_silent(site: CliSite, capsys: Captured) -> None:
    site.b.socket.unlink()
    assert answer(site.command("vm", "show", "nope")) == 6
    assert "host 'b'" in capsys.readouterr().err


def test_an_unknown_host_is_usage(site: CliSite, capsys: Captured) -> None:
    assert answer(site.command("-H", "z", "vm", "list")) == 2
    assert "known hosts: a, b" in capsys.readouterr().err


def test_two_different_hosts_on_one_line_are_usage(site: CliSite, capsys: Captured) -> None:
    assert answer(site.command("-H", "a", "host", "show", "b")) == 2
    assert "name the host once" in capsys.readouterr().err


def test_a_definition_is_sent_as_it_stands(site: CliSite, capsys: Captured) -> None:
    path = site.folder / "db.toml"
    path.write_text('name = "db"  # ü\n')
    site.b.routes["POST", "/v1/vms"] = Answer(vm("db"), status=201)
    assert answer(site.command("-H", "b", "vm", "start", str(path), "--json")) == 0
    assert site.b.asked[-1].body == {"definition": 'name = "db"  # ü\n', "start": True}
    assert documents(capsys.readouterr().out)[0]["host"] == "b"


def test_a_definition_that_is_not_there_is_usage(site: CliSite, capsys: Captured) -> None:
    assert answer(site.command("-H", "b", "vm", "start", "nowhere.toml")) == 2
    assert "nowhere.toml" in capsys.readouterr().err


def test_a_definition_needs_to_know_which_host(site: CliSite, capsys: Captured) -> None:
    path = site.folder / "db.toml"
    path.write_text('name = "db"')
    assert answer(site.command("vm", "start", str(path))) == 2
    assert "give -H HOST (a, b)" in capsys.readouterr().err


def test_stopping_goes_to_where_the_vm_is(site: CliSite, capsys: Captured) -> None:
    site.a.routes["POST", "/v1/vms/web/stop"] = Answer(vm("web", state="stopped"))
    assert answer(site.command("vm", "stop", "web", "--force")) == 0
    assert site.a.asked[-1].body == {"force": True}
    assert "stopped" in capsys.readouterr().out


def test_an_error_says_where_the_vm_runs_and_what_to_do(site: CliSite, capsys: Captured) -> None:
    site.a.routes["POST", "/v1/vms/web/stop"] = refusal(
        "busy", "it is migrating", remedy="wait", vm_runs_on="a", exit_code=3
    )
    assert answer(site.command("vm", "stop", "web", "--json")) == 3
    captured = capsys.readouterr()
    assert captured.err == "korora: it is migrating\n  the VM runs on: a\n  what to do: wait\n"
    assert documents(captured.out)[0]["error"]["vm_runs_on"] == "a"


# -- checks ----------------------------------------------------------------------------------------------


def test_a_clean_check_is_done(site: CliSite, capsys: Captured) -> None:
    site.a.routes["POST", "/v1/checks"] = Answer({"findings": []})
    assert answer(site.command("check", "web", "--to", "b")) == 0
    none: dict[str, object] = {"names": [], "format": "", "storage_mode": "auto", "replacement": ""}
    none |= {"incremental": False, "keep_backing": False}
    asked: dict[str, object] = {"vm": "web", "destination": "b", "mode": "live", "operator": "alice"}
    asked |= {"address": "10.0.0.2:7000", "disks": none}
    assert site.a.asked[-1].body == asked
    assert "can move from a to b" in capsys.readouterr().out
    assert answer(site.command("check", "web", "--to", "b", "--mode", "offline")) == 0
    assert site.a.asked[-1].body == asked | {"mode": "offline"}
    disks = ("--disks", "all", "--incremental", "--storage-mode", "outsource", "--replacement", "/srv/aside")
    assert answer(site.command("check", "web", "--to", "b", *disks)) == 0
    moved = {"names": ["*"], "incremental": True, "storage_mode": "outsource", "replacement": "/srv/aside"}
    assert site.a.asked[-1].body == asked | {"disks": none | moved}
    assert answer(site.command("check", "web", "--to", "b", "--disks", "all", "--keep-backing")) == 0
    assert site.a.asked[-1].body == asked | {"disks": none | {"names": ["*"], "keep_backing": True}}
    assert answer(site.command("check", "web", "--to", "b", "--disks", "a,b", "--disk-format", "raw")) == 0
    assert site.a.asked[-1].body == asked | {"disks": none | {"names": ["a", "b"], "format": "raw"}}


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("--incremental",), "--disks all"),
        (("--keep-backing",), "--disks all"),
        (("--disks", "all", "--replacement", "aside"), "beginning with /"),
    ],
)
def test_a_check_refuses_the_same_words_as_a_move(
    site: CliSite, capsys: Captured, words: tuple[str, ...], remedy: str
) -> None:
    for command in ("check", "migrate"):
        assert answer(site.command(command, "web", "--to", "b", *words)) == 2
        assert remedy in capsys.readouterr().err
    assert [asked.path for asked in site.a.asked if asked.method == "POST"] == []


def test_all_findings_are_shown_at_once_and_refuse(site: CliSite, capsys: Captured) -> None:
    found = [
        {"check": "memory", "host": "b", "message": "too little", "remedy": "buy some"},
        {"check": "cpu", "host": "b", "message": "no avx2", "remedy": "use qemu64"},
    ]
    site.a.routes["POST", "/v1/checks"] = Answer({"findings": found})
    assert answer(site.command("check", "web", "--to", "b")) == 3
    out = capsys.readouterr().out
    assert all(text in out for text in ("too little", "buy some", "no avx2", "use qemu64"))
    assert answer(site.command("check", "web", "--to", "b", "--json")) == 3
    (document,) = documents(capsys.readouterr().out)
    assert document["findings"] == found
    assert document["passed"] is False


def test_a_check_towards_an_unknown_host_asks_nobody(site: CliSite, capsys: Captured) -> None:
    assert answer(site.command("check", "web", "--to", "z")) == 2
    assert site.a.asked == []


# -- what comes from elsewhere ------------------------------------------------------------------------------


def test_a_hostile_message_cannot_drive_the_terminal(site: CliSite, capsys: Captured) -> None:
    site.a.routes["GET", "/v1/host"] = refusal("x", "\x1b[2J\x1b]0;owned\x07 \u202eevil\r", exit_code=6)
    assert answer(site.command("-H", "a", "host", "show")) == 6
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert "\u202e" not in err
    assert "\r" not in err


def test_a_huge_message_is_cut(site: CliSite, capsys: Captured) -> None:
    site.a.routes["GET", "/v1/host"] = refusal("x", "long " * 1_000_000)
    assert answer(site.command("-H", "a", "host", "show")) == 6
    assert len(capsys.readouterr().err) < 10_000


def test_names_in_any_script_are_shown(site: CliSite, capsys: Captured) -> None:
    knows(site.a, vm("Ω-木-🦜"))
    assert answer(site.command("vm", "list")) == 0
    assert "Ω-木-🦜" in capsys.readouterr().out


def test_a_bug_is_one_line_and_says_how_to_report(
    site: CliSite, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("korora.client.daemon.Daemon.vms", broken)
    assert answer(site.command("vm", "list", "--json")) == 1
    captured = capsys.readouterr()
    assert documents(captured.out)[0]["error"]["kind"] == "bug"
    assert "ZeroDivisionError: oops" in captured.err
    assert "--debug" in captured.err
    assert "Traceback" not in captured.err
    assert answer(["--debug", *site.command("vm", "list")]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interruption_is_no_bug(site: CliSite, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("korora.client.daemon.Daemon.vms", interrupted)
    assert answer(site.command("vm", "list")) == 3
    assert "interrupted" in capsys.readouterr().err


def test_a_reader_that_leaves_does_not_change_the_exit_code(site: CliSite) -> None:
    import subprocess

    knows(site.a, *(vm(f"web-{number}" + "x" * 40) for number in range(2000)))  # more than a pipe holds
    words = site.command("vm", "list")
    program = f"from korora.cli.main import run; run({words!r})"
    shell = 'set -o pipefail; (exec "$0" -c "$1"; ) | head -n 1'
    done = subprocess.run(
        ["bash", "-c", shell, sys.executable, program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("VM ")


def test_an_answer_that_cannot_be_written_is_not_done(site: CliSite) -> None:
    import subprocess

    program = f"from korora.cli.main import run; run({site.command('vm', 'list')!r})"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 6
    assert done.stderr.startswith("korora: the answer could not be written: No space left")


# -- doctor ------------------------------------------------------------------------------------------------


def test_doctor_says_of_each_missing_program_how_to_install_it(
    site: CliSite, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    assert answer(site.command("doctor", "--json")) == 3
    (document,) = documents(capsys.readouterr().out)
    found = {check["what"]: check for check in document["checks"]}
    assert document["ready"] is False
    assert found["qemu-system-x86_64"]["remedy"] == "apt-get install qemu-system-x86"
    assert found["daemon of a"]["good"] is True


def test_doctor_finds_a_daemon_of_another_name_behind_a_socket(site: CliSite, capsys: Captured) -> None:
    site.b.routes["GET", "/v1/host"] = Answer({"name": "impostor"})
    assert answer(site.command("doctor")) == 3
    assert "belongs to host 'impostor'" in capsys.readouterr().out


def test_a_disk_that_is_not_whole_since_a_move_is_shown_with_what_to_do(
    site: CliSite, capsys: Captured
) -> None:
    aside = "/srv/aside/korora-web-data-1.qcow2"
    knows(site.a, vm("web", not_in_disks=[aside]), vm("db"))
    assert answer(site.command("vm", "show", "web")) == 0
    shown = capsys.readouterr().out
    assert f"is not in its disks yet, but in {aside}; see that the storage" in shown
    assert answer(site.command("vm", "show", "web", "--json")) == 0
    assert documents(capsys.readouterr().out)[0]["not_in_disks"] == [aside]
    assert answer(site.command("doctor", "--json")) == 3
    (document,) = documents(capsys.readouterr().out)
    (check,) = [check for check in document["checks"] if check["what"].startswith("disks of")]
    assert (check["what"], check["good"], check["needed"]) == ("disks of web on a", False, True)
    assert aside in check["found"]
    assert "start the daemon anew, or move the VM again" in check["remedy"]


def test_a_record_of_disks_that_cannot_be_read_is_shown_with_what_to_do(
    site: CliSite, capsys: Captured
) -> None:
    trouble = {"message": "outsourced.json cannot be read", "remedy": "restore it"}
    knows(site.a, vm("web", disks_trouble=trouble), vm("db"))
    assert answer(site.command("vm", "show", "web")) == 0
    assert "outsourced.json cannot be read; restore it" in " ".join(capsys.readouterr().out.split())
    assert answer(site.command("doctor", "--json")) == 3
    (document,) = documents(capsys.readouterr().out)
    (check,) = [check for check in document["checks"] if check["what"].startswith("disks of")]
    assert (check["what"], check["good"], check["needed"]) == ("disks of web on a", False, True)
    assert (check["found"], check["remedy"]) == (trouble["message"], trouble["remedy"])


def test_a_file_that_a_daemon_cannot_use_is_shown_with_what_mends_it(site: CliSite, capsys: Captured) -> None:
    problem = {"message": "/etc/korora/authorization.toml: no TOML", "remedy": "correct it"}
    site.a.routes["GET", "/v1/host"] = Answer({"name": "a", "problems": [problem]})
    assert answer(site.command("host", "show", "a")) == 0
    assert f"{problem['message']} (correct it)" in capsys.readouterr().out
    assert answer(site.command("host", "show", "a", "--json")) == 0
    assert documents(capsys.readouterr().out)[0]["problems"] == [problem]
    assert answer(site.command("doctor", "--json")) == 3
    (document,) = documents(capsys.readouterr().out)
    (check,) = [check for check in document["checks"] if check["what"] == "files of a"]
    assert (check["good"], check["needed"], check["remedy"]) == (False, True, "correct it")


@pytest.mark.parametrize("good", [True, False], ids=["valid", "expired"])
def test_doctor_looks_at_every_certificate_of_a_manufacturers_file(
    tmp_path: Path, capsys: Captured, good: bool
) -> None:
    now = time.time()
    ages = (now - 86400, now - (0 if good else 86400 * 365 * 40))
    pem = b"".join(create_authority("maker", at)[0] for at in ages)
    (tmp_path / "makers.pem").write_bytes(pem)
    (tmp_path / "reference.toml").write_text("[")
    (tmp_path / "korora.toml").write_text(
        '[site]\nmanufacturers = ["makers.pem"]\nreference_values = "reference.toml"\n'
    )
    answer(["--config", str(tmp_path / "korora.toml"), "doctor", "--json"])
    (document,) = documents(capsys.readouterr().out)
    found = {check["what"]: check for check in document["checks"]}
    assert found["TPM manufacturer"]["good"] is good
    assert found["reference values"]["good"] is False  # it can be read, and is no TOML


def test_doctor_works_without_any_configuration(capsys: Captured) -> None:
    assert answer(["doctor", "--json"]) in {0, 3}
    (document,) = documents(capsys.readouterr().out)
    (configuration,) = [check for check in document["checks"] if check["what"] == "configuration"]
    assert configuration["needed"] is False


def test_a_site_with_one_daemon_needs_no_h(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "korora.toml").write_text('[hosts.a]\napi = "a.sock"\n[hosts.b]\n')
    with serving(FakeDaemon("a", tmp_path / "a.sock")) as daemon:
        daemon.routes["GET", "/v1/host"] = Answer({"name": "a"})
        assert answer(["--config", str(tmp_path / "korora.toml"), "host", "show"]) == 0
    assert "name" in capsys.readouterr().out
