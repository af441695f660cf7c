"""What the real thing says to bad input: exit code, kind, where the VM runs; and nothing is left over."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    load_pem_private_key,
)

from end_to_end.conftest import Lab
from end_to_end.hostd import configured, with_hypervisor
from end_to_end.refusing import complaint, stopped
from end_to_end.travelling import (
    HOSTS,
    Traveller,
    start_daemon,
    through_a_forwarder,
    until,
)
from korora.authority import challenge, create_authority, issue
from korora.client import Daemon
from korora.lab import host_tpm
from korora.lab.host_tpm import manufacturer_certificates
from korora.lab.layout import LabHost
from korora.lab.lifecycle import bring_up, end_daemon, ensure_daemon
from korora.lab.processes import Processes
from korora.lab.site import (
    authority_certificate,
    authority_key,
    authorization,
    configuration_through,
    reference_values,
)
from korora.lab.tampering import Sort

pytestmark = pytest.mark.end_to_end

USAGE, REFUSED, TOOL = 2, 3, 6


# -- names and files --------------------------------------------------------------------------------------


def test_what_nobody_knows_is_named(walker: Traveller, lab: Lab, tmp_path: Path) -> None:
    for words, kind in (
        (("migrate", "nobody", "--to", "b"), "unknown-vm"),
        (("migrate", walker.name, "--to", "nowhere"), "unknown-host"),
        (("check", walker.name, "--to", "nowhere"), "unknown-host"),
        (("vm", "show", "nobody"), "unknown-vm"),
        (("-H", "nowhere", "vm", "list"), "unknown-host"),
        (("-H", "a", "vm", "start", str(tmp_path / "none.toml")), "unreadable-file"),
        (("receipt", "verify", str(tmp_path / "none.json")), "unreadable-file"),
    ):
        code, error = complaint(lab, *words)
        assert (code, error["kind"]) == (USAGE, kind), words
        assert any(word in error["message"] for word in words if word not in {"vm", "-H", "a"})
    code, error = complaint(lab, "vm", "list", config=tmp_path / "none.toml")
    assert (code, error["kind"]) == (USAGE, "unreadable-file")


def test_a_migration_to_where_the_vm_is_already_is_refused(walker: Traveller) -> None:
    done = walker.move(walker.host)
    assert done.exit_code in {USAGE, REFUSED}, done.outcome
    assert done.error["vm_runs_on"] == walker.host.name
    walker.stayed(walker.host, walker.other())


def test_malformed_toml_is_refused_with_the_line(lab: Lab, tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text('name = "x"\nmemory = \n')
    code, error = complaint(lab, "-H", "a", "vm", "start", str(broken))
    assert (code, error["kind"]) == (USAGE, "bad-definition")
    assert "line 2" in error["message"]
    code, error = complaint(lab, "vm", "list", config=broken)
    assert (code, error["kind"]) == (USAGE, "bad-configuration")
    broken.write_text('name = "x"\nmemory = "64M"\nmemroy = "1G"\n')
    code, error = complaint(lab, "-H", "a", "vm", "start", str(broken))
    assert (code, error["kind"]) == (USAGE, "bad-definition")
    assert "memroy" in error["message"]
    done = lab.korora("hostd", "--config", str(broken))
    assert done.returncode == USAGE
    assert "Traceback" not in done.stderr
    assert "x" not in [view["name"] for view in lab.answer("vm", "list")]


@contextmanager
def with_files_of_its_own(lab: Lab, host: LabHost) -> Iterator[tuple[Path, Path]]:
    """The host has an authorization.toml with policies, and a reference.toml, that no other host reads."""
    text, copies = host.configuration.read_text(), []
    shutil.copytree(
        authorization(lab.layout).parent / "policies", host.directory / "policies", dirs_exist_ok=True
    )
    for shared in (authorization(lab.layout), reference_values(lab.layout)):
        copy = host.directory / shared.name
        shutil.copy(shared, copy)
        text = text.replace(f'"{shared}"', f'"{copy}"')
        copies.append(copy)
    with configured(lab, host, text):
        yield copies[0], copies[1]


@contextmanager
def broken(file: Path, content: str | None) -> Iterator[None]:
    """The file has this content, or is missing."""
    before = file.read_text()
    file.write_text(content or "")
    if content is None:
        file.unlink()
    try:
        yield
    finally:
        file.write_text(before)


def test_a_host_whose_own_files_are_broken_or_missing_refuses_and_names_the_file(
    walker: Traveller, lab: Lab
) -> None:
    layout = lab.layout
    with with_files_of_its_own(lab, layout.host("c")) as (access_there, reference_there):
        for file, content, kind in (
            (reference_values(layout), None, "bad-anchor"),
            (reference_there, "version = \n", "bad-reference-values"),
        ):
            with broken(file, content):
                error = stopped(walker, walker.move("c"), USAGE, kind)
                assert str(file) in error["message"]
                assert error["remedy"]
                code, error = complaint(lab, "check", walker.name, "--to", "c")
                assert (code, error["kind"]) == (USAGE, kind)
                assert str(file) in error["message"]
        for file, content in ((authorization(layout), "[[allow]\n"), (access_there, None)):
            with broken(file, content):  # the policy from before stays in force, and the host says so
                assert lab.answer("check", walker.name, "--to", "c")["passed"]
                host = walker.host.name if file == authorization(layout) else "c"
                assert str(file) in json.dumps(lab.answer("host", "show", host))
        assert lab.answer("check", walker.name, "--to", "c")["passed"]


# -- what does not fit ------------------------------------------------------------------------------------


@contextmanager
def plain_vm(lab: Lab, name: str, *lines: str) -> Iterator[None]:
    """A VM on a that boots nothing, without a vTPM."""
    text = "\n".join([f'name = "{name}"', *lines, "[vtpm]", "enabled = false"]) + "\n"
    host = lab.layout.host("a")
    with Daemon(host.api, host.name) as daemon:
        daemon.define(text, start=True)
        try:
            yield
        finally:
            if daemon.vm(name).state == "running":
                daemon.stop(name, force=True)


def test_a_vm_that_does_not_run_is_not_moved_live(lab: Lab) -> None:
    with plain_vm(lab, "sleeper", 'memory = "64M"'):
        lab.answer("vm", "stop", "sleeper", "--force")
        code, error = complaint(lab, "migrate", "sleeper", "--to", "b")
        assert (code, error["kind"], error["vm_runs_on"]) == (REFUSED, "not-running", None)
        assert "offline" in error["remedy"]


@pytest.fixture(params=["by its name", "by a link in the storage"])
def stray_disk(lab: Lab, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The path of a disk that lies outside of the lab's storage, whatever its name says."""
    disk = tmp_path / "elsewhere.raw"
    disk.write_bytes(bytes(1 << 20))
    if request.param == "by its name":
        yield disk
        return
    link = lab.layout.storage / "stray.raw"
    link.symlink_to(disk)
    try:
        yield link
    finally:
        link.unlink()


def test_a_disk_outside_of_the_destinations_storage_is_refused_there(lab: Lab, stray_disk: Path) -> None:
    disk, there = stray_disk, lab.layout.host("b")
    receipts = set(there.state.glob("receipts/*"))
    named = ('memory = "64M"', "[[disks]]", f'path = "{disk}"', 'format = "raw"')
    with plain_vm(lab, "stray", *named):
        found = lab.korora("check", "stray", "--to", "b", "--json")
        assert found.returncode == REFUSED
        (finding,) = json.loads(found.stdout)["findings"]
        assert (finding["check"], finding["host"]) == ("storage", "b")
        assert str(disk) in finding["message"]
        assert "hostd.toml" in finding["remedy"]
        code, error = complaint(lab, "migrate", "stray", "--to", "b")
        assert (code, error["kind"], error["vm_runs_on"]) == (REFUSED, "precheck", "a")
        shown = lab.answer("vm", "show", "stray")
        assert (shown["host"], shown["state"]) == ("a", "running")
        assert "stray" not in [view["name"] for view in lab.answer("-H", "b", "vm", "list")]
        assert not (there.state / "vms" / "stray").exists()
        assert set(there.state.glob("receipts/*")) == receipts


def test_a_vm_larger_than_the_destinations_memory_is_refused(lab: Lab) -> None:
    total = int(Path("/proc/meminfo").read_text().split()[1]) // 1024
    with plain_vm(lab, "giant", f'memory = "{total}M"'):
        found = lab.korora("check", "giant", "--to", "b", "--json")
        assert found.returncode == REFUSED
        assert [f["check"] for f in json.loads(found.stdout)["findings"]] == ["memory"]
        code, error = complaint(lab, "migrate", "giant", "--to", "b")
        assert (code, error["kind"], error["vm_runs_on"]) == (REFUSED, "precheck", "a")
        assert "MiB" in error["message"]
        shown = lab.answer("vm", "show", "giant")
        assert (shown["host"], shown["state"]) == ("a", "running")
        assert not (lab.layout.host("b").state / "vms" / "giant").exists()


@contextmanager
def older_qemu(lab: Lab) -> Iterator[Path]:
    """QEMU itself, but in its binary Nehalem has another name, and its qemu64 lacks two features."""
    ours = Path(shutil.which("qemu-system-x86_64") or "").resolve()
    modules = next(Path("/usr/lib").glob("*/qemu/accel-tcg-*.so")).parent
    binary, program = lab.layout.directory / "older-binary", lab.layout.directory / "older-qemu"
    binary.write_bytes(ours.read_bytes().replace(b"\0Nehalem\0", b"\0Nehalex\0"))
    program.write_text(
        f"#!/bin/bash\nexport QEMU_MODULE_DIR={modules}\n"
        f'exec {binary} "${{@/#qemu64/qemu64,-cx16,-sse3}}" -L /usr/share/qemu -L /usr/share/seabios\n'
    )
    for file in (binary, program):
        file.chmod(0o755)
    try:
        yield program
    finally:
        binary.unlink()
        program.unlink()


def test_a_destination_with_another_cpu_is_refused_by_the_model_or_the_features_it_lacks(
    walker: Traveller, lab: Lab
) -> None:
    c = lab.layout.host("c")
    with (
        older_qemu(lab) as program,
        plain_vm(lab, "newer", 'memory = "64M"', 'cpu = "Nehalem"'),
        configured(lab, c, with_hypervisor(c, program)),
    ):
        error = stopped(walker, walker.move("c"), REFUSED, "precheck")
        assert "cx16" in error["message"]
        found = lab.korora("check", "newer", "--to", "c", "--json")
        assert found.returncode == REFUSED
        assert [f["check"] for f in json.loads(found.stdout)["findings"]] == ["cpu-model"]
        code, error = complaint(lab, "migrate", "newer", "--to", "c")
        assert (code, error["kind"], error["vm_runs_on"]) == (REFUSED, "precheck", "a")
        assert "Nehalem" in error["message"]
        shown = lab.answer("vm", "show", "newer")
        assert (shown["host"], shown["state"]) == ("a", "running")
        assert not (c.state / "vms" / "newer").exists()


# -- who the other host is --------------------------------------------------------------------------------


def test_another_host_at_the_destinations_address_is_sent_nothing(walker: Traveller, lab: Lab) -> None:
    # b's name, c's machine.
    with through_a_forwarder(lab, lab.layout.host("c")) as (forwarder, _):
        address = "{}:{}".format(*forwarder.address)
        wrong = walker.other().name
        config = configuration_through(lab.layout, lab.layout.hosts(HOSTS), {wrong: address}, "astray")
        stopped(walker, walker.move(wrong, config=config), REFUSED, "wrong-host")
        assert {connection.sort for connection in forwarder.connections} == {Sort.CONTROL}
    walker.left_nothing_on(walker.other())


@contextmanager
def enrolled_otherwise(
    lab: Lab, host: LabHost, authority: tuple[bytes, bytes], lifetime: dt.timedelta
) -> Iterator[None]:
    """The host has a certificate of this authority, valid for so long; afterwards the site's again."""
    certificate = x509.load_pem_x509_certificate(authority[0])
    key = load_pem_private_key(authority[1], None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    makers = [x509.load_pem_x509_certificate(p.read_bytes()) for p in manufacturer_certificates(lab.layout)]
    with Daemon(host.api, host.name) as daemon:
        asks = daemon.begin_enrolment()
        csr = x509.load_der_x509_csr(asks.csr).public_bytes(Encoding.PEM)
        asked = challenge(
            asks.ek_certificate, asks.ek_public, asks.ak_public, csr, host.name, makers, time.time()
        )
        answer = daemon.activate(asked.credential.blob, asked.credential.encrypted_secret)
        issued = issue(asked, answer, certificate, key, now=time.time(), lifetime=lifetime)
        daemon.finish_enrolment(issued.certificate_pem.decode(), issued.enrolment.decode())
    try:
        yield
    finally:
        lab.answer("host", "enroll", host.name)


def test_a_destination_with_the_certificate_of_another_authority_is_refused(
    walker: Traveller, lab: Lab
) -> None:
    other = create_authority("somebody else", time.time())
    with enrolled_otherwise(lab, lab.layout.host("c"), other, dt.timedelta(days=1)):
        stopped(walker, walker.move("c"), REFUSED, "unknown-authority")


def test_a_destination_whose_certificate_has_expired_is_refused(walker: Traveller, lab: Lab) -> None:
    site = authority_certificate(lab.layout).read_bytes(), authority_key(lab.layout).read_bytes()
    lifetime = dt.timedelta(seconds=5)  # long enough for it to be taken
    with enrolled_otherwise(lab, lab.layout.host("c"), site, lifetime):
        time.sleep(lifetime.total_seconds() + 1)
        stopped(walker, walker.move("c"), REFUSED, "expired")


def test_a_destination_whose_tpm_is_of_an_unknown_maker_is_refused(walker: Traveller, lab: Lab) -> None:
    stranger = lab.layout.site / "stranger.pem"
    stranger.write_bytes(create_authority("TPM makers of the moon", time.time())[0])
    judge = walker.host
    lines = judge.configuration.read_text().splitlines()
    lines = [
        f'manufacturers = ["{stranger}"]' if line.startswith("manufacturers") else line for line in lines
    ]
    with (
        configured(lab, judge, "\n".join(lines) + "\n"),
        through_a_forwarder(lab, lab.layout.host("c")) as (
            forwarder,
            config,
        ),
    ):
        stopped(walker, walker.move("c", config=config), REFUSED, "unknown-manufacturer")
        assert {connection.sort for connection in forwarder.connections} == {Sort.CONTROL}


def test_a_destination_that_booted_something_else_is_refused(walker: Traveller, lab: Lab) -> None:
    c = lab.layout.host("c")
    end_daemon(lab.layout, c)
    host_tpm.tamper(c, 4, b"a bootkit")
    try:
        ensure_daemon(lab.layout, c)
        until(lambda: lab.korora("host", "show", "c").returncode == 0, 60)
        # Its identity was sealed to the state it had: it cannot even say who it is.
        stopped(walker, walker.move("c"), TOOL, "handshake", "peer-gone")
        lab.answer("host", "enroll", "c")
        error = stopped(walker, walker.move("c"), REFUSED, "pcr-mismatch")
        assert "PCR 4" in error["message"]
        attested = lab.korora("host", "attest", "c", "--json")
        assert attested.returncode == REFUSED
        assert json.loads(attested.stdout)["error"]["kind"] == "pcr-mismatch"
    finally:
        Processes(lab.layout.processes).end(host_tpm.process_name(c))
        bring_up(lab.layout)
    assert lab.answer("host", "attest", "c")["trusted"]


def test_a_destination_without_a_tpm_is_refused(walker: Traveller, lab: Lab) -> None:
    c = lab.layout.host("c")
    Processes(lab.layout.processes).end(host_tpm.process_name(c))
    try:
        error = stopped(walker, walker.move("c"), TOOL, "tpm-unreachable")
        assert "host c stopped" in error["message"]
        assert "TPM" in error["message"]
        assert error["remedy"]
    finally:
        bring_up(lab.layout)
        start_daemon(lab, c)
