"""A host TPM for tests: a real swtpm with an EK certificate of a certification authority of its own."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from cryptography import x509


@dataclass
class Manufacturer:
    """Makes TPMs with EK certificates. Everything lies in `directory`, nothing in /var/lib."""

    directory: Path

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        keys = {"signingkey": "signkey.pem", "issuercert": "issuercert.pem", "certserial": "certserial"}
        lines = [f"statedir = {self.directory}"] + [f"{key} = {self.directory / keys[key]}" for key in keys]
        self._write("localca.conf", lines)
        self._write("localca.options", ["--platform-manufacturer Korora", "--platform-version 1"])
        self._write(
            "setup.conf",
            [
                "create_certs_tool = /usr/bin/swtpm_localca",
                f"create_certs_tool_config = {self.directory / 'localca.conf'}",
                f"create_certs_tool_options = {self.directory / 'localca.options'}",
            ],
        )

    def manufacture(self, state: Path) -> None:
        state.mkdir(parents=True)
        command = ["swtpm_setup", "--tpm2", "--tpmstate", str(state), "--pcr-banks", "sha256"]
        command += ["--createek", "--create-ek-cert", "--config", str(self.directory / "setup.conf")]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    @property
    def certificates(self) -> tuple[x509.Certificate, ...]:
        """Root and intermediate; there are some once a TPM was manufactured."""
        names = ("swtpm-localca-rootca-cert.pem", "issuercert.pem")
        return tuple(x509.load_pem_x509_certificate((self.directory / name).read_bytes()) for name in names)

    def _write(self, name: str, lines: list[str]) -> None:
        (self.directory / name).write_text("\n".join(lines) + "\n")


@cache
def _workshop() -> Path:
    """Where masters are made, once per test run: making a TPM takes a second, copying one nothing."""
    directory = Path(tempfile.mkdtemp(prefix="korora-tpm-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


@cache
def manufacturer(name: str = "good") -> Manufacturer:
    return Manufacturer(_workshop() / name)


@cache
def _master(maker: str, serial: int) -> Path:
    state = _workshop() / f"{maker}-{serial}"
    manufacturer(maker).manufacture(state)
    return state


def manufacturer_certificates(maker: str = "good") -> tuple[x509.Certificate, ...]:
    _master(maker, 1)
    return manufacturer(maker).certificates


@contextmanager
def host_tpm(directory: Path, maker: str = "good", serial: int = 1) -> Iterator[HostTpm]:
    """A freshly manufactured TPM, switched on. The same maker and serial number give the same EK."""
    tpm = HostTpm(directory)
    shutil.copytree(_master(maker, serial), tpm.state)
    tpm.switch_on()
    try:
        yield tpm
    finally:
        tpm.switch_off()


@dataclass
class HostTpm:
    """One TPM, switched on and off. `tcti` stays the same across restarts."""

    directory: Path
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def socket(self) -> Path:
        return self.directory / "tpm.sock"

    @property
    def tcti(self) -> str:
        return f"swtpm:path={self.socket}"

    def switch_on(self) -> None:
        control = self.socket.with_name("tpm.sock.ctrl")
        command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.state}"]
        command += ["--server", f"type=unixio,path={self.socket}", "--ctrl", f"type=unixio,path={control}"]
        command += ["--flags", "not-need-init,startup-clear"]
        quiet = subprocess.DEVNULL
        self._process = process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)
        deadline = time.monotonic() + 20
        while not (_listens(self.socket) and _listens(control)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("swtpm did not start")
            time.sleep(0.01)

    def switch_off(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None
        for path in (self.socket, self.socket.with_name("tpm.sock.ctrl")):
            path.unlink(missing_ok=True)

    def reset(self) -> None:
        self.switch_off()
        self.switch_on()

    def extend(self, pcr: int, digest: bytes) -> None:
        """As firmware would: TPM2_PCR_Extend of the SHA-256 bank."""
        from tpm2_pytss import ESAPI
        from tpm2_pytss.constants import ESYS_TR, TPM2_ALG
        from tpm2_pytss.types import TPML_DIGEST_VALUES, TPMT_HA, TPMU_HA

        values = TPML_DIGEST_VALUES([TPMT_HA(hashAlg=TPM2_ALG.SHA256, digest=TPMU_HA(sha256=digest))])
        with ESAPI(self.tcti) as esys:
            esys.pcr_extend(ESYS_TR.PCR0 + pcr, values)


def _listens(socket: Path) -> bool:
    """Its file is there a moment before anybody can connect; /proc/net/unix tells (flag SO_ACCEPTCON)."""
    rows = (line.split() for line in Path("/proc/net/unix").read_text().splitlines())
    return any(row[3] == "00010000" and row[-1] == str(socket) for row in rows)
