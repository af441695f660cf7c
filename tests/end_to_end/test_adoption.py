"""A QEMU that somebody else started is adopted, and moves; its vTPM is protected by the stream alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from end_to_end.conftest import Lab
from korora.lab.guest.image import guest_image
from korora.lab.machines import LabMachine, Workload, write_machine
from korora.lab.observer import Observer
from korora.lab.plain_qemu import PlainVm
from korora.model.vm import Firmware

pytestmark = pytest.mark.end_to_end
STRANGER = LabMachine(
    name="stranger-1",
    number=9,
    firmware=Firmware.BIOS,
    memory="256M",
    workload=Workload(dirty_mib=8, dirty_rate_mib=2, fill_mib=16),
)


@pytest.fixture
def foreign(lab: Lab, observer: Observer) -> Iterator[PlainVm]:
    """A running guest that Korora did not start, on host a."""
    image = guest_image()
    write_machine(lab.layout, STRANGER, image)
    with PlainVm(lab.layout, lab.layout.host("a"), STRANGER, image) as vm:
        observer.wait_for_tick(STRANGER.ip(lab.layout), 120)
        yield vm


def test_an_adopted_vm_moves_and_its_receipt_admits_what_did_not_protect_it(
    lab: Lab, observer: Observer, foreign: PlainVm
) -> None:
    guest_ip = STRANGER.ip(lab.layout)
    socket = lab.layout.directory / "plain" / f"a-{STRANGER.name}" / "qmp"
    lab.answer("-H", "a", "vm", "adopt", str(socket), "--name", STRANGER.name)
    before = observer.report(guest_ip)
    outcome = lab.answer("migrate", STRANGER.name, "--to", "b")
    try:
        assert outcome["outcome"] == "completed"
        after = observer.report(guest_ip)
        for same in ("boot", "pcr16", "pcr10", "nv", "secret"):
            assert after[same] == before[same]
        assert after["errors"] == 0
        shown = lab.korora("receipt", "show", outcome["receipt"]).stdout
        assert "stream alone" in shown
        assert lab.korora("receipt", "verify", outcome["receipt"]).returncode == 0
    finally:
        lab.korora("-H", "b", "vm", "stop", STRANGER.name, "--force")
