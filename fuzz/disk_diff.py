"""Noise against the reader of diffs: `PYTHONPATH=src:tests python -m fuzz.disk_diff [ROUNDS] [SEED]`.

Each round takes a diff that is well, damages it (in the file, or before it is signed: a signer may be
hostile), and reads and applies it in memory. Whatever comes, it is an IntegrityError or a disk; never another
exception, and never more memory than the records that are there.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence

from fakes.disk_diffs import applied, content_of, diff_of, records_of
from korora.errors import IntegrityError
from korora.protocol.content_tree import CHUNK_BYTES
from korora.protocol.disk_diff.chunks import Data, Record, Zeros
from korora.protocol.disk_diff.statement import HEAD_BYTES

WORDS = [0, 1, 2, 255, 256, 2**31, 2**32 - 1, 2**63, 2**64 - 1]


def run(rounds: int, seed: int) -> dict[str, int]:
    """How often it ended in what. AssertionError, or whatever the reader raised, at the first fault."""
    chosen = random.Random(seed)
    base, result = _disks(chosen)
    good, records = diff_of(base, result), records_of(base, result)
    ended: dict[str, int] = {}
    for _ in range(rounds):
        file = _damaged(good, chosen) if chosen.random() < 0.6 else _hostile(base, result, records, chosen)
        try:
            made = applied(base, file)
            how = "well" if content_of(made) == content_of(result) else "another result"
        except IntegrityError as refused:
            how = refused.kind
        ended[how] = ended.get(how, 0) + 1
    return ended


def _disks(chosen: random.Random) -> tuple[bytes, bytes]:
    size = 3 * CHUNK_BYTES + 5000
    base = bytearray(size)
    base[:9000] = chosen.randbytes(9000)
    base[CHUNK_BYTES : CHUNK_BYTES + 5000] = chosen.randbytes(5000)
    result = base + bytearray(chosen.randbytes(1000))
    result[4096:4100] = b"new!"
    result[CHUNK_BYTES : CHUNK_BYTES + 5000] = bytes(5000)
    result[2 * CHUNK_BYTES : 2 * CHUNK_BYTES + 100] = chosen.randbytes(100)
    return bytes(base), bytes(result)


def _damaged(good: bytes, chosen: random.Random) -> bytes:
    """The file, changed on its way."""
    file = bytearray(good)
    for _ in range(chosen.choice([1, 1, 1, 4])):
        at = chosen.randrange(HEAD_BYTES, len(file)) if chosen.random() < 0.7 else chosen.randrange(len(file))
        match chosen.randrange(6):
            case 0:
                file[at] ^= 1 << chosen.randrange(8)
            case 1:
                del file[at:]
            case 2:
                file[at:at] = chosen.randbytes(chosen.randrange(1, 50))
            case 3:
                del file[at : at + chosen.randrange(1, 200)]
            case 4:
                file += chosen.randbytes(chosen.randrange(1, 50))
            case _:
                word = chosen.choice(WORDS).to_bytes(8, "big")
                file[at : at + 8] = word
        if len(file) <= HEAD_BYTES:
            break
    return bytes(file)


def _hostile(base: bytes, result: bytes, records: Sequence[Record], chosen: random.Random) -> bytes:
    """Signed by a key that is trusted, and wrong."""
    made = list(records)
    for _ in range(chosen.choice([1, 1, 3])):
        at = chosen.randrange(len(made)) if made else 0
        match chosen.randrange(6):
            case 0:
                made.insert(at, Zeros(chosen.choice(WORDS[:-1]), chosen.choice(WORDS)))
            case 1 if made:
                made.insert(at, made[chosen.randrange(len(made))])
            case 2 if made:
                del made[at]
            case _ if made and isinstance(one := made[at], Data):
                made[at] = _other(one, chosen)
            case _:
                chosen.shuffle(made)
    changed = {
        name: chosen.choice([0, 1, 17, 2**40]) for name in ("records", "length") if chosen.random() < 0.1
    }
    return diff_of(base, result, made, changed=changed)


def _other(one: Data, chosen: random.Random) -> Data:
    frame = bytearray(one.frame)
    if frame and chosen.random() < 0.6:
        frame[chosen.randrange(len(frame))] ^= 1 << chosen.randrange(8)
    blocks = one.blocks ^ 1 << chosen.randrange(256) if chosen.random() < 0.3 else one.blocks
    first = chosen.choice([one.first, one.first, *WORDS])
    return Data(first, one.leaf, blocks, bytes(frame))


if __name__ == "__main__":
    ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    print(run(ROUNDS, int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**32)))
