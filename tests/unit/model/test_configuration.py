"""hostd.toml: what is read, and what each mistake is answered."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.errors import ExitCode, UsageError
from korora.model.configuration import (
    MAX_CHANNELS,
    Endpoint,
    KeptBounds,
    Watching,
    parse_endpoint,
    parse_host_configuration,
)
from korora.model.identity import VmName
from korora.model.store_settings import StoreSettings
from korora.model.stored import Bounds
from korora.protocol.handshake import OFFER

FILE = Path("/etc/korora/hostd.toml")

FULL = """
name = "a"
state = "/var/lib/korora"
listen = "10.0.0.1:7443"
api = "/run/korora/api.sock"
tpm = "device:/dev/tpmrm0"
event_log = "/sys/kernel/security/tpm0/binary_bios_measurements"
authorization = "authorization.toml"

[site]
authority = "site.pem"
manufacturers = ["maker-1.pem", "/etc/pki/maker-2.pem"]
reference_values = "reference.toml"

[hosts.b]
address = "10.0.0.2:7443"

[limits]
incoming = 3
"""


def refused(text: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse_host_configuration(text, FILE)
    assert caught.value.kind == "bad-configuration"
    assert caught.value.exit_code is ExitCode.USAGE
    assert str(FILE) in caught.value.message
    assert caught.value.remedy
    return caught.value


def test_a_full_file_is_read_and_relative_paths_start_at_its_folder() -> None:
    configuration = parse_host_configuration(FULL, FILE)
    assert configuration.name == "a"
    assert configuration.file == FILE
    assert configuration.listen == Endpoint("10.0.0.1", 7443)
    assert configuration.authorization == Path("/etc/korora/authorization.toml")
    assert configuration.site.manufacturers == (Path("/etc/korora/maker-1.pem"), Path("/etc/pki/maker-2.pem"))
    assert configuration.hosts == {"b": Endpoint("10.0.0.2", 7443)}
    assert configuration.incoming_limit == 3


def test_hosts_limits_and_qemu_may_be_left_out() -> None:
    configuration = parse_host_configuration(FULL.partition("[hosts.b]")[0], FILE)
    assert dict(configuration.hosts) == {}
    assert configuration.incoming_limit == 2
    assert configuration.stall_deadline_s == 30
    assert configuration.qemu == "qemu-system-x86_64"


def test_how_long_a_stall_is_borne_is_a_limit_in_whole_seconds() -> None:
    head, table, _ = FULL.partition("[limits]")
    assert table
    configuration = parse_host_configuration(head + "[limits]\nstall_seconds = 4\n", FILE)
    assert (configuration.stall_deadline_s, configuration.incoming_limit) == (4.0, 2)
    assert "stall_seconds" in refused(head + "[limits]\nstall_seconds = 0\n").message


def test_multifd_is_off_until_a_host_asks_for_up_to_eight_channels() -> None:
    assert parse_host_configuration(FULL, FILE).multifd_channels == 0
    assert parse_host_configuration(FULL + "\n[stream]\nmultifd_channels = 8\n", FILE).multifd_channels == 8
    assert "at most 8" in refused(FULL + "\n[stream]\nmultifd_channels = 9\n").remedy
    assert "multifd_channels" in refused(FULL + "\n[stream]\nmultifd_channels = -1\n").message
    assert "chanels" in refused(FULL + "\n[stream]\nchanels = 2\n").message


def test_the_content_store_is_below_the_state_and_bounded_unless_it_is_said_otherwise() -> None:
    store = parse_host_configuration(FULL, FILE).store
    assert store == StoreSettings(Path("/var/lib/korora/store"), Bounds(16 << 30, 1 << 24), 128 << 20)
    table = '\n[store]\nfolder = "content"\nkept_gib = 2\nentries = 1000\nsession_mib = 0\n'
    store = parse_host_configuration(FULL + table, FILE).store
    assert store == StoreSettings(Path("/etc/korora/content"), Bounds(2 << 30, 1000), 0)
    for wrong in ("kept_gib = -1", "entries = 1.5", "session_mib = 65537", 'folder = ""', "keptgib = 1"):
        assert wrong.split()[0] in refused(FULL + f"\n[store]\n{wrong}\n").message


def test_whose_a_vm_is_is_said_by_its_name_and_the_first_pattern_that_fits() -> None:
    assert parse_host_configuration(FULL, FILE).store == StoreSettings(Path("/var/lib/korora/store"))
    table = (
        '\n[store]\ntenant = "house"\n[store.tenants]\nred = ["red-*", "web"]\nblue = ["*-blue", "red-9"]\n'
    )
    store = parse_host_configuration(FULL + table, FILE).store
    assert store is not None
    vms = ("red-1", "red-9", "web", "web2", "db-blue", "red-blue")
    assert [store.tenant_of(VmName(vm)) for vm in vms] == ["red", "red", "red", "house", "blue", "red"]
    assert StoreSettings(Path("x")).tenant_of(VmName("any")) is None
    for wrong in ('red = "web"', "red = []", 'red = [""]', '"../up" = ["web"]'):
        assert "store.tenants" in refused(FULL + f"\n[store.tenants]\n{wrong}\n").message
    assert "tenant" in refused(FULL + '\n[store]\ntenant = "no/name"\n').message


def test_storage_is_a_list_of_folders_and_may_be_left_out() -> None:
    assert parse_host_configuration(FULL, FILE).storage == ()
    named = parse_host_configuration('storage = ["/srv/vms", "images"]\n' + FULL, FILE)
    assert named.storage == (Path("/srv/vms"), Path("/etc/korora/images"))
    assert "storage" in refused('storage = "/srv"\n' + FULL).message
    assert "storage" in refused('storage = [""]\n' + FULL).message


def test_the_group_that_may_open_the_socket_may_be_left_out() -> None:
    assert parse_host_configuration(FULL, FILE).api_group == ""
    assert parse_host_configuration('api_group = "korora"\n' + FULL, FILE).api_group == "korora"
    assert "api_group" in refused('api_group = ""\n' + FULL).message
    assert "api_group" in refused("api_group = 100\n" + FULL).message


def test_an_empty_storage_is_refused_since_it_could_be_meant_as_nothing_or_as_everything() -> None:
    assert "storage" in refused("storage = []\n" + FULL).message


def test_a_host_never_asks_for_more_streams_than_hosts_offer() -> None:
    assert OFFER.max_streams == MAX_CHANNELS + 1


def test_disks_are_watched_a_second_in_ten_unless_a_host_says_otherwise() -> None:
    assert parse_host_configuration(FULL, FILE).heat == Watching(10.0, 1.0)
    seldom = parse_host_configuration(FULL + "\n[heat]\nevery_seconds = 60\nsample_seconds = 2\n", FILE)
    assert seldom.heat == Watching(60.0, 2.0)
    assert parse_host_configuration(FULL + "\n[heat]\nevery_seconds = 0\n", FILE).heat.every_s == 0
    assert "at most 5" in refused(FULL + "\n[heat]\nsample_seconds = 6\n").remedy
    assert "heat.every" in refused(FULL + "\n[heat]\nevery = 6\n").message


def test_disks_are_kept_for_a_month_unless_a_host_says_otherwise() -> None:
    assert parse_host_configuration(FULL, FILE).kept == KeptBounds(30, 0)
    table = "\n[kept]\ndays = 0\ngib = 100\n"
    assert parse_host_configuration(FULL + table, FILE).kept == KeptBounds(0, 100)
    for wrong in ("days = -1", "days = 36501", "gib = 1.5", "day = 1"):
        assert wrong.split()[0] in refused(FULL + f"\n[kept]\n{wrong}\n").message


@pytest.mark.parametrize(
    "key", ["name", "state", "listen", "api", "tpm", "event_log", "authorization", "site"]
)
def test_a_missing_key_is_named(key: str) -> None:
    if key == "site":
        text = FULL.partition("[site]")[0]
    else:
        text = "\n".join(line for line in FULL.splitlines() if not line.startswith(f"{key} ="))
    assert f"{key} is missing" in refused(text).message


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ('name = "a"', 'name = "a/b"', "name"),
        ('name = "a"', "name = 7", "name"),
        ('name = "a"', 'name = ""', "name"),
        ('listen = "10.0.0.1:7443"', 'listen = "10.0.0.1"', "listen"),
        ('listen = "10.0.0.1:7443"', 'listen = "10.0.0.1:70000"', "listen"),
        ('tpm = "device:/dev/tpmrm0"', "tpm = true", "tpm"),
        ('authority = "site.pem"', 'authorty = "site.pem"', "site.authority"),
        ('reference_values = "reference.toml"', 'reference_values = "r"\nextra = 1', "site.extra"),
        ('["maker-1.pem", "/etc/pki/maker-2.pem"]', "[]", "site.manufacturers"),
        ('["maker-1.pem", "/etc/pki/maker-2.pem"]', "[1]", "site.manufacturers"),
        ("[hosts.b]", '[hosts."b c"]', "hosts.b c"),
        ('address = "10.0.0.2:7443"', 'address = "nowhere"', "hosts.b.address"),
        ('address = "10.0.0.2:7443"', 'address = "b:1"\nkey = "x"', "hosts.b.key"),
        ("[hosts.b]", "[hosts]\nb = 1\n[other]", "hosts.b"),
        ("incoming = 3", "incoming = 0", "limits.incoming"),
        ("incoming = 3", "incoming = true", "limits.incoming"),
        ("incoming = 3", "outgoing = 3", "limits.outgoing"),
        ('state = "/var/lib/korora"', 'state = "/var/\\u0000lib"', "state"),
        ('state = "/var/lib/korora"', 'state = "/var/lib"\nsecure = false', "secure"),
    ],
)
def test_a_wrong_value_is_named_by_its_key(old: str, new: str, where: str) -> None:
    assert old in FULL
    assert f": {where} " in refused(FULL.replace(old, new)).message


def test_text_that_is_not_toml_names_the_line() -> None:
    assert "line 2" in refused('name = "a"\nstate = x').message


def test_toml_that_nests_without_end_is_refused() -> None:
    refused("name = " + "[" * 100_000)


@pytest.mark.parametrize("text", ["[::1]:7443", "b:1", "10.0.0.1:65535"])
def test_an_endpoint_prints_as_it_was_written(text: str) -> None:
    assert str(parse_endpoint(text)) == text


@pytest.mark.parametrize(
    "text", ["", ":1", "b", "b:", "b:0", "b:65536", "::1:7443", "[b]:1", "b:١", " b:1", "b:+1"]
)
def test_what_is_not_an_endpoint_is_none(text: str) -> None:
    assert parse_endpoint(text) is None


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_as_usage(text: str) -> None:
    with pytest.raises(UsageError):
        parse_host_configuration(text, FILE)
