"""How `korora image diff` tells what lies where two disks differ."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from korora.wiring.image_differences import Inhabited
    from korora.wiring.images import Difference

NAMES_SHOWN: Final = 5
NAME_CHARS: Final = 200
_ONLY: Final = {"one": " (in the first)", "other": " (in the second)"}


def described(one: Difference, there: Inhabited | None) -> dict[str, object]:
    """For scripts."""
    from korora.wiring.image_differences import shown

    files = there.files.values() if there else ()
    return {
        "offset": one.offset,
        "length": one.length,
        "files": [
            {"volume": file.volume, "path": shown(file.path), "kind": file.kind, "on": file.on}
            for file in files
        ],
        "more_files": there is not None and there.more,
        "beside": there.beside if there else [],
    }


def names(there: Inhabited | None) -> str:
    """Some of them on one line, and how many more there are."""
    from korora.wiring.image_differences import name_of

    if there is None:
        return ""
    said = [
        _line(name_of(file.volume, file.path)) + _ONLY.get(file.on, "")
        for file in islice(there.files.values(), NAMES_SHOWN)
    ]
    left = len(there.files) - len(said)
    if left:
        said.append(f"{left}{' and more' if there.more else ''} other files")
    return ", ".join([*said, *there.beside])


def _line(text: str) -> str:
    plain = text.replace("\n", "\\n").replace("\t", "\\t")
    return plain if len(plain) <= NAME_CHARS else f"{plain[:NAME_CHARS]}…"
