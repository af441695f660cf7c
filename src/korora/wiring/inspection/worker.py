"""The inspector's process: an order in, lines of JSON out.

Run: python -m korora.wiring.inspection.worker inspect|compare

Promise: one answer or one error, and nothing else on its output, whatever the libraries below it print.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import BinaryIO

import msgspec

from korora.errors import ExitCode, KororaError
from korora.ports.inspector import Order
from korora.wiring.inspection import looking

_ENCODER = msgspec.json.Encoder()


def main(words: Sequence[str], given: BinaryIO, output: BinaryIO) -> int:
    def say(what: dict[str, object]) -> None:
        output.write(_ENCODER.encode(what) + b"\n")
        output.flush()

    try:
        order = msgspec.json.decode(given.read(), type=Order)
        deed = {"inspect": looking.inspect, "compare": looking.compare}[words[0]]
        say({"answer": deed(order, lambda told: say({"told": told}))})
    except KororaError as error:
        say({"error": _facts(error)})
    except Exception as error:  # a bug here is told there
        say({"error": _facts(KororaError(f"{type(error).__name__}: {error}", kind="inspection"))})
        raise
    return 0


def _facts(error: KororaError) -> dict[str, object]:
    code = error.exit_code if error.exit_code is not ExitCode.BUG else ExitCode.TOOL
    return {"exit_code": code, "kind": error.kind, "message": error.message, "remedy": error.remedy}


if __name__ == "__main__":
    os.umask(0o077)  # originals may be malware
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whoever prints, prints elsewhere
    sys.exit(main(sys.argv[1:], sys.stdin.buffer, answers))
