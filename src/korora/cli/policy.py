"""`korora policy`: the rules that decide, and what they promise."""

from __future__ import annotations

from korora.cli.explaining import explain
from korora.cli.options import group
from korora.cli.proving import audit, prove

app = group("The rules: what they promise, and what they decide.")
app.command("prove")(prove)
app.command("audit")(audit)
app.command("explain")(explain)
