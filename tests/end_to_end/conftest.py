"""One lab for all end-to-end tests of a run, and the command line to drive it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from end_to_end.travelling import HOSTS, KEEPER, WALKER, Traveller
from korora.errors import KororaError
from korora.lab.layout import Layout
from korora.lab.lifecycle import bring_up, korora_command, take_down
from korora.lab.namespaces import in_namespace
from korora.lab.observer import Observer

T = TypeVar("T")
_TOOLS = ("qemu-system-x86_64", "swtpm", "swtpm_setup", "ip")
_DEADLINE_S = 600.0
_KEPT_LAB = "KORORA_TEST_LAB"  # a folder: the lab there is used and left up, for whoever writes tests


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab that is up. `korora` runs its command line, `inside` makes sockets in its switch namespace."""

    layout: Layout

    def korora(
        self, *words: str, config: Path | None = None, deadline_s: float = _DEADLINE_S
    ) -> subprocess.CompletedProcess[str]:
        """Run `korora --config … WORDS`; the caller looks at the exit code."""
        command = [*korora_command(), "--config", str(config or self.layout.configuration), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=deadline_s, check=False)

    def answer(self, *words: str, deadline_s: float = _DEADLINE_S) -> Any:
        """The JSON answer of a command that must succeed (of several lines, the last)."""
        done = self.korora(*words, "--json", deadline_s=deadline_s)
        assert done.returncode == 0, (
            f"korora {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return json.loads(done.stdout.strip().splitlines()[-1])

    def inside(self, make: Callable[[], T]) -> T:
        return in_namespace(self.layout.switch_netns, make)


def lab_of(hosts: int) -> Iterator[Lab]:
    """A lab in a folder of its own, taken down whatever happens."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    missing = [tool for tool in _TOOLS if not shutil.which(tool)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    kept = os.environ.get(_KEPT_LAB)
    layout = Layout.at(Path(kept or tempfile.mkdtemp(prefix="kl-", dir="/tmp")))
    try:
        bring_up(layout, hosts)
        yield Lab(layout)
    except KororaError:
        _show_logs(layout)
        raise
    finally:
        if not kept:
            take_down(layout)


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    """Three hosts: enough for a chain. It ends before its process goes on with other tests."""
    yield from lab_of(HOSTS)


@pytest.fixture
def observer(lab: Lab) -> Iterator[Observer]:
    """Hears the guests' ticks for the length of one test."""
    with Observer(lab.layout.observer_ip, bind=lab.inside) as listening:
        yield listening


@pytest.fixture
def walker(lab: Lab, observer: Observer) -> Iterator[Traveller]:
    """A small SeaBIOS guest that runs on a or b; it goes on from test to test."""
    guest = settled(Traveller(lab, observer, WALKER))
    yield guest
    guest.end_orders()


@pytest.fixture(scope="module")
def keepers_place(lab: Lab) -> Iterator[str]:
    """The keeper runs from test to test of a module; it takes long to boot, and much memory."""
    yield KEEPER.name
    lab.answer("vm", "stop", KEEPER.name, "--force")


@pytest.fixture
def keeper(lab: Lab, observer: Observer, keepers_place: str) -> Iterator[Traveller]:
    """A UEFI guest with Secure Boot, that runs on a or b."""
    guest = settled(Traveller(lab, observer, KEEPER))
    yield guest
    guest.end_orders()


def settled(guest: Traveller) -> Traveller:
    guest.settled()
    return guest


def _show_logs(layout: Layout) -> None:
    for log in sorted(layout.directory.glob("hosts/*/hostd.log")):
        print(f"--- {log}\n{log.read_text(errors='replace')[-3000:]}")
