"""The Data Plane agent (A3, S4): the hypervisor's stream crosses the network sealed, and is evidenced."""

from korora.agents.dataplane.destination import DestinationRelay
from korora.agents.dataplane.relay import RelayReport
from korora.agents.dataplane.source import SourceRelay

__all__ = ["DestinationRelay", "RelayReport", "SourceRelay"]
