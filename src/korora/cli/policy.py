"""`korora policy`: the rules that decide, and what they promise."""

from __future__ import annotations

from korora.cli.options import group
from korora.cli.rules.authorization import check, try_out
from korora.cli.rules.explaining import explain
from korora.cli.rules.proving import audit, prove

app = group("The rules: who may do what, what they promise, and what they decided.")
app.command("check")(check)
app.command("test")(try_out)
app.command("prove")(prove)
app.command("audit")(audit)
app.command("explain")(explain)
