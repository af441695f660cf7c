"""The lab's network: one namespace per host, and one that is the switch between them.

                 switch namespace
    host a ──veth── [ mig    ] ──veth── host b     hosts' own traffic   10.77.n.0/24
    br0 ────veth─── [ guests ] ───veth──── br0     guests' traffic      10.78.n.0/24

Promise: the root namespace gets no address, route or interface. Everything here is idempotent.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute, NetlinkError, netns

from korora.errors import ToolError
from korora.lab.layout import LabHost, Layout

NAMESPACES = Path("/run/netns")
_BIG_MTU = 65535
# A bridge without a MAC of its own takes the lowest of its ports': it would change, and be unreachable by the
# address that others remember, whenever a host joins.
_BRIDGE_MACS = {"mig": "02:4b:00:00:00:01", "guests": "02:4b:00:00:00:02"}
_BURST_BYTES = 4 * _BIG_MTU
_QUEUE = "50ms"
T = TypeVar("T")


def build_network(layout: Layout, count: int) -> None:
    """Make what is not there yet, or mend it. ToolError when the kernel refuses."""
    with _translated("build the lab's network"):
        _ensure_namespace(layout.switch_netns)
        with IPRoute(netns=layout.switch_netns) as switch:
            _ensure_bridge(switch, "mig", f"{layout.switch_ip}/24")
            _ensure_bridge(switch, "guests", f"{layout.observer_ip}/24")
            for host in layout.hosts(count):
                _ensure_namespace(host.netns)
                _join(switch, host, "mig", "mig0")
                _join(switch, host, "guests", "guests0")
                _arrange_host(host)


def limit_links(layout: Layout, count: int, bits_per_s: int) -> None:
    """Each host sends at most so much of its own traffic, as over a real network (tc-tbf(8)).

    ToolError when the kernel refuses. Not idempotent.
    """
    with _translated("limit the lab's links"):
        for host in layout.hosts(count):
            with IPRoute(netns=host.netns) as inside:
                rate = {"rate": bits_per_s // 8, "burst": _BURST_BYTES, "latency": _QUEUE}
                inside.tc("add", "tbf", _index(inside, "mig0"), **rate)


def remove_network(layout: Layout) -> None:
    """Take down every namespace of this lab, however many hosts it had. Idempotent."""
    for name in network_names(layout):
        with _translated(f"remove the network namespace {name}"):
            netns.remove(name)


def network_names(layout: Layout) -> list[str]:
    """The lab's namespaces that exist now."""
    return sorted(path.name for path in NAMESPACES.glob(f"korora-{layout.id}-*"))


def in_namespace(name: str, make: Callable[[], T]) -> T:
    """Run `make` on a thread of its own inside the namespace. A socket it returns stays there for good."""
    outcome: list[T] = []
    problem: list[BaseException] = []

    def run() -> None:
        try:
            netns.setns(name)  # only this thread
            outcome.append(make())
        except BaseException as error:
            problem.append(error)

    thread = threading.Thread(target=run, name=f"in {name}")
    thread.start()
    thread.join()
    if problem:
        raise problem[0]
    return outcome[0]


def _ensure_namespace(name: str) -> None:
    if _is_namespace(name):
        return
    with contextlib.suppress(FileNotFoundError):
        (NAMESPACES / name).unlink()  # the mount point that a crash left behind
    netns.create(name)
    with IPRoute(netns=name) as inside:
        inside.link("set", index=1, state="up")


def _is_namespace(name: str) -> bool:
    path = NAMESPACES / name
    # A bind mount of a namespace is on another file system than the folder it is in.
    return path.exists() and path.stat().st_dev != NAMESPACES.stat().st_dev


def _ensure_bridge(ip: IPRoute, name: str, address: str | None = None) -> int:
    if not ip.link_lookup(ifname=name):
        ip.link("add", ifname=name, kind="bridge", br_stp_state=0, br_forward_delay=0)
    index = _index(ip, name)
    _widen(ip, index)
    if name in _BRIDGE_MACS:
        ip.link("set", index=index, address=_BRIDGE_MACS[name])
    ip.link("set", index=index, state="up")
    if address:
        _ensure_address(ip, index, address)
    return index


def _join(switch: IPRoute, host: LabHost, bridge: str, inside_name: str) -> None:
    """A veth pair from the switch's bridge to `inside_name` in the host."""
    outside_name = f"{bridge}-{host.name}"
    if not switch.link_lookup(ifname=outside_name):
        namespace = os.open(NAMESPACES / host.netns, os.O_RDONLY)
        try:
            peer = {"ifname": inside_name, "net_ns_fd": namespace}
            switch.link("add", ifname=outside_name, kind="veth", peer=peer)
        finally:
            os.close(namespace)
    index = _index(switch, outside_name)
    _widen(switch, index)
    switch.link("set", index=index, master=_index(switch, bridge), state="up")


def _arrange_host(host: LabHost) -> None:
    with IPRoute(netns=host.netns) as inside:
        migration = _index(inside, "mig0")
        _widen(inside, migration)
        inside.link("set", index=migration, state="up")
        _ensure_address(inside, migration, f"{host.ip}/24")
        bridge = _ensure_bridge(inside, "br0")
        inside.link("set", index=_index(inside, "guests0"), master=bridge, state="up")


def _ensure_address(ip: IPRoute, index: int, address: str) -> None:
    plain, _, prefix = address.partition("/")
    with contextlib.suppress(_Exists):
        _unless_exists(ip.addr, "add", index=index, address=plain, prefixlen=int(prefix))


def _widen(ip: IPRoute, index: int) -> None:
    """A large MTU makes local copies cheaper; where the kernel refuses it, the usual one does."""
    with contextlib.suppress(NetlinkError):
        ip.link("set", index=index, mtu=_BIG_MTU)


def _index(ip: IPRoute, name: str) -> int:
    found = ip.link_lookup(ifname=name)
    if not found:
        raise ToolError(
            f"the lab's network has lost its interface {name}",
            kind="lab-network",
            remedy="run `korora lab down`, then `korora lab up`",
        )
    return int(found[0])


class _Exists(Exception):  # noqa: N818 (a signal, not a failure)
    pass


def _unless_exists(call: Callable[..., Any], *words: Any, **settings: Any) -> None:
    try:
        call(*words, **settings)
    except NetlinkError as error:
        if error.code == 17:  # EEXIST
            raise _Exists from error
        raise


@contextlib.contextmanager
def _translated(what: str) -> Any:
    try:
        yield
    except (NetlinkError, OSError) as error:
        raise ToolError(
            f"cannot {what}: {error}",
            kind="lab-network",
            remedy="is this root, in a kernel with network namespaces, veth and bridges?",
        ) from error
