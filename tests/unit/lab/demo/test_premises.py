"""Whose lab folder is whose."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from korora.lab.demo.premises import leftovers, new_folder


def _ended_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        return process.pid


def test_only_the_folder_of_a_demonstration_that_has_ended_is_left_over(tmp_path: Path) -> None:
    ended = tmp_path / f"korora-demo-{_ended_process()}"
    kept = tmp_path / f"korora-kept-{_ended_process()}"
    other = tmp_path / "korora-demo-notes"
    for folder in (ended, kept, other):
        folder.mkdir()
    assert leftovers(tmp_path) == [ended]


def test_the_folder_of_a_running_demonstration_is_its_own(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "print(flush=True); input()", "korora.lab.demo"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()  # only now is its command line surely there to be read
        (tmp_path / f"korora-demo-{running.pid}").mkdir()
        assert leftovers(tmp_path) == []
        running.kill()


def test_a_number_that_went_to_another_program_protects_nothing(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        folder = tmp_path / f"korora-demo-{other.pid}"
        folder.mkdir()
        assert leftovers(tmp_path) == [folder]
        other.kill()


def test_what_a_namesake_left_before_us_is_cleared_away_too(tmp_path: Path) -> None:
    ours = new_folder(keep=False, parent=tmp_path)
    ours.mkdir()
    assert leftovers(tmp_path) == [ours]


def test_a_kept_lab_has_a_name_that_is_never_cleared_away(tmp_path: Path) -> None:
    new_folder(keep=True, parent=tmp_path).mkdir()
    assert leftovers(tmp_path) == []
