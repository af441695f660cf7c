"""`korora disk`: the disks of VMs."""

from __future__ import annotations

from korora.cli.disks import diff
from korora.cli.options import group

app = group("Disks of VMs: diff.")
app.add_typer(diff.app, name="diff")
