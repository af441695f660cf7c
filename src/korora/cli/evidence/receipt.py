"""A receipt from a file: judged against the site's anchors, or only read."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from korora.cli.evidence.anchors import trust_anchors
from korora.cli.evidence.checks import Check
from korora.model.identity import OperatorName
from korora.model.plan import MigrationRequest
from korora.model.site import SiteConfiguration
from korora.protocol import canonical, dsse, statements
from korora.protocol.host_appraisal import appraise_host
from korora.protocol.log import TreeHead
from korora.protocol.receipt.case import Judge
from korora.protocol.receipt.document import Receipt, parse_bundle, peek
from korora.protocol.receipt.verification import verify_bundle
from korora.protocol.statements import Accept, Manifest

_T = TypeVar("_T", Manifest, Accept, TreeHead)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a receipt says, nothing verified. `logs` are the host, the place in its log, and its tree head."""

    receipt: Receipt
    request: MigrationRequest
    manifest: Manifest
    accept: Accept
    logs: tuple[tuple[str, int, TreeHead], ...]


def claims(data: bytes) -> Claims:
    """Read a bundle without judging it. IntegrityError when it is none."""
    bundle = parse_bundle(data)
    told = peek(bytes(bundle.receipt))
    return Claims(
        receipt=told,
        request=statements.peek_request(told.request),
        manifest=_peek(told.ownership.manifest, Manifest),
        accept=_peek(told.ownership.accept, Accept),
        logs=tuple((log.host, log.index, _peek(bytes(log.head), TreeHead)) for log in bundle.logs),
    )


def judged(data: bytes, site: SiteConfiguration, operators: Mapping[OperatorName, bytes]) -> list[Check]:
    """Every check that a third party can make, with the site's trust anchors and these operators' keys."""
    anchors = trust_anchors(site)
    judge = Judge(
        authority=anchors.authority,
        operators=operators,
        appraise=partial(appraise_host, anchors=anchors),
        now=time.time(),
    )
    return [Check(check.name, check.ok, check.detail) for check in verify_bundle(data, judge)]


def _peek(envelope: bytes, kind: type[_T]) -> _T:
    return canonical.decoded(dsse.parse(envelope).payload, kind)
