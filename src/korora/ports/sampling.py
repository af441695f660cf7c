"""What a running guest asks of its disks, seen for a moment at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Requests: TypeAlias = NDArray[np.int64]
"""One row for each request: (offset, length) in bytes."""


@dataclass(frozen=True, slots=True)
class DiskSample:
    """What was asked of one disk of `size` bytes while it was watched for so many seconds."""

    size: int
    seconds: float
    reads: Requests
    writes: Requests


class RequestSampler(Protocol):
    """Watches one running VM's requests. One sample at a time."""

    async def sample(self, seconds: float) -> Mapping[str, DiskSample]:
        """Each disk, by its name, watched for so long; shorter where there are more requests than fit.

        However it ends, also by cancelling, nobody watches any more, as long as the VM can be reached.
        RefusedError(kind="not-sampled") for a VM that cannot be watched; ToolError: the VM is as it was.
        """
        ...

    async def close(self) -> None:
        """Let go of what was kept between samples. Never raises."""
        ...
