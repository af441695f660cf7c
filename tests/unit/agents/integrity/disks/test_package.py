"""A package: what its manifest and its descriptor say, against the files that are there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.agents.integrity.disks.descriptor import Reference, references
from korora.agents.integrity.disks.package import Claim, claims, covered, disk_format, judged
from korora.errors import IntegrityError
from korora.model.image import Format, ImageFinding

SUM = "ab" * 32
SPACE = "http://schemas.dmtf.org/ovf/envelope/1"


def kinds(findings: object) -> list[tuple[str, str]]:
    assert not isinstance(findings, str)
    return [(one.severity, one.kind) for one in findings if isinstance(one, ImageFinding)]  # type: ignore[attr-defined]


def test_claims_of_all_three_digests_are_read() -> None:
    text = f"SHA256(a.vmdk)= {SUM}\r\n\nSHA1(b c).x)=AB\n SHA512 (d) = cd \n"
    found, problems = claims(text.encode())
    assert problems == ()
    assert found == (
        Claim("a.vmdk", "sha256", SUM),
        Claim("b c).x", "sha1", "ab"),
        Claim("d", "sha512", "cd"),
    )


@pytest.mark.parametrize("line", ["MD5(a)= ab", "SHA256(a)=", "SHA256()= ab", "SHA256(a)= xy", "a", "\0"])
def test_a_line_that_is_no_claim_is_a_finding(line: str) -> None:
    found, problems = claims(f"{line}\nSHA256(b)= {SUM}".encode())
    assert [claim.file for claim in found] == ["b"]
    assert kinds(problems) == [("warning", "manifest")]
    assert "line 1" in problems[0].message


def test_a_file_that_is_named_twice_is_critical_and_the_first_claim_stands() -> None:
    found, problems = claims(b"SHA256(a)= aa\nSHA256(a)= bb\n")
    assert [claim.digest for claim in found] == ["aa"]
    assert kinds(problems) == [("critical", "manifest")]


@pytest.mark.parametrize("line", ["nonsense {0}\n", "SHA1(f{0})= ab\n"])
def test_an_endless_manifest_is_read_to_a_bound_and_critical(line: str) -> None:
    found, problems = claims("".join(line.format(number) for number in range(20_000)).encode())
    assert len(found) <= 1001
    assert len(problems) <= 60
    assert ("critical", "manifest") in kinds(problems)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_manifest_with_findings(text: bytes) -> None:
    found, _ = claims(text)
    assert len({claim.file for claim in found}) == len(found)


def test_files_are_compared_with_what_is_claimed() -> None:
    stated = [Claim("a", "sha256", "aa"), Claim("b", "sha256", "bb"), Claim("c", "sha1", "cc")]
    there = ["a", "b", "x.iso", "p.mf", "p.cert"]
    assert kinds(judged(stated, there, {"a": "aa", "b": "00"})) == [
        ("critical", "changed"),
        ("critical", "missing"),
        ("info", "weak-digest"),
        ("warning", "unnamed"),
    ]


def test_a_digest_that_was_not_taken_is_not_right() -> None:
    assert kinds(judged([Claim("a", "sha256", "aa")], ["a"], {})) == [("critical", "changed")]


def test_a_package_without_a_manifest_is_told() -> None:
    assert kinds(judged([], ["a"], {})) == [("warning", "no-manifest")]


@pytest.mark.parametrize(
    ("name", "which"),
    [
        ("a.vmdk", Format.VMDK),
        ("A.VHD", Format.VHD),
        ("a.img", Format.RAW),
        ("a.iso", None),
        ("a.vmdk.gz", None),
    ],
)
def test_a_disk_is_known_by_its_name(name: str, which: Format | None) -> None:
    assert disk_format(name) is which


# -- the descriptor ----------------------------------------------------------------------------------------


def envelope(inner: str, begin: str = "") -> bytes:
    return f'{begin}<Envelope xmlns="{SPACE}" xmlns:o="{SPACE}">{inner}</Envelope>'.encode()


def test_references_are_read_with_and_without_a_prefix() -> None:
    text = envelope(
        '<References><File o:href="a.vmdk" o:id="f"/><o:File o:href="b" o:compression="gzip"/>'
        '<File o:href="c" o:chunkSize="4"/><File href="d" o:compression="identity"/></References>'
    )
    assert references(text) == (
        Reference("a.vmdk"),
        Reference("b", "compressed (gzip)"),
        Reference("c", "cut in pieces"),
        Reference("d"),
    )


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\0",
        b"<Envelope>",
        b"<domain/>",
        envelope("", '<!DOCTYPE x [<!ENTITY a "aa">]>'),
        envelope("", '<?xml version="1.0" encoding="nonsense"?>'),
        envelope('<File href="a"/>' * 1001),
    ],
)
def test_what_is_no_descriptor_is_refused(text: bytes) -> None:
    with pytest.raises(IntegrityError) as refused:
        references(text)
    assert refused.value.kind == "bad-package"


@given(st.binary(max_size=60), st.integers(0, 400))
def test_noise_in_a_descriptor_is_references_or_refused(noise: bytes, at: int) -> None:
    text = envelope('<References><File o:href="a.vmdk" o:id="f"/></References>')
    for broken in (noise, text[:at] + noise + text[at:], text[:at] + noise + text[at + len(noise) :]):
        try:
            assert all(isinstance(one, Reference) for one in references(broken))
        except IntegrityError as refused:
            assert refused.kind == "bad-package"


def test_a_deep_descriptor_is_read() -> None:
    assert references(envelope("<a>" * 50_000 + "</a>" * 50_000)) == ()


def test_what_no_digest_covers_is_told() -> None:
    there = ["p.ovf", "p.mf", "a.vmdk", "b.vmdk.gz", "c.iso"]
    referred = [Reference("a.vmdk"), Reference("b.vmdk.gz", "compressed (gzip)"), Reference("../gone")]
    assert kinds(covered(referred, there)) == [
        ("critical", "altered"),
        ("critical", "missing"),
        ("warning", "uncovered"),
        ("warning", "uncovered"),
    ]
    assert kinds(covered([], ["a.ovf", "b.ovf", "a.mf", "B.MF"])) == [("critical", "ambiguous")] * 2
