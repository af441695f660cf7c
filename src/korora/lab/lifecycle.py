"""Bring a lab up, take it down, say how it is. Each step finds what is there already and mends what is not.

Promise: after `take_down` nothing of the lab is left: no process, namespace, socket or file; what others
run and keep is not touched. One `up` or `down` per folder at a time.
Limit: needs root. `down` ends everything that runs inside the lab's namespaces, whoever started it there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from korora.client import Daemon
from korora.errors import KororaError, ToolError, UsageError
from korora.lab import host_tpm
from korora.lab.guest.image import GuestImage, cache_folder, guest_image, image_by_inputs
from korora.lab.layout import LabHost, Layout
from korora.lab.machines import READY_MADE, write_machine
from korora.lab.measured_boot import HostSoftware, MeasuredBoot, measured_boot
from korora.lab.namespaces import NAMESPACES, build_network, network_names, remove_network
from korora.lab.processes import Processes, end_process, start_time
from korora.lab.site import write_site

_MARKER = "lab.json"
_DAEMON_PATIENCE_S = 60.0
Tell = Callable[[str], None]


class _Record(msgspec.Struct, frozen=True):
    """What the folder must remember: it is a lab, and how many hosts it has."""

    hosts: int


class HostStatus(msgspec.Struct, frozen=True):
    """One host of the lab. `healthy`: TPM and daemon live, the daemon answers and is enrolled."""

    name: str
    netns: str
    address: str
    api: str
    state: str
    log: str
    tpm: str
    daemon_pid: int | None
    tpm_pid: int | None
    enrolled: bool
    healthy: bool


class LabStatus(msgspec.Struct, frozen=True):
    """What scripts ask for: `korora lab status --json`."""

    up: bool
    config: str
    dir: str
    id: str
    hosts: tuple[HostStatus, ...] = ()
    switch_netns: str = ""
    switch_address: str = ""
    observer_address: str = ""
    machines: dict[str, str] = {}
    guest_addresses: dict[str, str] = {}
    kernel: str | None = None
    initrd: str | None = None


def bring_up(layout: Layout, count: int | None = None, tell: Tell = lambda line: None) -> LabStatus:
    """Have a lab of `count` hosts run (2, or as many as there were). An old one may grow, never shrink.

    On failure what was made stays: another `bring_up` goes on from there, `take_down` removes it.
    """
    _require_root()
    _require_ours(layout)
    asked = count or (known_hosts(layout) or 2)
    hosts = layout.hosts(max(asked, known_hosts(layout)))
    layout.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(layout):
        for folder in layout.folders(len(hosts)):
            folder.mkdir(exist_ok=True, mode=0o700)
        (layout.directory / _MARKER).write_bytes(msgspec.json.encode(_Record(len(hosts))))
        tell("network namespaces, guest image, TPMs")
        build_network(layout, len(hosts))
        image = guest_image()
        boot = measured_boot(HostSoftware())
        for host in hosts:
            _share_what_is_probed(host)
            _power_on(layout, host, boot)
        write_site(layout, hosts, boot)
        for machine in READY_MADE:
            write_machine(layout, machine, image)
        tell("daemons, enrolment")
        for host in hosts:
            ensure_daemon(layout, host)
        for host in hosts:
            _await_daemon(layout, host)
            _ensure_enrolled(layout, host)
    return status(layout)


def take_down(layout: Layout) -> None:
    """End and remove everything. Idempotent; nothing happens when there is no lab."""
    _require_root()
    if not layout.directory.exists():
        _end_inhabitants(layout)
        remove_network(layout)
        return
    _require_ours(layout)
    with _alone(layout):
        processes = Processes(layout.processes)
        for name in sorted(processes.names()):  # daemons first: hostd-… before tpm-…
            processes.end(name)
        _end_inhabitants(layout)
        remove_network(layout)
        shutil.rmtree(layout.directory)


def status(layout: Layout) -> LabStatus:
    """How the lab is now. Changes nothing; needs no root to say that there is none."""
    count = known_hosts(layout)
    hosts = tuple(_host_status(layout, host) for host in layout.hosts(count)) if count else ()
    image = _known_image(layout)
    return LabStatus(
        up=bool(hosts) and all(host.healthy for host in hosts),
        config=str(layout.configuration),
        dir=str(layout.directory),
        id=layout.id,
        hosts=hosts,
        switch_netns=layout.switch_netns,
        switch_address=layout.switch_ip,
        observer_address=layout.observer_ip,
        machines={file.stem: str(file) for file in sorted(layout.machines.glob("*.toml"))},
        guest_addresses={machine.name: machine.ip(layout) for machine in READY_MADE},
        kernel=str(image.kernel) if image else None,
        initrd=str(image.initrd) if image else None,
    )


def known_hosts(layout: Layout) -> int:
    """How many hosts the lab in this folder has; 0 when there is none."""
    try:
        return msgspec.json.decode((layout.directory / _MARKER).read_bytes(), type=_Record).hosts
    except (OSError, msgspec.MsgspecError):
        return 0


def ensure_daemon(layout: Layout, host: LabHost) -> None:
    """Start the host's daemon unless it lives. It may take a moment until it answers."""
    processes = Processes(layout.processes)
    if processes.find(daemon_name(host)):
        return
    command = [*korora_command(), "hostd", "--config", str(host.configuration)]
    processes.start(daemon_name(host), command, log=host.log, netns=host.netns)


def end_daemon(layout: Layout, host: LabHost) -> None:
    """Stop the host's daemon as an administrator would. Its VMs run on."""
    Processes(layout.processes).end(daemon_name(host))


def restart_daemon(layout: Layout, host: LabHost) -> None:
    """Stop it, start it anew, and wait until it answers. ToolError with its last words when it does not."""
    end_daemon(layout, host)
    ensure_daemon(layout, host)
    _await_daemon(layout, host)


def daemon_name(host: LabHost) -> str:
    return f"hostd-{host.name}"


def korora_command() -> list[str]:
    """How to run this very installation's command line."""
    beside = Path(sys.executable).with_name("korora")
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "korora.cli.main"]


def _share_what_is_probed(host: LabHost) -> None:
    """All hosts are this machine: what one has found out of its QEMU and KVM, which takes seconds, holds for
    all, and for the next lab. What is kept names the boot and the programs that it is of."""
    shared, own = cache_folder() / "probed", host.state / "cache"
    shared.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not own.exists() and not own.is_symlink():
        own.symlink_to(shared, target_is_directory=True)


def _power_on(layout: Layout, host: LabHost, boot: MeasuredBoot) -> None:
    """TPM and event log. A TPM that had to be started anew takes the daemon's keys with it."""
    host_tpm.manufacture(layout, host)
    host.event_log.write_bytes(boot.log())
    if host_tpm.ensure_tpm(Processes(layout.processes), host, boot):
        end_daemon(layout, host)


def _await_daemon(layout: Layout, host: LabHost) -> None:
    limit = time.monotonic() + _DAEMON_PATIENCE_S
    while True:
        try:
            with Daemon(host.api, host.name) as daemon:
                daemon.host(deadline_s=10)
            return
        except KororaError as error:
            alive = Processes(layout.processes).find(daemon_name(host)) is not None
            if not alive or time.monotonic() > limit:
                raise ToolError(
                    f"the daemon of host {host.name} does not answer ({error.message}): {_tail(host.log)}",
                    kind="lab-daemon",
                    remedy=f"look at {host.log}",
                ) from error
        time.sleep(0.1)


def _ensure_enrolled(layout: Layout, host: LabHost) -> None:
    if _enrolled(host):
        return
    command = [*korora_command(), "--config", str(layout.configuration), "host", "enroll", host.name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise ToolError(
            f"host {host.name} could not be enrolled: {(done.stderr or done.stdout).strip()[-500:]}",
            kind="lab-enrolment",
            remedy=f"look at {host.log}",
        )


def _enrolled(host: LabHost) -> bool:
    try:
        with Daemon(host.api, host.name) as daemon:
            return bool(daemon.host(deadline_s=10).enrolled)
    except KororaError:
        return False


def _host_status(layout: Layout, host: LabHost) -> HostStatus:
    processes = Processes(layout.processes)
    daemon, tpm = processes.find(daemon_name(host)), processes.find(host_tpm.process_name(host))
    enrolled = daemon is not None and _enrolled(host)
    return HostStatus(
        name=host.name,
        netns=host.netns,
        address=host.address,
        api=str(host.api),
        state=str(host.state),
        log=str(host.log),
        tpm=host.tpm,
        daemon_pid=daemon.pid if daemon else None,
        tpm_pid=tpm.pid if tpm else None,
        enrolled=enrolled,
        healthy=bool(daemon and tpm and enrolled and (NAMESPACES / host.netns).exists()),
    )


def _known_image(layout: Layout) -> GuestImage | None:
    """The guest image, if it was built: asking how things are must not build anything."""
    try:
        image = image_by_inputs()
    except KororaError:
        return None
    return image if image.initrd.exists() else None


def _end_inhabitants(layout: Layout) -> None:
    """End what daemons left running on purpose: the VMs with their vTPMs, by the namespace they live in."""
    inodes = {(NAMESPACES / name).stat().st_ino for name in network_names(layout)}
    for pid in _all_pids():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/ns/net").stat().st_ino in inodes:
                end_process(pid, start_time(pid) or 0, patience_s=3)


def _all_pids() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            yield int(entry.name)


@contextlib.contextmanager
def _alone(layout: Layout) -> Iterator[None]:
    """Hold the folder; a second `up` or `down` of it is refused rather than mixed in."""
    folder = os.open(layout.directory, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ToolError(
            f"another `korora lab` is at work in {layout.directory}",
            kind="lab-busy",
            remedy="wait until it is done",
        ) from error
    finally:
        os.close(folder)


def _require_root() -> None:
    if os.geteuid() != 0:
        raise ToolError(
            "the lab needs root: it makes network namespaces and runs host daemons",
            kind="not-root",
            remedy="run it as root, for example with sudo",
        )


def _require_ours(layout: Layout) -> None:
    """Never fill, nor delete, a folder that is something else."""
    folder = layout.directory
    if folder.exists() and not (folder / _MARKER).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"{folder} is not a lab and not empty",
            kind="not-a-lab",
            remedy="give --dir a folder that is empty or does not exist yet",
        )


def _tail(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-500:] if log.exists() else "no log"
