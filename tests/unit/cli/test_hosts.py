"""`korora host attest|enroll` against an emulated TPM: the command line as verifier and as authority."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fakes.attested_site import BOOT, Authority, boot, reference_of, told
from fakes.cli_site import documents
from fakes.daemon import Answer, FakeDaemon, refusal, serving
from fakes.host_tpm import HostTpm, host_tpm, manufacturer_certificates
from korora.adapters.tpm.esys import EsysTpm
from korora.cli.main import answer
from korora.errors import KororaError
from korora.model.identity import HostName
from korora.model.tpm import Credential
from korora.policy.event_log import EventType
from korora.policy.reference_values import rendered
from korora.wiring.identity import HostIdentity

Captured = pytest.CaptureFixture[str]

CONFIGURATION = """
[site]
authority = "authority.pem"
authority_key = "authority-key.pem"
manufacturers = ["makers.pem"]
reference_values = "reference.toml"
[hosts.north]
api = "north.sock"
"""


@dataclass
class Site:
    folder: Path
    tpm: HostTpm
    daemon: FakeDaemon

    def run(self, *words: str) -> int:
        return answer(["--config", str(self.folder / "korora.toml"), "host", *words])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site and one host of it, freshly booted and not enrolled, behind the API's own shapes."""
    authority = Authority.create(now=time.time() - 60)
    _trust(tmp_path, authority)
    with host_tpm(tmp_path / "tpm") as tpm, serving(FakeDaemon("north", tmp_path / "north.sock")) as daemon:
        (tmp_path / "event.log").write_bytes(boot(tpm))
        link = EsysTpm(tpm.tcti)
        identity = HostIdentity(
            HostName("north"),
            link,
            tmp_path / "identity",
            tmp_path / "event.log",
            lambda: authority.certificate,
        )
        _speaks_for(daemon, identity)
        try:
            yield Site(tmp_path, tpm, daemon)
        finally:
            link.close()


def _trust(folder: Path, authority: Authority) -> None:
    makers = b"".join(one.public_bytes(Encoding.PEM) for one in manufacturer_certificates())
    key = authority.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "korora.toml").write_text(CONFIGURATION)
    (folder / "authority.pem").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    (folder / "authority-key.pem").write_bytes(key)
    (folder / "makers.pem").write_bytes(makers)
    (folder / "reference.toml").write_text(rendered(reference_of()))


def _speaks_for(daemon: FakeDaemon, identity: HostIdentity) -> None:
    """The routes of the daemon, as its API has them, on the real identity."""

    async def present(body: Any) -> dict[str, Any]:
        shown = await identity.present(bytes.fromhex(body["nonce"]))
        quote = shown.evidence.quote
        return {
            "host": "north",
            "certificate": shown.certificate and _text(shown.certificate),
            "enrolment": shown.enrolment and _text(shown.enrolment),
            "ek_certificate": _text(shown.ek_certificate),
            "ek_public": _text(shown.ek_public),
            "ak_public": _text(shown.ak_public),
            "attest": _text(quote.attest),
            "signature": _text(quote.signature),
            "pcrs": shown.evidence.pcrs,
            "event_log": _text(shown.evidence.event_log),
        }

    async def begin(_: Any) -> dict[str, Any]:
        shown = await identity.begin()
        parts = ("ek_certificate", "ek_public", "ak_public", "csr")
        return {name: _text(getattr(shown, name)) for name in parts}

    async def activate(body: Any) -> dict[str, Any]:
        parts = (base64.b64decode(body[name]) for name in ("blob", "encrypted_secret"))
        return {"secret": _text((await identity.activate(Credential(*parts))).reveal())}

    async def finish(body: Any) -> dict[str, Any]:
        await identity.finish(body["certificate"].encode(), body["enrolment"].encode())
        return {"enrolled": True}

    daemon.routes["GET", "/v1/host"] = lambda _: Answer({"name": "north", "enrolled": identity.enrolled()})
    daemon.routes["POST", "/v1/attestation"] = lambda body: _answered(present(body))
    daemon.routes["POST", "/v1/enrolment/begin"] = lambda body: _answered(begin(body))
    daemon.routes["POST", "/v1/enrolment/activate"] = lambda body: _answered(activate(body))
    daemon.routes["POST", "/v1/enrolment/finish"] = lambda body: _answered(finish(body))


def _answered(work: Any) -> Answer:
    try:
        return Answer(asyncio.run(work))
    except KororaError as error:
        return refusal(error.kind, error.message, remedy=error.remedy, exit_code=error.exit_code)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_a_host_is_enrolled_and_then_trusted(site: Site, capsys: Captured) -> None:
    assert site.run("attest") == 3
    assert "korora host enroll north" in capsys.readouterr().err
    assert site.run("enroll", "north", "--json") == 0
    assert "BEGIN CERTIFICATE" in documents(capsys.readouterr().out)[0]["certificate"]
    assert site.run("attest", "north") == 0
    out = capsys.readouterr().out
    assert "✓ north is trusted: state 'known good'" in out
    assert "EV_EFI_BOOT_SERVICES_APPLICATION" in out
    assert site.run("attest", "--json") == 0
    (document,) = documents(capsys.readouterr().out)
    assert (document["trusted"], document["error"]) == (True, None)
    assert document["platform"]["state"] == "known good"
    assert document["platform"]["secure_boot"] is True


def test_a_host_that_booted_something_else_is_not_trusted(site: Site, capsys: Captured) -> None:
    assert site.run("enroll") == 0
    site.tpm.extend(4, b"\x66" * 32)
    capsys.readouterr()
    assert site.run("attest", "--json") == 3
    captured = capsys.readouterr()
    (document,) = documents(captured.out)
    assert document["trusted"] is False
    assert document["error"]["kind"] == "pcr-mismatch"
    assert "PCR 4" in captured.err


def test_a_log_that_does_not_tell_the_pcrs_is_an_untrusted_host(site: Site, capsys: Captured) -> None:
    assert site.run("enroll") == 0
    other = told(4, EventType.EV_EFI_BOOT_SERVICES_APPLICATION, b"another")
    from korora.policy import event_log

    (site.folder / "event.log").write_bytes(event_log.encoded((*BOOT, other)))
    assert site.run("attest") == 3


def test_a_replayed_quote_is_an_untrusted_host(site: Site, capsys: Captured) -> None:
    assert site.run("enroll") == 0
    route = site.daemon.routes["POST", "/v1/attestation"]
    assert callable(route)
    old = route({"nonce": "ab" * 32})
    site.daemon.routes["POST", "/v1/attestation"] = lambda _: old
    capsys.readouterr()
    assert site.run("attest", "--json") == 3
    assert documents(capsys.readouterr().out)[0]["error"]["kind"] == "quote-nonce"


def test_a_tpm_of_an_unknown_maker_is_not_enrolled(site: Site, capsys: Captured) -> None:
    other = b"".join(one.public_bytes(Encoding.PEM) for one in manufacturer_certificates("shady"))
    (site.folder / "makers.pem").write_bytes(other)
    assert site.run("enroll", "--json") == 3
    assert documents(capsys.readouterr().out)[0]["error"]["kind"] == "unknown-manufacturer"


def test_an_answer_of_another_tpm_is_not_enrolled(site: Site, capsys: Captured) -> None:
    site.daemon.routes["POST", "/v1/enrolment/activate"] = Answer({"secret": _text(b"guessed")})
    assert site.run("enroll", "--json") == 3
    assert documents(capsys.readouterr().out)[0]["error"]["kind"] == "not-this-tpm"
    assert "POST /v1/enrolment/finish" not in site.daemon.paths()


def test_a_socket_of_another_host_is_not_enrolled_under_this_name(site: Site, capsys: Captured) -> None:
    site.daemon.routes["GET", "/v1/host"] = Answer({"name": "south"})
    assert site.run("enroll", "--json") == 3
    assert documents(capsys.readouterr().out)[0]["error"]["kind"] == "wrong-host"
    assert site.daemon.paths() == ["GET /v1/host"]


@pytest.mark.parametrize("csr", [b"", b"no request"])
def test_a_malformed_certificate_request_is_refused(site: Site, csr: bytes, capsys: Captured) -> None:
    route = site.daemon.routes["POST", "/v1/enrolment/begin"]
    assert callable(route)
    site.daemon.routes["POST", "/v1/enrolment/begin"] = lambda body: Answer(
        {**route(body).body, "csr": _text(csr)}
    )
    assert site.run("enroll", "--json") == 3
    assert documents(capsys.readouterr().out)[0]["error"]["kind"] == "bad-csr"


@pytest.mark.parametrize("content", [None, b"no key"])
def test_an_authority_key_that_cannot_be_used_asks_nothing_of_the_host(
    site: Site, content: bytes | None, capsys: Captured
) -> None:
    path = site.folder / "authority-key.pem"
    path.unlink() if content is None else path.write_bytes(content)
    assert site.run("enroll") == 2
    assert str(path) in capsys.readouterr().err
    assert site.daemon.asked == []
