"""What a running VM has open for a disk, held against what its definition says that it has.

Limit: by names. A file that was put in another's place meanwhile has the same one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import zip_longest

from korora.model.image import Layer


def differing(
    defined: Sequence[Layer], opened: Sequence[Layer], allowed: Collection[str] = ()
) -> Iterator[str]:
    """What is open otherwise than defined, from the disk's own image down; `allowed` may hold its data.

    Paths must be resolved.
    """
    for depth, (wanted, there) in enumerate(zip_longest(defined, opened)):
        where = f"{depth} beneath it " if depth else ""
        if there is None:
            yield f"the VM has nothing open {where}where its definition says {wanted.path!r}"
        elif wanted is None:
            yield f"the VM has {there.path!r} open {where}as {there.format}: its definition does not say so"
        elif (wanted.path, wanted.format) != (there.path, there.format):
            yield (
                f"the VM has {there.path!r} open {where}as {there.format};"
                f" its definition says {wanted.path!r} as {wanted.format}"
            )
        if there is not None and there.data_file and there.data_file not in allowed:
            yield f"the VM has another file open {where}for its data: {there.data_file!r}"
