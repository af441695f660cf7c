"""`korora hostd`: what a wrong configuration is answered, before anything is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from korora.cli.hostd import hostd, read_configuration
from korora.errors import UsageError


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        hostd(tmp_path / "none.toml")
    assert str(tmp_path / "none.toml") in caught.value.message
    assert "korora hostd --config" in caught.value.remedy


@pytest.mark.parametrize("content", [b"\xff\xfe", b"name = [", b'name = "a"\nunknown = 1\n'])
def test_a_file_that_is_wrong_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "hostd.toml"
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        hostd(file)
    assert caught.value.kind == "bad-configuration"
    assert str(file) in caught.value.message
    assert list(tmp_path.iterdir()) == [file]


def test_a_directory_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        read_configuration(tmp_path)
