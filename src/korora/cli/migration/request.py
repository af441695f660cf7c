"""The operator's signed request: who asks for what, once, and until when (S2, S5)."""

from __future__ import annotations

import re
import secrets
import time
from pathlib import Path

from korora.cli.site import read_bytes
from korora.errors import UsageError
from korora.model.identity import HostName, VmName
from korora.model.plan import MigrationRequest, Mode
from korora.model.site import Operator, SiteConfiguration
from korora.model.storage import ALL, StorageMode
from korora.protocol.dsse import KeyPair, envelope
from korora.protocol.statements import REQUEST_TYPE, encode_request

VALID_S = 600
_DISK_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")


def signed_request(
    site: SiteConfiguration,
    vm: str,
    source: str,
    destination: str,
    mode: Mode,
    disks: tuple[str, ...] = (),
    disk_format: str = "",
    *,
    incremental: bool = False,
    storage_mode: StorageMode = StorageMode.AUTO,
    replacement: str = "",
    keep_backing: bool = False,
    valid_s: int = VALID_S,
) -> bytes:
    """A fresh request as a DSSE envelope, signed by the site's operator. Disks as in a MigrationRequest.

    UsageError when there is no operator, or the key cannot be used.
    """
    operator = operator_of(site)
    now = int(time.time())
    request = MigrationRequest(
        operator=operator.name,
        procedure="migrate",
        vm=VmName(vm),
        source=HostName(source),
        destination=HostName(destination),
        mode=mode,
        nonce=secrets.token_hex(32),
        issued_at=now,
        not_after=now + valid_s,
        disks=disks,
        disk_format=disk_format,
        incremental=incremental,
        storage_mode=storage_mode,
        replacement=replacement,
        keep_backing=keep_backing,
    )
    return envelope(REQUEST_TYPE, encode_request(request), [operator_key(operator.key)])


def disk_names(words: str) -> tuple[str, ...]:
    """What `--disks` says: names with commas between them, or `all`. UsageError for anything else."""
    names = tuple(name.strip() for name in words.split(",")) if words.strip() else ()
    if names == ("all",):
        return (ALL,)
    wrong = [name for name in names if _DISK_NAME.fullmatch(name) is None]
    if wrong or len(set(names)) < len(names):
        raise UsageError(
            f"--disks {words}: {f'{wrong[0]!r} is no name of a disk' if wrong else 'a disk is named twice'}",
            kind="bad-disks",
            remedy="write `all`, or the disks' names as `korora vm show` tells them: --disks root,data",
        )
    return names


def moved_disks(words: str, *, incremental: bool, keep_backing: bool) -> tuple[str, ...]:
    """As `disk_names`. UsageError when it is said how disks move, and none does."""
    names = disk_names(words)
    if (incremental or keep_backing) and not names:
        raise UsageError(
            f"{'--incremental' if incremental else '--keep-backing'} is about disks that move, and none does",
            kind="bad-disks",
            remedy="say which disks move: --disks all",
        )
    return names


def folder(words: str) -> str:
    """What `--replacement` says. UsageError for a name that means another folder on another host."""
    if words and not Path(words).is_absolute():
        raise UsageError(
            f"--replacement {words}: it is not known from where",
            kind="bad-replacement",
            remedy="write the folder's whole name on the source, beginning with /",
        )
    return words


def operator_of(site: SiteConfiguration) -> Operator:
    if site.operator is None:
        raise UsageError(
            f"{site.origin} does not say who asks",
            kind="no-operator",
            remedy='add [operator] with name = "…" and key = "operator.pem" (an Ed25519 private key)',
        )
    return site.operator


def operator_key(path: Path) -> KeyPair:
    """The operator's private key. UsageError when it cannot be read or is of another kind."""
    pem = read_bytes(path, "the operator's key")
    try:
        return KeyPair.from_pem(pem)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"the operator's key {path} cannot be used: it is no unencrypted Ed25519 private key in PEM",
            kind="bad-key",
            remedy=f"make one: openssl genpkey -algorithm ed25519 -out {path}; then have it allowed",
        ) from error
