"""`korora doctor`: what this machine lacks, and the exact command that mends it.

Promise: exit code 0 when everything that is needed is there, 3 when it is not. Limit: it mends nothing, and
whether KVM really runs a guest is for the daemon's probe to say.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import typer

from korora.cli.invocation import Invocation
from korora.cli.options import AsJson
from korora.cli.render import say, say_json
from korora.errors import ExitCode

if TYPE_CHECKING:
    from korora.cli.diagnosis import Symptom


def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Look over this machine, and say what mends what is missing.

    ✓ is there, ✗ is missing and needed, – is missing and can be done without.
    Exit code 0 when all that is needed is there, 3 otherwise.
    """
    from korora.cli.diagnosis import examine

    symptoms = list(examine(Invocation.of(context)))
    ready = all(symptom.good or not symptom.needed for symptom in symptoms)
    if as_json:
        say_json({"ready": ready, "checks": symptoms})
    else:
        _show(symptoms, ready=ready)
    if not ready:
        raise typer.Exit(ExitCode.REFUSED)


def _show(symptoms: list[Symptom], *, ready: bool) -> None:
    for area, group in groupby(symptoms, key=lambda symptom: symptom.area):
        say(area)
        for symptom in group:
            sign = "✓" if symptom.good else "✗" if symptom.needed else "–"
            say(f"  {sign} {symptom.what}: {symptom.found}")
            if symptom.remedy and not symptom.good:
                say(f"      {symptom.remedy}")
    say("This machine is ready." if ready else "This machine is not ready: see each ✗.")
