"""The TPM of a lab host: swtpm as a process of its own, made by a TPM maker who exists in this lab only.

The maker is swtpm_localca with its files in the lab's folder: nothing is written to /var/lib. The TPM starts
ready to use (no firmware runs here), and this module does what firmware does: it extends the measured boot.
Limit: swtpm serves one client at a time, so look at the PCRs only while no daemon holds the TPM.
"""

from __future__ import annotations

import hashlib
import socket
import struct
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from korora.errors import ToolError
from korora.lab.layout import LabHost, Layout
from korora.lab.measured_boot import MeasuredBoot
from korora.lab.processes import Processes

ROOT_CERTIFICATE = "swtpm-localca-rootca-cert.pem"  # swtpm_localca's own name for it
ISSUER_CERTIFICATE = "issuercert.pem"
_SHA256 = 0x000B
_CC_PCR_READ, _CC_PCR_EXTEND = 0x17E, 0x182


def manufacturer_certificates(layout: Layout) -> tuple[Path, ...]:
    """PEM files of the lab's TPM maker: the CA that signs EK certificates, and its root."""
    return (layout.manufacturer / ISSUER_CERTIFICATE, layout.manufacturer / ROOT_CERTIFICATE)


def manufacture(layout: Layout, host: LabHost) -> None:
    """Make the host's TPM with EK and EK certificate, unless it was made before."""
    made = host.tpm_state / "made"
    if made.exists():
        return
    for leftover in host.tpm_state.iterdir():
        leftover.unlink()
    _run(
        "swtpm_setup", "--tpm2", "--tpmstate", str(host.tpm_state), "--createek", "--create-ek-cert",
        "--pcr-banks", "sha256", "--vmid", f"korora-lab-host-{host.name}",
        "--config", str(_maker_settings(layout.manufacturer)),
        "--logfile", str(host.directory / "tpm-setup.log"),
    )  # fmt: skip
    made.touch()


def ensure_tpm(processes: Processes, host: LabHost, boot: MeasuredBoot) -> bool:
    """Have the TPM run with the boot's PCRs. True when it was started now: who used it before lost it."""
    name = process_name(host)
    if processes.find(name) and host.tpm_socket.exists():
        return False
    processes.end(name)
    _start(processes, host)
    extend(host.tpm_socket, boot.measurements())
    _compare(host, boot)
    return True


def process_name(host: LabHost) -> str:
    return f"tpm-{host.name}"


def extend(tpm: Path, measurements: Iterable[tuple[int, bytes]]) -> None:
    """TPM2_PCR_Extend each 32-byte digest into its PCR, in order. ToolError when the TPM refuses."""
    with _connect(tpm) as connection:
        for pcr, digest in measurements:
            session = struct.pack(">IIHBH", 9, 0x40000009, 0, 0, 0)  # the empty password
            values = struct.pack(">IH", 1, _SHA256) + digest
            _command(connection, 0x8002, _CC_PCR_EXTEND, struct.pack(">I", pcr) + session + values)


def tamper(host: LabHost, pcr: int, what: bytes) -> None:
    """Change the host's measured state as software that should not run would; only a new start undoes it."""
    extend(host.tpm_socket, [(pcr, hashlib.sha256(what).digest())])


def read_pcrs(tpm: Path, pcrs: Iterable[int]) -> dict[int, str]:
    """SHA-256 PCRs, hex."""
    with _connect(tpm) as connection:
        return {pcr: _read_pcr(connection, pcr) for pcr in pcrs}


def _read_pcr(connection: socket.socket, pcr: int) -> str:
    selection = struct.pack(">IHB", 1, _SHA256, 3) + (1 << pcr).to_bytes(3, "little")
    answer = _command(connection, 0x8001, _CC_PCR_READ, selection)
    return answer[-32:].hex()


def _compare(host: LabHost, boot: MeasuredBoot) -> None:
    expected = boot.pcrs()
    found = read_pcrs(host.tpm_socket, expected)
    wrong = [pcr for pcr in expected if found[pcr] != expected[pcr]]
    if wrong:
        raise ToolError(
            f"PCRs {wrong} of host {host.name}'s TPM are not those of its event log",
            kind="lab-tpm",
            remedy="run `korora lab down`, then `korora lab up`",
        )


def _start(processes: Processes, host: LabHost) -> None:
    control = host.tpm_socket.with_name("tpm.sock.ctrl")
    for stale in (host.tpm_socket, control):
        stale.unlink(missing_ok=True)
    command = [
        "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={host.tpm_state}",
        "--server", f"type=unixio,path={host.tpm_socket}", "--ctrl", f"type=unixio,path={control}",
        "--flags", "not-need-init,startup-clear",
    ]  # fmt: skip
    log = host.directory / "tpm.log"
    processes.start(process_name(host), command, log=log)
    limit = time.monotonic() + 10
    while not (_listens(host.tpm_socket) and control.exists()):
        if time.monotonic() > limit or not processes.find(process_name(host)):
            raise ToolError(
                f"the TPM of host {host.name} did not start: {_tail(log)}",
                kind="lab-tpm",
                remedy="apt-get install swtpm, and look at that log",
            )
        time.sleep(0.01)


def _listens(path: Path) -> bool:
    """Whether a connection is taken. The socket's file is there a moment earlier."""
    with socket.socket(socket.AF_UNIX) as visitor:
        return visitor.connect_ex(str(path)) == 0


def _maker_settings(folder: Path) -> Path:
    """Settings of swtpm's tools that keep the CA in this folder; returns swtpm_setup's file."""
    authority, options, setup = (folder / name for name in ("localca.conf", "localca.options", "setup.conf"))
    authority.write_text(
        f"statedir = {folder}\nsigningkey = {folder}/signkey.pem\n"
        f"issuercert = {folder}/{ISSUER_CERTIFICATE}\ncertserial = {folder}/certserial\n"
    )
    options.write_text("--platform-manufacturer Korora\n--platform-version 1.0\n--platform-model LabHost\n")
    setup.write_text(
        "create_certs_tool = /usr/bin/swtpm_localca\n"
        f"create_certs_tool_config = {authority}\ncreate_certs_tool_options = {options}\n"
        "active_pcr_banks = sha256\n"
    )
    return setup


def _connect(tpm: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    try:
        connection.connect(str(tpm))
    except OSError as error:
        connection.close()
        raise ToolError(f"cannot reach the TPM at {tpm}: {error}", kind="lab-tpm") from error
    return connection


def _command(connection: socket.socket, tag: int, code: int, body: bytes) -> bytes:
    """One TPM command; returns the answer behind its header."""
    try:
        connection.sendall(struct.pack(">HII", tag, 10 + len(body), code) + body)
        answer = connection.recv(4096)
    except OSError as error:
        raise ToolError(
            f"the TPM does not answer: {error}", kind="lab-tpm", remedy="does a daemon hold it?"
        ) from error
    result = int.from_bytes(answer[6:10], "big") if len(answer) >= 10 else None
    if result != 0:
        raise ToolError(f"the TPM refused command {code:#x}: {result}", kind="lab-tpm")
    return answer[10:]


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError(
            f"{command[0]} did not run: {error}",
            kind="tool-missing",
            remedy="apt-get install swtpm swtpm-tools gnutls-bin",
        ) from error
    if done.returncode:
        raise ToolError(
            f"{command[0]} failed: {(done.stderr or done.stdout).strip()[-500:]}",
            kind="lab-tpm",
            remedy="is gnutls-bin (certtool) installed?",
        )


def _tail(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-300:] if log.exists() else "no log"
