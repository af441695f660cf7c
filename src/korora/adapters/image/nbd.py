"""libnbd, from Debian's package: built for the system's Python 3.11, and found where it lies."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from korora.errors import ToolError

_SYSTEM: Final = Path("/usr/lib/python3/dist-packages")
SNAPSHOT_BYTES: Final = 1 << 16
"""As much of a snapshot as QEMU copies at a time before it is overwritten. A read across several such pieces,
of which only some were copied, is answered with bytes of now for all of them (7.2)."""


def library() -> ModuleType:
    """ToolError(kind="libnbd") when it is not installed, or was built for another Python."""
    if "nbd" in sys.modules:
        return sys.modules["nbd"]
    added = str(_SYSTEM)
    sys.path.append(added)  # last: nothing else of the system comes before the environment's own
    try:
        return importlib.import_module("nbd")
    except ImportError as error:
        raise ToolError(
            f"libnbd cannot be loaded: {error}",
            kind="libnbd",
            remedy="install the package python3-libnbd, and use the system's Python 3.11",
        ) from error
    finally:
        sys.path.remove(added)


def in_one_piece(handle: Any) -> int:
    """The flag for reads over this connection that are answered with data alone, or an error; 0 if the server
    does not know it.

    Without it QEMU looks for holes in what it is asked for, and hangs up where it cannot read (7.2).
    """
    if not handle.can_df():
        return 0
    # libnbd (1.14) knows this flag with another call alone.
    handle.set_strict_mode(handle.get_strict_mode() & ~library().STRICT_FLAGS)
    return int(library().CMD_FLAG_DF)
