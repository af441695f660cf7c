"""OpenIOC: a term that is a sign by itself is taken, half of a condition never; hostile XML is given up."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.agents.integrity.indicators import readers
from korora.agents.integrity.indicators.readers import openioc
from korora.agents.integrity.indicators.readers.openioc import DEPTH_MAX
from korora.agents.integrity.indicators.readers.reading import UnreadableError
from korora.model.indicator import Entry, Finding, Kind, Provenance, Severity

MD5 = "d41d8cd98f00b204e9800998ecf8427e"
SHA1 = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def item(search: str, value: str, condition: str = "is", more: str = "") -> str:
    document = search.partition("/")[0]
    return (
        f'<IndicatorItem id="item-1" condition="{condition}" {more}>'
        f'<Context document="{document}" search="{search}" type="mir"/>'
        f'<Content type="string">{value}</Content>'
        "</IndicatorItem>"
    )


def group(operator: str, *inside: str) -> str:
    return f'<Indicator operator="{operator}" id="group-1">{"".join(inside)}</Indicator>'


def document(*inside: str) -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?>'
        '<OpenIOC xmlns="http://openioc.org/schemas/OpenIOC_1.1" last-modified="1970-01-01T00:00:09Z">'
        "<metadata><short_description>A group</short_description><authored_by>A CERT</authored_by></metadata>"
        f"<criteria>{group('OR', *inside)}</criteria><parameters/></OpenIOC>"
    )


def old(*inside: str) -> str:
    return (
        '<ioc xmlns="http://schemas.mandiant.com/2010/ioc"><short_description>Old</short_description>'
        f"<definition>{group('OR', *inside)}</definition></ioc>"
    )


def read(text: str) -> tuple[list[Entry], list[Finding]]:
    assert readers.recognised(text.encode()) == "openioc"
    items = list(readers.read("openioc", io.BytesIO(text.encode()), Provenance("test")))
    return [one for one in items if isinstance(one, Entry)], [
        one for one in items if isinstance(one, Finding)
    ]


@pytest.mark.parametrize(
    ("search", "value", "kind"),
    [
        ("FileItem/Md5sum", MD5.upper(), Kind.MD5),
        ("FileItem/Sha1sum", SHA1, Kind.SHA1),
        ("FileItem/Sha256sum", SHA256, Kind.SHA256),
        ("ServiceItem/serviceDLLmd5sum", MD5, Kind.MD5),
        ("Network/DNS", "evil.example", Kind.DOMAIN),
        ("DnsEntryItem/Host", "evil[.]example", Kind.DOMAIN),
        ("Network/URI", "http://evil.example/a", Kind.URL),
        ("PortItem/remoteIP", "9.9.9.9", Kind.IPV4),
        ("ProcessItem/PortList/PortItem/remoteIP", "9.9.9.0/24", Kind.NETWORK),
        ("DnsEntryItem/RecordData/IPv6Address", "2620:fe::fe", Kind.IPV6),
    ],
)
@pytest.mark.parametrize("version", [document, old])
def test_a_term_of_equality_is_an_indicator(version: object, search: str, value: str, kind: Kind) -> None:
    entries, findings = read(version(item(search, value)))  # type: ignore[operator]
    assert ([one.kind for one in entries], findings) == ([kind], [])
    assert entries[0].provenance.reference == "item-1"


def test_what_is_said_of_a_document_stands_with_each_of_its_indicators() -> None:
    said = read(document(item("FileItem/Md5sum", MD5)))[0][0].provenance
    assert (said.author, said.note, said.changed_at) == ("A CERT", "A group", 9)
    assert read(old(item("FileItem/Md5sum", MD5)))[0][0].provenance.note == "Old"


def test_alternatives_are_an_indicator_each_however_deep() -> None:
    text = document(
        item("FileItem/Md5sum", MD5),
        group("OR", item("Network/DNS", "a.example"), group("AND", item("Network/DNS", "b.example"))),
    )
    entries, findings = read(text)
    assert [one.value for one in entries] == [MD5, "a.example", "b.example"]
    assert findings == []


def test_terms_that_must_hold_together_are_kept_whole_and_counted() -> None:
    both = group("AND", item("FileItem/Md5sum", MD5), group("OR", item("FileItem/FileName", "a.exe")))
    entries, findings = read(document(both, item("Network/DNS", "a.example")))
    assert [one.kind for one in entries] == [Kind.KEPT, Kind.DOMAIN]
    assert entries[0].value == f"openioc:(FileItem/Md5sum is {MD5} AND (FileItem/FileName is a.exe))"
    assert [one.severity for one in findings] == [Severity.KEPT]
    assert "2 terms must hold together" in findings[0].message


@pytest.mark.parametrize(
    "term",
    [
        item("FileItem/Md5sum", MD5, more='negate="true"'),
        item("Network/DNS", "evil.example", "contains"),
        item("Network/DNS", "evil.*", "matches"),
        item("Network/URI", "/gate.php"),
        item("FileItem/FileName", "evil.exe"),
        item("RegistryItem/Path", "HKLM"),
        item("PortItem/localIP", "10.0.0.1"),
    ],
)
def test_what_says_less_than_equality_of_what_is_looked_for_is_kept_and_said(term: str) -> None:
    entries, findings = read(document(term))
    assert [one.kind for one in entries] == [Kind.KEPT]
    assert [one.severity for one in findings] == [Severity.KEPT]


@pytest.mark.parametrize(
    "inside",
    [
        item("FileItem/Md5sum", "no hash"),
        item("FileItem/Md5sum", ""),
        item("", MD5),
        '<IndicatorItem condition="is"/>',
        group("XOR", item("FileItem/Md5sum", MD5)),
    ],
)
def test_what_cannot_be_understood_is_broken(inside: str) -> None:
    entries, findings = read(document(inside))
    assert (entries, [one.severity for one in findings]) == ([], [Severity.BROKEN])


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE x [<!ENTITY a "aaaa">]><ioc>&a;</ioc>',
        '<!DOCTYPE x SYSTEM "file:///etc/passwd"><ioc/>',
        "<ioc>",
        "<ioc/>",
        "<ioc><definition/></ioc>",
        "<ioc>" + "<Indicator operator='OR'>" * (DEPTH_MAX + 1),
        "<OpenIOC xmlns='x' a='\x00'/>",
        "<?xml version='1.0' encoding='nonsense'?><ioc/>",
        "<other><ioc/></other>",
    ],
)
def test_hostile_and_foreign_xml_is_given_up_with_a_reason(text: str) -> None:
    with pytest.raises(UnreadableError):
        list(openioc.read(io.BytesIO(text.encode()), Provenance("test")))


def test_other_xml_is_not_taken_for_openioc() -> None:
    with pytest.raises(UnreadableError, match="no OpenIOC"):
        readers.recognised(b"<?xml version='1.0'?><domain type='kvm'/>")


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")))
def test_whatever_stands_in_it_is_read_or_given_up(noise: str) -> None:
    for text in (noise, document(noise), document(item("FileItem/Md5sum", noise))):
        try:
            items = list(openioc.read(io.BytesIO(text.encode("utf-8", "replace")), Provenance("test")))
        except UnreadableError:
            continue
        assert all(isinstance(one, Entry | Finding) for one in items)
