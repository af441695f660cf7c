"""A host's append-only log, checked from here: signed head, root, and that it only grew since last time.

Promise: a log that was once verified here cannot lose or change an entry unnoticed by a later check. The
heads seen are kept in $XDG_STATE_HOME/korora/heads, by the site authority's key. Limit: the first check has
nothing to compare with.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from korora.cli.evidence.anchors import authority_of
from korora.cli.evidence.checks import Check
from korora.client import Daemon
from korora.client.views import LogView
from korora.errors import IntegrityError, KororaError, RefusedError
from korora.model.identity import HostName
from korora.model.site import SiteConfiguration
from korora.policy.certificates import checked_host_certificate, key_digest
from korora.protocol import canonical, dsse, merkle
from korora.protocol.log import TreeHead, opened_head, verify_growth, verify_leaves


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found; `head` is None when it was not the host's. `leaves` are as shown, believed or not."""

    checks: list[Check]
    size: int
    head: TreeHead | None
    leaves: tuple[bytes, ...] = ()


def verify(site: SiteConfiguration, host: HostName, daemon: Daemon) -> Verified:
    """Fetch the whole log and check it; a log that holds is remembered for the next time."""
    authority = authority_of(site)
    shown = daemon.log()
    try:
        head = opened_head(shown.tree_head.encode(), host, _host_key(daemon, host, authority))
    except (IntegrityError, RefusedError) as error:
        return Verified([Check("tree head", False, error.message)], shown.size, None)
    checks = [
        Check("tree head", True, f"signed by {host}: {head.size} entries, root {head.root.hex()[:16]}…"),
        _entries(shown, head),
    ]
    memory = _Memory(_folder(authority), host)
    if all(check.ok for check in checks):
        checks.append(_growth(memory, shown, head))
        if checks[-1].ok is not False:
            memory.keep(head)
    return Verified(checks, shown.size, head, shown.leaves)


def _host_key(daemon: Daemon, host: HostName, authority: x509.Certificate) -> dsse.PublicKey:
    """The key that the site's authority certified for this host."""
    certificate = daemon.attestation(os.urandom(32)).certificate
    if certificate is None:
        raise RefusedError(f"host {host} has no certificate: it is not enrolled", kind="not-enrolled")
    key = checked_host_certificate(certificate, host, authority, time.time()).public_key()
    if not isinstance(key, ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey):
        raise RefusedError(f"the key of {host} is neither Ed25519 nor P-256", kind="wrong-usage")
    return key


def _entries(shown: LogView, head: TreeHead) -> Check:
    try:
        verify_leaves(list(shown.leaves), head)
    except IntegrityError as error:
        return Check("entries", False, error.message)
    return Check("entries", True, f"all {head.size} give the signed root")


def _growth(memory: _Memory, shown: LogView, head: TreeHead) -> Check:
    old = memory.recall()
    if old is None:
        return Check("history", None, "nothing to compare with: this is the first check from here")
    path: tuple[bytes, ...] = ()
    if 0 < old.size <= head.size:
        path = merkle.consistency_proof(old.size, head.size, merkle.nodes_of(shown.leaves))
    try:
        verify_growth(old, head, path)
    except IntegrityError as error:
        return Check("history", False, error.message)
    return Check("history", True, f"it begins with the {old.size} entries that were seen before")


@dataclass(frozen=True, slots=True)
class _Memory:
    """The last head of one host's log that was verified here."""

    folder: Path
    host: HostName

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.host}.json"

    def recall(self) -> TreeHead | None:
        try:
            return canonical.decoded(self._file.read_bytes(), TreeHead)
        except FileNotFoundError:
            return None
        except (OSError, KororaError) as error:
            raise IntegrityError(
                f"the tree head that was remembered in {self._file} cannot be read: {error}",
                kind="log-memory",
                remedy=f"if you know why, remove {self._file}: the next check then is a first one",
            ) from error

    def keep(self, head: TreeHead) -> None:
        """Replace it in one step: a crash leaves the old one or the new one."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self._file.with_suffix(".new")
        new.write_bytes(canonical.encoded(head))
        new.replace(self._file)


def _folder(authority: x509.Certificate) -> Path:
    """By the authority's key: another site may well have hosts of the same names."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path("~").expanduser() / ".local" / "state")
    return Path(state) / "korora" / "heads" / key_digest(authority).removeprefix("sha256:")[:32]
