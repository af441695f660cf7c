"""The whole story on two hosts, told as it should go, and told wrongly."""

from __future__ import annotations

import pytest

from fakes.migration_site import Site, Tell
from korora.model.plan import Mode


@pytest.mark.parametrize("mode", Mode)
def test_a_vm_moves_and_both_hosts_keep_the_receipt(tell: Tell, mode: Mode) -> None:
    async def story(site: Site) -> None:
        outcome = await site.migrate("a", "b", mode)
        assert outcome["outcome"] == "completed", outcome["error"]
        assert outcome["vtpm"] == {"ek_same": True, "pcrs_same": True, "nv_same": True}
        await site.recover()
        site.runs_only_on("b")
        name = f"{outcome['session']}.json"
        kept = [(host.directory / "receipts" / name).read_bytes() for host in site.hosts.values()]
        assert kept[0] == kept[1]
        assert [len(host.disk.leaves) for host in site.hosts.values()] == [1, 1]

    tell(story)
