"""Read what a guest writes about its boot: frames of `KEVL`, a big-endian u32 length, and that many bytes.

The guest writes this file, so nothing in it is believed: not a length, not an end. What a frame says is
appraised against the vTPM's PCRs elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = b"KEVL"
FRAME_LIMIT_BYTES = 2**20
FILE_LIMIT_BYTES = 16 * 2**20  # some hundred reboots; a longer file is not a boot's record any more


@dataclass(frozen=True, slots=True)
class GuestLogs:
    """The whole frames so far, oldest first. `fault` says why the rest cannot be one; empty while it may."""

    frames: tuple[bytes, ...]
    fault: str = ""

    @property
    def latest(self) -> bytes | None:
        return self.frames[-1] if self.frames else None


def framed(event_log: bytes) -> bytes:
    """One event log as the guest would write it."""
    return MAGIC + len(event_log).to_bytes(4, "big") + event_log


def read_guest_logs(data: bytes) -> GuestLogs:
    """Take the file apart. A frame that is still being written is left for the next reading."""
    if len(data) > FILE_LIMIT_BYTES:
        return GuestLogs((), f"the guest wrote more than {FILE_LIMIT_BYTES} bytes of event logs")
    frames: list[bytes] = []
    for frame in _frames(data):
        if isinstance(frame, str):
            return GuestLogs(tuple(frames), frame)
        frames.append(frame)
    return GuestLogs(tuple(frames))


def _frames(data: bytes) -> Iterator[bytes | str]:
    """Frames, then a str where one cannot be right."""
    at = 0
    while at < len(data):
        head = data[at : at + 8]
        if head[:4] != MAGIC[: len(head)]:
            yield f"the guest's event log is not framed at byte {at}"
            return
        if len(head) < 8:
            return
        length = int.from_bytes(head[4:], "big")
        if length > FRAME_LIMIT_BYTES:
            yield f"the guest's event log at byte {at} claims {length} bytes"
            return
        if len(data) < at + 8 + length:
            return
        yield data[at + 8 : at + 8 + length]
        at += 8 + length
