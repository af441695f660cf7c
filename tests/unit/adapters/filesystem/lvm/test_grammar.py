"""LVM's descriptions are read as what they say; what is none is refused, soon."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from korora.adapters.filesystem.lvm.grammar import MAX_BYTES, MAX_DEPTH, Section, Value, parsed

TEXT = b"""
# made by hand
vg-1.a+b { id = "x\\"y\\\\z" # a comment
  seqno=12
  flags=[]
  list = ["a", 1,
    -5,]
  inner { deep { n = 0 } }
}
version = 1
"""


def test_sections_settings_lists_and_comments_are_read() -> None:
    assert parsed(TEXT) == {
        "vg-1.a+b": {
            "id": 'x"y\\z', "seqno": 12, "flags": [], "list": ["a", 1, -5], "inner": {"deep": {"n": 0}},
        },
        "version": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        b"a", b"a =", b"a = {", b"a {", b"a { }}", b"a = [1 2]", b"a = [1", b"}", b'a = "', b"a = 1 a = 2",
        b"= 1", b"a = [[1]]", b"a = \x00", b"a : 1", b"a = " + b"9" * 30, b"a {" * (MAX_DEPTH + 2),
        b"#" * (MAX_BYTES + 1),
    ],
)  # fmt: skip
def test_what_is_not_in_the_language_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="its description"):
        parsed(text)


@given(st.one_of(st.binary(max_size=200), st.text(alphabet='ab1"\\{}[]=,# \n', max_size=60).map(str.encode)))
@settings(deadline=None, max_examples=500)
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    with suppress(ValueError):
        assert isinstance(parsed(text), dict)


def test_a_long_line_of_nothing_much_is_refused_soon() -> None:
    began = time.monotonic()
    for text in (b'"' * MAX_BYTES, b"a" * MAX_BYTES, b"\\" * MAX_BYTES, b"[" * MAX_BYTES):
        with pytest.raises(ValueError, match="its description"):
            parsed(text)
    assert time.monotonic() - began < 60


_NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.+-]{0,8}", fullmatch=True)
_ONE = st.one_of(st.integers(-(2**62), 2**62), st.text(st.characters(codec="utf-8", exclude_characters="\0")))
_TREES: st.SearchStrategy[Section] = st.recursive(
    st.dictionaries(_NAMES, st.one_of(_ONE, st.lists(_ONE, max_size=4)), max_size=4),
    lambda inner: st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(_TREES)
@settings(deadline=None, max_examples=200)
def test_what_is_written_is_read(tree: Section) -> None:
    try:
        assert parsed(_written(tree).encode()) == tree
    except ValueError as error:
        assert "nested too deep" in str(error)


def _written(tree: Section) -> str:
    return "\n".join(f"{name} {{ {_written(one)} }}" if isinstance(one, dict) else f"{name} = {_value(one)}"
                     for name, one in tree.items())  # fmt: skip


def _value(one: Value) -> str:
    if isinstance(one, list):
        return "[" + ", ".join(_value(of) for of in one) + "]"
    return str(one) if isinstance(one, int) else '"' + one.replace("\\", "\\\\").replace('"', '\\"') + '"'
