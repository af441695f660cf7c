"""Known values are found in any stream of bytes, wherever its pieces end, and nothing else is."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from korora.agents.integrity.indicators.matching.known import Known
from korora.agents.integrity.indicators.matching.scan import Scan
from korora.model.indicator import Force, Hit, Kind

MD5 = hashlib.md5(b"content", usedforsecurity=False).hexdigest()
SHA512 = hashlib.sha512(b"other").hexdigest()
PLANTED = {
    b"evil.example": (Kind.DOMAIN, "evil.example"),
    b"a.b.EVIL.example": (Kind.DOMAIN, "evil.example"),
    b"http://mal.example/x/../y?q=1": (Kind.URL, "http://mal.example/y?q=1"),
    b"9.9.9.9": (Kind.IPV4, "9.9.9.9"),
    b"8.8.4.77": (Kind.NETWORK, "8.8.4.0/24"),
    b"2a00:0:0::77": (Kind.IPV6, "2a00::77"),
    b"2a01:1::5": (Kind.NETWORK, "2a01:1::/32"),
    MD5.encode(): (Kind.MD5, MD5),
    SHA512.upper().encode(): (Kind.SHA512, SHA512),
}
KNOWN = Known(
    [
        *((kind, value.encode()) for kind, value in set(PLANTED.values())),
        (Kind.DOMAIN, b"xn--bcher-kva.example"),
        (Kind.NETWORK, b"8.0.0.0/8"),
    ]
)


def hits(data: bytes, known: Known = KNOWN, block: int = 1 << 20, step: int = 1 << 30) -> list[Hit]:
    scan = Scan(known, block=block)
    found = [hit for at in range(0, len(data), step) for hit in scan.feed(data[at : at + step])]
    return found + scan.finish()


def full(data: bytes) -> set[tuple[Kind, str]]:
    return {(hit.kind, hit.value) for hit in hits(data) if hit.force is not Force.HOST}


@settings(max_examples=150, deadline=None)
@given(
    planted=st.sampled_from(sorted(PLANTED)),
    before=st.integers(0, 9000),
    after=st.integers(0, 300),
    filling=st.sampled_from([b" ", b"\0", b"\n", b"a ", b". ", b"x.y\t", b"\xff", b"::", b"ab ", b"1.1 "]),
    block=st.sampled_from([2, 64, 1000, 4096, 5000, 1 << 20]),
    wide=st.booleans(),
    odd=st.booleans(),
)
def test_a_planted_value_is_found_once_wherever_the_pieces_end(
    planted: bytes, before: int, after: int, filling: bytes, block: int, wide: bool, odd: bool
) -> None:
    block = block if before < 1000 or block > 500 else 500
    lead = (filling * before)[:before] + b"\n"
    data = lead + planted + b"\n" + (filling * after)[:after]
    if wide:
        data = b"\n" * odd + data.decode("latin-1").encode("utf-16-le")
    kind, value = PLANTED[planted]
    found = [
        hit
        for hit in hits(data, block=block)
        if (hit.kind, hit.value) == (kind, value) and hit.force is not Force.HOST
    ]
    assert len(found) == 1
    assert found[0].offset == (odd + 2 * len(lead) if wide else len(lead))
    assert found[0].encoding == ("utf-16" if wide else "ascii")


@settings(max_examples=60, deadline=None)
@given(
    data=st.lists(
        st.sampled_from([*PLANTED, b" ", b"\0", b".", b"\xc3\xbc", b"://", b"e\0v\0"]), max_size=40
    ),
    step=st.integers(1, 50),
)
def test_the_sizes_of_the_pieces_change_nothing(data: list[bytes], step: int) -> None:
    whole = b"".join(data)
    expected = sorted(hits(whole), key=repr)
    assert sorted(hits(whole, step=step, block=4098), key=repr) == expected
    assert sorted(hits(whole, step=step, block=64), key=repr) == expected


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=4000))
def test_no_bytes_break_it(data: bytes) -> None:
    for hit in hits(data, block=256):
        assert 0 <= hit.offset < len(data)


@pytest.mark.parametrize(
    "text",
    [
        b"notevil.example", b"evil.example.com", b"evil-example", b"xevil.example", b"evil.examples",
        b"19.9.9.9", b"9.9.9.91", b"9.9.9.9.9", b"v9.9.9.9", b"9.9.9.9x", b"009.009.009.009", b"9.9.9",
        b"example", b"2a00::778", b"2a02::1", b"std::a00::77", MD5.encode() + b"0", b"f" + MD5.encode(),
        b"mal.examples",
    ],
)  # fmt: skip
def test_what_only_looks_alike_is_no_match(text: bytes) -> None:
    assert full(text) == set()


@pytest.mark.parametrize(
    "text",
    [
        b"mail to x@evil.example.", b'"evil.example"', b"\\nevil.example", b"%2fevil.example",
        b"(evil.example)",
        b"https://evil.example:8443/path", b"_dmarc.evil.example", b"host=evil.example;", b"evil.example--",
        b"\xff\xfeevil.example\x80", b"x..evil.example", b"." * 300 + b"evil.example" + b"." * 300,
        b"a." * 3000 + b"evil.example", b"-evil.example", b"evil.example_",
    ],
)  # fmt: skip
def test_a_name_is_found_in_what_stands_around_it(text: bytes) -> None:
    assert (Kind.DOMAIN, "evil.example") in full(text)


@pytest.mark.parametrize(
    "text", [b"9.9.9.9:53", b"9.9.9.9.", b"ip-9.9.9.9-x", b"[9.9.9.9]", b"//9.9.9.9/", b"::ffff:9.9.9.9"]
)
def test_an_address_is_found_in_what_stands_around_it(text: bytes) -> None:
    assert (Kind.IPV4, "9.9.9.9") in full(text)


@pytest.mark.parametrize(
    "text", [b"[2a00::77]:443", b"addr:2a00::77", b"node:2a00::77", b"2a00::77: refused", b"2a00::77%eth0"]
)
def test_an_ipv6_address_is_found_in_what_stands_around_it(text: bytes) -> None:
    assert (Kind.IPV6, "2a00::77") in full(text)


def test_of_networks_the_longest_prefix_is_told() -> None:
    assert full(b"8.8.4.1") == {(Kind.NETWORK, "8.8.4.0/24")}
    assert full(b"8.8.5.1") == {(Kind.NETWORK, "8.0.0.0/8")}


def test_an_international_name_is_found_by_its_a_label() -> None:
    assert full("siehe www.bücher.example heute".encode()) == {(Kind.DOMAIN, "xn--bcher-kva.example")}


def test_the_host_of_a_url_alone_is_a_hint_and_no_match() -> None:
    found = hits(b"http://mal.example/other")
    assert [(hit.kind, hit.value, hit.force) for hit in found] == [(Kind.URL, "mal.example", Force.HOST)]
    assert hits(b"http://sub.mal.example/y?q=1") == []


@pytest.mark.parametrize(
    "text",
    [b"(see http://mal.example/y?q=1).", b"HTTP://MAL.example:80/y?q=1#z", b"<http://mal.example./y?q=1>"],
)
def test_a_url_is_found_as_people_write_it(text: bytes) -> None:
    assert (Kind.URL, "http://mal.example/y?q=1") in full(text)


def test_the_content_of_a_file_is_known_by_its_hash() -> None:
    found = hits(b"content", step=3)
    assert [(hit.kind, hit.value, hit.force) for hit in found] == [(Kind.MD5, MD5, Force.CONTENT)]


def test_one_line_of_many_mebibytes_takes_no_more_memory_than_a_block() -> None:
    scan = Scan(KNOWN, block=1 << 16)
    found: list[Hit] = []
    for filling in (b"a", b"a.", b"1.", b"a:", b"ab", b"\xc3\xbc", b"http://"):
        for _ in range(16):
            found += scan.feed(filling * (1 << 15))
            assert len(scan._waiting) < 1 << 16
            assert all(len(lane._carry) <= 4096 for lane in (scan._plain, *scan._wide))
    found += scan.feed(b" evil.example ") + scan.finish()
    assert [hit.value for hit in found] == ["evil.example"]


def test_zeros_between_are_counted() -> None:
    data = bytes(1 << 16) + b"evil.example" + bytes((1 << 16) + 1) + b"9.9.9.9"
    assert [hit.offset for hit in hits(data, block=1 << 12)] == [1 << 16, len(data) - 7]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(st.sampled_from([*sorted(PLANTED), b"x", b"ab ", b"\0\0"]), st.integers(0, 9000)),
        max_size=6,
    ),
    st.sampled_from([2, 64, 4096, 1 << 20]),
    st.booleans(),
)
def test_a_gap_is_as_if_zeros_came(parts: list[bytes | int], block: int, wide: bool) -> None:
    fed, told = Scan(KNOWN, block=block), Scan(KNOWN, block=block)
    expected, found = [], []
    for part in parts:
        data = bytes(part) if isinstance(part, int) else part
        data = b"".join(bytes((one, 0)) for one in data) if wide else data
        expected += fed.feed(data)
        found += told.gap(len(data), hashed=True) if isinstance(part, int) else told.feed(data)
    expected += fed.finish()
    found += told.finish()
    assert told.size == fed.size
    assert {(hit.kind, hit.value, hit.offset) for hit in found} == {
        (hit.kind, hit.value, hit.offset) for hit in expected
    }


def test_a_gap_that_is_not_hashed_costs_nothing_and_leaves_the_whole_uncompared() -> None:
    empty = hashlib.md5(usedforsecurity=False).hexdigest()
    scan = Scan(Known([(Kind.MD5, empty.encode()), (Kind.DOMAIN, b"evil.example")]))
    assert scan.gap(1 << 62, hashed=False) == []
    assert [hit.offset for hit in scan.feed(b"evil.example ") + scan.finish()] == [1 << 62]


def test_nothing_known_finds_nothing() -> None:
    assert hits(b"evil.example 9.9.9.9", Known()) == []
