"""The network of a lab, with nothing on it."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from korora.lab.layout import Layout
from korora.lab.namespaces import build_network, in_namespace, limit_links, remove_network

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
MEGABYTE = 1_000_000


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    layout = Layout(tmp_path / "lab")
    try:
        build_network(layout, 2)
        yield layout
    finally:
        remove_network(layout)


@pytest.mark.parametrize(("there", "back"), [("a", "b"), ("b", "a")])
def test_over_a_limited_link_nothing_is_faster_than_that(layout: Layout, there: str, back: str) -> None:
    limit_links(layout, 2, 80 * MEGABYTE)
    sender, receiver = layout.host(there), layout.host(back)
    listener = in_namespace(receiver.netns, lambda: socket.create_server((receiver.ip, 0)))
    with listener:
        address = listener.getsockname()
        connection = in_namespace(sender.netns, lambda: socket.create_connection(address, 60))
        began = time.monotonic()
        sending = threading.Thread(target=_send, args=(connection, 8 * MEGABYTE))
        sending.start()
        taken, _ = listener.accept()
        with taken:
            taken.settimeout(60)
            came = 0
            while piece := taken.recv(1 << 20):
                came += len(piece)
        took_s = time.monotonic() - began
        sending.join()
    assert came == 8 * MEGABYTE
    assert took_s > 0.7  # 10 MB a second, but for what goes at once


def _send(connection: socket.socket, count: int) -> None:
    with connection:
        connection.sendall(bytes(count))
