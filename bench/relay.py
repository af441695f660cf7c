"""Measure the data plane alone: unix → relay → TCP → relay → unix, against a bare copy of the same shape.

Five processes as in a migration: a hypervisor that writes as QEMU does (128 KiB a call, default socket
buffer), the source's relay, the destination's relay, a hypervisor that reads as QEMU does (32 KiB a call),
and this one. Figures are medians of interleaved runs; CPU seconds are those of the two relays alone.
Run: python bench/relay.py [--gib 2] [--runs 5] [--chunks 128,256,512,1024] [--streams 1] [--json FILE|-]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import resource
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from korora.agents.dataplane import DestinationRelay, SourceRelay
from korora.model.identity import Secret
from korora.protocol.frames import PREAMBLE_BYTES, StreamKeys, parse_preamble

WRITE_BYTES = 128 << 10
READ_BYTES = 32 << 10
STALL_S = 30.0


@dataclass(frozen=True, slots=True)
class Cost:
    cpu_s: float
    peak_rss_mib: float


@dataclass(frozen=True, slots=True)
class Run:
    way: str
    chunk_kib: int
    gb_per_s: float
    source_cpu_s_per_gb: float
    destination_cpu_s_per_gb: float
    all_cpu_s_per_gb: float
    source_peak_mib: float
    destination_peak_mib: float


def keys_of(streams: int) -> list[StreamKeys]:
    """Keys that are no secret: a benchmark has none."""
    made = Secret(bytes(range(32)))
    return [
        StreamKeys(s, s.to_bytes(32, "big"), made, Secret(s.to_bytes(32, "little"))) for s in range(streams)
    ]


def write_stream(path: Path, total_bytes: int, began: Connection) -> None:
    data = memoryview(os.urandom(64 << 20))
    with socket.socket(socket.AF_UNIX) as hypervisor:
        hypervisor.connect(str(path))
        began.send(time.monotonic())
        left, at = total_bytes, 0
        while left:
            size = min(WRITE_BYTES, left)
            hypervisor.sendall(data[at : at + size])
            left, at = left - size, (at + size) % len(data)


def read_stream(listener: socket.socket, total_bytes: int) -> None:
    hypervisor, _ = listener.accept()
    space = memoryview(bytearray(READ_BYTES))
    got = 0
    while read := hypervisor.recv_into(space):
        got += read
    hypervisor.close()
    assert got == total_bytes, f"{got} of {total_bytes} bytes arrived"


def in_threads(works: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def feed(path: Path, each: int, streams: int, said: Connection) -> None:
    in_threads([lambda: write_stream(path, each, said) for _ in range(streams)])
    said.send(cost())


def drain(path: Path, each: int, streams: int, said: Connection) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(streams)
        said.send("ready")
        in_threads([lambda: read_stream(listener, each) for _ in range(streams)])
        said.send(time.monotonic())
        said.send(cost())


def relay_source(path: Path, port: int, chunk: int, streams: int, said: Connection) -> None:
    relay = SourceRelay(
        listen_on=path,
        connect=lambda: socket.create_connection(("127.0.0.1", port)),
        keys=keys_of(streams),
        chunk_bytes=chunk,
        stall_deadline_s=STALL_S,
    )
    relay.start()
    said.send("ready")
    asyncio.run(relay.finished())
    said.send(cost())


def relay_destination(path: Path, chunk: int, streams: int, said: Connection) -> None:
    relay = DestinationRelay(
        deliver_to=path, keys=keys_of(streams), chunk_bytes=chunk, stall_deadline_s=STALL_S
    )
    relay.start()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        said.send(listener.getsockname()[1])
        for _ in range(streams):
            connection, _ = listener.accept()
            relay.accept(parse_preamble(connection.recv(PREAMBLE_BYTES, socket.MSG_WAITALL)), connection)
    asyncio.run(relay.finished())
    said.send(cost())


def copy(reader: socket.socket, writer: socket.socket, chunk: int) -> None:
    space = memoryview(bytearray(chunk))
    while read := reader.recv_into(space):
        writer.sendall(space[:read])
    writer.close()
    reader.close()


def bare_source(path: Path, port: int, chunk: int, streams: int, said: Connection) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(streams)
        said.send("ready")
        in_threads(
            [
                lambda: copy(listener.accept()[0], socket.create_connection(("127.0.0.1", port)), chunk)
                for _ in range(streams)
            ]
        )
    said.send(cost())


def bare_destination(path: Path, chunk: int, streams: int, said: Connection) -> None:
    def one(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        hypervisor = socket.socket(socket.AF_UNIX)
        hypervisor.connect(str(path))
        copy(connection, hypervisor, chunk)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        said.send(listener.getsockname()[1])
        in_threads([lambda: one(listener) for _ in range(streams)])
    said.send(cost())


def cost() -> Cost:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


WAYS = {"bare": (bare_source, bare_destination), "korora": (relay_source, relay_destination)}


def measure(way: str, chunk_kib: int, total_bytes: int, streams: int, folder: Path) -> Run:
    source_work, destination_work = WAYS[way]
    sink, sink_said = started(drain, folder / "to", total_bytes // streams, streams)
    assert sink_said.recv() == "ready"
    destination, destination_said = started(destination_work, folder / "to", chunk_kib << 10, streams)
    port = destination_said.recv()
    source, source_said = started(source_work, folder / "from", port, chunk_kib << 10, streams)
    assert source_said.recv() == "ready"
    feeder, feeder_said = started(feed, folder / "from", total_bytes // streams, streams)
    began = min(feeder_said.recv() for _ in range(streams))
    ended = sink_said.recv()
    costs = [said.recv() for said in (source_said, destination_said, feeder_said, sink_said)]
    for process in (sink, destination, source, feeder):
        process.join()
    for path in folder.iterdir():
        path.unlink()
    gb = total_bytes / 1e9
    return Run(
        way=way,
        chunk_kib=chunk_kib,
        gb_per_s=gb / (ended - began),
        source_cpu_s_per_gb=costs[0].cpu_s / gb,
        destination_cpu_s_per_gb=costs[1].cpu_s / gb,
        all_cpu_s_per_gb=sum(each.cpu_s for each in costs) / gb,
        source_peak_mib=costs[0].peak_rss_mib,
        destination_peak_mib=costs[1].peak_rss_mib,
    )


def started(work: Callable[..., None], *arguments: object) -> tuple[multiprocessing.Process, Connection]:
    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=work, args=(*arguments, there), daemon=True)
    process.start()
    return process, here


def median(runs: list[Run]) -> Run:
    def of(name: str) -> float:
        return round(float(statistics.median(getattr(run, name) for run in runs)), 3)

    return Run(
        runs[0].way,
        runs[0].chunk_kib,
        *(of(name) for name in Run.__dataclass_fields__ if name not in {"way", "chunk_kib"}),
    )


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--gib", type=float, default=2.0)
    asked.add_argument("--runs", type=int, default=5)
    asked.add_argument("--chunks", default="128,256,512,1024", help="KiB, comma-separated")
    asked.add_argument("--streams", type=int, default=1)
    asked.add_argument("--json", metavar="FILE", help="write the figures there; '-' prints them")
    args = asked.parse_args()
    total = int(args.gib * (1 << 30)) // args.streams * args.streams
    cases = [(way, int(chunk)) for chunk in args.chunks.split(",") for way in WAYS]
    runs: dict[tuple[str, int], list[Run]] = {case: [] for case in cases}
    for _ in range(args.runs):
        for way, chunk in cases:
            with tempfile.TemporaryDirectory(prefix="korora-relay-") as folder:
                runs[way, chunk].append(measure(way, chunk, total, args.streams, Path(folder)))
    medians = [median(runs[case]) for case in cases]
    machine = {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    facts = {
        "machine": machine,
        "gib": args.gib,
        "streams": args.streams,
        "medians": [asdict(m) for m in medians],
        "runs": [asdict(run) for case in cases for run in runs[case]],
    }
    if args.json == "-":
        print(json.dumps(facts, indent=1))
        return
    if args.json:
        Path(args.json).write_text(json.dumps(facts, indent=1) + "\n")
    print(f"{'way':8}{'chunk':>8}{'GB/s':>8}{'src s/GB':>10}{'dst s/GB':>10}{'all s/GB':>10}{'RSS MiB':>9}")
    for m in medians:
        print(
            f"{m.way:8}{m.chunk_kib:>6} K{m.gb_per_s:>8.2f}{m.source_cpu_s_per_gb:>10.3f}"
            f"{m.destination_cpu_s_per_gb:>10.3f}{m.all_cpu_s_per_gb:>10.3f}{m.source_peak_mib:>9.0f}"
        )


if __name__ == "__main__":
    main()
