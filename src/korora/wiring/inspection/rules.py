"""What the site wants looked at: inspection.toml as it is now, with its paths made whole."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from korora import named_file
from korora.errors import UsageError
from korora.model.inspection_policy import InspectionPolicy, parse_inspection_policy


@dataclass(frozen=True, slots=True)
class InspectionRules:
    """Read anew each time, so that an edit is in force at once. `file` None: nothing is looked at.

    While the file cannot be used nothing leaves and nothing arrives: a gate that nobody can read is shut.
    """

    file: Path | None

    def __call__(self) -> InspectionPolicy:
        """UsageError of kind bad-definition, or no-file."""
        if self.file is None:
            return InspectionPolicy()
        try:
            text = named_file.read(self.file).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"{self.file} cannot be read: {getattr(error, 'strerror', None) or error}",
                kind="no-file",
                remedy="write it, or remove `inspection` from hostd.toml",
            ) from error
        policy, folder = parse_inspection_policy(text, str(self.file)), self.file.absolute().parent
        return replace(
            policy,
            engines=str(folder / policy.engines) if policy.engines is not None else None,
            indicators=str(folder / policy.indicators) if policy.indicators is not None else None,
            configuration=tuple(str(folder / one) for one in policy.configuration),
            allow=tuple(str(folder / one) for one in policy.allow),
        )

    def check(self) -> None:
        """UsageError while it cannot be used."""
        self()
