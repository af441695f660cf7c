"""What `korora doctor` looks for is what the setup installs."""

from __future__ import annotations

import re
from pathlib import Path

from korora.cli.diagnosis import machine

SETUP = (Path(__file__).parents[4] / "script/setup").read_text()


def test_what_the_setup_installs_is_looked_for_package_by_package() -> None:
    listed = SETUP.split("packages=(")[1].split("\n)")[0]
    installed = set(re.sub(r"#.*", "", listed).split()) - {"python3", "python3-venv"}  # doctor runs in them
    named = [package for package, _ in (*machine.PROGRAMS.values(), *machine.LAB_PROGRAMS.values())]
    named += [package for _, package, _ in machine.FILES.values()]
    assert set(named) == installed  # a row that named two could find one and hide that the other is missing


def test_what_is_missing_says_what_it_is_for_and_how_to_mend_it(tmp_path: Path) -> None:
    symptom = machine._file(f"{tmp_path}/none-*", "UEFI firmware", "ovmf", "only BIOS guests")
    assert (symptom.good, symptom.remedy) == (False, "apt-get install ovmf")
    assert "only BIOS guests" in symptom.found
    (tmp_path / "none-1").touch()
    assert machine._file(f"{tmp_path}/none-*", "UEFI firmware", "ovmf", "only BIOS guests").good
