"""This machine: programs, Python modules, devices, privileges, clock. Looks only."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from korora.cli.diagnosis.symptom import Symptom

# program → (Debian package, what it is for)
PROGRAMS = {
    "qemu-system-x86_64": ("qemu-system-x86", "runs VMs"),
    "qemu-img": ("qemu-utils", "makes and reads disk images"),
    "qemu-nbd": ("qemu-utils", "reads disk images"),
    "bwrap": ("bubblewrap", "reads disk images in a sandbox"),
    "prlimit": ("util-linux", "bounds what reads disk images"),
    "clamd": ("clamav-daemon", "looks for malware"),
    "setpriv": ("util-linux", "clamd runs without privileges"),
    "swtpm": ("swtpm", "virtual TPMs"),
    "swtpm_setup": ("swtpm-tools", "manufactures virtual TPMs"),
    "swtpm_localca": ("swtpm-tools", "signs their endorsement certificates"),
}
# Needed by `korora lab`, the setup and the benchmark only.
LAB_PROGRAMS = {
    "ip": ("iproute2", "network namespaces"),
    "cpio": ("cpio", "packs the guest's initrd"),
    "busybox": ("busybox-static", "the guest's userland"),
    "modinfo": ("kmod", "finds the guest's kernel modules"),
    "gcc": ("gcc", "compiles the guest's workload"),
    "pkg-config": ("pkg-config", "builds the TPM bindings at setup"),
    "rpm": ("rpm", "compares images of Fedora, Red Hat or SUSE with their packages"),
    "rpmbuild": ("rpm", "makes a package for the tests"),
    "db5.3_load": ("db5.3-util", "makes a package database for the tests"),
    "mkfs.ext4": ("e2fsprogs", "makes disks for the tests"),
    "mkfs.xfs": ("xfsprogs", "makes disks for the tests"),
    "mkfs.btrfs": ("btrfs-progs", "makes disks for the tests"),
    "mkfs.vfat": ("dosfstools", "makes disks for the tests"),
    "mcopy": ("mtools", "fills disks for the tests"),
    "ntfscp": ("ntfs-3g", "fills disks for the tests"),
    "sfdisk": ("fdisk", "cuts disks for the tests"),
    "lvm": ("lvm2", "cuts disks for the tests"),
    "nbdkit": ("nbdkit", "makes broken disks for the tests"),
    "debootstrap": ("debootstrap", "makes a root to measure with"),
    "clamdscan": ("clamdscan", "looks for malware in the benchmark"),
    "nbdcopy": ("libnbd-bin", "reads images in the benchmark"),
    "losetup": ("mount", "cuts disks for the tests"),
    "certtool": ("gnutls-bin", "certificates for QEMU's own TLS, in the benchmark"),
}
# File pattern → (name, Debian package, what is missing without it).
FILES = {
    "/usr/share/OVMF/OVMF_CODE_4M.fd": ("UEFI firmware", "ovmf", "only BIOS guests"),
    "/usr/share/seabios/bios-256k.bin": ("BIOS firmware", "seabios", "only UEFI guests"),
    "/boot/vmlinuz-*-cloud-amd64": ("lab kernel", "linux-image-cloud-amd64", "no guest for the lab"),
    "/usr/include/stdio.h": ("C headers", "libc6-dev", "no workload for the lab's guest, no setup"),
    "/usr/include/python3.*/Python.h": ("Python headers", "python3-dev", "no TPM bindings at setup"),
    "/usr/include/tss2/tss2_esys.h": ("TPM headers", "libtss2-dev", "no TPM bindings at setup"),
    "/usr/lib/*/libtss2-tcti-device.so.0": ("TPM device", "libtss2-tcti-device0", "no hardware TPM"),
    "/usr/lib/python3/dist-packages/nbd.py": ("libnbd", "python3-libnbd", "no disk images are read"),
    "/usr/share/clamav-testfiles/clam.exe": ("ClamAV's test files", "clamav-testfiles", "no test of clamd"),
    "/usr/share/forensics-samples/fs.btrfs.xz": (
        "a btrfs of somebody else",
        "forensics-samples-btrfs",
        "one test less",
    ),
    **{
        f"/usr/share/forensics-samples/{file}": (what, f"forensics-samples-{name}", "one test less")
        for name, file, what in (
            ("ext4", "fs.ext4.xz", "an ext4 of somebody else"),
            ("exfat", "fs.exfat.xz", "an exFAT of somebody else"),
            ("ntfs", "fs.ntfs.xz", "an NTFS of somebody else"),
            ("vfat", "fs.vfat.xz", "a VFAT of somebody else"),
            ("multiple", "fs.multiple.xz", "several file systems of somebody else"),
        )
    },
    "/usr/share/forensics-samples/original-files": (
        "what is on them",
        "forensics-samples-files",
        "one test less",
    ),
    "/usr/share/zoneinfo/UTC": ("time zones", "tzdata", "no maintenance windows"),
    "/usr/lib/*/libtss2-tcti-swtpm.so.0": ("TPM emulator", "libtss2-tcti-swtpm0", "no TPM for lab hosts"),
}
MODULES = (
    *(("backports.zstd",) if sys.version_info < (3, 14) else ()),
    "blake3", "cedarpy", "cryptography", "defusedxml", "dissect.util", "fastapi", "google_crc32c", "httpx",
    "idna", "msgspec", "numpy", "OpenSSL", "publicsuffixlist", "pyfsext", "pyfsxfs", "pyroute2",
    "pytsk3", "qemu.qmp", "rich", "securesystemslib", "stix2patterns", "structlog", "tpm2_pytss",
    "typer", "uvicorn", "xxhash", "yara_x", "z3",
)  # fmt: skip
_STA_UNSYNC = 0x0040
_STATUS_OFFSET = 4 + 4 + 4 * 8  # struct timex: modes, padding, offset, freq, maxerror, esterror; then status


def of_machine() -> Iterator[Symptom]:
    yield _python()
    yield from (_program(name, *PROGRAMS[name]) for name in PROGRAMS)
    yield from (_program(name, *LAB_PROGRAMS[name], needed=False) for name in LAB_PROGRAMS)
    yield _modules()
    yield from (_file(pattern, *FILES[pattern]) for pattern in FILES)
    yield _root()
    yield _kvm()
    yield _tpm()
    yield _tun()
    yield _namespaces()
    yield _clock()


def _python() -> Symptom:
    good = sys.version_info >= (3, 11)
    return Symptom("programs", "python", good, sys.version.split()[0], "apt-get install python3.11")


def _program(name: str, package: str, purpose: str, *, needed: bool = True) -> Symptom:
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    found = path or f"not installed ({purpose})"
    return Symptom("programs", name, path is not None, found, f"apt-get install {package}", needed)


def _modules() -> Symptom:
    missing = [name for name in MODULES if not _importable(name)]
    found = f"missing: {', '.join(missing)}" if missing else f"all {len(MODULES)} are there"
    remedy = f"{sys.executable} -m pip install --require-hashes -r requirements.txt"
    return Symptom("programs", "Python modules", not missing, found, remedy)


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False


def _file(pattern: str, name: str, package: str, without: str) -> Symptom:
    there = sorted(Path("/").glob(pattern.lstrip("/")))
    found = str(there[-1]) if there else f"not installed: {without}"
    return Symptom("programs", name, bool(there), found, f"apt-get install {package}", needed=False)


def _root() -> Symptom:
    good = os.geteuid() == 0
    found = "yes" if good else f"user {os.geteuid()}: may ask daemons, cannot be a host"
    return Symptom("machine", "root", good, found, "run it again with sudo")


def _kvm() -> Symptom:
    path = Path("/dev/kvm")
    if not path.exists():
        found, remedy = "no /dev/kvm: guests are emulated, slowly", "modprobe kvm_intel || modprobe kvm_amd"
    elif not os.access(path, os.R_OK | os.W_OK):
        found, remedy = (
            "/dev/kvm may not be opened: guests are emulated, slowly",
            f"setfacl -m u:$USER:rw {path}",
        )
    else:
        # A device that opens may still hang every guest.
        return Symptom("machine", "KVM", True, "/dev/kvm opens; the daemon tries it with a guest first", "")
    return Symptom("machine", "KVM", False, found, remedy, needed=False)


def _tpm() -> Symptom:
    path = Path("/dev/tpmrm0")
    if path.exists() and os.access(path, os.R_OK | os.W_OK):
        return Symptom("machine", "TPM", True, str(path))
    found = (
        f"{path} may not be opened" if path.exists() else f"no {path}: this machine can only be a lab's host"
    )
    remedy = "usermod -aG tss $USER" if path.exists() else "modprobe tpm_tis || modprobe tpm_crb"
    return Symptom("machine", "TPM", False, found, remedy, needed=False)


def _tun() -> Symptom:
    good = Path("/dev/net/tun").exists()
    found = "/dev/net/tun" if good else "no /dev/net/tun: guests have no network"
    return Symptom("machine", "guest network", good, found, "modprobe tun", needed=False)


def _namespaces() -> Symptom:
    try:
        done = subprocess.run(
            ["unshare", "--net", "true"], capture_output=True, text=True, timeout=10, check=False
        )
        good, why = done.returncode == 0, done.stderr.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        good, why = False, str(error)
    found = "can be made" if good else f"cannot be made ({why}): no lab here"
    remedy = "run it as root; or: sysctl user.max_net_namespaces=1024"
    return Symptom("machine", "network namespaces", good, found, remedy, needed=False)


def _clock() -> Symptom:
    synchronized = _synchronized()
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if synchronized is None:
        return Symptom("machine", "clock", True, f"{now}; the kernel does not say whether it is synchronized")
    found = now if synchronized else f"{now}, not synchronized: requests may seem expired on the other host"
    return Symptom("machine", "clock", synchronized, found, "apt-get install chrony", needed=False)


def _synchronized() -> bool | None:
    """adjtimex(2): whether somebody keeps the clock; None when the kernel does not tell."""
    buffer = ctypes.create_string_buffer(512)  # zeroed modes: read only
    try:
        if ctypes.CDLL(None, use_errno=True).adjtimex(buffer) < 0:
            return None
    except (OSError, AttributeError):
        return None
    status = int.from_bytes(buffer.raw[_STATUS_OFFSET : _STATUS_OFFSET + 4], sys.byteorder)
    return not status & _STA_UNSYNC
