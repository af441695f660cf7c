"""What a running QEMU has open for a disk, by its own block graph: images, formats, what lies beneath.

Limit: QEMU's word. A guest that took it over can make it say anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from korora.adapters.hypervisor.qmp import Qmp
from korora.model.image import Format, Layer

MAX_LAYERS: Final = 100
_OURS: Final = re.compile(r"korora-(?:over|cache)-[0-9]+")
"""Nodes that lie over a disk of Korora's while it moves: what is beneath them is the disk."""
_FILTERS: Final = {
    "commit_top",
    "compress",
    "copy-before-write",
    "copy-on-read",
    "mirror_top",
    "preallocate",
    "throttle",
}


@dataclass(frozen=True, slots=True)
class _Graph:
    """`drivers` and `files` of nodes by their names; `children` of a node, by what they are to it."""

    drivers: Mapping[str, str]
    files: Mapping[str, str]
    children: Mapping[str, Mapping[str, str]]

    def layers(self, node: str) -> Iterator[Layer]:
        """From this node down; a filter is none."""
        for _ in range(MAX_LAYERS):
            driver, below = self.drivers.get(node, ""), self.children.get(node, {})
            if not node:
                return
            if _OURS.fullmatch(node):
                node = below.get("backing", "")
            elif driver in _FILTERS:
                node = below.get("file", below.get("backing", ""))
            else:
                # What has nothing beneath it brings bytes as they lie there.
                yield Layer(self._file(node), driver if below else Format.RAW, self._data_file(below))
                node = below.get("backing", "")

    def _file(self, node: str) -> str:
        """Where its bytes come from in the end."""
        for _ in range(MAX_LAYERS):
            below = self.children.get(node, {}).get("file")
            if below is None:
                break
            node = below
        return self.files.get(node, "")

    def _data_file(self, below: Mapping[str, str]) -> str:
        return self._file(below["data-file"]) if "data-file" in below else ""


async def layers_of(qmp: Qmp, node: str) -> tuple[Layer, ...]:
    """Of what a device writes to."""
    told = await qmp.execute("query-named-block-nodes", {"flat": True})
    graph: dict[str, Any] = await qmp.execute("x-debug-query-block-graph")
    names = {one["id"]: str(one["name"]) for one in graph["nodes"]}
    children: dict[str, dict[str, str]] = {}
    for edge in graph["edges"]:
        children.setdefault(names[edge["parent"]], {})[str(edge["name"])] = names[edge["child"]]
    read = _Graph(
        drivers={str(one["node-name"]): str(one["drv"]) for one in told},
        files={str(one["node-name"]): str(one["file"]) for one in told},
        children=children,
    )
    return tuple(read.layers(node))
