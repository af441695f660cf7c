"""What is true of every refusal: it says why and where the VM runs, and the other host has nothing of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from end_to_end.conftest import Lab
from end_to_end.ordering import Ended
from end_to_end.travelling import (
    Traveller,
)


def stopped(walker: Traveller, done: Ended, exit_code: int, *kinds: str) -> dict[str, Any]:
    """The migration was refused for this reason, and c, where it should have gone, has nothing of the VM."""
    assert done.exit_code == exit_code, (done.outcome, done.stderr)
    error = done.error
    assert error["kind"] in kinds, error
    assert error["message"]
    assert error["vm_runs_on"] == walker.host.name
    walker.stayed(walker.host, walker.lab.layout.host("c"))
    return error


def complaint(lab: Lab, *words: str, config: Path | None = None) -> tuple[int, dict[str, Any]]:
    """Exit code and error object of a command that fails."""
    done = lab.korora(*words, "--json", config=config)
    assert "Traceback" not in done.stderr
    last = json.loads(done.stdout.strip().splitlines()[-1])
    assert last["error"]["message"]
    assert last["error"]["remedy"]
    return done.returncode, last["error"]
