"""What up, down and status do where there is no lab, and what they refuse to touch."""

import os
import shutil
from pathlib import Path

import pytest

from korora.adapters.hypervisor.probe.cache import Cache
from korora.errors import ToolError, UsageError
from korora.lab import lifecycle
from korora.lab.layout import Layout

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def test_where_there_is_no_lab_the_status_says_so_and_makes_nothing(tmp_path: Path) -> None:
    found = lifecycle.status(Layout(tmp_path / "lab"))
    assert (found.up, found.hosts) == (False, ())
    assert list(tmp_path.iterdir()) == []


@needs_root
def test_a_folder_that_is_something_else_is_neither_filled_nor_deleted(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for act in (lifecycle.bring_up, lifecycle.take_down):
        with pytest.raises(UsageError) as refused:
            act(Layout(tmp_path))
        assert refused.value.kind == "not-a-lab"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@needs_root
def test_taking_down_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    lifecycle.take_down(Layout(tmp_path / "lab"))


def test_without_root_the_lab_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for act in (lifecycle.bring_up, lifecycle.take_down):
        with pytest.raises(ToolError) as refused:
            act(Layout(tmp_path / "lab"))
        assert refused.value.kind == "not-root"
    assert list(tmp_path.iterdir()) == []


@needs_root
def test_two_at_once_are_refused_not_mixed(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    (tmp_path / "lab.json").write_text('{"hosts": 2}')
    with lifecycle._alone(layout), pytest.raises(ToolError) as busy:
        lifecycle.take_down(layout)
    assert busy.value.kind == "lab-busy"
    assert (tmp_path / "lab.json").exists()


def test_what_one_host_probes_of_this_machine_is_known_to_all_and_outlives_the_lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORORA_CACHE", str(tmp_path / "cache"))
    layout = Layout(tmp_path / "lab")
    for folder in layout.folders(2):
        folder.mkdir(parents=True, exist_ok=True)
    first, second = layout.hosts(2)
    for host in (first, second, first):
        lifecycle._share_what_is_probed(host)
    Cache(first.state / "cache").write("facts", "key", b"seen")
    assert Cache(second.state / "cache").read("facts", "key") == b"seen"
    shutil.rmtree(layout.directory)
    assert Cache(tmp_path / "cache" / "probed").read("facts", "key") == b"seen"


def test_a_host_that_has_probed_by_itself_keeps_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORORA_CACHE", str(tmp_path / "cache"))
    (host,) = Layout(tmp_path / "lab").hosts(1)
    own = host.state / "cache"
    own.mkdir(parents=True)
    lifecycle._share_what_is_probed(host)
    assert not own.is_symlink()
