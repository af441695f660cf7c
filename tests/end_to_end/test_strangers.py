"""Impostors, strangers and used requests: whom the real thing turns away, with which exit code and kind."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from end_to_end.conftest import Lab
from end_to_end.impostor import Impostor, answering, identity_of
from end_to_end.refusing import stopped
from end_to_end.striking import ANSWER, BACK, strike_at
from end_to_end.travelling import (
    HOSTS,
    Traveller,
    restart_daemon,
    start_daemon,
)
from korora.authority import Challenge, issue
from korora.cli.migration.request import signed_request
from korora.cli.site import load_site
from korora.client import Daemon, MigrationOutcome
from korora.lab.layout import LabHost
from korora.lab.lifecycle import end_daemon
from korora.lab.site import (
    authority_certificate,
    authority_key,
    configuration_through,
    operator_key,
)
from korora.model.identity import HostName, Secret, sha256
from korora.model.plan import Mode
from korora.model.tpm import Credential
from korora.policy.appraisal import Presented
from korora.policy.attest import parse_public

pytestmark = pytest.mark.end_to_end

REFUSED, INTEGRITY, TOOL = 3, 5, 6
_PEM = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


# -- impostors --------------------------------------------------------------------------------------------


def impostor(lab: Lab, *, enrolled_key: str = "own", ak_of: str = "c") -> Impostor:
    """Somebody with c's name, the site's certificate for a key of his own, and c's words of an hour ago."""
    c, other = lab.layout.host("c"), lab.layout.host(ak_of)
    with Daemon(c.api, c.name) as daemon:
        words = daemon.attestation(bytes(32))
    with Daemon(other.api, other.name) as daemon:
        ak = daemon.attestation(bytes(32))
    key = ec.generate_private_key(ec.SECP256R1())
    answer = bytes(32)
    asked = Challenge(
        Credential(b"", b""),
        Secret(answer),
        HostName("c"),
        sha256(words.ek_certificate),
        parse_public(words.ak_public).name,
        key.public_key(),
        time.time(),
    )
    site_key = load_pem_private_key(authority_key(lab.layout).read_bytes(), None)
    assert isinstance(site_key, ec.EllipticCurvePrivateKey)
    site_pem = authority_certificate(lab.layout).read_bytes()
    issued = issue(asked, answer, x509.load_pem_x509_certificate(site_pem), site_key, now=time.time())
    identity = identity_of(issued.certificate_pem, key, site_pem)
    assert words.enrolment is not None
    enrolment = issued.enrolment if enrolled_key == "own" else words.enrolment
    der = identity.certificate.public_bytes(Encoding.DER)
    shown = Presented(words.ek_certificate, ak.ak_public, enrolment, der)
    return Impostor(HostName("c"), identity, shown, words.evidence)


@pytest.mark.parametrize(
    ("settings", "exit_code", "kind"),
    [
        ({}, REFUSED, "quote-nonce"),
        ({"ak_of": "b"}, REFUSED, "ak-mismatch"),
        ({"enrolled_key": "c's"}, REFUSED, "tls-key-mismatch"),
    ],
    ids=["a quote of before", "the AK of another TPM", "a TLS key that was not enrolled"],
)
def test_an_impostor_with_a_valid_certificate_is_told_nothing_of_the_vm(
    walker: Traveller, lab: Lab, settings: dict[str, str], exit_code: int, kind: str
) -> None:
    somebody = impostor(lab, **settings)
    with answering(lab, somebody) as address:
        config = configuration_through(lab.layout, lab.layout.hosts(HOSTS), {"c": address}, "impostor")
        stopped(walker, walker.move("c", config=config), exit_code, kind)
    assert set(somebody.heard) <= {"Hello", "Evidence", "Abort"}
    assert "Hello" in somebody.heard


# -- who asks ---------------------------------------------------------------------------------------------


def test_an_operator_whom_no_rule_allows_is_refused(walker: Traveller, lab: Lab) -> None:
    config = configuration_through(lab.layout, lab.layout.hosts(HOSTS), {}, "mallory", operator="mallory")
    error = stopped(walker, walker.move("c", config=config), REFUSED, "denied", "not-allowed")
    assert "mallory" in error["message"]


def test_an_operator_whom_nobody_knows_and_one_with_anothers_name_are_refused(
    walker: Traveller, lab: Lab
) -> None:
    key = operator_key(lab.layout, "nobody")
    key.write_bytes(Ed25519PrivateKey.generate().private_bytes(*_PEM))
    config = configuration_through(lab.layout, lab.layout.hosts(HOSTS), {}, "nobody", operator="nobody")
    stopped(walker, walker.move("c", config=config), REFUSED, "unknown-operator")
    text = config.read_text().replace('name = "nobody"', 'name = "alice"')
    config.write_text(text)
    stopped(walker, walker.move("c", config=config), INTEGRITY, "signature")
    key.unlink()


def asked(host: LabHost, request: bytes, address: str | None = None) -> MigrationOutcome:
    """What the daemon makes of a signed request, in the end."""
    with Daemon(host.api, host.name) as daemon:
        events = list(daemon.events(daemon.migrate(request.decode(), address)))
    outcome = events[-1]
    assert isinstance(outcome, MigrationOutcome)
    assert outcome.error is not None
    assert outcome.error.vm_runs_on == host.name
    return outcome


def kind_of(outcome: MigrationOutcome) -> tuple[int, str]:
    assert outcome.error is not None
    return outcome.error.exit_code, outcome.error.kind


def test_a_request_is_good_once_also_across_a_restart(walker: Traveller, lab: Lab) -> None:
    source, site = walker.host, load_site(lab.layout.configuration)
    request = signed_request(site, walker.name, source.name, "c", Mode.LIVE)
    nowhere = f"{lab.layout.switch_ip}:9"  # its nonce is spent, and nothing else happens
    assert kind_of(asked(source, request, nowhere)) == (TOOL, "unreachable")
    assert kind_of(asked(source, request)) == (REFUSED, "replayed-request")
    restart_daemon(lab, source)
    assert kind_of(asked(source, request)) == (REFUSED, "replayed-request")
    walker.stayed(source, lab.layout.host("c"))


@contextmanager
def forgetting(lab: Lab, host: LabHost) -> Iterator[None]:
    """The host forgets which requests it has seen, as one whose root wants to ask again."""
    end_daemon(lab.layout, host)
    try:
        with closing(sqlite3.connect(host.state / "journal.db")) as journal, journal:
            journal.execute("DELETE FROM nonce")
    finally:
        start_daemon(lab, host)
    yield


def test_a_request_is_good_once_at_the_destination_though_the_source_forgets_it(
    walker: Traveller, lab: Lab
) -> None:
    source, c, site = walker.host, lab.layout.host("c"), load_site(lab.layout.configuration)
    request = signed_request(site, walker.name, source.name, "c", Mode.LIVE)
    with strike_at(walker, BACK, ANSWER, to=c) as config:
        # c has allowed it, and its word does not arrive.
        assert kind_of(asked(source, request, str(load_site(config).host("c").address)))[0] == TOOL
    with forgetting(lab, source):
        outcome = asked(source, request)
    assert kind_of(outcome) == (REFUSED, "replayed-request")
    assert outcome.error
    assert "host c stopped" in outcome.error.message
    walker.stayed(source, c)


def test_a_request_of_yesterday_or_for_another_host_is_refused(walker: Traveller, lab: Lab) -> None:
    source, site = walker.host, load_site(lab.layout.configuration)
    late = signed_request(site, walker.name, source.name, "c", Mode.LIVE, valid_s=-5)
    assert kind_of(asked(source, late)) == (REFUSED, "expired-request")
    forever = signed_request(site, walker.name, source.name, "c", Mode.LIVE, valid_s=7 * 86400)
    assert kind_of(asked(source, forever)) == (REFUSED, "bad-validity")
    walker.stayed(source, lab.layout.host("c"))
