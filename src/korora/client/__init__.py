"""The one way in for programs: a typed client of one daemon's API, over its unix socket.

Promise: every answer is a checked value and every failure a KororaError. Limit: it speaks to one daemon,
blocks while it does, and decides nothing.
"""

from korora.client.daemon import Daemon
from korora.client.events import Event, MigrationNote, MigrationOutcome, MigrationProgress, VtpmComparison

__all__ = ["Daemon", "Event", "MigrationNote", "MigrationOutcome", "MigrationProgress", "VtpmComparison"]
