"""Signatures that find nothing, as many and as long as real ones: so that an engine has its usual work.

ClamAV's own may not be passed on, and a machine without a network has none; with a handful of signatures
clamd does hardly more than read. These are made up, always the same ones, and a fraction of what ClamAV's
own were in 2025 (some eight million, most of them hashes). A quarter of the patterns has a gap, which
ClamAV matches in another way than plain ones.
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
