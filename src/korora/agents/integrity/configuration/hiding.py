"""What of a configuration is not shown: passwords, keys, tokens, and what a guest is given to set itself up.

Promise: a value that lies at such a place, or speaks of such a thing, is never shown in part: that it changed
is told, and not what it was. Limit: a secret that neither its place nor its text gives away is shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from korora.model.vm_settings import Field, SettingChange

HIDDEN: Final = "(not shown)"
_THING: Final = r"passw|pwd|passphrase|secret|credential|token|cookie|psk|private|api.?key|auth"
_PLACE: Final = re.compile(
    rf"{_THING}|encryption\.|keysafe|keystore|filekey|vnc\.key|vtpm\.ek"
    # What a guest is given when it is set up.
    r"|user.?data|vendor.?data|guestinfo\.(?:metadata|ovfenv)|cloud.?init|ignition|kickstart"
    r"|sysinfo(?:\[[^]]*\])?/entry|qemu:env\b",
    re.IGNORECASE,
)
_TEXT: Final = re.compile(
    rf"(?:{_THING})[^\s=:]*[\"']?\s*[=:]"
    r"|private key-----|://[^/\s@]*:[^/\s@]*@|[:,;]key=|AccountKey",
    re.IGNORECASE,
)
_ARGUMENT: Final = re.compile(rf"{_THING}|://[^/\s@]*@|\bkey|fw_cfg|smbios|\bdata=|keyid|cert", re.IGNORECASE)
"""Of emulator arguments, in which one word may say what the next one is."""
_IS_PASSWORD: Final = re.compile(r"(?P<element>.*)/@[^/]*value")


def hides(path: str, settings: Mapping[str, str]) -> bool:
    """Whether what stands there is not shown, whatever it is. `settings`: those beside it."""
    if _PLACE.search(path):
        return True
    of = _IS_PASSWORD.fullmatch(path)
    return of is not None and settings.get(f"{of['element']}/@ovf:password", "").lower() in {"true", "1"}


def shown(value: str, field: Field | None = None) -> str:
    """The value, unless it speaks of what is not shown."""
    pattern = _ARGUMENT if field is Field.ARGUMENTS else _TEXT
    return HIDDEN if pattern.search(value) else value


def shown_text(place: str, text: str) -> str:
    """Of a setting that could not be read."""
    return HIDDEN if _PLACE.search(place) or _PLACE.search(text) or _TEXT.search(text) else text


def quiet(
    change: SettingChange, before: Mapping[str, str], after: Mapping[str, str]
) -> tuple[str | None, str | None]:
    """What is shown of a change: before and after. `before` and `after`: all settings of both files."""
    old, new = change.before, change.after
    by_place = change.part is None or change.field is Field.ARGUMENTS
    if by_place and any(hides(path, side) for path in change.paths for side in (before, after)):
        return old and HIDDEN, new and HIDDEN
    if Field.PASSWORD is change.field:  # set or none
        return old, new
    return old and shown(old, change.field), new and shown(new, change.field)
