"""What is kept as proof: receipts, and the append-only log."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from korora.host import schema
from korora.host.routes.encoding import base64_of
from korora.host.services import Services


def evidence_routes(services: Services) -> APIRouter:
    router = APIRouter(tags=["evidence"])

    @router.get("/receipts")
    async def list_receipts() -> list[schema.ReceiptAnswer]:
        return [
            schema.ReceiptAnswer(entry.session, entry.path, entry.vm, entry.outcome)
            for entry in services.receipts.list()
        ]

    @router.get("/receipts/{session}", response_class=Response)
    async def show_receipt(session: str) -> Response:
        """The DSSE envelope, byte by byte as the host keeps it: signatures are over bytes."""
        return Response(services.receipts.read(session), media_type="application/json")

    @router.get("/log")
    async def show_log() -> schema.LogAnswer:
        """The whole Merkle log with the host's signed tree head."""
        log = await services.log.contents()
        leaves = [base64_of(leaf) for leaf in log.leaves]
        return schema.LogAnswer(services.configuration.name, log.size, log.root, log.tree_head, leaves)

    return router
