"""What every part of the story shares: the lab, the guest, the terminal, and the list of what was shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from korora.lab.demo.ledger import Ledger
from korora.lab.demo.shell import Shell
from korora.lab.demo.stage import Stage
from korora.lab.demo.witness import Account, Look, Witness
from korora.lab.forwarder import Forwarder
from korora.lab.layout import Layout
from korora.lab.lifecycle import known_hosts
from korora.lab.machines import LabMachine, Workload
from korora.lab.namespaces import in_namespace
from korora.lab.site import configuration_through

T = TypeVar("T")
ATTACKER_PORT = 7801


@dataclass(frozen=True, slots=True)
class Size:
    """How large the guests are. `plain` is the one under QEMU alone, which only has a text to lose."""

    guest: LabMachine
    plain: LabMachine


_PLAIN = LabMachine("plain-1", 9, memory="192M", workload=Workload(8, 2, 8), disk=False)
FULL = Size(LabMachine("web-1", 1, data=True), _PLAIN)
FAST = Size(LabMachine("web-1", 1, memory="256M", workload=Workload(16, 4, 16), data=True), _PLAIN)


@dataclass(slots=True)
class Scene:
    """`first` is what the guest said of itself when it had just booted: all later looks are held to it."""

    layout: Layout
    size: Size
    stage: Stage
    shell: Shell
    ledger: Ledger
    witness: Witness
    first: Account | None = None

    @property
    def vm(self) -> str:
        return self.size.guest.name

    def inside(self, make: Callable[[], T]) -> T:
        """Make a socket in the lab's switch, where attackers live."""
        return in_namespace(self.layout.switch_netns, make)

    def show(self, step: str, expected: str, seen: str, *, good: bool) -> bool:
        """One line now, and one in the table at the end."""
        self.stage.verdict(f"{step}: {seen}", good=good)
        return self.ledger.enter(step, expected, seen, good=good)

    @contextmanager
    def attacker(self, in_place_of: str, target: tuple[str, int], name: str) -> Iterator[Forwarder]:
        """A forwarder at a host's address, and korora-NAME.toml, which believes in it."""
        listen = (self.layout.switch_ip, ATTACKER_PORT)
        with Forwarder(listen, target, inside=self.inside) as forwarder:
            addresses: Mapping[str, str] = {in_place_of: "{}:{}".format(*forwarder.address)}
            hosts = self.layout.hosts(known_hosts(self.layout))
            configuration_through(self.layout, hosts, addresses, name)
            yield forwarder

    def still_well(self, step: str, where: str) -> Look:
        """The VM runs at `where` as if nothing had been: by its host's word, its own, and its ticks."""
        look = self.witness.look()
        hosts = [vm["host"] for vm in self.shell.ask("vm", "list") if _runs(vm, self.vm)]
        complaints = look.complaints(self.first) if self.first else ["it was never well"]
        if hosts != [where]:
            complaints.append(f"runs on {' and '.join(hosts) or 'no host'}")
        well = f"runs on {where}, 0 errors, {look.ticks.lost} ticks lost"
        self.show(step, f"runs on {where}, nothing lost", ", ".join(complaints) or well, good=not complaints)
        return look


def _runs(vm: Mapping[str, object], name: str) -> bool:
    return vm["name"] == name and str(vm["state"]).startswith("running")
