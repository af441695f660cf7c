"""Each format is read as its source writes it; what is broken is named; nothing breaks a reader."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from korora.agents.integrity.indicators import readers
from korora.agents.integrity.indicators.readers.reading import LINE_MAX, UnreadableError
from korora.agents.integrity.indicators.readers.stix_pattern import equalities, problem
from korora.model.indicator import Entry, Finding, Kind, Provenance, Severity, Verdict

BASIS = Provenance("test")
MD5, SHA256 = (
    "d41d8cd98f00b204e9800998ecf8427e",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
)


def read(format_: str, data: bytes | str) -> tuple[list[Entry], list[Finding]]:
    file = io.BytesIO(data.encode() if isinstance(data, str) else data)
    items = list(readers.read(format_, file, BASIS))
    entries = [item for item in items if isinstance(item, Entry)]
    return entries, [item for item in items if isinstance(item, Finding)]


def values(entries: list[Entry]) -> list[tuple[Kind, str]]:
    return [(entry.kind, entry.value) for entry in entries]


def bundle(*objects: Any) -> str:
    return json.dumps({"type": "bundle", "id": "bundle--1", "objects": list(objects)})


def indicator(pattern: str, **more: Any) -> dict[str, Any]:
    return {"type": "indicator", "id": "indicator--1", "pattern_type": "stix", "pattern": pattern, **more}


def test_a_stix_indicator_brings_all_that_is_said_of_it() -> None:
    entries, findings = read(
        "stix",
        bundle(
            indicator(
                "[domain-name:value = 'evil.example']",
                valid_from="2026-01-01T00:00:00Z",
                valid_until="2026-01-02T00:00:00.000Z",
                modified="1970-01-01T00:00:09Z",
                confidence=85,
                created_by_ref="identity--1",
                revoked=True,
            ),
            {"type": "identity", "id": "identity--1", "name": "A CERT"},
            {"type": "malware", "id": "malware--1", "name": "Emotet"},
            {
                "type": "relationship",
                "relationship_type": "indicates",
                "source_ref": "indicator--1",
                "target_ref": "malware--1",
            },
        ),
    )
    said = entries[0].provenance
    assert (findings, values(entries)) == ([], [(Kind.DOMAIN, "evil.example")])
    assert (said.confidence, said.author, said.family, said.revoked) == (85, "A CERT", "Emotet", True)
    assert (said.valid_from, said.expires, said.changed_at) == (1767225600, 1767312000, 9)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        (f"[file:hashes.'SHA-256' = '{SHA256}' OR file:hashes.MD5 = '{MD5}']", [SHA256, MD5]),
        (
            "[ipv4-addr:value = '9.9.9.9'] OR [url:value = 'http://a.example/']",
            ["9.9.9.9", "http://a.example/"],
        ),
        ("([domain-name:value IN ('a.example', 'b.example')])", ["a.example", "b.example"]),
        ("[ipv4-addr:value = '9.9.9.0/24']", ["9.9.9.0/24"]),
        ("[network-traffic:dst_ref.value = '9.9.9.9']", ["9.9.9.9"]),
    ],
)
def test_alternatives_of_equality_are_an_indicator_each(pattern: str, found: list[str]) -> None:
    entries, findings = read("stix", bundle(indicator(pattern)))
    assert ([entry.value for entry in entries], findings) == (found, [])


@pytest.mark.parametrize(
    "pattern",
    [
        "[domain-name:value = 'a.example' AND file:name = 'x']",
        "[domain-name:value = 'a.example'] AND [domain-name:value = 'b.example']",
        "[domain-name:value = 'a.example'] FOLLOWEDBY [domain-name:value = 'b.example']",
        "[domain-name:value LIKE '%.example']",
        "[domain-name:value MATCHES 'a']",
        "[domain-name:value != 'a.example']",
        "[domain-name:value NOT = 'a.example']",
        "[domain-name:value = 'a.example'] WITHIN 5 SECONDS",
        "[ipv4-addr:value ISSUBSET '9.0.0.0/8']",
        "[file:name = 'evil.exe']",
    ],
)
def test_a_pattern_that_says_more_is_kept_and_never_a_part_of_it_taken(pattern: str) -> None:
    entries, findings = read("stix", bundle(indicator(pattern)))
    assert [entry.kind for entry in entries] == [Kind.KEPT]
    assert [finding.severity for finding in findings] == [Severity.KEPT]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.sampled_from(["[", "]", "(", ")", "a:b", "=", "'x'", " OR ", " AND ", " IN ", ","]), max_size=9
    )
)
def test_what_is_read_as_alternatives_is_a_pattern_to_the_grammar_too(parts: list[str]) -> None:
    pattern = "".join(parts)
    if equalities(pattern) is not None:
        assert problem(pattern) is None


@pytest.mark.parametrize("pattern", ["", "nonsense", "[a", "[domain-name:value = 'x'", "[" * 3000, 7, None])
def test_a_pattern_of_nonsense_is_broken_and_named(pattern: Any) -> None:
    entries, findings = read(
        "stix", bundle(indicator(pattern), indicator("[url:value = 'http://a.example']"))
    )
    assert len(entries) == 1
    assert [(one.severity, one.where) for one in findings] == [(Severity.BROKEN, "/objects/0")]


def test_other_languages_are_kept() -> None:
    entries, _ = read("stix", bundle(indicator("rule x {}", pattern_type="yara")))
    assert values(entries) == [(Kind.KEPT, "pattern:yara: rule x {}")]


def test_objects_of_nonsense_are_broken_one_by_one() -> None:
    entries, findings = read(
        "stix", bundle(7, None, [], {"type": 3}, indicator("[url:value = 'http://a.example']"))
    )
    assert len(entries) == 1
    assert [one.where for one in findings] == [f"/objects/{index}" for index in range(4)]


@pytest.mark.parametrize(
    "data", ["", "{", "[]", '{"type":"report"}', '{"type":"bundle","objects":7}', '"\\ud800"', "[" * 100_000]
)
@pytest.mark.parametrize("format_", ["stix", "misp"])
def test_a_document_of_nonsense_is_unreadable(format_: str, data: str) -> None:
    with pytest.raises(UnreadableError):
        read(format_, data)


def event(*attributes: Any, **more: Any) -> str:
    return json.dumps({"Event": {"info": "a report", "Attribute": list(attributes), **more}})


def attribute(kind: str, value: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "value": value, "to_ids": True, "uuid": "u-1", **more}


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("md5", MD5, (Kind.MD5, MD5)),
        ("filename|sha256", f"a.exe|{SHA256}", (Kind.SHA256, SHA256)),
        ("ip-dst|port", "9.9.9.9|443", (Kind.IPV4, "9.9.9.9")),
        ("hostname|port", "c2.evil.example|443", (Kind.DOMAIN, "c2.evil.example")),
        ("url", "hxxp://evil[.]example/", (Kind.URL, "http://evil.example/")),
        ("ip-src", "9.9.9.0/24", (Kind.NETWORK, "9.9.9.0/24")),
        ("ssdeep", "3:a:b", (Kind.KEPT, "ssdeep:3:a:b")),
    ],
)
def test_attributes_of_misp_are_read_by_their_type(kind: str, value: str, expected: tuple[Kind, str]) -> None:
    entries, _ = read("misp", event(attribute(kind, value)))
    assert values(entries) == [expected]


def test_both_parts_of_a_domain_with_its_address_are_taken() -> None:
    entries, _ = read("misp", event(attribute("domain|ip", "evil.example|9.9.9.9")))
    assert values(entries) == [(Kind.DOMAIN, "evil.example"), (Kind.IPV4, "9.9.9.9")]


def test_misp_says_what_is_background_what_is_deleted_and_how_sure_it_is() -> None:
    tags = [{"name": 'misp:confidence-level="usually-confident"'}, {"name": 'misp-galaxy:malpedia="Emotet"'}]
    entries, _ = read(
        "misp",
        event(
            attribute("domain", "a.example", to_ids=False),
            attribute("domain", "b.example", deleted=True),
            attribute("domain", "c.example", Tag=tags, timestamp="1767225600"),
            Orgc={"name": "An org"},
            Object=[{"Attribute": [attribute("domain", "d.example")], "deleted": True}],
        ),
    )
    said = {entry.value: entry.provenance for entry in entries}
    assert said["a.example"].verdict is Verdict.CONTEXT
    assert [said[f"{name}.example"].revoked for name in "abcd"] == [False, True, False, True]
    one = said["c.example"]
    assert (one.confidence, one.family, one.author, one.changed_at) == (75, "Emotet", "An org", 1767225600)


def test_lists_and_answers_of_misp_are_read_too() -> None:
    inner = json.loads(event(attribute("domain", "a.example")))
    for document in (
        [inner],
        {"response": [inner]},
        {"response": {"Attribute": inner["Event"]["Attribute"]}},
    ):
        assert len(read("misp", json.dumps(document))[0]) == 1


def test_broken_attributes_are_named_by_their_pointer() -> None:
    entries, findings = read(
        "misp", event(7, {"type": "md5"}, attribute("md5", "zz"), attribute("filename|md5", "x"))
    )
    assert entries == []
    assert [one.where for one in findings] == [f"/Event/Attribute/{index}" for index in range(4)]
    assert {one.severity for one in findings} == {Severity.BROKEN}


URLHAUS = (
    "################\r\n# abuse.ch URLhaus #\r\n#\r\n"
    "# id,dateadded,url,url_status,last_online,threat,tags,urlhaus_link,reporter\r\n"
    '"1","2026-01-01 00:00:00","http://mal.example/a,b","online","2026-01-02 00:00:00","malware_download",'
    '"emo""tet,elf","https://urlhaus.abuse.ch/url/1/","me"\r\n'
)
THREATFOX_ROWS = (
    '"9.9.9.9:443", "ip:port", "botnet_cc", "win.x", "None", "Cobalt Strike", "", "75"',
    '"evil.example", "domain", "botnet_cc", "win.x", "None", "X", "", "100"',
    '"x@evil.example", "envelope_from", "c", "w", "None", "X", "", "50"',
)
THREATFOX = (
    '# "first_seen_utc", "ioc_id", "ioc_value", "ioc_type", "threat_type", "fk_malware", "malware_alias",'
    ' "malware_printable", "last_seen_utc", "confidence_level", "is_compromised", "reference", "tags",'
    ' "anonymous", "reporter"\n'
) + "".join(
    f'"2026-01-01 00:00:00", "{number}", {row}, "0", "", "", "0", "me"\n'
    for number, row in enumerate(THREATFOX_ROWS, 7)
)
BAZAAR = (
    '# "first_seen_utc","sha256_hash","md5_hash","sha1_hash","reporter","file_name","file_type_guess",'
    '"mime_type","signature","clamav","vtpercent","imphash","ssdeep","tlsh"\n'
    f'"2026-01-01 00:00:00", "{SHA256}", "{MD5}", "n/a", "me", "a b.exe", "exe", "x", "Emotet", "n/a", "n/a",'
    ' "n/a", "3:a:b", "T1"\n'
)
FEODO = (
    "# Feodo Tracker\n"
    '"first_seen_utc","dst_ip","dst_port","c2_status","last_online","malware"\n'
    '"2026-01-01 00:00:00","9.9.9.9","443","online","2026-01-02","QakBot"\n# END 1 entries\n'
)


@pytest.mark.parametrize(
    ("service", "text", "expected"),
    [
        ("urlhaus", URLHAUS, ["http://mal.example/a,b"]),
        ("threatfox", THREATFOX, ["9.9.9.9", "evil.example", "envelope_from:x@evil.example"]),
        ("malwarebazaar", BAZAAR, [SHA256, MD5, "ssdeep:3:a:b", "tlsh:T1"]),
        ("feodo", FEODO, ["9.9.9.9"]),
    ],
)
def test_an_export_of_abuse_ch_is_recognised_and_read(service: str, text: str, expected: list[str]) -> None:
    assert readers.recognised(text.encode()) == service
    entries, findings = read(service, text)
    assert [entry.value for entry in entries] == expected
    assert Severity.BROKEN not in {one.severity for one in findings}


def test_abuse_ch_tells_family_confidence_and_dates() -> None:
    said = read("threatfox", THREATFOX)[0][0].provenance
    assert (said.confidence, said.family, said.author, said.reference) == (75, "Cobalt Strike", "me", "7")
    assert said.note.startswith("port 443")
    said = read("urlhaus", URLHAUS)[0][0].provenance
    assert (said.first_seen, said.last_seen) == (1767225600, 1767312000)
    assert 'emo"tet,elf' in said.note


def test_a_row_that_is_broken_is_named_and_the_next_one_read() -> None:
    text = (
        FEODO
        + '"x"y","9.9.9.9"\n"2026-01-01","9.9.9.8","1","","",""\n"a"\n"2026-01-01","nonsense","1","","",""\n'
    )
    entries, findings = read("feodo", text)
    assert [entry.value for entry in entries] == ["9.9.9.9", "9.9.9.8"]
    assert [one.where for one in findings] == ["line 5", "line 7", "line 8"]


def test_a_quote_that_never_ends_is_broken_in_bounded_memory() -> None:
    _, findings = read("urlhaus", URLHAUS + '"' + "x\n" * 200_000)
    assert Severity.BROKEN in {one.severity for one in findings}


def test_a_list_has_comments_and_other_forms_of_lines() -> None:
    text = (
        "\ufeff# list\n! a rule\nevil[.]example # why\n0.0.0.0 ads.example.org\n127.0.0.1 localhost\n"
        "||track.example^\n"
        f"{MD5.upper()}\n9.9.9.9:80\n\n; end\nhttp://a.example/#b\n"
    )
    entries, findings = read("list", text)
    assert [entry.value for entry in entries] == [
        *("evil.example", "ads.example.org", "track.example", MD5, "9.9.9.9", "http://a.example/"),
    ]
    assert findings == []
    assert entries[4].provenance.note == "port 80"


@pytest.mark.parametrize("format_", ["list", "urlhaus"])
def test_a_line_that_is_too_long_is_named_and_not_kept(format_: str) -> None:
    _, findings = read(format_, b"#\n" + b"x" * (3 * LINE_MAX) + b"\n9.9.9.9\n")
    assert (findings[0].severity, findings[0].where) == (Severity.BROKEN, "line 2")


def test_names_in_broken_encodings_are_told_as_escapes() -> None:
    entries, _ = read("feodo", FEODO.encode().replace(b"QakBot", b"Qak\xffB\xc3"))
    assert entries[0].provenance.family == "Qak\\xffB\\xc3"


@pytest.mark.parametrize(
    ("head", "format_"),
    [
        (b'\xef\xbb\xbf {"type": "bundle"', "stix"),
        (b'[{"Event": {', "misp"),
        (b"evil.example\n", "list"),
        (b"[2a00::1]:80\n", "list"),
        (b"", "list"),
    ],
)
def test_a_format_is_recognised_by_content(head: bytes, format_: str) -> None:
    assert readers.recognised(head) == format_


@pytest.mark.parametrize(
    "head", [b"PK\x03\x04", b"\x1f\x8b", b"\xff\xfea\0", b"<rules>", b'{"a": 1}', b"a\0b", b"%PDF"]
)
def test_what_is_none_of_the_formats_is_said_to_be_none(head: bytes) -> None:
    with pytest.raises(UnreadableError, match="it is"):
        readers.recognised(head)


def survives(format_: str, data: bytes) -> None:
    try:
        for item in readers.read(format_, io.BytesIO(data), BASIS):
            if isinstance(item, Entry):
                assert item.value.isascii()
    except UnreadableError as error:
        assert str(error)


SEEDS = [
    text.encode()
    for text in (URLHAUS, THREATFOX, BAZAAR, FEODO, bundle(indicator("[url:value = 'http://a.b/']")))
]
SEEDS.append(event(attribute("ip-dst|port", "9.9.9.9|1"), Object=[{"Attribute": []}]).encode())


@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("format_", sorted(readers.READERS))
@given(
    data=st.binary(max_size=600), seed=st.sampled_from(SEEDS), at=st.integers(0, 900), cut=st.integers(0, 40)
)
def test_no_bytes_break_a_reader(format_: str, data: bytes, seed: bytes, at: int, cut: int) -> None:
    survives(format_, data)
    survives(format_, seed[:at] + data[:40] + seed[at + cut :])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "objects",
                    "pattern",
                    "Event",
                    "Attribute",
                    "Object",
                    "Tag",
                    "value",
                    "id",
                    "response",
                ]
            ),
            inner,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=120, deadline=None)
@given(JSON)
def test_no_json_breaks_a_reader(document: Any) -> None:
    survives(
        "stix",
        bundle(
            {"type": "indicator", "pattern": document, "labels": document, "created_by_ref": document}
        ).encode(),
    )
    survives("stix", json.dumps(document).encode())
    survives("misp", json.dumps({"Event": document, "Attribute": document}).encode())
    survives(
        "misp", event(document, {"type": "md5", "value": "x", "Tag": document}, Object=document).encode()
    )
