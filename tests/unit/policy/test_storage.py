"""What a VM from elsewhere may have here: the administrator's folders, never the host's own files."""

from __future__ import annotations

from pathlib import PurePosixPath as P

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.policy.storage import CLOSED, FIRMWARE, StorageRule

OWN = (P("/var/lib/korora"), P("/srv/vms/authority.pem"))
NAMED = StorageRule((P("/srv/vms"), P("/dev/mapper")), OWN)
OPEN = StorageRule((), OWN)
NAMES = st.sampled_from(["srv", "vms", "etc", "..", "var", "lib", "korora", "x", "proc"])
PATHS = st.lists(NAMES, max_size=5).map(lambda parts: P("/", *parts))


@pytest.mark.parametrize(
    "path",
    [
        "/srv/vms/a.raw",
        "/srv/vms/deep/er/a",
        "/dev/mapper/vg-a",
        "/usr/share/OVMF/c.fd",
    ],
)
def test_what_lies_in_a_named_folder_or_is_firmware_of_the_distribution_is_allowed(path: str) -> None:
    assert NAMED.allows(P(path), written=False)


@pytest.mark.parametrize(
    "path",
    [
        "/srv/vmsx/a",
        "/srv",
        "/etc/shadow",
        "/home/a",
        "srv/vms/a",
        "/srv/vms/../../etc/shadow",
        "/srv/vms/authority.pem",
    ],
)
def test_everything_else_is_not(path: str) -> None:
    assert not NAMED.allows(P(path), written=False)
    assert not NAMED.allows(P(path), written=True)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/shadow",
        "/root/.ssh/id",
        "/proc/1/mem",
        "/sys/x",
        "/dev/sda",
        "/var/lib/korora/journal.db",
    ],
)
def test_without_named_folders_only_the_systems_and_the_hosts_own_are_closed(path: str) -> None:
    assert not OPEN.allows(P(path), written=False)
    assert not OPEN.allows(P(path), written=True)
    assert OPEN.allows(P("/home/vms/a.raw"), written=True)


@pytest.mark.parametrize("path", ["/boot/vmlinuz", "/usr/bin/python3", "/lib/x.so", "/var/spool/cron/root"])
def test_what_the_host_itself_runs_is_no_disk_unless_the_administrator_names_it(path: str) -> None:
    assert OPEN.allows(P(path), written=False)
    assert not OPEN.allows(P(path), written=True)
    assert StorageRule((P(path).parent,), OWN).allows(P(path), written=True)


@pytest.mark.parametrize("rule", [NAMED, OPEN])
def test_the_distributions_firmware_is_read_and_never_written(rule: StorageRule) -> None:
    for folder in FIRMWARE:
        assert rule.allows(folder / "x", written=False)
        assert not rule.allows(folder / "x", written=True)


@given(PATHS, st.booleans())
def test_no_rule_ever_gives_the_hosts_own_files_away(path: P, written: bool) -> None:
    for rule in (NAMED, OPEN, StorageRule((P("/"),), OWN)):
        if rule.allows(path, written=written):
            assert ".." not in path.parts
            assert not any(own == path or own in path.parents for own in OWN)
            if not rule.folders:
                assert not any(closed == path or closed in path.parents for closed in CLOSED)


def test_an_administrator_may_open_what_is_closed_by_default() -> None:
    assert StorageRule((P("/root/images"),)).allows(P("/root/images/a"), written=True)
