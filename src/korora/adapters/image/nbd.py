"""libnbd, from Debian's package: built for the system's Python 3.11, and found where it lies."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

from korora.errors import ToolError

_SYSTEM: Final = Path("/usr/lib/python3/dist-packages")


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
