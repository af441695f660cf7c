"""The pages about looking into VMs and about flags say what the code does."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

from korora.model.flag import FlagKind, Place
from korora.model.inspection import CHECK_OF, Check, Disposition
from korora.model.inspection_policy import parse_inspection_policy
from korora.protocol import flag
from korora.supervision.inspection import dossier

ROOT = Path(__file__).parents[3]
INSPECTION = (ROOT / "docs/INSPECTION.md").read_text()
FLAGS = (ROOT / "docs/FLAGS.md").read_text()


def rows(text: str, header: str) -> list[list[str]]:
    lines = text.split(header, 1)[1].splitlines()[2:]
    table = lines[: next(at for at, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in table]


def test_the_example_of_a_policy_is_one() -> None:
    (text,) = re.findall(r"```toml\n# inspection.toml\n(.*?)```", INSPECTION, re.DOTALL)
    policy = parse_inspection_policy(text, "the example")
    assert policy.checks[Check.MALWARE] is Disposition.BLOCK
    assert policy.arrivals == (Check.MALWARE, Check.CONTAINERS)


def test_every_check_and_every_disposition_is_explained() -> None:
    assert [row[0] for row in rows(INSPECTION, "| check | what |")] == list(Check)
    assert [row[0] for row in rows(INSPECTION, "| | report and receipt |")] == list(Disposition)


def test_every_kind_of_flag_is_explained_with_its_check() -> None:
    told = {row[0]: row[2] for row in rows(FLAGS, "| kind | what | check |")}
    assert told == {kind.value: CHECK_OF[kind].value for kind in FlagKind}


def test_the_vectors_of_names_and_placeholders_hold() -> None:
    vectors = rows(FLAGS, "| JSON | name |")
    for text, name in vectors:
        vm, kind, place, content = json.loads(text)
        path = base64.b64decode(place.pop("path", ""))
        assert flag.name(vm, FlagKind(kind), Place(path=path, **place), content) == name
    first = hashlib.sha256(flag.placeholder(vectors[0][1], 1030)).hexdigest()
    assert f"`{first}`" in FLAGS


def test_every_file_of_a_dossier_is_named() -> None:
    named = {row[0] for row in rows(INSPECTION, "| file | what |")}
    assert {dossier.FLAGS, dossier.REPORT, dossier.RAN, dossier.VERIFICATION} <= named
    assert f"{dossier.PACKED_MAX_BYTES >> 20} MiB" in INSPECTION
