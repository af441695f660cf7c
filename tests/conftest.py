"""How the tests are spread over processes: real VMs take turns in one, everything else runs beside them."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests on real VMs share one lab, so one process runs them, in their order."""
    for item in items:
        if item.get_closest_marker("end_to_end"):
            item.add_marker(pytest.mark.xdist_group("lab"))
