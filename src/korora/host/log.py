"""The daemon's log: one JSON object per line, to standard error or a file that may be rotated under it.

Promise: an event has a name, a time (UTC) and facts as fields; libraries' own lines come in the same shape.
Limit: nothing is sent anywhere, and no secret is ever given to it (model.identity.Secret prints none).
"""

from __future__ import annotations

import logging
import sys
from logging.handlers import WatchedFileHandler
from pathlib import Path

import structlog
from structlog.typing import Processor

from korora.errors import UsageError


def log_to(file: Path | None, host: str) -> None:
    """Configure the whole process. UsageError when the file cannot be opened."""
    stamped: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _of_host(host),
        structlog.processors.format_exc_info,
    ]
    handler = _handler(file)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=stamped,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # Every request is no news on a host's own socket; what matters is logged by what does it.
    for chatty in ("uvicorn", "qemu.qmp", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *stamped,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _of_host(host: str) -> Processor:
    def add(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["host"] = host
        return event

    return add


def _handler(file: Path | None) -> logging.Handler:
    if file is None:
        return logging.StreamHandler(sys.stderr)
    try:
        return WatchedFileHandler(file, encoding="utf-8", errors="backslashreplace")
    except OSError as problem:
        raise UsageError(
            f"cannot write the log {file}: {problem.strerror}",
            kind="bad-log",
            remedy="choose a file in a directory that is there and writable",
        ) from problem
