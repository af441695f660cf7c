"""Flags by name, their placeholders, the record that travels, and a person's word on one."""

from __future__ import annotations

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from korora.errors import IntegrityError
from korora.model.flag import Flag, FlagKind, Original, Place
from korora.model.inspection import Found
from korora.protocol import canonical, dsse, flag
from korora.protocol.dsse import KeyPair
from korora.protocol.flag import FlagRecord, Resolution

CHUNK = Place(disk="disk0", offset=3 << 20, length=1 << 20)
CAROL = KeyPair(ed25519.Ed25519PrivateKey.from_private_bytes(b"\x06" * 32))
OTHER = KeyPair(ed25519.Ed25519PrivateKey.from_private_bytes(b"\x07" * 32))
PLACES = st.builds(
    Place,
    disk=st.text(max_size=8),
    offset=st.none() | st.integers(0, 2**40),
    length=st.none() | st.integers(0, 2**20),
    volume=st.none() | st.integers(1, 9),
    path=st.binary(max_size=20),
    setting=st.text(max_size=8),
)
FOUND = st.builds(
    Found,
    kind=st.sampled_from(FlagKind),
    place=PLACES,
    content=st.sampled_from(["", "blake3:" + "0" * 64, "blake3:" + "1" * 64]),
    reason=st.text(max_size=20),
)


def raised(found: Found | None = None, now: int = 100, vm: str = "web") -> Flag:
    found = found or Found(kind=FlagKind.UNREADABLE, place=CHUNK, reason="it gives an error")
    return flag.raised(vm, found, "a", now)


def record(*flags: Flag) -> FlagRecord:
    return flag.with_found(FlagRecord(vm="web"), flags)


def resolution(about: Flag, choice: str = "accept", vm: str = "web", key: KeyPair = CAROL) -> bytes:
    said = Resolution(
        by="carol",
        vm=vm,
        flag=about.id,
        choice=choice,  # type: ignore[arg-type]
        reason="seen",
        nonce="0" * 64,
        issued_at=100,
        not_after=200,
    )
    return flag.signed(said, key)


# -- names and placeholders -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "place", "content", "name"),
    [
        (FlagKind.UNREADABLE, CHUNK, "", "7a6490e73018b69914b96b47676e1eb0"),
        (
            FlagKind.INFECTED,
            Place(disk="disk0", volume=1, path=b"/srv/a\xff.exe"),
            "blake3:" + "ab" * 32,
            "bc2ba0a0d76776839130179f4e3e54d6",
        ),
    ],
)
def test_a_flags_name_is_that_of_the_specification(
    kind: FlagKind, place: Place, content: str, name: str
) -> None:
    assert flag.name("web", kind, place, content) == name


@given(FOUND, FOUND)
def test_two_flags_have_one_name_just_when_they_are_about_the_same(one: Found, other: Found) -> None:
    same = (one.kind, one.place, one.content) == (other.kind, other.place, other.content)
    assert (raised(one).id == raised(other).id) is same
    assert raised(one).id != raised(one, vm="db").id


@given(st.integers(0, 5000))
def test_a_placeholder_has_the_length_that_is_asked_for_and_names_its_flag_in_every_line(length: int) -> None:
    name = raised().id
    made = flag.placeholder(name, length)
    assert len(made) == length
    for begin in range(0, length, flag.LINE_BYTES):
        line = made[begin : begin + flag.LINE_BYTES]
        whole = f"KORORA FLAG {name}: the data that belongs here could not be loaded.\n".encode()
        assert line == whole.ljust(flag.LINE_BYTES)[: len(line)]


def test_no_part_of_a_name_can_be_moved_into_another() -> None:
    """The vectors of what a careless joining of the parts would take for the same."""
    names = [
        flag.name("web", FlagKind.UNREAD, Place(disk="a", setting="b"), ""),
        flag.name("web", FlagKind.UNREAD, Place(disk="ab"), ""),
        flag.name("web", FlagKind.UNREAD, Place(file="a", setting="b"), ""),
        flag.name("web", FlagKind.UNREAD, Place(path=b"a", setting="b"), ""),
        flag.name("web", FlagKind.UNREAD, Place(file='a","setting":"b'), ""),
        flag.name('web","unread', FlagKind.UNREAD, Place(disk="a", setting="b"), ""),
        flag.name("web", FlagKind.UNREAD, Place(offset=0), ""),
        flag.name("web", FlagKind.UNREAD, Place(length=0), ""),
        flag.name("web", FlagKind.UNREAD, Place(), ""),
    ]
    assert len(set(names)) == len(names)


# -- the record -----------------------------------------------------------------------------------------


@given(st.lists(FOUND, max_size=6))
def test_a_record_is_read_back_as_it_was_written(found: list[Found]) -> None:
    written = record(*map(raised, found))
    assert flag.parse_record(canonical.encoded(written), "web") == written
    assert len({one.id for one in written.flags}) == len(written.flags)


def test_a_record_of_another_vm_is_refused() -> None:
    with pytest.raises(IntegrityError):
        flag.parse_record(canonical.encoded(record(raised())), "db")


def two() -> tuple[Flag, Flag]:
    other = Found(kind=FlagKind.INFECTED, place=Place(disk="disk0", path=b"/x"), reason="bad")
    first, second = record(raised(), raised(other)).flags
    return first, second


@pytest.mark.parametrize(
    "change",
    [
        lambda one, two: (two, one),
        lambda one, _: (one, one),
        lambda one, two: (msgspec.structs.replace(one, kind=FlagKind.CONTAINER), two),
        lambda one, two: (msgspec.structs.replace(one, place=Place(disk="disk1")), two),
        lambda one, two: (msgspec.structs.replace(one, content="blake3:" + "0" * 64), two),
        lambda one, two: (msgspec.structs.replace(one, resolution=resolution(two)), two),
        lambda one, two: (msgspec.structs.replace(one, resolution=resolution(one, vm="db")), two),
        lambda one, two: (msgspec.structs.replace(one, resolution=b"noise"), two),
    ],
    ids=["order", "twice", "kind", "place", "content", "another flag's word", "another VM's word", "no word"],
)
def test_flags_that_are_not_what_they_are_named_for_are_refused(change: object) -> None:
    changed = FlagRecord(vm="web", flags=change(*two()))  # type: ignore[operator]
    with pytest.raises(IntegrityError):
        flag.parse_record(canonical.encoded(changed), "web")


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b'{"vm":"web"}',
        b'{"version":2,"vm":"web","flags":[]}',
        b'{"version":1,"vm":"web","flags":[],"more":1}',
        b'{"version":1,"vm":"web","flags":[]} ',
        b'{"version":1,"vm":"web","vm":"web","flags":[]}',
        b'{"version":1,"vm":"w\xff","flags":[]}',
        b'{"version":1,"vm":"web","flags":[{"id":"' + b"0" * 32 + b'"}]}',
        b'{"version":1,"vm":"web","flags":[{"id":"'
        + b"0" * 32
        + b'","kind":"unread","place":{"volume":1'
        + b"0" * 30
        + b'},"reason":"","raised_by":"a","raised_at":1,"seen_at":1}]}',
    ],
    ids=lambda text: text[:40].decode("ascii", "replace"),
)
def test_a_record_that_nobody_here_writes_is_refused(text: bytes) -> None:
    with pytest.raises(IntegrityError) as refused:
        flag.parse_record(text, "web")
    assert refused.value.kind == "malformed-statement"


@given(st.binary(max_size=200))
def test_noise_is_no_record(noise: bytes) -> None:
    with pytest.raises(IntegrityError):
        flag.parse_record(noise, "web")


@given(st.integers(0), st.integers(1, 255))
def test_a_record_with_a_changed_byte_is_refused_or_says_the_same_of_where(place: int, change: int) -> None:
    text = bytearray(canonical.encoded(record(*two())))
    text[place % len(text)] ^= change
    try:
        read = flag.parse_record(bytes(text), "web")
    except IntegrityError:
        return
    assert [one.place for one in read.flags] == [one.place for one in two()]


# -- found again ----------------------------------------------------------------------------------------


@given(st.lists(FOUND, max_size=5), st.lists(FOUND, max_size=5))
def test_what_was_found_once_stays_whatever_is_found_later(first: list[Found], second: list[Found]) -> None:
    both = flag.with_found(record(*map(raised, first)), [raised(one, 200) for one in second])
    assert {one.id for one in both.flags} == {raised(one).id for one in (*first, *second)}
    assert flag.with_found(both, both.flags) == both


def test_a_flag_keeps_when_it_was_raised_and_learns_when_it_was_seen_last() -> None:
    (one,) = flag.with_found(record(raised(now=100)), [raised(now=300)]).flags
    assert (one.raised_at, one.seen_at) == (100, 300)


def test_a_flag_that_is_seen_again_has_the_newest_reason_and_never_an_earlier_time() -> None:
    later = msgspec.structs.replace(raised(now=300), reason="another signature")
    (one,) = flag.with_found(record(raised(now=100)), [later]).flags
    assert (one.reason, one.raised_by) == ("another signature", "a")
    (one,) = flag.with_found(record(raised(now=300)), [raised(now=100)]).flags  # a clock that was set back
    assert one.seen_at == 300


def test_an_original_that_was_not_kept_at_first_is_when_it_is_seen_again() -> None:
    left = msgspec.structs.replace(raised(), original=Original(left="too large"))
    kept = msgspec.structs.replace(raised(now=300), original=Original(digest="sha256:" + "0" * 64, size=5))
    (one,) = flag.with_found(record(left), [kept]).flags
    assert one.original == kept.original


@pytest.mark.parametrize(("choice", "open_again"), [("accept", False), ("restore", True)])
def test_what_was_accepted_stays_so_and_what_was_said_to_be_mended_is_open_again(
    choice: str, open_again: bool
) -> None:
    done = flag.resolved(raised(), resolution(raised(), choice))
    assert not done.is_open
    (one,) = flag.with_found(FlagRecord(vm="web", flags=(done,)), [raised(now=300)]).flags
    assert one.is_open is open_again


def test_an_original_that_is_kept_is_not_forgotten_when_the_flag_is_seen_again() -> None:
    kept = msgspec.structs.replace(raised(), original=Original(digest="sha256:" + "0" * 64, size=5))
    (one,) = flag.with_found(record(kept), [raised(now=300)]).flags
    assert one.original.size == 5


def test_open_flags_are_kept_when_there_is_no_room_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flag, "MAX_FLAGS", 2)
    places = [Place(disk=f"disk{number}") for number in range(3)]
    flags = [raised(Found(kind=FlagKind.UNREAD, place=one, reason="")) for one in places]
    done = flag.resolved(flags[0], resolution(flags[0]))
    kept = record(done, *flags[1:]).flags
    assert {one.id for one in kept} == {flags[1].id, flags[2].id}


def test_a_record_has_a_bound_in_bytes_too_since_a_guest_chooses_how_long_its_paths_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places = [Place(disk="disk0", path=b"/" + bytes([number]) * 3000) for number in range(97, 117)]
    flags = [
        raised(Found(kind=FlagKind.INFECTED, place=place, reason=""), number)
        for number, place in enumerate(places)
    ]
    one = len(canonical.encoded(flags[0])) + 1
    monkeypatch.setattr(flag, "MAX_FOUND_BYTES", 5 * one)
    kept = record(*reversed(flags))
    assert {each.id for each in kept.flags} == {each.id for each in flags[:5]}  # the oldest
    assert flag.with_found(kept, kept.flags) == kept
    done = flag.resolved(kept.flags[0], resolution(kept.flags[0]))
    less = flag.with_found(FlagRecord(vm="web", flags=(done, *kept.flags[1:])), ())
    assert set(less.flags) == set(kept.flags[1:])  # it has grown by a resolution, and gives way


@given(st.lists(FOUND, max_size=6), st.integers(0, 3000))
def test_whatever_room_there_is_the_record_can_be_read_and_keeps_within_it(
    found: list[Found], room: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flag, "MAX_FOUND_BYTES", room)
        kept = record(*map(raised, found))
    assert sum(len(canonical.encoded(one)) + 1 for one in kept.flags) <= room
    assert flag.parse_record(canonical.encoded(kept), "web") == kept


# -- a person's word ------------------------------------------------------------------------------------


def test_a_word_is_believed_only_with_its_signers_key() -> None:
    said = resolution(raised())
    assert flag.opened(said, CAROL.public_key()).by == "carol"
    with pytest.raises(IntegrityError):
        flag.opened(said, OTHER.public_key())
    with pytest.raises(IntegrityError):
        flag.opened(resolution(raised(), key=OTHER), CAROL.public_key())


@given(st.integers(0), st.integers(1, 255))
def test_a_word_with_a_changed_byte_is_not_believed(place: int, change: int) -> None:
    said = bytearray(resolution(raised()))
    said[place % len(said)] ^= change
    with pytest.raises(IntegrityError):
        flag.opened(bytes(said), CAROL.public_key())


def test_a_word_of_another_version_or_another_kind_of_statement_is_none() -> None:
    said = flag.peek(resolution(raised()))
    later = flag.signed(msgspec.structs.replace(said, version=2), CAROL)
    other = dsse.envelope("application/vnd.korora.answer+json", canonical.encoded(said), [CAROL])
    for envelope in (later, other):
        with pytest.raises(IntegrityError):
            flag.opened(envelope, CAROL.public_key())
    with pytest.raises(IntegrityError):
        flag.peek(other)


def test_a_word_on_a_flag_that_is_too_long_is_refused_before_it_is_read() -> None:
    said = resolution(raised())
    with pytest.raises(IntegrityError):
        flag.peek(said + b" " * flag.MAX_RESOLUTION_BYTES)


def test_a_resolution_in_the_log_says_who_closed_what_how_and_when() -> None:
    entry = flag.ResolutionEntry(
        vm="web", flag=raised().id, by="carol", choice="accept", digest="sha256:" + "0" * 64, at=7
    )
    assert entry.leaf() == (
        b'{"kind":"resolution","vm":"web","flag":"7a6490e73018b69914b96b47676e1eb0","by":"carol",'
        b'"choice":"accept","digest":"sha256:' + b"0" * 64 + b'","at":7}'
    )
