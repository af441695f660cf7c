"""What a source orders, judged by the host that the VM is to come to: is it what the operator signed, may it
come, does it fit.

Promise: nothing is taken or made; only the request's nonce is spent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from korora.errors import RefusedError
from korora.migration.crossing.disks import storage
from korora.migration.greeting import gate, survey
from korora.migration.setting import Setting
from korora.model.definition import parse_definition
from korora.model.identity import HostName
from korora.model.plan import Finding
from korora.model.vm import VmDefinition
from korora.policy.precheck import precheck, precheck_disks
from korora.protocol.messages import Order


@dataclass(frozen=True, slots=True)
class Ordered:
    """`brought`: the VM as it is at the source; `definition`: as it will be here."""

    order: Order
    brought: VmDefinition
    definition: VmDefinition

    @classmethod
    def read(cls, at: Setting, order: Order) -> Ordered:
        """RefusedError for a definition that cannot be had, or disks that do not go with it."""
        brought = parse_definition(order.definition)
        here = storage.relocated(brought, order.disks, at.guests.place(brought.name))
        return cls(order, brought, here)

    def admitted(self, at: Setting, source: HostName, peer_state: str) -> gate.Admission:
        """As `gate.admit`. RefusedError(kind="request-mismatch") also for another VM, or other disks."""
        admission = gate.admit(
            at, self.order.request, source=source, destination=at.host, peer_state=peer_state
        )
        if admission.request.vm != self.brought.name:
            raise RefusedError(
                f"the request is for {admission.request.vm}, the order brings {self.brought.name}",
                kind="request-mismatch",
            )
        storage.refuse_unasked(self.brought, self.order.disks, admission.request)
        return admission

    async def findings(self, at: Setting, promised: Callable[[], tuple[int, int]]) -> list[Finding]:
        """All that speaks against it here. `promised`: as for `survey.destination_facts`."""
        disks = self.order.disks
        staying = storage.staying(self.brought, [disk.name for disk in disks])
        beneath = storage.beneath_ordered(self.brought, disks)
        here = await survey.destination_facts(at, staying, beneath, promised)
        return [*precheck(staying, self.order.facts, here), *precheck_disks(disks, beneath, here)]
