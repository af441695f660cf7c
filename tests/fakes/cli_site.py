"""A site of two hosts with scripted daemons, as the command line finds it on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from fakes.daemon import Answer, FakeDaemon, serving

CONFIGURATION = """
[site]
name = "test"
[operator]
name = "alice"
key = "alice.pem"
[hosts.a]
address = "10.0.0.1:7000"
api = "a.sock"
[hosts.b]
address = "10.0.0.2:7000"
api = "b.sock"
"""


@dataclass(slots=True)
class CliSite:
    folder: Path
    a: FakeDaemon
    b: FakeDaemon
    operator: ed25519.Ed25519PrivateKey

    @property
    def config(self) -> Path:
        return self.folder / "korora.toml"

    def command(self, *words: str) -> list[str]:
        return ["--config", str(self.config), *words]


def vm(name: str, *, state: str = "running", ownership: str = "owner", epoch: int = 1, **more: Any) -> Any:
    owned = ownership in {"owner", "offered", "starting"}
    return {
        "name": name, "state": state, "ownership": ownership, "epoch": epoch, "owned": owned, **more
    }  # fmt: skip


def knows(daemon: FakeDaemon, *vms: Any) -> None:
    """Let the daemon know these VMs, and no other."""
    daemon.routes["GET", "/v1/vms"] = Answer(list(vms))
    for view in vms:
        daemon.routes["GET", f"/v1/vms/{view['name']}"] = Answer(view)


@contextmanager
def cli_site(folder: Path) -> Iterator[CliSite]:
    """The site under `folder`, with both daemons answering; host a runs the VM `web`."""
    operator = ed25519.Ed25519PrivateKey.generate()
    (folder / "korora.toml").write_text(CONFIGURATION)
    key = folder / "alice.pem"
    key.write_bytes(
        operator.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    key.chmod(0o600)
    a, b = FakeDaemon("a", folder / "a.sock"), FakeDaemon("b", folder / "b.sock")
    for daemon in (a, b):
        daemon.routes["GET", "/v1/host"] = Answer({"name": daemon.name, "version": "0.1.0"})
        knows(daemon)
    knows(a, vm("web", memory_bytes=2**29, vtpm=True))
    with ExitStack() as stack:
        stack.enter_context(serving(a))
        stack.enter_context(serving(b))
        yield CliSite(folder, a, b, operator)


def documents(text: str) -> list[Any]:
    """Standard output as JSON, a document a line."""
    return [json.loads(line) for line in text.splitlines()]
