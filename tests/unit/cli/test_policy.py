"""`korora policy`: what is wrong with a site's files, what they answer, and what the rules promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from korora.cli.main import answer

KEY = "11" * 32
EXAMPLE = '[[example]]\noperator = "alice"\nvm = "web-1"\nfrom = "a"\nto = "b"\nexpect = "{}"\n'
BROKEN = Path(__file__).parents[1] / "policy" / "proof" / "broken"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "authorization.toml").write_text(
        f'[operators.alice]\nkey = "{KEY}"\n'
        '[windows.night]\nfrom = "22:00"\nto = "06:00"\n[hosts.b]\nlabels = ["rack-2"]\n'
    )
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "web.cedar").write_text(
        '@id("web at night") permit(principal, action == Action::"migrate", resource)'
        ' when { resource.name like "web-*" && context.windows.contains("night") };'
    )
    return tmp_path


class Command:
    """`korora policy`, as a script calls it."""

    def __init__(self, printed: pytest.CaptureFixture[str]) -> None:
        self._printed = printed

    def run(self, *words: str) -> tuple[int, str]:
        code = answer(["policy", *words])
        return code, self._printed.readouterr().out

    def answered(self, *words: str) -> tuple[int, Any]:
        code, text = self.run(*words, "--json")
        return code, json.loads(text.splitlines()[-1])


@pytest.fixture
def policy(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def test_files_that_can_be_used_are_said_to_be(policy: Command, site: Path) -> None:
    code, told = policy.answered("check", "--dir", str(site))
    assert (code, told["usable"], told["problems"]) == (0, True, [])


def test_everything_that_is_wrong_is_said_with_its_file(policy: Command, site: Path) -> None:
    (site / "authorization.toml").write_text("surprise = 1")
    (site / "policies" / "a.cedar").write_text("permit(")
    (site / "policies" / "b.cedar").write_text(
        "permit(principal, action, resource) when { resource.size > 1 };"
    )
    code, told = policy.answered("check", "--dir", str(site))
    assert code == 2
    assert [problem.split(":")[0].rsplit("/", 1)[1] for problem in told["problems"]] == [
        "authorization.toml",
        "a.cedar",
        "b.cedar",
    ]


def test_a_folder_without_the_file_is_said_to_have_none(policy: Command, tmp_path: Path) -> None:
    code, told = policy.answered("check", "--dir", str(tmp_path))
    assert code == 2
    assert "No such file" in told["problems"][0]


def test_examples_are_asked_as_of_their_time(policy: Command, site: Path) -> None:
    night, noon = "at = 2026-11-28T23:00:00Z\n", "at = 2026-11-28T12:00:00Z\n"
    (site / "examples.toml").write_text(EXAMPLE.format("yes") + night + EXAMPLE.format("no") + noon)
    code, told = policy.answered("test", "--dir", str(site))
    assert (code, told["as_expected"]) == (0, True)
    assert told["examples"][0]["because"] == "web at night"


def test_an_answer_that_was_not_expected_is_shown_and_ends_with_three(policy: Command, site: Path) -> None:
    file = site / "mine.toml"
    file.write_text(EXAMPLE.format("yes") + "at = 2026-11-28T12:00:00Z\n")
    code, text = policy.run("test", str(file), "--dir", str(site))
    assert code == 3
    assert "0 of 1 as expected" in text
    assert "no policy lets alice" in text


@pytest.mark.parametrize(
    "text",
    ["", "[", "example = 1", EXAMPLE.format("perhaps"), EXAMPLE.format("yes") + "at = 2026-11-28T12:00:00\n"],
)
def test_examples_that_cannot_be_read_are_a_usage_error(policy: Command, site: Path, text: str) -> None:
    (site / "examples.toml").write_text(text)
    code, told = policy.answered("test", "--dir", str(site))
    assert (code, told["error"]["kind"]) == (2, "bad-examples")


def test_a_rule_set_that_is_not_secure_ends_with_three_and_a_case(policy: Command, tmp_path: Path) -> None:
    code, told = policy.answered("prove", "--explain", "--rules", str(BROKEN / "append-above.toml"))
    assert code == 3
    assert told["proved"] is False
    lost = [(result["rule"], result["property"]) for result in told["results"] if not result["proved"]]
    assert lost == [("get-append", "no-write-up"), ("get-append", "star")]
    assert [case["property"] for case in told["counterexamples"]] == ["no-write-up", "star"]
    assert all(case["replayed"] and case["before"] and case["added"] for case in told["counterexamples"])


@pytest.mark.parametrize("content", [b"", b"\xff", b"without = ['x.y']", b"[[rule]]", b"#" * (2 << 20)])
def test_a_file_of_rules_that_cannot_be_read_is_a_usage_error(
    policy: Command, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "rules.toml"
    file.write_bytes(content)
    code, told = policy.answered("prove", "--rules", str(file))
    assert (code, told["error"]["kind"]) == (2, "bad-rules")


def test_a_session_that_is_no_session_is_a_usage_error(policy: Command) -> None:
    code, told = policy.answered("explain", "../x")
    assert (code, told["error"]["kind"]) == (2, "unknown-session")
