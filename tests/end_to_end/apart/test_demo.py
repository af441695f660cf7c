"""The demonstration, as somebody sees it who only types the one command."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
DEMO = Path(__file__).parents[3] / "script" / "demo"


def _demo(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([DEMO, *words], capture_output=True, text=True, timeout=900, check=False)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A new one with a short path: unix sockets lie in it."""
    made = Path(tempfile.mkdtemp(prefix="kd-", dir="/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def test_the_demonstration_shows_what_it_promises_and_leaves_nothing(folder: Path) -> None:
    done = _demo("--fast", "--dir", str(folder))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    said = done.stdout
    crossed = [line for line in said.splitlines() if "✗" in line]
    assert [line for line in crossed if "infected-file" not in line] == []  # the one that it lays into a disk
    for shown in ("downtime", "the signed receipt", "attack 1, on Korora", "attack 3, a request replayed"):
        assert shown in said
    assert "the door is OPENED" in said  # what plain migration let happen
    assert not folder.exists()
    living = subprocess.run(["pgrep", "-f", str(folder)], capture_output=True, text=True, check=False)
    assert living.stdout == ""


def test_a_wrong_option_is_a_usage_error() -> None:
    assert _demo("--nonsense").returncode == 2
