"""An installation of any size, and what is asked in it: secure, made up, the same for the same numbers.

A tree of objects under a root, a hundred below each; the subject that owns an inner one has it open. Beside
it: an object that every subject may open, one with many children, a roster that authenticates everybody, and
migrations that wait for their first step or for their transfer.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from korora.policy.machine.running.classes import AccessClass, Level
from korora.policy.machine.running.state import SHARDS, State

FAN_OUT: Final = 100
READABLE: Final = 50_000
"""Rights to read that are kept at hand, of those that the classes allow."""
BEFORE_TRANSFER: Final = ("submit", "challenge", "attest", "authorize", "agree", "baseline")
HOST_CLASS: Final = AccessClass(Level.RP)
OPERATOR_CLASS: Final = AccessClass(Level.UA)
TOP: Final = AccessClass(Level.VTPM, 2**8 - 1)
Asked = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Size:
    subjects: int
    objects: int
    entries: int  # of the matrix
    migrations: int  # of each kind
    wide: int  # children of one object


class World:
    """Requests come with names that nobody has hashed before, as they do when they were just read."""

    def __init__(self, size: Size, seed: int = 1) -> None:
        self.size = size
        self.state = State(shards=SHARDS if size.objects >= 10_000 else 1)
        self.inner = max(1, min(size.subjects, (size.objects - 1) // FAN_OUT))
        self.entry = 0
        self._chance = random.Random(seed)
        self._classes: list[AccessClass] = []
        self._readable: list[tuple[str, str, str]] = []
        self._new = 0
        self._objects()
        self._owners_and_others()
        self._rights()
        self._special()
        self._migrations()

    # -- how it is made -------------------------------------------------------------------------------------

    def _add(self, relation: str, *row: Any) -> None:
        self.state.relations[relation].add(row)

    def _set(self, function: str, argument: str, value: Any) -> None:
        self.state.functions[function].set(argument, value)

    def _item(self, name: str, its: AccessClass, kind: str) -> None:
        self._add("live", name)
        self._add(kind, name)
        self._set("object_class", name, its)
        self._set("holds", name, "sha256:0")

    def _objects(self) -> None:
        for number in range(self.size.objects):
            above = self._classes[(number - 1) // FAN_OUT] if number else TOP
            level = Level(self._chance.randint(0, above.level)) if number else above.level
            its = AccessClass(level, above.categories & self._chance.getrandbits(8) if number else 255)
            self._classes.append(its)
            self._item(f"object-{number}", its, "udi")
            if number:
                self._add("parent", f"object-{(number - 1) // FAN_OUT}", f"object-{number}")

    def _owners_and_others(self) -> None:
        for number in range(self.size.subjects):
            subject, item = f"subject-{number}", f"object-{number}"
            if number < self.inner:
                self._set("subject_class", subject, self._classes[number])
                self._add("matrix", subject, item, "w")
                self._add("access", subject, item, "w")
            else:
                self._set("subject_class", subject, AccessClass(Level(number % 5)))

    def _rights(self) -> None:
        matrix, classes = self.state.relations["matrix"], self.state.functions["subject_class"]
        for _ in range(self.size.entries - len(matrix)):
            subject = f"subject-{self._chance.randrange(self.size.subjects)}"
            item = self._chance.randrange(1, self.size.objects)
            row = (subject, f"object-{item}", self._chance.choice("rwae"))
            readable = row[2] == "r" and self._classes[item].dominates(classes.get(subject))
            if readable and row not in matrix and len(self._readable) < READABLE:
                self._readable.append(row)
            matrix.add(row)

    def _special(self) -> None:
        for name, kind in (("popular", "udi"), ("wide", "udi"), ("roster", "cdi")):
            self._item(name, TOP, kind)
            self._add("parent", "object-0", name)
        self._add("valid", "roster")
        for keeper, name in (("keeper", "wide"), ("registrar", "roster")):
            self._set("subject_class", keeper, TOP)
            self._add("matrix", keeper, name, "w")
            self._add("access", keeper, name, "w")
        for number in range(self.size.wide):
            self._item(f"leaf-{number}", TOP, "udi")
            self._add("parent", "wide", f"leaf-{number}")
        self._set("subject_class", "collector", TOP)
        for number in range(self.size.wide):
            self._add("matrix", "collector", f"leaf-{number}", "e")
        for number in range(self.size.subjects):
            self._add("matrix", f"subject-{number}", "popular", "r")
            self._add("credential", f"subject-{number}", "roster")

    def _migrations(self) -> None:
        self._set("subject_class", "host", HOST_CLASS)
        for procedure in (*BEFORE_TRANSFER, "transfer"):
            self._add("executes", procedure, "host")
        for number in range(self.size.migrations):
            operator = f"operator-{number % self.size.subjects}"
            self._set("subject_class", operator, OPERATOR_CLASS)
            self._add("authenticated", operator)
            self._waiting(number, operator)
            self._under_way(number, operator)

    def _waiting(self, number: int, operator: str) -> None:
        form, record, migration = f"form-{number}", f"record-{number}", f"asked-{number}"
        self._item(form, OPERATOR_CLASS, "udi")
        self._constrained(record, migration, "submit", operator)
        self._add("belongs", form, migration)
        self._add("upgrades", "submit", record)

    def _under_way(self, number: int, operator: str) -> None:
        taken, made, migration = f"memory-{number}", f"image-{number}", f"moving-{number}"
        self._constrained(taken, migration, "baseline", operator)
        self._constrained(made, migration, "transfer", operator)
        self._add("valid", taken)
        self._add("matrix", "host", taken, "r")
        self._add("requester", migration, operator)
        for procedure in BEFORE_TRANSFER:
            self._add("done", migration, procedure)
            self._add("log", self._next(), operator, procedure, taken)
            self._add("recorded", self.entry, "sha256:0")

    def _constrained(self, item: str, migration: str, procedure: str, operator: str) -> None:
        self._item(item, HOST_CLASS, "cdi")
        self._add("belongs", item, migration)
        self._add("certified", procedure, item)
        self._add("triple", operator, procedure, item)
        self._add("matrix", "host", item, "w")

    def _next(self) -> int:
        self.entry += 1
        return self.entry

    # -- what is asked --------------------------------------------------------------------------------------

    def readable(self) -> Iterator[Asked]:
        """Gets that are allowed, and each but once."""
        for subject, item, access in self._chance.sample(self._readable, len(self._readable)):
            yield "get", {"u": _unhashed(subject), "o": _unhashed(item), "x": access}

    def unreadable(self) -> Iterator[Asked]:
        while True:
            subject, item = self._someone(), f"object-{self._chance.randrange(1, self.size.objects)}"
            if (subject, item, "r") not in self.state.relations["matrix"]:
                yield "get", {"u": subject, "o": item, "x": "r"}

    def gives(self) -> Iterator[Asked]:
        """Rights that nobody has yet, given by owners."""
        seen = set()
        while True:
            owner, item = self._owned()
            row = (someone := self._someone(), item, "e")
            if row not in seen and row not in self.state.relations["matrix"]:
                seen.add(row)
                yield "give", {"u": owner, "s": someone, "o": item, "x": "e"}

    def creates(self) -> Iterator[Asked]:
        while True:
            number = self._chance.randrange(self.inner)
            self._new += 1
            new = {"u": f"subject-{number}", "o": f"new-{self._new}", "k": f"object-{number}"}
            yield "create", {**new, "c": self._classes[number]}

    def writes(self) -> Iterator[Asked]:
        while True:
            number = self._chance.randrange(self.inner)
            value = f"sha256:{self._chance.getrandbits(64):x}"
            yield "write", {"u": f"subject-{number}", "o": f"object-{number}", "v": value}

    def authentications(self) -> Iterator[Asked]:
        while True:
            yield "authenticate", {"u": "registrar", "s": self._someone(), "o": "roster"}

    def submits(self, numbers: range) -> Iterator[list[Asked]]:
        for number in numbers:
            item, given = f"record-{number}", self._step(number, "asked", "form", "record")
            yield self._opened([(item, "w")], ("submit", given))

    def transfers(self, numbers: range) -> Iterator[list[Asked]]:
        for number in numbers:
            taken, made = f"memory-{number}", f"image-{number}"
            given = self._step(number, "moving", "memory", "image")
            yield self._opened([(taken, "r"), (made, "w")], ("transfer", given))

    def _step(self, number: int, migration: str, taken: str, made: str) -> dict[str, Any]:
        users = {"u": f"operator-{number % self.size.subjects}", "h": "host", "m": f"{migration}-{number}"}
        return {
            **users,
            "i": f"{taken}-{number}",
            "o": f"{made}-{number}",
            "v": f"sha256:{number:x}",
            "n": self._next(),
        }

    def _opened(self, items: list[tuple[str, str]], step: Asked) -> list[Asked]:
        gets: list[Asked] = [("get", {"u": "host", "o": item, "x": access}) for item, access in items]
        return [*gets, step, *(("release-access", dict(given)) for _, given in gets)]

    def populars(self) -> Iterator[Asked]:
        for number in range(self.size.subjects):
            yield "give", {"u": "subject-0", "s": f"subject-{number}", "o": "popular", "x": "e"}

    def openings(self) -> Iterator[Asked]:
        for number in range(self.size.wide):
            yield "get", {"u": "collector", "o": f"leaf-{number}", "x": "e"}

    def children(self) -> Iterator[Asked]:
        while True:
            self._new += 1
            yield "create", {"u": "keeper", "o": f"new-{self._new}", "k": "wide", "c": TOP}

    def _someone(self) -> str:
        return f"subject-{self._chance.randrange(self.size.subjects)}"

    def _owned(self) -> tuple[str, str]:
        while True:
            item = self._chance.randrange(1, self.size.objects)
            if (owner := (item - 1) // FAN_OUT) < self.inner:
                return f"subject-{owner}", f"object-{item}"


def _unhashed(name: str) -> str:
    return "".join(list(name))
