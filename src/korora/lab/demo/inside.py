"""What lies inside the VM: a virus on one of its disks keeps it where it is, until a person lets it pass."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

from korora.errors import ExitCode, ToolError
from korora.lab.demo.scene import Scene
from korora.lab.site import inspection

# The harmless file that every scanner knows (EICAR), in two parts, so that this one is not taken for it.
_TEST_VIRUS: Final = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
_POLICY: Final = '[checks]\nmalware = "block"\nindicators = "off"\n'


def against_a_virus(scene: Scene) -> None:
    stage, disk = scene.stage, scene.size.guest.data_path(scene.layout)
    stage.say(
        "The guest's second disk is an ext4. Somebody puts the scanners' own test virus on it, and the site's"
        " policy says that malware keeps a VM where it is:"
    )
    _put(disk, "evil.com")
    inspection(scene.layout).write_text(_POLICY)
    stage.command("cat site/inspection.toml")
    stage.plain(_POLICY.splitlines())
    found = scene.shell.type(f"korora vm inspect {scene.vm}")
    refused = scene.shell.type(f"korora migrate {scene.vm} --to b")
    stage.gap()
    scene.show(
        "a VM with a virus on a disk",
        "found; stays on a, exit 3",
        f"inspect: exit {found}; migrate: exit {refused}",
        good=(found, refused) == (ExitCode.INTEGRITY, ExitCode.REFUSED),
    )
    scene.still_well("the VM meanwhile", "a")


def let_pass_by_a_person(scene: Scene) -> None:
    """The flag goes along, and what is on the disks is held against what was there before."""
    name = _flag(scene)
    scene.stage.say(
        "A person looks at the flag, and lets it pass: signed, logged, and good for this file alone."
    )
    scene.shell.must("korora flags list")
    scene.shell.must(f'korora flags resolve {name[:8]} accept --reason "the scanners own test file"')
    scene.shell.must(f"korora migrate {scene.vm} --to b")
    there = [one for one in scene.shell.ask("flags", "list", "--all") if one["flag"]["id"] == name]
    scene.show(
        "its flag",
        "is on b, accepted",
        ", ".join(f"on {one['host']}, {one['state']}" for one in there) or "is lost",
        good=[one["host"] for one in there] == ["b"] and there[0]["state"].startswith("accepted"),
    )
    scene.shell.type(f"korora vm verify {scene.vm}")
    told = _verified(scene)
    disk: dict[str, Any] = next((one for one in told["compared"]["disks"] if one["name"] == "data"), {})
    scene.show(
        "the disk that nobody wrote to",
        "the same root on both hosts",
        f"{disk.get('chunks_differ')} of its chunks differ",
        good=bool(disk) and disk["before"] == disk["now"] and bool(told["proved"]),
    )
    scene.still_well("the VM after all", "b")


def _put(disk: Path, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "virus"
        file.write_bytes(_TEST_VIRUS)
        done = subprocess.run(
            ["debugfs", "-w", "-R", f"write {file} {name}", str(disk)],
            capture_output=True,
            check=False,
            timeout=60,
        )
    if done.returncode:
        raise ToolError(f"nothing can be written to {disk}: {done.stderr!r}", kind="demo-stopped")


def _flag(scene: Scene) -> str:
    found = [one["flag"] for one in scene.shell.ask("flags", "list", "--vm", scene.vm)]
    infected = [str(flag["id"]) for flag in found if flag["kind"] == "infected-file"]
    if not infected:
        raise ToolError("nothing was flagged", kind="demo-stopped")
    return infected[0]


def _verified(scene: Scene) -> Any:
    """Its answer, whatever its code is: the guest goes on writing to its other disk."""
    return scene.shell.ask("vm", "verify", scene.vm, may_find=True)["verification"]
