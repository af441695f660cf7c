"""Signatures that find nothing, as many and as long as real ones: so that an engine has its usual work.

A machine without a network has none of ClamAV's own, and with a handful clamd does hardly more than read.
These are made up, always the same ones, and fewer than ClamAV's own. A quarter of the patterns has a gap.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Final

PATTERNS: Final = 60_000
HASHES: Final = 300_000
_SEED: Final = 20_260_101
_LENGTHS: Final = (16, 64)  # of a pattern, in bytes


def made_up(folder: Path, besides: Path) -> Path:
    """The folder, with these and a copy of what signatures are in `besides`."""
    folder.mkdir()
    for path in besides.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    draw = random.Random(_SEED)
    with (folder / "made-up.ndb").open("w") as file:
        for number in range(PATTERNS):
            pattern = draw.randbytes(draw.randint(*_LENGTHS)).hex()
            if number % 4 == 0:
                pattern = f"{pattern[:16]}{{4-40}}{pattern[16:]}"
            file.write(f"Bench.MadeUp.Pattern-{number}:0:*:{pattern}\n")
    with (folder / "made-up.hsb").open("w") as file:
        for number in range(HASHES):
            file.write(
                f"{draw.randbytes(32).hex()}:{draw.randint(500, 5_000_000)}:Bench.MadeUp.Hash-{number}:73\n"
            )
    return folder
