"""A lab of two hosts for one measurement, gone afterwards whatever happens."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from korora.client import Daemon
from korora.errors import KororaError
from korora.lab.interruption import Interrupted, interruptible, undisturbed
from korora.lab.layout import Layout
from korora.lab.lifecycle import bring_up, take_down
from korora.lab.namespaces import limit_links


def ended(session: Callable[[], None]) -> int:
    """The exit code of a session in a lab; what went wrong is said."""
    try:
        with interruptible():
            session()
    except Interrupted as interrupted:
        say(f"bench: {interrupted}; its lab is gone")
        return interrupted.exit_code
    except KororaError as error:
        say(f"bench: {error.message}")
        return int(error.exit_code)
    return 0


@contextmanager
def two_hosts(megabits_per_s: int = 0) -> Iterator[Layout]:
    """In a folder of their own. The network between them: as fast as memory, or so fast."""
    layout = Layout.at(Path(tempfile.mkdtemp(prefix="kb-", dir="/run")))
    try:
        bring_up(layout, 2, lambda line: say(f"lab: {line}"))
        if megabits_per_s:
            limit_links(layout, 2, megabits_per_s * 1_000_000)
        yield layout
    except KororaError:
        _keep_logs(layout)
        raise
    finally:
        with undisturbed():
            take_down(layout)


def accelerator(layout: Layout) -> str:
    """What the daemons' probe found to work: every guest uses it."""
    host = layout.host("a")
    with Daemon(host.api, host.name) as daemon:
        return str((daemon.host(deadline_s=120).hypervisor or {})["accelerator"])


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _keep_logs(layout: Layout) -> None:
    kept = Path(tempfile.mkdtemp(prefix="korora-bench-logs-"))
    for log in layout.directory.glob("hosts/*/hostd.log"):
        shutil.copyfile(log, kept / f"{log.parent.name}.log")
    say(f"the daemons' logs are kept in {kept}")
