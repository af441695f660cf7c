"""Package databases inside of images, of whatever kind."""

from __future__ import annotations

from typing import Protocol

from korora.model.files import Content
from korora.model.packages import Packages


class PackageDatabase(Protocol):
    """The database of one root. It belongs to the image: whatever its bytes are, reading it ends."""

    def take(self, content: Content) -> None:
        """A file of it, or a part of one, in order."""
        ...

    def read(self) -> Packages:
        """Once all came. What cannot be read is in its problems."""
        ...

    def close(self) -> None:
        """Nothing of it is left on this machine."""
        ...
