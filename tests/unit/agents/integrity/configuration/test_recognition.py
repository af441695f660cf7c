"""A file is what its content says, or what is declared; hostile bytes end in a UsageError, or as unparsed."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.vm_configurations import SAMPLES, XEN
from korora.agents.integrity.configuration.comparing import changes, words
from korora.agents.integrity.configuration.digest import digest
from korora.agents.integrity.configuration.recognition import read
from korora.errors import UsageError
from korora.model.vm_settings import MAX_TEXT_BYTES, ConfigurationFormat

FORMATS = st.sampled_from(ConfigurationFormat)


@pytest.mark.parametrize("format_", ConfigurationFormat)
def test_the_content_says_what_it_is(format_: ConfigurationFormat) -> None:
    data = SAMPLES[format_].encode()
    assert read(data).format is format_
    assert read(b"\xef\xbb\xbf" + data).settings == read(data).settings
    assert read(data.replace(b"\n", b"\r\n")).settings == read(data).settings


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        b"hello",
        b"\0" * 512,
        b"<html/>",
        b"<",
        b"[section]\nkey=value",
        b"name = 'a'\n",
        b"QFI\xfb" * 9,
    ],
)
def test_what_is_no_configuration_is_refused(data: bytes) -> None:
    with pytest.raises(UsageError) as refused:
        read(data)
    assert refused.value.kind == "bad-configuration"


def test_what_may_be_two_things_is_asked_for() -> None:
    both = b'name = "a"\nmemory = 536870912\n'
    with pytest.raises(UsageError) as refused:
        read(both)
    assert refused.value.kind == "format-unclear"
    assert read(both, ConfigurationFormat.XEN).settings == {"name": "a", "memory": "536870912"}
    assert read(both, ConfigurationFormat.KORORA).settings["machine"] == "q35"


def test_what_is_declared_holds() -> None:
    assert read(b"guestos = 1\n", ConfigurationFormat.VMWARE).settings == {"guestos": "1"}
    assert read(b"guestos = 1\n", ConfigurationFormat.XEN).format is ConfigurationFormat.XEN
    with pytest.raises(UsageError):
        read(SAMPLES[ConfigurationFormat.OVF].encode(), ConfigurationFormat.LIBVIRT)
    with pytest.raises(UsageError):
        read(XEN.encode(), ConfigurationFormat.LIBVIRT)


# -- hostile input -----------------------------------------------------------------------------------------

LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))


@pytest.mark.parametrize(
    "text",
    [
        f'<!DOCTYPE domain [<!ENTITY l0 "lol">{LAUGHS}]><domain><name>&l9;</name></domain>',
        '<!DOCTYPE domain [<!ENTITY x SYSTEM "file:///etc/passwd">]><domain><name>&x;</name></domain>',
        '<!DOCTYPE domain SYSTEM "http://127.0.0.1/x.dtd"><domain/>',
        "<domain>" + "<a>" * 65 + "</a>" * 65 + "</domain>",
        "<domain>" + "<a/>" * 50_001 + "</domain>",
        "<domain " + " ".join(f"a{n}=''" for n in range(50_001)) + "/>",
        "x = 1\n" * (1 << 20),
        "vcpus = 1\n" + "".join(f"a{n} = 1\n" for n in range(50_001)),
    ],
)
def test_bombs_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        read(text.encode())
    assert refused.value.kind == "bad-configuration"
    assert len(refused.value.message) < 300


@pytest.mark.parametrize(
    "text",
    [
        "config.version = 8\n" + "a" * 4_000_000,
        "config.version = 8\n" + "." * 2_000_000 + " = 1",
        "config.version = 8\n" + " " * 4_000_000,
        "vcpus = 1\n" + "[" * 4_000_000,
        "vcpus = 1\na = " + "[" * 4_000_000,
        "vcpus = 1\na = '" + "\\" * 4_000_000,
        "vcpus = 1\ndisk = ['" + "a," * 2_000_000 + "']",
        "vcpus = 1\nvif = ['" + "a=1," * 1_000_000 + "']",
        "vcpus = 1\n" + "a" * 2_000_000 + " = [" + "1," * 900_000 + "]",
        "vcpus = 1\n" + "a += 'bbbbbbbbbb'\n" * 200_000,
        "vcpus = 1\n" + "a += ['b']\n" * 49_000,
        "vcpus = 1\nname = 'x'\n" + "\n" * 4_000_000,
        "<domain><" + "a" * 2_000_000 + ">" + "<b/>" * 40_000,
        "<domain><devices><disk><target dev='" + "./" * 1_900_000 + "'/></disk></devices></domain>",
        "<domain><devices>" + "<hostdev><source a=''/></hostdev>" * 20_000 + "</devices></domain>",
        "<domain><devices>" + "<tpm/>" * 40_000 + "</devices></domain>",
        "[[disks]]\n" + "[" * 60_000,
        "[firmware]\na" + ".a" * 30_000 + " = 1",
    ],
)
def test_long_and_deep_input_ends_soon_in_an_answer(text: str) -> None:
    """Every one of these would take minutes or gigabytes where a step is taken again for each character."""
    try:
        found = read(text.encode())
    except UsageError:
        return
    assert found.settings or found.unparsed
    assert list(changes(found, found)) == []


def examined(data: bytes, declared: ConfigurationFormat | None = None) -> None:
    """Read, digest and compare: UsageError or an answer, and what is unparsed is bounded."""
    try:
        found = read(data, declared)
    except UsageError as error:
        assert error.kind in {"bad-configuration", "format-unclear"}
        return
    assert (digest(found) is None) == bool(found.unparsed)
    for one in found.unparsed:
        assert one.place
        assert one.why
        assert len(one.text.encode()) <= MAX_TEXT_BYTES
    for format_ in ConfigurationFormat:
        sample = read(SAMPLES[format_].encode())
        there, back = list(changes(sample, found, moved=True)), list(changes(found, sample))
        assert all(words(change) for change in (*there, *back))
        if format_ is found.format:  # a difference is never without a change, nor a change without one
            assert bool(there) == bool(back) == (found.settings != sample.settings)


@given(st.binary(max_size=300), st.none() | FORMATS)
def test_whatever_the_bytes_are_there_is_an_answer(data: bytes, declared: ConfigurationFormat | None) -> None:
    examined(data, declared)


@given(st.text(max_size=200), FORMATS)
def test_whatever_the_text_is_there_is_an_answer(text: str, declared: ConfigurationFormat) -> None:
    examined(text.encode("utf-8", "replace"), declared)


@settings(max_examples=300)
@given(st.data(), FORMATS)
def test_a_damaged_file_has_an_answer(data: st.DataObject, format_: ConfigurationFormat) -> None:
    sample = bytearray(SAMPLES[format_].encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(sample) - 1))
        sample[place] = data.draw(st.integers(0, 255))
    examined(bytes(sample), data.draw(st.sampled_from([None, format_])))


@given(st.data(), FORMATS)
def test_a_file_that_was_cut_short_has_an_answer(data: st.DataObject, format_: ConfigurationFormat) -> None:
    sample = SAMPLES[format_].encode()
    examined(sample[: data.draw(st.integers(0, len(sample)))], data.draw(st.sampled_from([None, format_])))


@settings(max_examples=200)
@given(st.data(), FORMATS)
def test_words_in_wrong_places_have_an_answer(data: st.DataObject, format_: ConfigurationFormat) -> None:
    """Values and names of the sample, exchanged for others of it and for odd ones."""
    pieces = re.split(r"([A-Za-z0-9._/:-]+)", SAMPLES[format_])
    odd = [
        "",
        "0",
        "-1",
        "9" * 400,
        "é",
        "\u2028",
        "[",
        "]]",
        "{",
        "'",
        '"',
        "\\",
        "|22",
        "&amp;",
        "TRUE",
        "true",
    ]
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(pieces) - 1))
        pieces[place] = data.draw(st.sampled_from(pieces) | st.sampled_from(odd))
    examined("".join(pieces).encode(), format_)
