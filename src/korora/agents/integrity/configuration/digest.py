"""One digest for all settings of a file, in any order and spelling.

With BLAKE3 in its derive-key mode, H(context, data), and JSON in UTF-8 with sorted keys and no white space
(docs/CONFIGURATION.md has vectors):

    digest = H("Korora 2026 configuration: VM", {"format": …, "settings": {path: value, …}})

Promise: a digest is of everything, or there is none: while one setting could not be read, it is unknown.
"""

from __future__ import annotations

from typing import Final

import msgspec
from blake3 import blake3

from korora.model.identity import Digest
from korora.model.vm_settings import VmConfiguration

_VM: Final = "Korora 2026 configuration: VM"


def digest(configuration: VmConfiguration) -> Digest | None:
    """None while something of it could not be read."""
    if configuration.unparsed:
        return None
    said = {"format": configuration.format.value, "settings": dict(configuration.settings)}
    canonical = msgspec.json.encode(said, order="sorted")
    return Digest("blake3:" + blake3(canonical, derive_key_context=_VM).hexdigest())
