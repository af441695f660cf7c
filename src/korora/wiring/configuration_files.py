"""Configuration files of this machine, for the command line: read, digested, compared."""

from __future__ import annotations

from pathlib import Path

from korora import named_file
from korora.agents.integrity.configuration.comparing import changes, words
from korora.agents.integrity.configuration.digest import digest
from korora.agents.integrity.configuration.hiding import shown, shown_text
from korora.agents.integrity.configuration.moving import Allowed
from korora.agents.integrity.configuration.readers.reading import MAX_BYTES
from korora.agents.integrity.configuration.recognition import read
from korora.errors import UsageError
from korora.model.vm_settings import ConfigurationFormat, VmConfiguration

__all__ = ["Allowed", "changes", "digest", "read_file", "shown", "shown_text", "words"]


def read_file(path: Path, declared: ConfigurationFormat | None = None) -> VmConfiguration:
    """UsageError names the file. At most `MAX_BYTES` of it are read."""
    try:
        data = named_file.beginning(path, MAX_BYTES)
    except OSError as error:
        raise _refused(path, error.strerror or str(error)) from error
    try:
        return read(data, declared)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", kind=error.kind, remedy=error.remedy) from error


def _refused(path: Path, why: str) -> UsageError:
    return UsageError(
        f"{path}: {why}", kind="no-configuration", remedy="name a configuration file of a VM that can be read"
    )
