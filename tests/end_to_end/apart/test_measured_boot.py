"""The event logs of real firmware replay to a real (emulated) vTPM, and a changed boot is found."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.host_tpm import manufacturer
from korora.model.evidence import PcrValues
from korora.policy.guest_boot import Changed, Unchanged, appraise_guest_boot, learn_baseline

pytestmark = pytest.mark.end_to_end

BOOT_DEADLINE_S = 180
INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t securityfs securityfs /sys/kernel/security
echo LOG; /bin/busybox base64 /sys/kernel/security/tpm0/binary_bios_measurements; echo END
for pcr in 0 1 2 3 4 5 6 7 8 9; do
    echo "PCR $pcr $(/bin/busybox cat /sys/class/tpm/tpm0/pcr-sha256/$pcr)"
done
/bin/busybox poweroff -f
"""
OVMF = Path("/usr/share/OVMF")


@dataclass
class Guest:
    """A guest with a vTPM that tells its boot on the serial port and powers off."""

    directory: Path
    secure: bool

    def __post_init__(self) -> None:
        manufacturer().manufacture(self.directory / "vtpm")
        root = self.directory / "root"
        (root / "bin").mkdir(parents=True)
        shutil.copy(shutil.which("busybox") or "/bin/busybox", root / "bin/busybox")
        (root / "init").write_text(INIT)
        (root / "init").chmod(0o755)
        names = b"bin\nbin/busybox\ninit\n"
        packed = subprocess.run(
            ["cpio", "-o", "-H", "newc"], input=names, cwd=root, capture_output=True, check=True, timeout=60
        )
        (self.directory / "initrd").write_bytes(packed.stdout)
        shutil.copy(OVMF / "OVMF_VARS_4M.ms.fd", self.directory / "variables")

    def boot(self, command_line: str = "quiet") -> tuple[PcrValues, bytes]:
        """PCRs and event log, as the guest's kernel gives them."""
        socket = self.directory / "vtpm.sock"
        socket.unlink(missing_ok=True)
        swtpm = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.directory / 'vtpm'}"]
        emulator = subprocess.Popen([*swtpm, "--ctrl", f"type=unixio,path={socket}"])
        try:
            while not socket.exists() and emulator.poll() is None:
                time.sleep(0.02)
            command = self._qemu(socket, command_line)
            done = subprocess.run(command, check=True, capture_output=True, timeout=BOOT_DEADLINE_S)
        finally:
            emulator.terminate()
            emulator.wait(20)
        return _told(done.stdout.decode(errors="replace"))

    def _qemu(self, socket: Path, command_line: str) -> list[str]:
        kernel = sorted(Path("/boot").glob("vmlinuz-*-cloud-amd64"))[-1]
        command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "qemu64", "-m", "512", "-no-reboot"]
        command += ["-display", "none", "-monitor", "none", "-serial", "stdio", "-nic", "none"]
        command += ["-chardev", f"socket,id=ct,path={socket}", "-tpmdev", "emulator,id=t0,chardev=ct"]
        command += ["-device", "tpm-crb,tpmdev=t0", "-kernel", str(kernel)]
        command += ["-initrd", str(self.directory / "initrd"), "-append", f"console=ttyS0 {command_line}"]
        return command + (self._secure_firmware() if self.secure else ["-M", "q35"])

    def _secure_firmware(self) -> list[str]:
        flash = "if=pflash,format=raw"
        code = f"{flash},unit=0,readonly=on,file={OVMF / 'OVMF_CODE_4M.secboot.fd'}"
        variables = f"{flash},unit=1,file={self.directory / 'variables'}"
        secure = ["-M", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"]
        return [*secure, "-drive", code, "-drive", variables]


def _told(output: str) -> tuple[PcrValues, bytes]:
    text = output.replace("\r", "")
    log = re.search(r"LOG\n(.*?)END\n", text, re.DOTALL)
    assert log, text[-2000:]
    values = re.findall(r"PCR (\d+) ([0-9A-F]{64})", text)
    return {int(pcr): value.lower() for pcr, value in values}, base64.b64decode(log.group(1))


def test_seabios_boots_the_same_way_twice(tmp_path: Path) -> None:
    guest = Guest(tmp_path, secure=False)
    baseline = learn_baseline(*guest.boot())
    assert baseline.secure_boot is None
    assert appraise_guest_boot(*guest.boot(), baseline) == Unchanged(None)


def test_ovmf_reports_secure_boot_and_a_changed_initrd_is_named(tmp_path: Path) -> None:
    guest = Guest(tmp_path, secure=True)
    baseline = learn_baseline(*guest.boot())
    assert baseline.secure_boot is True
    assert appraise_guest_boot(*guest.boot(), baseline) == Unchanged(True)
    with (tmp_path / "initrd").open("ab") as initrd:
        initrd.write(bytes(512))
    changed = appraise_guest_boot(*guest.boot(), baseline)
    assert isinstance(changed, Changed)
    assert changed.secure_boot is True
    assert any("PCR 9" in finding for finding in changed.findings)
