"""A real swtpm as a lab host's TPM."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from korora.adapters.tpm.esys import EsysTpm
from korora.errors import ToolError
from korora.lab.host_tpm import (
    ensure_tpm,
    manufacture,
    manufacturer_certificates,
    process_name,
    read_pcrs,
    tamper,
)
from korora.lab.layout import LabHost, Layout
from korora.lab.measured_boot import HostSoftware, measured_boot
from korora.lab.processes import Processes
from korora.policy.certificates import checked_endorsement

pytestmark = pytest.mark.skipif(not shutil.which("swtpm_setup"), reason="swtpm-tools is not installed")
BOOT = measured_boot(HostSoftware())


@pytest.fixture(scope="module")
def powered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Processes, LabHost]]:
    layout = Layout(tmp_path_factory.mktemp("l"))
    for folder in layout.folders(1):
        folder.mkdir(exist_ok=True)
    host, processes = layout.host("a"), Processes(layout.processes)
    manufacture(layout, host)
    try:
        assert ensure_tpm(processes, host, BOOT)
        yield processes, host
    finally:
        processes.end(process_name(host))


def test_the_pcrs_are_those_of_the_event_log(powered: tuple[Processes, LabHost]) -> None:
    _, host = powered
    expected = BOOT.pcrs()
    assert read_pcrs(host.tpm_socket, expected) == expected


def test_a_running_tpm_is_left_as_it_is(powered: tuple[Processes, LabHost]) -> None:
    processes, host = powered
    before = processes.find(process_name(host))
    assert ensure_tpm(processes, host, BOOT) is False
    assert processes.find(process_name(host)) == before


def test_tampering_shows_until_the_next_power_on(powered: tuple[Processes, LabHost]) -> None:
    processes, host = powered
    tamper(host, 4, b"a kernel that should not run")
    assert read_pcrs(host.tpm_socket, [4])[4] != BOOT.pcrs()[4]
    processes.end(process_name(host))
    assert ensure_tpm(processes, host, BOOT) is True
    assert read_pcrs(host.tpm_socket, [4])[4] == BOOT.pcrs()[4]


def test_a_tpm_that_is_not_there_is_an_error_with_its_place() -> None:
    with pytest.raises(ToolError, match=r"/nowhere/tpm\.sock"):
        read_pcrs(Path("/nowhere/tpm.sock"), [0])


def test_the_ek_certificate_chains_to_the_labs_tpm_maker(powered: tuple[Processes, LabHost]) -> None:
    _, host = powered
    tpm = EsysTpm(host.tpm)
    try:
        shown = tpm.endorsement_certificate()
    finally:
        tpm.close()
    layout = Layout(host.directory.parent.parent)
    makers = [x509.load_pem_x509_certificate(path.read_bytes()) for path in manufacturer_certificates(layout)]
    assert checked_endorsement(shown, makers, time.time())
