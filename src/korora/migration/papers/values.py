"""The digest of what each procedure of a migration made, for the log: from the migration's file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from korora.migration.papers.file import MigrationFile
from korora.model.identity import Digest, sha256
from korora.policy.machine.language.vocabulary import Procedure

_MADE: Final[dict[Procedure, Callable[[MigrationFile], Any]]] = {
    Procedure.SUBMIT: lambda file: file.envelope,
    Procedure.AUTHORIZE: lambda file: (file.source_allowed_by, file.destination_allowed_by),
    Procedure.APPROVE: lambda file: file.said and file.said.envelope,
    Procedure.CHALLENGE: lambda file: file.met and file.met.own_evidence.quote,
    Procedure.ATTEST: lambda file: file.met and file.met.peer.evidence.quote,
    Procedure.AGREE: lambda file: (file.rule, file.prechecks),
    Procedure.BASELINE: lambda file: (file.clean_memory, file.wrapping, file.inspection, file.dossier),
    Procedure.TRANSFER: lambda file: file.rule,
    Procedure.SWITCHOVER: lambda file: file.sent or file.received,
    Procedure.MEASURE: lambda file: file.manifest,
    Procedure.VERIFY: lambda file: file.accept or file.manifest,
    Procedure.ACCEPT: lambda file: file.accept,
    Procedure.RELEASE: lambda file: file.release,
    Procedure.RUN: lambda file: file.running,
    Procedure.WIPE: lambda file: file.wiped,
    Procedure.RECEIPT: lambda file: (file.manifest, file.accept, file.release),
}


def value_of(procedure: Procedure, file: MigrationFile | None) -> Digest:
    """Of nothing, where this host has nothing of it."""
    made = _MADE[procedure](file) if file is not None and procedure in _MADE else None
    return sha256(made if isinstance(made, bytes) else msgspec.json.encode(made, enc_hook=repr))
