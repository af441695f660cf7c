"""docs/ARCHITECTURE.md draws the house that stands: its rooms, its modules, its API."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from fakes.host_services import FakeServices, configuration_in
from korora.host.api import create_api

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs/ARCHITECTURE.md").read_text()


def test_the_rooms_stand_in_the_order_that_is_enforced() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    table = TEXT.split("| room | what |")[1].split("\n\n")[0]
    rooms = [re.findall(r"`(\w+)(?:/|\.py)`", line[: line.rindex(" | ")]) for line in table.splitlines()[2:]]
    assert [[name.removeprefix("korora.") for name in layer.split(" | ")] for layer in layers] == rooms


def test_a_module_of_the_story_that_is_named_exists() -> None:
    drawn = TEXT.split("## How an order travels")[1].split("\n## ")[0]
    source = ROOT / "src/korora"
    for name in re.findall(r"\b([\w/]+\.py)\b", drawn):
        assert (source / name).exists() or (source / "migration" / name).exists(), name


def test_the_api_is_listed_whole(tmp_path: Path) -> None:
    described = create_api(FakeServices(configuration_in(tmp_path))).openapi()["paths"]
    there = {f"{verb.upper()} {path}" for path, verbs in described.items() for verb in verbs}
    listed = set(re.findall(r"`((?:GET|POST|DELETE) /v1/[^`]+)`", TEXT))
    assert listed == there
