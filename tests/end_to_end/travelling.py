"""A guest of the lab that moves from host to host, and what must be true of it and its hosts at every stop.

Everything is looked at from outside: the command line's answers, the guest's ticks and reports, and /proc.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pyroute2 import IPRoute

from end_to_end.ordering import Ended, Order
from korora.client import Daemon
from korora.client.views import VmView
from korora.errors import KororaError
from korora.lab.forwarder import Forwarder
from korora.lab.guest.image import guest_image
from korora.lab.layout import LabHost
from korora.lab.lifecycle import daemon_name, end_daemon, ensure_daemon, korora_command
from korora.lab.machines import LabMachine, Workload, write_machine
from korora.lab.namespaces import NAMESPACES
from korora.lab.observer import Observer
from korora.lab.processes import Processes
from korora.lab.site import configuration_through
from korora.model.vm import Firmware

if TYPE_CHECKING:
    from end_to_end.conftest import Lab

HOSTS = 3
SMALL = Workload(dirty_mib=8, dirty_rate_mib=2, fill_mib=16, verify_rate_mib=4)
WALKER = LabMachine("walker", 21, memory="256M", workload=SMALL)
KEEPER = LabMachine("keeper", 22, firmware=Firmware.UEFI, memory="384M", workload=SMALL)
INTERPOSER = "korora.agents.vtpm.interposer"
CLEARED_S = 60.0  # the other host may still be undoing when the command has ended
_OWN_LINKS = {"lo", "mig0", "br0", "guests0"}
_SAME_AT_EVERY_STOP = ("boot", "ek_name", "pcr10", "pcr16", "nv", "uname", "secure_boot", "secret")


class Traveller:
    """One guest, wherever it is. `before` is what it told of itself when the test began."""

    _last: ClassVar[dict[str, dict[str, Any]]] = {}

    def __init__(self, lab: Lab, observer: Observer, machine: LabMachine) -> None:
        self.lab = lab
        self.observer = observer
        self.machine = machine
        self.name = machine.name
        self.ip = machine.ip(lab.layout)
        self.before: dict[str, Any] = {}
        self._orders: list[Order] = []

    # -- where it is ------------------------------------------------------------------------------------

    def views(self) -> dict[str, VmView]:
        """What each host's daemon says of it, by host. A daemon that is down says nothing."""
        said: dict[str, VmView] = {}
        for host in self.hosts:
            with suppress(KororaError), Daemon(host.api, host.name) as daemon:
                said.update((host.name, view) for view in daemon.vms() if view.name == self.name)
        return said

    @property
    def host(self) -> LabHost:
        """Where it runs: on exactly one host, by every host's word and by its processes."""
        views = self.views()
        running = [name for name, view in views.items() if view.owned and view.state == "running"]
        assert len(running) == 1, views
        here = self.lab.layout.host(running[0])
        with_qemu = [host.name for host in self.hosts if self.processes(host, "qemu-system")]
        assert with_qemu == [here.name], f"QEMU runs on {with_qemu}, {here.name} says that it is there"
        return here

    @property
    def hosts(self) -> tuple[LabHost, ...]:
        return self.lab.layout.hosts(HOSTS)

    def other(self) -> LabHost:
        """The one of a and b where it is not."""
        return self.lab.layout.host("a" if self.host.name == "b" else "b")

    def settled(self) -> None:
        """Have it run on a or b, whole; start it where no host knows a running one."""
        views = self.views()
        owners = [name for name, view in views.items() if view.owned]
        running = [name for name in owners if views[name].state == "running"]
        if not running:
            path = write_machine(self.lab.layout, self.machine, guest_image())
            self.lab.answer("-H", owners[0] if owners else "a", "vm", "start", str(path))
        elif running == ["c"]:
            assert self.move("a").exit_code == 0
        self.observer.wait_for_tick(self.ip, deadline_s=120)
        until(lambda: self.boot() != "waiting", 120)
        self.before = self.report()
        assert self.before["errors_ever"] == 0
        assert self.before["secret_intact"]

    def boot(self) -> str:
        """The verdict on its boot, where it runs: "waiting" until a moment after it told of it."""
        boot = self.views()[self.host.name].boot
        return boot.verdict if boot is not None else ""

    # -- moving -----------------------------------------------------------------------------------------

    def order(
        self, to: LabHost | str, *words: str, config: Path | None = None, source: LabHost | None = None
    ) -> Order:
        """Begin to move it. Without `source` the command looks for it itself."""
        name = to if isinstance(to, str) else to.name
        command = [*korora_command(), "--config", str(config or self.lab.layout.configuration)]
        command += ["-H", source.name] if source else []
        order = Order([*command, "migrate", self.name, "--to", name, *words, "--json"])
        self._orders.append(order)
        return order

    def end_orders(self) -> None:
        while self._orders:
            self._orders.pop().end()

    def move(self, to: LabHost | str, *words: str, config: Path | None = None) -> Ended:
        return self.order(to, *words, config=config).ended()

    def moved(self, to: LabHost | str, *words: str, config: Path | None = None) -> dict[str, Any]:
        """Move it; it must arrive whole, and leave nothing behind."""
        source = self.host
        done = self.move(to, *words, config=config)
        assert done.exit_code == 0, (done.outcome, done.stderr)
        assert done.outcome["outcome"] == "completed"
        there = to if isinstance(to, str) else to.name
        assert (done.outcome["source"], done.outcome["destination"]) == (source.name, there)
        assert self.host.name == there
        self.is_whole()
        self.left_nothing_on(source)
        self._last[self.ip] = done.outcome
        return done.outcome

    def last_move(self) -> dict[str, Any]:
        """The last good move, with the guest still where it led; made now if there is none."""
        last = self._last.get(self.ip)
        return last if last and self.host.name == last["destination"] else self.moved(self.other())

    # -- what must be true ------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        self.observer.wait_for_tick(self.ip)
        return self.observer.report(self.ip)

    def is_whole(self) -> dict[str, Any]:
        """It ticks, it is the same boot with the same vTPM, and every page of its pattern is right."""
        now = self.report()
        assert (now["errors"], now["errors_ever"], now["secret_intact"]) == (0, 0, True)
        assert now["pages"] > 0
        for key in _SAME_AT_EVERY_STOP:
            assert now[key] == self.before[key], key
        assert now["tpm"]
        assert now["disk"]["present"]
        assert now["disk"]["errors"] == 0
        return now

    def stayed(self, on: LabHost, other: LabHost) -> None:
        """After a failed move: it runs where it ran, whole, and the other host has nothing of it."""
        self.left_nothing_on(other)
        assert self.host == on
        self.is_whole()
        assert [p.name for p in self.directory(on).glob("*.sock") if p.name in {"out.sock", "in.sock"}] == []
        assert not self.views()[on.name].moving

    def left_nothing_on(self, host: LabHost) -> None:
        """No process, file or tap of it, at the latest after a moment."""
        limit = time.monotonic() + CLEARED_S
        while (found := self.remains(host)) and time.monotonic() < limit:
            time.sleep(0.1)
        assert found == [], found

    def remains(self, host: LabHost) -> list[str]:
        directory = self.directory(host)
        found = [f"file {folder}" for folder, _, _ in os.walk(directory)]  # which may vanish meanwhile
        found += [f"file {folder}/{name}" for folder, _, names in os.walk(directory) for name in names]
        found += [f"process {pid}: {words[:200]}" for pid, words in self.processes(host).items()]
        if not any(self.processes_of_others(host)):
            found += [f"tap {name}" for name in _links(host) if name not in _OWN_LINKS]
        return found

    def directory(self, host: LabHost) -> Path:
        return host.state / "vms" / self.name

    def processes(self, host: LabHost, program: str = "") -> dict[int, str]:
        """Those that were started for this VM on that host: its folder, or its name, is in their words."""
        return {
            pid: words
            for pid, words in _processes()
            if program in words
            and (
                f"{self.directory(host)}/" in words
                or _works_in(pid, self.directory(host))
                or (f"{INTERPOSER} {self.name} " in words and _lives_in(pid, host))
            )
        }

    def processes_of_others(self, host: LabHost) -> Iterator[int]:
        """QEMUs of other VMs on that host, whose taps are theirs."""
        for pid, words in _processes():
            cwd = _cwd(pid)
            if "qemu-system" in words and cwd.parent == host.state / "vms" and cwd != self.directory(host):
                yield pid


# -- the network between them -----------------------------------------------------------------------------


@contextmanager
def through_a_forwarder(lab: Lab, to: LabHost) -> Iterator[tuple[Forwarder, Path]]:
    """A man in the middle of the way to that host, and the configuration that leads through him."""
    target = (to.ip, int(to.address.rpartition(":")[2]))
    with Forwarder((lab.layout.switch_ip, 0), target, inside=lab.inside) as forwarder:
        address = "{}:{}".format(*forwarder.address)
        hosts = lab.layout.hosts(HOSTS)
        yield forwarder, configuration_through(lab.layout, hosts, {to.name: address}, "middle")


# -- daemons ----------------------------------------------------------------------------------------------


def kill_daemon(lab: Lab, host: LabHost) -> None:
    """SIGKILL, as a crash would."""
    found = Processes(lab.layout.processes).find(daemon_name(host))
    assert found
    os.kill(found.pid, signal.SIGKILL)
    until(lambda: not found.alive, 60)
    with suppress(ChildProcessError):
        os.waitpid(found.pid, 0)


def start_daemon(lab: Lab, host: LabHost) -> None:
    ensure_daemon(lab.layout, host)
    until(lambda: _answers(host), 60)


def restart_daemon(lab: Lab, host: LabHost) -> None:
    """As an administrator would."""
    end_daemon(lab.layout, host)
    start_daemon(lab, host)


def until(true: Callable[[], object], deadline_s: float) -> None:
    limit = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.05)


def _answers(host: LabHost) -> bool:
    try:
        with Daemon(host.api, host.name) as daemon:
            return bool(daemon.host(deadline_s=10).enrolled)
    except KororaError:
        return False


# -- /proc ------------------------------------------------------------------------------------------------


def _processes() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if words:
                    yield int(entry.name), words


def _cwd(pid: int) -> Path:
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return Path("/nowhere")


def _works_in(pid: int, directory: Path) -> bool:
    cwd = str(_cwd(pid)).removesuffix(" (deleted)")
    return cwd == str(directory) or cwd.startswith(f"{directory}/")


def _lives_in(pid: int, host: LabHost) -> bool:
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino == (NAMESPACES / host.netns).stat().st_ino
    except OSError:
        return False


def _links(host: LabHost) -> list[str]:
    with IPRoute(netns=host.netns) as links:
        return [str(link.get("ifname")) for link in links.get_links()]
