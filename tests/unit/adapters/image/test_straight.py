"""A raw disk that is served, read from its file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from korora.adapters.image.qemu_nbd import QemuImages, served
from korora.errors import ToolError
from korora.model.image import Format, ImageFiles, NbdExport

MIB = 1 << 20


def test_bytes_and_holes_are_those_of_the_file_and_what_was_written_is_the_servers(tmp_path: Path) -> None:
    disk, other = tmp_path / "disk", tmp_path / "other"
    content = os.urandom(MIB)
    with disk.open("wb") as file:
        file.seek(3 * MIB)
        file.write(content)
        file.truncate(6 * MIB)
    other.write_bytes(bytes(6 * MIB))
    with served(ImageFiles(other, Format.RAW), tmp_path, 5):
        with QemuImages().open_export(NbdExport(tmp_path / "nbd", file=disk)) as image:
            assert image.size == 6 * MIB
            assert list(image.each([(3 * MIB, MIB)], bytes)) == [content]
            assert [one.offset for one in image.extents() if not one.zero] == [3 * MIB]
            assert list(image.written()) == [(0, 6 * MIB)]
        disk.write_bytes(b"shorter")
        short = NbdExport(tmp_path / "nbd", file=disk)
        with pytest.raises(ToolError, match="not what is served"), QemuImages().open_export(short):
            pass
