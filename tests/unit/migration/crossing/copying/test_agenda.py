"""A disk is copied in the order in which its guest uses it."""

from __future__ import annotations

import numpy as np

from fakes.image import MemoryImage
from korora.agents.dataorg.popularity import Popularity
from korora.migration.crossing.copying.agenda import Agenda
from korora.model.image import Extent
from korora.protocol.content_tree import CHUNK_BYTES


def test_what_is_read_often_comes_first_and_what_is_zero_not_at_all() -> None:
    size = 40 * CHUNK_BYTES
    said = [Extent(0, size // 2, zero=False), Extent(size // 2, size // 2, zero=True)]
    image = MemoryImage(bytes(size), said)
    habits = Popularity(size)
    for at in range(100):
        reads, writes = (np.array([(chunk * CHUNK_BYTES, 4096)] * 50, np.int64) for chunk in (17, 2))
        habits.add(float(at), 1.0, reads, writes)
    agenda = Agenda(image, habits)
    order = list(agenda)
    assert sorted(order) == list(range(20))
    assert agenda.bytes == 20 * CHUNK_BYTES
    assert order.index(17) < order.index(5) < order.index(2)
    assert list(Agenda(image, None)) == list(range(20))
