"""Whose lab folder is whose, and what a signal does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from korora.lab.demo.premises import Interrupted, interruptible, leftovers, new_folder, undisturbed


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


def test_a_signal_interrupts_once_and_then_lets_the_clearing_away_be() -> None:
    def story() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGINT)  # impatience

    with pytest.raises(Interrupted) as interrupted, interruptible():
        story()
    assert interrupted.value.exit_code == 128 + signal.SIGTERM


def test_a_forked_child_does_not_tell_the_story_on() -> None:
    with interruptible():
        child = os.fork()
        if not child:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                os._exit(0)  # only reached if the signal had raised
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGTERM


def test_nothing_is_disturbed_while_it_is_being_cleared_away() -> None:
    with interruptible():
        with undisturbed():
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
