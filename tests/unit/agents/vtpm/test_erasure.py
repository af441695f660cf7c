"""Erasing a directory."""

from __future__ import annotations

import os
from pathlib import Path

from korora.agents.vtpm import erasure
from korora.model.identity import VmName


def test_the_blocks_of_every_file_are_zeros_before_it_goes(tmp_path: Path) -> None:
    doomed = tmp_path / "vtpm"
    (doomed / "state").mkdir(parents=True)
    secret = doomed / "state" / "permall"
    secret.write_bytes(os.urandom(3_000_000))
    kept = os.open(secret, os.O_RDONLY)
    erased = erasure.erase(doomed)
    assert not any(os.pread(kept, 3_000_000, 0))
    os.close(kept)
    assert not doomed.exists()
    assert erased == erasure.Erased(1, 3_000_000, True)


def test_a_link_is_removed_and_never_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("keep me")
    doomed = tmp_path / "vtpm"
    doomed.mkdir()
    (doomed / "link").symlink_to(elsewhere)
    assert erasure.erase(doomed).files == 0
    assert elsewhere.read_text() == "keep me"


def test_what_is_not_there_is_erased_already(tmp_path: Path) -> None:
    assert erasure.erase(tmp_path / "nothing") == erasure.Erased(0, 0, True)


def test_the_certificate_names_its_limits(tmp_path: Path) -> None:
    step = erasure.wipe_step(VmName("web-1"), erasure.Erased(2, 10, True), counter_moved=True)
    assert "journalling" in step.note
    assert "SSD" in step.note
