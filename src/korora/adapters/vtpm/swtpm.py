"""swtpm as the vTPM emulator, and swtpm_setup with its local CA as the manufacturer.

Promise: keys reach the tools through descriptors, never through a file or a command line; the CA and its
settings live in this host's own directory, not in /etc. Limit: the CA's private key lies unencrypted in
that directory (0700): an EK certificate of a vTPM says which host made it, no more.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from korora.errors import ToolError
from korora.model.identity import Secret

_CIPHER = "aes-256-cbc"
_SETUP_WITHIN_S = 120


class Swtpm:
    """`authority` is the directory of this host's vTPM manufacturer; it is made when first needed."""

    def __init__(self, authority: Path, program: str = "swtpm") -> None:
        self._authority = authority
        self._program = program

    @property
    def issuer_certificate(self) -> Path:
        """PEM of the CA that signs EK certificates; there after the first `manufacture`."""
        return self._authority / "issuercert.pem"

    def manufacture(self, state: Path, key: Secret) -> None:
        settings = self._settings()
        key_fd = _readable(key)
        try:
            done = subprocess.run(
                [
                    "swtpm_setup",
                    "--tpm2",
                    *("--tpm-state", str(state)),
                    *("--config", str(settings)),
                    *("--keyfile-fd", str(key_fd), "--cipher", _CIPHER),
                    *("--pcr-banks", "sha256"),
                    "--create-ek-cert",
                    "--create-platform-cert",
                    "--lock-nvram",
                    "--not-overwrite",
                ],
                pass_fds=(key_fd,),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SETUP_WITHIN_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _manufacture_failed(str(error)) from error
        finally:
            os.close(key_fd)
        if done.returncode != 0 or not self.permanent_state(state).exists():
            raise _manufacture_failed((done.stdout + done.stderr).strip()[-500:])

    def command(self, state: Path, key_fd: int, control_fd: int) -> Sequence[str]:
        return [
            shutil.which(self._program) or self._program,
            "socket",
            "--terminate",  # when the control channel is gone: no TPM lives on without its interposer
            "--tpm2",
            *("--tpmstate", f"dir={state},mode=0600"),
            *("--ctrl", f"type=unixio,clientfd={control_fd}"),
            *("--key", f"fd={key_fd},mode={_CIPHER},format=hex"),
            *(("--seccomp", "action=kill") if "cmdarg-seccomp" in self._features else ()),
        ]

    def permanent_state(self, state: Path) -> Path:
        return state / "tpm2-00.permall"

    def volatile_state(self, state: Path) -> Path:
        return state / "tpm2-00.volatilestate"

    @cached_property
    def _features(self) -> frozenset[str]:
        """What this build can do: asked, never guessed from a version."""
        try:
            asked = subprocess.run(
                [self._program, "socket", "--print-capabilities"], capture_output=True, timeout=10, check=True
            )
            return frozenset(json.loads(asked.stdout)["features"])
        except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
            raise ToolError(
                f"{self._program} cannot be used: {error}",
                kind="no-swtpm",
                remedy="apt-get install swtpm swtpm-tools",
            ) from error

    def _settings(self) -> Path:
        """Write the manufacturer's settings; swtpm_localca makes the CA itself when it first signs."""
        directory = self._authority
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        ca, options, setup = (directory / name for name in ("localca.conf", "localca.options", "setup.conf"))
        _write(
            ca,
            f"statedir = {directory}\n"
            f"signingkey = {directory}/signkey.pem\n"
            f"issuercert = {self.issuer_certificate}\n"
            f"certserial = {directory}/certserial\n",
        )
        _write(options, "--platform-manufacturer Korora\n--platform-version 1\n--platform-model QEMU\n")
        _write(
            setup,
            f"create_certs_tool = {shutil.which('swtpm_localca') or 'swtpm_localca'}\n"
            f"create_certs_tool_config = {ca}\n"
            f"create_certs_tool_options = {options}\n"
            "active_pcr_banks = sha256\n",
        )
        return setup


def _write(path: Path, text: str) -> None:
    """Replace as a whole: another manufacture may be reading it."""
    fresh = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
    fresh.write_text(text)
    fresh.replace(path)


def _readable(key: Secret) -> int:
    """A descriptor from which the key can be read once, in hex. The caller closes it."""
    reader, writer = os.pipe()
    os.write(writer, key.reveal().hex().encode())
    os.close(writer)
    return reader


def _manufacture_failed(why: str) -> ToolError:
    return ToolError(
        f"no vTPM could be made: {why}", kind="vtpm-manufacture", remedy="apt-get install swtpm swtpm-tools"
    )
