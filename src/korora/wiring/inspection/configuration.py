"""Configuration files beside the VM's definition: digested, what cannot be read, what changed (E1, E5).

Promise: a setting that cannot be read has a placeholder in the digest, and is told with its own text.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from korora.errors import KororaError
from korora.model.flag import FlagKind, Place
from korora.model.identity import blake3_digest
from korora.model.inspection import Check, ConfigurationFacts, Found
from korora.model.vm_settings import Unparsed, VmConfiguration
from korora.ports.inspector import Order
from korora.protocol import flag
from korora.protocol.flag import SETTING_PREFIX
from korora.wiring.configuration_files import changes, digest, read_file, words
from korora.wiring.inspection.gathering import Gathering
from korora.wiring.inspection.originals import Originals

_WORDS = "settings of the files that the policy names"


def look(order: Order, gathering: Gathering, originals: Originals, *, keep: bool) -> None:
    if not gathering.wants(Check.CONFIGURATION):
        return
    gathering.looked(Check.CONFIGURATION, words=_WORDS)
    for number, file in enumerate(order.configuration):
        try:
            seen = read_file(Path(file))
            if keep:
                shutil.copyfile(file, Path(order.output) / f"configuration-{number}")
        except (KororaError, OSError) as error:
            gathering.finds(Found(kind=FlagKind.UNREAD, place=Place(file=file), reason=str(error)))
            gathering.looked(Check.CONFIGURATION, unknown=1)
            continue
        found = [_found(order, file, one, originals) for one in seen.unparsed]
        for one in found:
            gathering.finds(one)
        gathering.looked(Check.CONFIGURATION, examined=len(seen.settings) + len(found))
        gathering.configuration.append(_facts(order.vm, file, seen, found))


def differences(order: Order) -> Iterator[str]:
    """What changed in each file since the baseline, beside what a move brings about; in words."""
    for number, file in enumerate(order.configuration):
        before = Path(order.baseline) / f"configuration-{number}"
        if not before.exists() or not Path(file).exists():
            continue  # another host may keep it elsewhere
        try:
            found = changes(read_file(before), read_file(Path(file)), moved=True)
            yield from (f"{file}: {one.severity}: {words(one)}" for one in found if not one.expected)
        except KororaError as error:
            yield f"{file}: cannot be compared: {error.message}"


def _found(order: Order, file: str, one: Unparsed, originals: Originals) -> Found:
    place, text = Place(file=file, setting=one.place[:1000]), one.text.encode("utf-8", "backslashreplace")
    content = blake3_digest(text)
    name = flag.name(order.vm, FlagKind.SETTING, place, content)
    original = originals.kept(name, FlagKind.SETTING, place, one.why, text)
    return Found(kind=FlagKind.SETTING, place=place, content=content, reason=one.why, original=original)


def _facts(vm: str, file: str, seen: VmConfiguration, found: Sequence[Found]) -> ConfigurationFacts:
    """With a placeholder for each setting that could not be read."""
    standing = {
        one.place.setting: SETTING_PREFIX + flag.name(vm, one.kind, one.place, one.content) for one in found
    }
    whole = replace(seen, settings={**seen.settings, **standing}, unparsed=())
    return ConfigurationFacts(
        file=file, format=seen.format.value, digest=digest(whole), placeholders=len(standing)
    )
