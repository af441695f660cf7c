"""inspection.toml, strictly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.errors import UsageError
from korora.model.identity import VmName
from korora.model.inspection import Check, Disposition
from korora.model.inspection_policy import InspectionPolicy, parse_inspection_policy

WHOLE = """
engines = "scan.toml"
indicators = "/var/lib/korora/indicators.db"
configuration = ["/etc/libvirt/qemu/{vm}.xml"]
arrivals = ["malware", "containers"]
allow = ["/srv/templates/debian.qcow2"]

[checks]
malware = "block"
indicators = "flag"
files = "off"

[limits]
original_mib = 8
minutes = 90

[vms.web.checks]
malware = "report"
"""


def test_everything_that_can_be_said_is_read() -> None:
    policy = parse_inspection_policy(WHOLE, "inspection.toml")
    most, web = policy.checks_of(VmName("db")), policy.checks_of(VmName("web"))
    assert (most[Check.MALWARE], web[Check.MALWARE]) == (Disposition.BLOCK, Disposition.REPORT)
    assert (most[Check.INDICATORS], web[Check.INDICATORS]) == (Disposition.FLAG, Disposition.FLAG)
    assert (most[Check.FILES], most[Check.DISKS]) == (Disposition.OFF, Disposition.REPORT)
    assert (policy.engines, policy.indicators) == ("scan.toml", "/var/lib/korora/indicators.db")
    assert policy.arrivals == (Check.MALWARE, Check.CONTAINERS)
    assert (policy.original_bytes, policy.within_s) == (8 << 20, 5400.0)
    assert policy.configuration == ("/etc/libvirt/qemu/{vm}.xml",)


def test_a_file_that_says_nothing_reports_everything_and_no_file_looks_at_nothing() -> None:
    policy = parse_inspection_policy("", "inspection.toml")
    assert set(policy.checks.values()) == {Disposition.REPORT}
    assert policy.looks(VmName("web"))
    assert not InspectionPolicy().looks(VmName("web"))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[checks]\nmalware = "refuse"', "checks.malware"),
        ('[checks]\nviruses = "block"', "checks.viruses"),
        ('[checks]\nfiles = "block"', "checks.files"),
        ("[checks]\nmalware = true", "checks.malware"),
        ('arrivals = ["viruses"]', "arrivals"),
        ("[limits]\noriginal_mib = 1000", "limits.original_mib"),
        ("[limits]\nminutes = 0", "limits.minutes"),
        ('[vms."../x".checks]\nmalware = "off"', "../x"),
        ('[vms.web]\nmalware = "off"', "vms.web.malware"),
        ('gate = "malware"', "gate"),
    ],
)
def test_what_is_not_understood_is_refused_by_its_name(text: str, key: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_inspection_policy(text, "inspection.toml")
    assert key in refused.value.message
    assert refused.value.remedy


@given(st.text(max_size=60))
def test_noise_is_refused_or_a_policy(noise: str) -> None:
    try:
        parse_inspection_policy(noise, "inspection.toml")
    except UsageError as refused:
        assert "inspection.toml" in refused.message or refused.kind == "bad-name"
