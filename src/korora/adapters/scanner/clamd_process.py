"""A clamd of our own: own configuration, own socket, own folder; it ends with the command that started it.

Promise: it runs as the account `clamav` when we are root, listens on no network, alerts where it gives up
(limits, encryption), and leaves nothing behind. Limit: clamd itself keeps each stream in its own folder while
it looks at it: in memory (/dev/shm) where there is room.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from korora.adapters.scanner.signature_folder import KORORAS_OWN
from korora.errors import ToolError

ACCOUNT: Final = "clamav"
READY_WITHIN_S: Final = 180.0
"""To load some million signatures takes half a minute."""
_ENDS_WITHIN_S: Final = 5.0
_LOADED: Final = re.compile(r"Loaded (\d{1,12}) signatures")
_MEMORY: Final = Path("/dev/shm")  # noqa: S108  a folder of our own is made in it


@dataclass(frozen=True, slots=True)
class ClamdLimits:
    """`stream_bytes`: of a file, and of what lies in one; `scan_bytes`: of all that lies in one together."""

    stream_bytes: int = 256 << 20
    scan_bytes: int = 512 << 20
    files: int = 10_000
    depth: int = 16
    seconds: int = 120
    threads: int = 4


class Clamd:
    """A running clamd. `end` may be called again and again."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self._process = process
        self._folder = folder
        self.socket = folder / "socket"

    @property
    def pid(self) -> int:
        return self._process.pid

    def log(self) -> str:
        try:
            return (self._folder / "log").read_bytes().decode("utf-8", "backslashreplace")
        except OSError:
            return ""

    def loaded(self) -> int | None:
        """Signatures, as it said when it started."""
        said = _LOADED.search(self.log())
        return int(said[1]) if said else None

    def ended(self) -> bool:
        return self._process.poll() is not None

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def start(
    signatures: Path,
    limits: ClamdLimits,
    answers: Callable[[Path], bool],
    within_s: float = READY_WITHIN_S,
) -> Clamd:
    """It answers when this returns. ToolError(kind="clamd") when it never does; nothing is left then.

    It ends with the thread that called this (the kernel's rule), so that is one that stays: the main thread.
    """
    program = shutil.which("clamd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if program is None:
        raise _failed("it is not installed", "apt-get install clamav-daemon")
    folder = Path(tempfile.mkdtemp(prefix="korora-clamd-", dir=_roomy(4 * limits.stream_bytes)))
    try:
        _furnish(folder, signatures, limits)
        clamd = Clamd(_started(program, folder), folder)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError | ValueError):
            raise _failed(str(error), "see that clamd can be run and the signatures be read") from error
        raise
    try:
        _await(clamd, answers, time.monotonic() + within_s)
    except BaseException:
        clamd.end()
        raise
    return clamd


def _await(clamd: Clamd, answers: Callable[[Path], bool], deadline: float) -> None:
    while not answers(clamd.socket):
        if clamd.ended() or time.monotonic() > deadline:
            what = "it ended" if clamd.ended() else "it did not answer in time"
            last = clamd.log().strip().splitlines()[-1:] or ["it said nothing"]
            raise _failed(f"{what}: {last[0][:300]}", "see that it can read the signatures")
        time.sleep(0.05)


def _roomy(wanted: int) -> str | None:
    """The folder for temporary files: memory where there is room."""
    try:
        return str(_MEMORY) if shutil.disk_usage(_MEMORY).free >= wanted else None
    except OSError:
        return None


def _furnish(folder: Path, signatures: Path, limits: ClamdLimits) -> None:
    (folder / "streams").mkdir(mode=0o700)
    if signatures == KORORAS_OWN:
        # Copied: the account may not come to where Korora is installed.
        (folder / "signatures").mkdir(mode=0o700)
        for file in sorted(signatures.iterdir()):
            if file.suffix in {".ndb", ".hsb"}:
                shutil.copyfile(file, folder / "signatures" / file.name)
        signatures = folder / "signatures"
    (folder / "clamd.conf").write_text(configuration(folder, signatures, limits))
    account = _account()
    if account is not None:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid)


def configuration(folder: Path, signatures: Path, limits: ClamdLimits) -> str:
    """clamd.conf. ValueError when a path cannot stand in it."""
    lines = {
        "DatabaseDirectory": _quoted(signatures),
        "LocalSocket": _quoted(folder / "socket"),
        "LocalSocketMode": "600",
        "TemporaryDirectory": _quoted(folder / "streams"),
        "LogFile": _quoted(folder / "log"),
        "LogFileMaxSize": "1M",
        "Foreground": "yes",
        "MaxThreads": str(limits.threads),
        "StreamMaxLength": str(limits.stream_bytes),
        "MaxFileSize": str(limits.stream_bytes),
        "MaxScanSize": str(limits.scan_bytes),
        "MaxFiles": str(limits.files),
        "MaxRecursion": str(limits.depth),
        "MaxScanTime": str(limits.seconds * 1000),
        "CommandReadTimeout": str(limits.seconds),
        "ReadTimeout": str(limits.seconds),
        "AlertExceedsMax": "yes",
        "AlertEncrypted": "yes",
        "SelfCheck": "0",
    }
    return "".join(f"{key} {value}\n" for key, value in lines.items())


def _quoted(path: Path) -> str:
    text = str(path)
    if '"' in text or any(ord(character) < 0x20 for character in text):
        raise ValueError(f"clamd cannot be told of the path {text!r}")
    return f'"{text}"'


def _started(program: str, folder: Path) -> subprocess.Popen[bytes]:
    command = ["setpriv", "--pdeathsig", "KILL", "--no-new-privs"]
    account = _account()
    if account is not None:
        command += [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    return subprocess.Popen(
        [*command, "--", program, "-F", "-c", str(folder / "clamd.conf")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={"PATH": "/usr/bin:/usr/sbin", "LC_ALL": "C.UTF-8"},
    )


def _account() -> pwd.struct_passwd | None:
    """Who clamd is to be, if we may choose."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(ACCOUNT)
    except KeyError:
        return None


def _failed(why: str, remedy: str) -> ToolError:
    return ToolError(f"no clamd of our own: {why}", kind="clamd", remedy=remedy)
