"""A process of its own for YARA-X: `python -m korora.adapters.scanner.yara_worker compile|scan`.

Rules come from elsewhere and can loop, eat memory or break the library; YARA-X holds Python's lock while it
works. Here that costs one file its answer. Speaks through descriptor 0, a socket: pieces after their length
in four bytes, none for the end; answers are lines of JSON.

Promise: within bounds of memory, writes no file, and ends when whoever started it does.
"""

from __future__ import annotations

import io
import json
import resource
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any, Final

MEMORY_BYTES: Final = 2 << 30
"""Of memory that is written to; address space that is only kept free is not counted."""
RULES_TOLD: Final = 50
SUSPICIOUS_TAG: Final = "suspicious"
_LENGTH: Final = struct.Struct(">I")


def main(work: str) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with socket.socket(fileno=0) as connection, connection.makefile("rb") as reading:
        if work == "compile":
            _compile(connection, _whole(reading))
        else:
            _scan(connection, reading)


def _compile(connection: socket.socket, sources: bytes) -> None:
    """Sources are JSON: a list of names and texts. Answers with a line, and with the compiled rules."""
    import yara_x

    compiler = yara_x.Compiler()
    compiler.enable_includes(False)
    try:
        for name, text in json.loads(sources):
            compiler.new_namespace(name)
            compiler.add_source(text, origin=name)
        compiled = io.BytesIO()
        compiler.build().serialize_into(compiled)
    except Exception as error:
        _say(connection, {"error": str(error)[:4000]})
        return
    _say(connection, {"size": len(compiled.getvalue())})
    connection.sendall(compiled.getvalue())


def _scan(connection: socket.socket, reading: Any) -> None:
    """First the rules, then file after file: the seconds that it may take, and its bytes."""
    import yara_x

    try:
        rules = yara_x.Rules.deserialize_from(io.BytesIO(_whole(reading)))
    except Exception as error:
        _say(connection, {"error": str(error)[:4000]})
        return
    scanner = yara_x.Scanner(rules)
    scanner.max_matches_per_pattern(10)
    _say(connection, {"rules": sum(1 for _ in rules)})
    while seconds := reading.read(_LENGTH.size):
        scanner.set_timeout(max(1, *_LENGTH.unpack(seconds)))
        content = _whole(reading)
        try:
            found = scanner.scan(content).matching_rules
        except yara_x.TimeoutError:
            _say(connection, {"error": "it took too long"})
        except Exception as error:
            _say(connection, {"error": str(error)[:4000]})
        else:
            told = [(one.namespace, one.identifier, SUSPICIOUS_TAG in one.tags) for one in found]
            told.sort(key=lambda rule: rule[2])  # those that prove most come first
            _say(connection, {"found": told[:RULES_TOLD], "more": max(0, len(told) - RULES_TOLD)})


def _whole(reading: Any) -> bytes:
    return b"".join(_pieces(reading))


def _pieces(reading: Any) -> Iterator[bytes]:
    while True:
        head = reading.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            raise EOFError
        (length,) = _LENGTH.unpack(head)
        if not length:
            return
        yield reading.read(length)


def _say(connection: socket.socket, value: dict[str, Any]) -> None:
    connection.sendall(json.dumps(value).encode() + b"\n")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except (EOFError, ConnectionError):
        sys.exit(0)  # whoever asked has gone
