"""How the story looks."""

from __future__ import annotations

import io

import pytest

from korora.lab.demo.stage import Stage


def _stage(width: int = 60, *, coloured: bool = False) -> tuple[Stage, io.StringIO]:
    out = io.StringIO()
    return Stage(out, width=width, coloured=coloured), out


def test_without_a_terminal_there_is_no_control_character() -> None:
    out = io.StringIO()
    stage = Stage(out)
    stage.title("title")
    stage.heading(1, "heading")
    stage.command("korora vm list")
    stage.verdict("it went well", good=True)
    assert "\x1b" not in out.getvalue()
    assert stage.width == 100


def test_a_heading_fills_its_line() -> None:
    stage, out = _stage()
    stage.heading(2, "Live migration")
    assert len(out.getvalue().splitlines()[-1]) == 60


def test_a_long_sentence_is_wrapped_and_a_path_stays_whole() -> None:
    stage, out = _stage(30)
    path = "/run/korora-demo-12345/hosts/a/state/receipts"
    stage.say(f"A sentence that goes on for longer than a line, and {path} in it.")
    lines = out.getvalue().splitlines()
    assert any(path in line for line in lines)
    assert all(len(line) <= 30 for line in lines if path not in line)


@pytest.mark.parametrize(("good", "sign"), [(True, "✓"), (False, "✗")])
def test_a_verdict_carries_its_mark(good: bool, sign: str) -> None:
    stage, out = _stage()
    stage.verdict("attack: exit 5", good=good)
    assert out.getvalue() == f"{sign} attack: exit 5\n"


def test_a_command_is_shown_as_it_is_typed() -> None:
    stage, out = _stage(20)
    line = "korora --config korora-wire.toml migrate web-1 --to a"
    stage.command(line)
    assert out.getvalue() == f"\n$ {line}\n"


def test_colours_frame_the_words_and_do_not_change_them() -> None:
    stage, out = _stage(coloured=True)
    stage.verdict("done", good=True)
    assert out.getvalue() == "\x1b[32m✓\x1b[0m done\n"
