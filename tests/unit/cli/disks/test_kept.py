"""`korora disk kept`: what a host keeps, and that it is wiped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.cli_site import CliSite, cli_site
from fakes.daemon import Answer
from korora.cli.main import run

DISK = {
    "vm": "web",
    "uuid": "u",
    "name": "data",
    "format": "raw",
    "size": 1 << 30,
    "root": "",
    "to": "b",
    "at": 7,
    "used": 4096,
    "until": 0,
}
STEP = {"what": "/x/data.image", "method": "overwritten", "bytes": 4096, "verified": True, "note": ""}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[CliSite]:
    with cli_site(tmp_path) as made:
        yield made


def told(site: CliSite, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        run(site.command("-H", "a", "disk", "kept", *words))
    return int(str(ended.value.code)), capsys.readouterr().out


def test_it_is_listed(site: CliSite, capsys: pytest.CaptureFixture[str]) -> None:
    site.a.routes["GET", "/v1/kept"] = Answer([DISK])
    code, out = told(site, capsys)
    assert code == 0
    assert out.splitlines()[1].split()[:7] == ["web", "data", "raw", "1.0", "GiB", "4.0", "KiB"]
    assert out.splitlines()[1].split()[-1] == "–"
    assert json.loads(told(site, capsys, "--json")[1]) == [DISK | {"backing": []}]
    site.a.routes["GET", "/v1/kept"] = Answer([DISK | {"until": 86400 * 365 * 30 + 7}])
    assert "1999-12-2" in told(site, capsys)[1]
    site.a.routes["GET", "/v1/kept"] = Answer([])
    assert told(site, capsys) == (0, "nothing is kept\n")


def test_it_is_dropped(site: CliSite, capsys: pytest.CaptureFixture[str]) -> None:
    site.a.routes["DELETE", "/v1/kept/web"] = Answer([STEP])
    assert told(site, capsys, "--drop", "web") == (0, "/x/data.image: overwritten, 4.0 KiB\n")
    assert json.loads(told(site, capsys, "--drop", "web", "--json")[1]) == [STEP]
