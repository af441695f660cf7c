"""Where a lab's things are and what they are called: all of it follows from the lab's folder alone.

Pure: makes nothing, reads nothing. Two labs in two folders have different namespaces; nothing of theirs
meets, because every address lives inside a namespace of its own lab.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from korora.errors import UsageError

DEFAULT_DIRECTORY = Path("/run/korora-lab")
MAX_HOSTS = 20
HOST_PORT = 7700
# sun_path holds 108 bytes with its final zero; the deepest sockets are STATE/vms/NAME/vtpm/<socket>.
_SOCKET_LIMIT = 107
_DEEPEST = "hosts/a/state/vms//vtpm/hypervisor.sock"
_LONGEST_VM_NAME = 24


@dataclass(frozen=True, slots=True)
class LabHost:
    """One host. Everything it owns is under `directory`."""

    name: str
    netns: str
    ip: str
    directory: Path

    @property
    def address(self) -> str:
        return f"{self.ip}:{HOST_PORT}"

    @property
    def configuration(self) -> Path:
        return self.directory / "hostd.toml"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def api(self) -> Path:
        return self.directory / "api.sock"

    @property
    def log(self) -> Path:
        return self.directory / "hostd.log"

    @property
    def tpm_state(self) -> Path:
        return self.directory / "tpm"

    @property
    def tpm_socket(self) -> Path:
        return self.directory / "tpm.sock"

    @property
    def tpm(self) -> str:
        """Its TCTI."""
        return f"swtpm:path={self.tpm_socket}"

    @property
    def event_log(self) -> Path:
        return self.directory / "event_log.bin"


@dataclass(frozen=True, slots=True)
class Layout:
    """A lab by its folder (absolute)."""

    directory: Path

    @classmethod
    def at(cls, directory: Path) -> Layout:
        """UsageError when the folder's path is too long for unix sockets under it."""
        layout = cls(directory.absolute())
        spare = _SOCKET_LIMIT - len(str(layout.directory / _DEEPEST)) - _LONGEST_VM_NAME
        if spare < 0:
            raise UsageError(
                f"the lab's folder {layout.directory} is {-spare} characters too long for unix sockets",
                kind="path-too-long",
                remedy=f"give --dir a shorter one, such as {DEFAULT_DIRECTORY}",
            )
        return layout

    @property
    def id(self) -> str:
        return hashlib.sha256(str(self.directory).encode()).hexdigest()[:6]

    @property
    def number(self) -> int:
        """The third byte of the lab's addresses, 1 to 250: tells labs apart in logs."""
        return int(self.id, 16) % 250 + 1

    @property
    def switch_netns(self) -> str:
        return f"korora-{self.id}-net"

    @property
    def switch_ip(self) -> str:
        """The switch's own address on the hosts' network: forwarders listen here."""
        return f"10.77.{self.number}.254"

    @property
    def observer_ip(self) -> str:
        """The switch's own address on the guests' network."""
        return f"10.78.{self.number}.254"

    def guest_ip(self, number: int) -> str:
        """Address of the guest of this number, from 1."""
        return f"10.78.{self.number}.{number}"

    def host(self, name: str) -> LabHost:
        index = string.ascii_lowercase.index(name)
        return LabHost(
            name=name,
            netns=f"korora-{self.id}-{name}",
            ip=f"10.77.{self.number}.{index + 1}",
            directory=self.directory / "hosts" / name,
        )

    def hosts(self, count: int) -> tuple[LabHost, ...]:
        """The first `count` hosts: a, b, c, …"""
        if not 1 <= count <= MAX_HOSTS:
            raise UsageError(
                f"a lab has 1 to {MAX_HOSTS} hosts, not {count}",
                kind="bad-host-count",
                remedy="give --hosts a number in that range",
            )
        return tuple(self.host(name) for name in string.ascii_lowercase[:count])

    @property
    def processes(self) -> Path:
        return self.directory / "processes"

    @property
    def site(self) -> Path:
        return self.directory / "site"

    @property
    def configuration(self) -> Path:
        """korora.toml, for the command line."""
        return self.directory / "korora.toml"

    @property
    def operators(self) -> Path:
        return self.directory / "operators"

    @property
    def manufacturer(self) -> Path:
        """The lab's own TPM maker: CA, keys, settings of swtpm's tools."""
        return self.directory / "tpm-maker"

    @property
    def storage(self) -> Path:
        """Disk images, seen by every host under the same path."""
        return self.directory / "storage"

    @property
    def machines(self) -> Path:
        return self.directory / "machines"

    def folders(self, count: int) -> Iterator[Path]:
        """All folders of a lab of that many hosts, parents first."""
        yield self.directory
        yield from (self.processes, self.site, self.operators, self.manufacturer, self.storage, self.machines)
        yield self.directory / "hosts"
        for host in self.hosts(count):
            yield from (host.directory, host.state, host.tpm_state)
