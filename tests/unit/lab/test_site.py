"""The lab's configuration files are what daemon and command line accept."""

from pathlib import Path

import pytest

from korora.adapters.authorization.files import FileAuthorizer
from korora.lab.layout import Layout
from korora.lab.measured_boot import HostSoftware, measured_boot
from korora.lab.site import (
    OPERATOR,
    OUTSIDER,
    authorization,
    configuration_through,
    operator_key,
    reference_values,
    write_site,
)
from korora.model.authorization import Answer, Authorized, Denied
from korora.model.configuration import parse_host_configuration
from korora.model.identity import HostName, OperatorName, VmName
from korora.model.plan import MigrationRequest, Mode
from korora.model.site import parse_site
from korora.policy.reference_values import parse as parse_reference

BOOT = measured_boot(HostSoftware())


@pytest.fixture
def lab(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    for folder in layout.folders(3):
        folder.mkdir(exist_ok=True)
    write_site(layout, layout.hosts(3), BOOT)
    return layout


def test_daemons_accept_their_files(lab: Layout) -> None:
    for host in lab.hosts(3):
        parsed = parse_host_configuration(host.configuration.read_text(), host.configuration)
        assert (parsed.name, str(parsed.listen), parsed.tpm) == (host.name, host.address, host.tpm)
        assert set(parsed.hosts) == {"a", "b", "c"} - {host.name}


def test_the_command_line_accepts_its_file(lab: Layout) -> None:
    site = parse_site(lab.configuration.read_text(), "korora.toml")
    assert [(h.name, str(h.address), h.api) for h in site.hosts.values()] == [
        (h.name, h.address, h.api) for h in lab.hosts(3)
    ]
    assert site.operator is not None
    assert site.operator.name == OPERATOR


def test_alice_may_migrate_and_mallory_may_not(lab: Layout) -> None:
    authorizer = FileAuthorizer(authorization(lab))

    def asked_by(operator: str) -> Answer:
        names = (VmName("web-1"), HostName("a"), HostName("b"))
        request = MigrationRequest(OperatorName(operator), "migrate", *names, Mode.LIVE, "00", 0, 1)
        return authorizer.decide(request, 0.0)

    assert isinstance(asked_by(OPERATOR), Authorized)
    denied = asked_by(OUTSIDER)
    assert isinstance(denied, Denied)
    assert denied.kind == "not-allowed"


def test_writing_the_site_again_changes_nothing(lab: Layout) -> None:
    before = {path: path.read_bytes() for path in lab.directory.rglob("*") if path.is_file()}
    write_site(lab, lab.hosts(3), BOOT)
    assert {path: path.read_bytes() for path in lab.directory.rglob("*") if path.is_file()} == before


def test_private_keys_are_for_root_only(lab: Layout) -> None:
    for path in (operator_key(lab), operator_key(lab, OUTSIDER), lab.site / "authority-key.pem"):
        assert path.stat().st_mode & 0o077 == 0


def test_the_reference_values_can_be_read_back(lab: Layout) -> None:
    assert parse_reference(reference_values(lab).read_text()) == BOOT.reference()


def test_another_configuration_may_lead_through_a_forwarder_or_ask_in_another_name(lab: Layout) -> None:
    path = configuration_through(lab, lab.hosts(3), {"b": "10.0.0.1:9"}, "attack", operator=OUTSIDER)
    site = parse_site(path.read_text(), path.name)
    assert [str(host.address) for host in site.hosts.values()] == [
        lab.host("a").address,
        "10.0.0.1:9",
        lab.host("c").address,
    ]
    assert site.operator is not None
    assert (site.operator.name, site.operator.key) == (OUTSIDER, operator_key(lab, OUTSIDER))
