"""What a state is made of: sorts, relations and functions, each with its meaning.

A state is t = (a, B, c, D) of the paper's section 4.1, with what Clark–Wilson adds: a is `access`, B is
`matrix`, c is `subject_class` and `object_class`, D is `parent`. Everything a rule or a property may speak of
stands here; the notation refuses any other word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Sort(StrEnum):
    """What a value is. The first group has no limit of number; the second is written out in full."""

    SUBJECT = "subject"
    OBJECT = "object"
    CLASS = "class"  # a level and a set of categories, partially ordered by dominance
    MIGRATION = "migration"
    VALUE = "value"  # what an object holds; its digest
    ENTRY = "entry"  # the number of an entry in the log

    ACCESS = "access"
    PROCEDURE = "procedure"


class Access(StrEnum):
    """A, the access attributes, as Bell and LaPadula (1976) define them: what is observed, what altered."""

    READ = "r"  # observes
    WRITE = "w"  # observes and alters
    APPEND = "a"  # alters
    EXECUTE = "e"  # neither


class Procedure(StrEnum):
    """The transformation procedures (TPs) of a migration, in the order of a source; and what ends one."""

    SUBMIT = "submit"  # a signed request enters
    AUTHORIZE = "authorize"  # the host's policy allows it
    APPROVE = "approve"  # a second person agrees
    CHALLENGE = "challenge"  # a fresh nonce becomes a quote
    ATTEST = "attest"  # the quote is appraised
    AGREE = "agree"  # the rule of the session and the prechecks
    BASELINE = "baseline"  # what the VM is, before a byte of it moves
    TRANSFER = "transfer"  # pre-copy
    SWITCHOVER = "switchover"  # the last pages and the vTPM
    MEASURE = "measure"  # what arrived becomes digests
    VERIFY = "verify"  # manifest against measurement
    ACCEPT = "accept"  # the destination's signed word
    RELEASE = "release"  # ownership is given up
    RUN = "run"  # and taken up
    WIPE = "wipe"  # what is left at the source is destroyed
    RECEIPT = "receipt"  # both sign
    RECLAIM = "reclaim"  # the destination has declined it for good; the source takes the VM back
    WITHDRAW = "withdraw"  # it is given up; the source keeps the VM
    FLAG = "flag"  # something is wrong with an object
    RESOLVE = "resolve"  # somebody else has looked, and it goes on
    CONFIRM = "confirm"  # an item still holds what it should (the IVP)


@dataclass(frozen=True, slots=True)
class Relation:
    sorts: tuple[Sort, ...]
    meaning: str


@dataclass(frozen=True, slots=True)
class Function:
    sorts: tuple[Sort, ...]
    result: Sort
    meaning: str


_S, _O, _A, _C = Sort.SUBJECT, Sort.OBJECT, Sort.ACCESS, Sort.CLASS
_M, _P, _V, _N = Sort.MIGRATION, Sort.PROCEDURE, Sort.VALUE, Sort.ENTRY

RELATIONS: Final[Mapping[str, Relation]] = MappingProxyType(
    {
        # Bell–LaPadula: a, B, D
        "access": Relation((_S, _O, _A), "a: the subject has the object open in this way"),
        "matrix": Relation((_S, _O, _A), "B: the subject may open the object in this way"),
        "parent": Relation((_O, _O), "D: the first object is the parent of the second"),
        "live": Relation((_O,), "the object exists"),
        # Clark–Wilson: items
        "cdi": Relation((_O,), "constrained data item: only procedures change it"),
        "udi": Relation((_O,), "unconstrained data item: it came from outside, nobody vouches for it"),
        "valid": Relation(
            (_O,), "an IVP or a certified procedure vouches for what the object holds (C1, C2)"
        ),
        # Clark–Wilson: who may do what
        "certified": Relation((_P, _O), "the procedure is certified to produce this object (C2, E1)"),
        "upgrades": Relation((_P, _O), "and to make it from an unconstrained item, whole or not at all (C5)"),
        "triple": Relation((_S, _P, _O), "the user may run the procedure on the object (E2)"),
        "certifier": Relation((_P, _S), "the subject certifies the procedure, and permits it (E4)"),
        "executes": Relation((_P, _S), "the agent in which the procedure runs"),
        "authenticated": Relation((_S,), "the user has shown who he is (E3)"),
        "credential": Relation((_S, _O), "the object by which he shows it"),
        # a migration
        "belongs": Relation((_O, _M), "the object is of this migration"),
        "done": Relation((_M, _P), "the procedure has been done, once"),
        "flagged": Relation((_M, _O), "the object is under suspicion; nothing goes on"),
        "two_persons": Relation((_M,), "a second person must agree"),
        "requester": Relation((_M, _S), "who asked for it"),
        "approver": Relation((_M, _S), "who agreed to it"),
        "flagger": Relation((_M, _S), "who raised a flag"),
        # the log
        "log": Relation((_N, _S, _P, _O), "entry: who ran what, and what came of it (C4)"),
        "recorded": Relation((_N, _V), "and the value that it had then"),
        "flow": Relation((_O, _O), "what the first holds has gone into the second"),
    }
)

FUNCTIONS: Final[Mapping[str, Function]] = MappingProxyType(
    {
        "subject_class": Function((_S,), _C, "c: the access class of a subject"),
        "object_class": Function((_O,), _C, "c: the access class of an object"),
        "holds": Function((_O,), _V, "the value of an object"),
    }
)

WRITTEN_OUT: Final[Mapping[Sort, tuple[str, ...]]] = MappingProxyType(
    {_A: tuple(access.value for access in Access), _P: tuple(procedure.value for procedure in Procedure)}
)
"""The sorts of which there is no more than this."""

CONSTANTS: Final[Mapping[str, Sort]] = MappingProxyType(
    {word: sort for sort, words in WRITTEN_OUT.items() for word in words}
)
"""Words of a formula that stand for themselves."""
