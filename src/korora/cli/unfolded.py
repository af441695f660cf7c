"""What is said of a VM that wrote elsewhere while it was to move, and whose disks are not whole since."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from korora.client.views import VmView

FOLD_BACK: Final = (
    "see that the storage of its disks can be written and has room, and leave these files where they are;"
    " then start the daemon anew, or move the VM again, or start it if it is stopped: each tries to fold back"
)


def not_in_disks(vm: VmView) -> str:
    return f"what it wrote while it was to move is not in its disks yet, but in {', '.join(vm.not_in_disks)}"
