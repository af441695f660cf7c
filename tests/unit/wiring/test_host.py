"""The rule that a host's configuration makes: the folders it names, and nothing that is the host's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

from fakes.host_services import configuration_in
from korora.wiring.host import storage_rule


def test_the_hosts_state_trust_and_rules_are_never_given_away(tmp_path: Path) -> None:
    configuration = replace(configuration_in(tmp_path), storage=(tmp_path,), file=tmp_path / "hostd.toml")
    rule = storage_rule(configuration)
    assert rule.allows(PurePosixPath(tmp_path.resolve()) / "disk.raw", written=True)
    site = configuration.site
    for own in (
        configuration.state / "journal.db",
        tmp_path / "hostd.toml",
        configuration.api,
        configuration.event_log,
        configuration.authorization,
        site.authority,
        site.reference_values,
        *site.manufacturers,
    ):
        assert not rule.allows(PurePosixPath(own.resolve()), written=False), own
