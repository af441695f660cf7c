"""What a signal does to a program that has a lab to clear away."""

from __future__ import annotations

import os
import signal

import pytest

from korora.lab.interruption import Interrupted, interruptible, undisturbed


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
