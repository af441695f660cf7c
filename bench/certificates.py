"""Certificates for QEMU's own TLS, made for one session: a CA, and one pair a host, for either end."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from korora.errors import ToolError
from korora.lab.layout import LabHost

_CA = "cn = benchmark\nca\ncert_signing_key\nexpiration_days = 2\n"
_HOST = (
    "cn = {name}\nip_address = {ip}\ndns_name = {name}\ntls_www_client\ntls_www_server\n"
    "signing_key\nencryption_key\nexpiration_days = 2\n"
)


def make_certificates(folder: Path, hosts: tuple[LabHost, ...]) -> dict[str, Path]:
    """Host name → the folder that `tls-creds-x509,dir=` wants."""
    folder.mkdir(mode=0o700, parents=True)
    ca_key, ca = folder / "ca-key.pem", folder / "ca-cert.pem"
    _key(ca_key)
    _certificate(folder, _CA, "--generate-self-signed", "--load-privkey", ca_key, "--outfile", ca)
    return {host.name: _pair(folder / host.name, host, ca, ca_key) for host in hosts}


def _pair(folder: Path, host: LabHost, ca: Path, ca_key: Path) -> Path:
    folder.mkdir(mode=0o700)
    key, certificate = folder / "server-key.pem", folder / "server-cert.pem"
    _key(key)
    signer = ("--load-ca-certificate", ca, "--load-ca-privkey", ca_key)
    text = _HOST.format(name=host.name, ip=host.ip)
    _certificate(
        folder, text, "--generate-certificate", "--load-privkey", key, *signer, "--outfile", certificate
    )
    shutil.copyfile(ca, folder / "ca-cert.pem")
    shutil.copyfile(key, folder / "client-key.pem")
    shutil.copyfile(certificate, folder / "client-cert.pem")
    return folder


def _key(path: Path) -> None:
    _certtool("--generate-privkey", "--key-type=ecdsa", "--curve=secp256r1", "--outfile", path)


def _certificate(folder: Path, template: str, *words: str | Path) -> None:
    file = folder / "template"
    file.write_text(template)
    _certtool(*words, "--template", file)


def _certtool(*words: str | Path) -> None:
    done = subprocess.run(["certtool", *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolError(f"certtool: {done.stderr.strip()[-300:]}", kind="certtool", remedy="run script/setup")
