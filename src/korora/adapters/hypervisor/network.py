"""Taps for a VM's network cards, made in the daemon's own network namespace.

A tap is not persistent: it lives as long as QEMU holds its descriptor, so a dead VM leaves none behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator, Sequence

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from korora.errors import ToolError
from korora.model.vm import Nic

_TUNSETIFF = 0x400454CA
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_IFREQ = struct.Struct("16sH22x")
_NAME = b"kora%d"  # the kernel counts


@contextlib.contextmanager
def taps(nics: Sequence[Nic]) -> Iterator[tuple[int, ...]]:
    """One tap per card, up and on its bridge. Descriptors to hand to QEMU; ours are closed on leaving.

    Blocking: never on the event loop. ToolError(kind="no-bridge" or "tap"); no tap is left behind then.
    """
    with contextlib.ExitStack() as opened:
        descriptors = []
        for nic in nics:
            fd, name = _open_tap()
            opened.callback(os.close, fd)
            _attach(name, nic.bridge)
            descriptors.append(fd)
        yield tuple(descriptors)


def bridges() -> tuple[str, ...]:
    """The bridges of this network namespace, by name. Blocking: never on the event loop."""
    with IPRoute() as links:
        return tuple(sorted(link.get("ifname") for link in links.get_links(kind="bridge")))


def bridge_of(interface: str) -> str | None:
    """The bridge (or other master) that an interface of this namespace belongs to. Blocking, likewise."""
    with IPRoute() as links:
        for index in links.link_lookup(ifname=interface):
            master = links.get_links(index)[0].get("master")
            return None if master is None else str(links.get_links(master)[0].get("ifname"))
    return None


def _open_tap() -> tuple[int, str]:
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            request = _IFREQ.pack(_NAME, _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
            answer = fcntl.ioctl(fd, _TUNSETIFF, request)
        except OSError:
            os.close(fd)
            raise
    except OSError as error:
        raise ToolError(
            f"no tap can be made: {error.strerror}",
            kind="tap",
            remedy="run the daemon as root, and load the tun module (modprobe tun)",
        ) from error
    return fd, answer[:16].rstrip(b"\0").decode()


def _attach(tap: str, bridge: str) -> None:
    """Up, on the bridge, and with the bridge's MTU: a smaller one would drop what the others send."""
    try:
        with IPRoute() as links:
            found = links.link_lookup(ifname=bridge)
            if not found:
                raise _no_bridge(bridge)
            mtu = links.get_links(found[0])[0].get("mtu")
            index = links.link_lookup(ifname=tap)[0]
            most = links.get_links(index)[0].get("max_mtu") or mtu  # a tap's frame header counts
            links.link("set", index=index, mtu=min(mtu, most))
            links.link("set", index=index, master=found[0])
            links.link("set", index=index, state="up")
    except NetlinkError as error:
        raise ToolError(
            f"the tap cannot join the bridge {bridge}: {error}",
            kind="tap",
            remedy=f"is {bridge} a bridge? See `ip -d link show {bridge}`",
        ) from error


def _no_bridge(bridge: str) -> ToolError:
    known = ", ".join(bridges()) or "none"
    return ToolError(
        f"there is no bridge {bridge} on this host (there is: {known})",
        kind="no-bridge",
        remedy=f"make it (ip link add {bridge} type bridge; ip link set {bridge} up) or name another",
    )
