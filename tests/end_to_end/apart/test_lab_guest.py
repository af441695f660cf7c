"""The lab's guest under plain QEMU, and the attack that plain migration does not notice. No daemons."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from korora.lab.guest.image import GuestImage, guest_image
from korora.lab.layout import Layout
from korora.lab.lifecycle import take_down
from korora.lab.machines import READY_MADE, LabMachine, write_machine
from korora.lab.namespaces import build_network, in_namespace, network_names
from korora.lab.observer import Observer
from korora.lab.plain_qemu import PlainVm
from korora.lab.xensploit import FORGED_SECRET, GUEST_SECRET, xensploit
from korora.model.vm import Firmware

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="QEMU is not installed"),
]


@pytest.fixture
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Layout, GuestImage]]:
    """Network and folders of two hosts, without daemons."""
    layout = Layout(Path(tmp_path_factory.mktemp("p")))
    for folder in layout.folders(2):
        folder.mkdir(exist_ok=True)
    (layout.directory / "lab.json").write_text('{"hosts": 2}')
    try:
        build_network(layout, 2)
        build_network(layout, 2)  # mending a whole network changes nothing
        yield layout, guest_image()
    finally:
        take_down(layout)
        assert network_names(layout) == []
        assert not layout.directory.exists()


@pytest.mark.parametrize("machine", READY_MADE, ids=lambda machine: machine.name)
def test_plain_migration_delivers_forged_memory_and_nobody_notices(
    bare: tuple[Layout, GuestImage], machine: LabMachine
) -> None:
    layout, image = bare
    write_machine(layout, machine, image)
    source_host, destination_host = layout.hosts(2)
    ip = machine.ip(layout)

    def inside(make):  # type: ignore[no-untyped-def]
        return in_namespace(layout.switch_netns, make)

    with (
        Observer(layout.observer_ip, bind=inside) as observer,
        PlainVm(layout, source_host, machine, image) as source,
        PlainVm(layout, destination_host, machine, image, incoming_port=7000) as destination,
    ):
        observer.wait_for_tick(ip, deadline_s=120)
        before = observer.report(ip)
        assert (before["errors"], before["secret"]) == (0, GUEST_SECRET.decode())
        assert before["secure_boot"] is (machine.firmware is Firmware.UEFI)
        assert before["tpm"]

        attack = xensploit((layout.switch_ip, 7001), (destination_host.ip, 7000), inside=inside)
        try:
            begun = time.monotonic()
            source.migrate(attack.forwarder.address)
        finally:
            attack.close()
        assert attack.replaced >= 1
        assert (source.running(), destination.running()) == (False, True)

        observer.wait_for_tick(ip, deadline_s=30)
        after = observer.report(ip)
        assert after["secret"] == FORGED_SECRET.decode()
        assert (after["boot"], after["errors"], after["nv"]) == (before["boot"], 0, before["nv"])
        seen = observer.judge(ip, since_s=begun)
        assert (seen.doubled, seen.reboots) == (0, 0)
