"""Names and addresses of a lab follow from its folder."""

from pathlib import Path

import pytest

from korora.errors import UsageError
from korora.lab.layout import Layout


def test_labs_in_two_folders_share_no_namespace() -> None:
    one, other = Layout.at(Path("/run/one")), Layout.at(Path("/run/other"))
    assert {h.netns for h in one.hosts(3)}.isdisjoint(h.netns for h in other.hosts(3))
    assert one.switch_netns != other.switch_netns


def test_the_same_folder_is_the_same_lab_however_it_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir("/tmp")
    assert Layout.at(Path("lab")) == Layout.at(Path("/tmp/lab"))


def test_hosts_have_letters_and_their_own_addresses() -> None:
    hosts = Layout.at(Path("/run/lab")).hosts(4)
    assert [h.name for h in hosts] == ["a", "b", "c", "d"]
    assert len({h.ip for h in hosts}) == 4


def test_sockets_of_an_accepted_folder_fit_into_a_socket_address() -> None:
    layout = Layout.at(Path("/run/" + "x" * 30))
    assert len(str(layout.host("t").tpm_socket) + ".ctrl") < 108


def test_a_folder_too_deep_for_sockets_is_refused_with_a_remedy() -> None:
    with pytest.raises(UsageError) as refused:
        Layout.at(Path("/run/" + "x" * 60))
    assert refused.value.kind == "path-too-long"
    assert "--dir" in refused.value.remedy


@pytest.mark.parametrize("count", [0, -1, 21])
def test_an_impossible_number_of_hosts_is_refused(count: int) -> None:
    with pytest.raises(UsageError):
        Layout.at(Path("/run/lab")).hosts(count)
