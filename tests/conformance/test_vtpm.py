"""What custody of vTPMs must do, whatever TPM the host has: one in memory, or a real swtpm through ESAPI."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from fakes.host_tpm import host_tpm
from fakes.tpm import FakeTpm
from fakes.tpm_backend import TpmBackend, asked, code_of, nv_define, nv_write, pcr_extend, startup
from korora.adapters.tpm.esys import EsysTpm
from korora.adapters.vtpm.swtpm import Swtpm
from korora.agents.vtpm.custody import Custody
from korora.errors import IntegrityError, RefusedError, ToolError
from korora.model.evidence import VtpmIdentity
from korora.model.identity import Secret, SessionId, VmName
from korora.ports.tpm import Tpm
from korora.ports.vtpm import BlobBinding, Vtpm, VtpmAgent

VM = VmName("web-1")
BINDING = BlobBinding(VM, SessionId("ab" * 64), 2)
run = asyncio.run


class Site:
    """Three hosts, each with its TPM and its agent; one VM directory on each."""

    def __init__(self, directory: Path, tpms: dict[str, Tpm]) -> None:
        self.emulator = Swtpm(directory / "manufacturer")
        self.agents: dict[str, VtpmAgent] = {name: Custody(tpm, self.emulator) for name, tpm in tpms.items()}
        self.directory = directory

    def place(self, host: str) -> Path:
        return self.directory / host / VM

    def start(self, host: str) -> tuple[Vtpm, TpmBackend]:
        vtpm = run(self.agents[host].start(VM, self.place(host)))
        hypervisor = TpmBackend(vtpm.socket)
        assert hypervisor.start() == 0
        assert code_of(hypervisor.command(startup())) == 0
        return vtpm, hypervisor

    def await_it(self, host: str) -> tuple[Vtpm, TpmBackend]:
        vtpm = run(self.agents[host].start_incoming(VM, self.place(host)))
        hypervisor = TpmBackend(vtpm.socket)
        hypervisor.prepare()
        return vtpm, hypervisor

    def wipe(self, host: str) -> None:
        assert run(self.agents[host].wipe(VM, self.place(host))).verified


@pytest.fixture(params=["memory", "esapi"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as undo:
        tpms: dict[str, Tpm] = {}
        for name in "abc":
            if request.param == "memory":
                tpms[name] = FakeTpm()
            else:
                tpms[name] = EsysTpm(undo.enter_context(host_tpm(tmp_path / f"tpm-{name}")).tcti)
                undo.callback(tpms[name].close)
        site = Site(tmp_path, tpms)
        for name in "abc":
            undo.callback(site.wipe, name)
        yield site


def lasting(identity: VtpmIdentity) -> VtpmIdentity:
    """What a power cycle leaves."""
    return replace(identity, pcrs={}, permanent=None)


def test_a_vtpm_has_an_ek_whose_certificate_its_maker_signed(site: Site) -> None:
    vtpm, hypervisor = site.start("a")
    certificate = x509.load_der_x509_certificate(run(vtpm.endorsement_certificate()) or b"")
    issuer = x509.load_pem_x509_certificate(site.emulator.issuer_certificate.read_bytes())
    key = issuer.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert certificate.signature_hash_algorithm
    key.verify(
        certificate.signature,
        certificate.tbs_certificate_bytes,
        padding.PKCS1v15(),
        certificate.signature_hash_algorithm,
    )
    identity = run(vtpm.identity())
    assert identity.ek_name.startswith("000b")
    assert sorted(identity.pcrs) == list(range(24))
    assert "0x01c00002" in identity.nv
    hypervisor.quit()


def test_it_is_the_same_vtpm_after_a_stop(site: Site) -> None:
    vtpm, hypervisor = site.start("a")
    before = run(vtpm.identity())
    hypervisor.quit()
    run(site.agents["a"].stopped(VM, site.place("a")))
    vtpm, hypervisor = site.start("a")
    assert lasting(run(vtpm.identity())) == lasting(before)
    hypervisor.quit()


def test_an_old_copy_never_starts(site: Site) -> None:
    site.start("a")[1].quit()
    run(site.agents["a"].stopped(VM, site.place("a")))
    old = site.directory / "old"
    shutil.copytree(site.place("a"), old)
    site.start("a")[1].quit()
    run(site.agents["a"].stopped(VM, site.place("a")))
    shutil.rmtree(site.place("a"))
    shutil.copytree(old, site.place("a"))
    with pytest.raises(RefusedError) as refused:
        run(site.agents["a"].start(VM, site.place("a")))
    assert refused.value.kind == "stale-epoch"


def test_a_round_trip_over_three_hosts_keeps_everything(site: Site) -> None:
    vtpm, hypervisor = site.start("a")
    assert code_of(hypervisor.command(pcr_extend(10, b"what the guest measured"))) == 0
    assert code_of(asked(hypervisor, nv_define(0x01500001, 8))) == 0
    assert code_of(asked(hypervisor, nv_write(0x01500001, b"12345678"))) == 0
    first = run(vtpm.identity())
    copies = []
    for epoch, (here, there) in enumerate((("a", "b"), ("b", "c"), ("c", "a")), start=2):
        binding, key = replace(BINDING, epoch=epoch), Secret(bytes([epoch]) * 32)
        arriving, beyond = site.await_it(there)
        run(arriving.accept_under(key, binding))
        run(vtpm.send_under(key, binding))
        assert beyond.load(hypervisor.save()) == [0] * 5
        assert run(vtpm.moved()) == run(arriving.moved())
        assert run(arriving.identity()) == first
        run(vtpm.retire())
        copies.append((here, _copied(site, here)))
        site.wipe(here)
        hypervisor.hang_up()
        vtpm, hypervisor = arriving, beyond
    hypervisor.quit()
    run(site.agents["a"].stopped(VM, site.place("a")))
    for host, copy in copies[1:]:
        shutil.copytree(copy, site.place(host), dirs_exist_ok=True)
        with pytest.raises(RefusedError) as refused:
            run(site.agents[host].start(VM, site.place(host)))
        assert refused.value.kind == "stale-epoch"


def test_a_move_without_its_blobs_did_not_happen(site: Site) -> None:
    vtpm, hypervisor = site.start("a")
    arriving, beyond = site.await_it("b")
    run(vtpm.send_under(Secret(b"k" * 32), BINDING))
    run(arriving.accept_under(Secret(b"k" * 32), BINDING))
    for end in (vtpm, arriving):
        with pytest.raises(IntegrityError):
            run(end.moved())
    run(vtpm.stay())
    assert run(vtpm.identity())
    hypervisor.quit()
    beyond.hang_up()


def test_every_call_is_a_tools_error_when_the_processes_are_gone(site: Site) -> None:
    vtpm, hypervisor = site.start("a")
    hypervisor.quit()
    run(site.agents["a"].stopped(VM, site.place("a")))
    for call in (vtpm.identity, vtpm.endorsement_certificate, vtpm.moved, vtpm.stay, vtpm.retire):
        with pytest.raises(ToolError):
            run(call())
    for order in (vtpm.send_under, vtpm.accept_under):
        with pytest.raises(ToolError):
            run(order(Secret(b"k" * 32), BINDING))


def _copied(site: Site, host: str) -> Path:
    copy = site.directory / f"copy-{host}"

    def sockets(_: str, names: list[str]) -> list[str]:
        return [name for name in names if name.endswith(".sock")]

    return Path(shutil.copytree(site.place(host), copy, ignore=sockets))
