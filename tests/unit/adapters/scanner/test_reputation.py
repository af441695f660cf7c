"""What is known by hash: lists, indicators, and services that get a hash and nothing else."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.adapters.scanner.online.asking import Kind, Service, Told
from korora.adapters.scanner.online.malwarebazaar import MALWAREBAZAAR
from korora.adapters.scanner.online.metadefender import METADEFENDER
from korora.adapters.scanner.online.quota import Quota
from korora.adapters.scanner.online.virustotal import VIRUSTOTAL
from korora.adapters.scanner.reputation import Lists, Reputation, together
from korora.errors import UsageError
from korora.model.scan import Answer
from korora.ports.scanner import Stream

CONTENT = b"the content of a file, which never leaves this host"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
KEY = "a-key-of-ours"


def of(content: bytes = CONTENT) -> Stream:
    return Stream(len(content), iter([content[:7], content[7:]]))


# -- lists -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512"])
@pytest.mark.parametrize(("kind", "answer"), [("bad", "infected"), ("good", "clean")])
def test_a_hash_on_a_list_decides(tmp_path: Path, algorithm: str, kind: str, answer: str) -> None:
    file = tmp_path / "list"
    file.write_text(f"# a comment\n\n{hashlib.new(algorithm, CONTENT).hexdigest().upper()}  Some.Name\n")
    lists = Lists.read([file] if kind == "bad" else [], [file] if kind == "good" else [])
    told = Reputation(lists).scan(of(), 5)
    assert told.answer == answer
    assert algorithm in told.words
    assert ("Some.Name" in told.words) == (kind == "bad")


def test_known_to_be_bad_counts_before_known_to_be_good() -> None:
    digest = bytes.fromhex(SHA256)
    assert Reputation(Lists({digest: ""}, {digest})).scan(of(), 5).answer is Answer.INFECTED


def test_a_file_that_no_list_has_is_unknown_unless_the_site_says_otherwise() -> None:
    assert Reputation(Lists()).scan(of(), 5).answer is Answer.UNKNOWN
    engine = Reputation(Lists(), unlisted=Answer.CLEAN)
    assert engine.scan(of(), 5).answer is Answer.CLEAN
    assert "counts as clean" in engine.facts().note


def test_an_indicator_in_force_is_known_to_be_bad() -> None:
    engine = Reputation(Lists(), lambda hashes: "in force" if hashes["sha256"] == SHA256 else None, 7)
    assert engine.scan(of(), 5).words == "in force"
    assert engine.scan(of(b"other"), 5).answer is Answer.UNKNOWN
    assert engine.facts().signatures == 7


@pytest.mark.parametrize("line", ["nonsense", "0" * 33, "0" * 31, "g" * 64, "0" * 130, "0" * 5000])
def test_a_line_that_is_no_hash_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "list").write_text(f"{SHA256}\n{line}\n")
    with pytest.raises(UsageError, match="line 2"):
        Lists.read([tmp_path / "list"], [])


def test_a_list_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        Lists.read([], [tmp_path / "none"])


@given(st.binary(max_size=300))
def test_any_bytes_are_a_list_or_an_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.mktemp("lists") / "list"
    file.write_bytes(content)
    try:
        assert len(Lists.read([file], []).bad) <= content.count(b"\n") + 1
    except UsageError as error:
        assert "line" in error.message


# -- services ----------------------------------------------------------------------------------------------


class World:
    """A service on this machine: what it was asked, and what it answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.status, self.answer = 200, b"{}"
        self.headers: dict[str, str] = {}
        self.wait = threading.Event()
        self.wait.set()
        world = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                lower = {name.lower(): value for name, value in self.headers.items()}
                world.asked.append((self.command, self.path, lower, body))
                world.wait.wait(20)
                self.send_response(world.status)
                for name, value in world.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(world.answer)))
                self.end_headers()
                try:
                    self.wfile.write(world.answer)
                except OSError:
                    self.close_connection = True

            do_POST = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/api"

    def says(self, status: int, document: Any, **headers: str) -> None:
        self.status, self.answer, self.headers = status, json.dumps(document).encode(), headers

    def close(self) -> None:
        self.wait.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


Serve = Callable[..., Service]


@pytest.fixture
def serve(world: World, tmp_path: Path) -> Iterator[Serve]:
    made: list[Service] = []

    def serving(kind: Kind, per_minute: int = 100, per_day: int = 100) -> Service:
        quota = Quota(tmp_path / "quota.db", kind.name, per_minute, per_day)
        made.append(Service(kind, KEY, quota, url=world.url))
        return made[-1]

    yield serving
    for service in made:
        service.close()


def virustotal(bad: int = 0, odd: int = 0, good: int = 70) -> dict[str, Any]:
    stats = {
        "malicious": bad, "suspicious": odd, "undetected": good, "harmless": 0, "timeout": 0,
        "confirmed-timeout": 0, "failure": 1, "type-unsupported": 4,
    }  # fmt: skip
    named = {"suggested_threat_label": "trojan.some/thing"}
    attributes = {"last_analysis_stats": stats, "popular_threat_classification": named}
    return {"data": {"type": "file", "id": SHA256, "attributes": attributes}}


def metadefender(result: int, words: str, found: int, progress: int = 100) -> dict[str, Any]:
    return {
        "scan_results": {
            "scan_all_result_i": result, "scan_all_result_a": words, "total_avs": 37,
            "total_detected_avs": found, "progress_percentage": progress, "scan_details": {},
        },
        "file_info": {"sha256": SHA256.upper()},
    }  # fmt: skip


BAZAAR_KNOWS = {"query_status": "ok", "data": [{"sha256_hash": SHA256, "signature": "AgentTesla"}]}
ANSWERS: list[tuple[Kind, int, Any, Answer | None, str]] = [
    (VIRUSTOTAL, 200, virustotal(bad=40), Answer.INFECTED, "40 of 110 engines say malicious"),
    (VIRUSTOTAL, 200, virustotal(bad=1), Answer.SUSPICIOUS, "1 of 71"),
    (VIRUSTOTAL, 200, virustotal(odd=1), Answer.SUSPICIOUS, "1 suspicious"),
    (VIRUSTOTAL, 200, virustotal(), Answer.CLEAN, "0 of 70"),
    (VIRUSTOTAL, 200, virustotal(good=2), Answer.UNKNOWN, "0 of 2"),
    (VIRUSTOTAL, 404, {"error": {"code": "NotFoundError", "message": "…"}}, None, "does not know the file"),
    (VIRUSTOTAL, 401, {"error": {"code": "WrongCredentialsError"}}, Answer.UNKNOWN, "does not know the key"),
    (VIRUSTOTAL, 429, {"error": {"code": "QuotaExceededError"}}, Answer.UNKNOWN, "quota is spent"),
    (VIRUSTOTAL, 503, {"error": {"code": "TransientError"}}, Answer.UNKNOWN, "status 503"),
    (MALWAREBAZAAR, 200, BAZAAR_KNOWS, Answer.INFECTED, "AgentTesla"),
    (MALWAREBAZAAR, 200, {"query_status": "hash_not_found"}, None, "does not know the file"),
    (MALWAREBAZAAR, 200, {"query_status": "illegal_hash"}, Answer.UNKNOWN, "illegal_hash"),
    (MALWAREBAZAAR, 200, {"query_status": "ok", "data": []}, Answer.UNKNOWN, "'ok'"),
    (MALWAREBAZAAR, 401, {"error": "Unauthorized"}, Answer.UNKNOWN, "does not know the key"),
    (METADEFENDER, 200, metadefender(1, "Infected", 15), Answer.INFECTED, "Infected, 15 of 37 engines"),
    (METADEFENDER, 200, metadefender(0, "No Threat Detected", 0), Answer.CLEAN, "No Threat Detected"),
    (METADEFENDER, 200, metadefender(0, "No Threat Detected", 1), Answer.SUSPICIOUS, "1 of 37"),
    (METADEFENDER, 200, metadefender(2, "Suspicious", 1), Answer.SUSPICIOUS, "Suspicious"),
    (METADEFENDER, 200, metadefender(0, "No Threat", 0, 60), Answer.UNKNOWN, "not finished"),
    (METADEFENDER, 200, metadefender(10, "Not Scanned", 0), Answer.UNKNOWN, "Not Scanned"),
    (METADEFENDER, 404, {"error": {"code": 404003, "messages": ["…"]}}, None, "does not know the file"),
    (METADEFENDER, 404, {"error": {"code": 404000}}, Answer.UNKNOWN, "status 404"),
    (METADEFENDER, 429, {"error": {"code": 429000}}, Answer.UNKNOWN, "quota is spent"),
]


@pytest.mark.parametrize(("kind", "status", "document", "answer", "words"), ANSWERS)
def test_documented_answers_are_understood(
    world: World, serve: Serve, kind: Kind, status: int, document: Any, answer: Answer | None, words: str
) -> None:
    world.says(status, document)
    told = serve(kind).ask(SHA256, 10)
    assert told.answer is answer
    assert words in told.words
    assert told.words.startswith(f"{kind.name}: ")


@pytest.mark.parametrize("kind", [VIRUSTOTAL, MALWAREBAZAAR, METADEFENDER], ids=lambda kind: kind.name)
def test_only_the_hash_and_the_key_leave_this_host(world: World, serve: Serve, kind: Kind) -> None:
    Reputation(Lists(), services=[serve(kind)]).scan(of(), 10)
    [(method, path, headers, body)] = world.asked
    sent = f"{method} {path} {headers} {body!r}"
    assert SHA256 in sent
    assert KEY in headers.values()
    assert not any(word in sent for word in ("content of", "file,", f"'{len(CONTENT)}'"))
    if kind is MALWAREBAZAAR:
        assert (method, path, body) == ("POST", "/api/", f"query=get_info&hash={SHA256}".encode())
    else:
        place = {"virustotal": "files", "metadefender": "hash"}[kind.name]
        assert (method, path, body) == ("GET", f"/api/{place}/{SHA256}", b"")


@pytest.mark.parametrize("kind", [VIRUSTOTAL, MALWAREBAZAAR, METADEFENDER], ids=lambda kind: kind.name)
@pytest.mark.parametrize("status", [200, 204, 302, 404, 500])
@pytest.mark.parametrize(
    "answer", [b"", b"{", b"[]", b"null", b"[" * 100_000, b'{"data": 5, "scan_results": 1}']
)
def test_what_is_not_documented_is_unknown(
    world: World, serve: Serve, kind: Kind, status: int, answer: bytes
) -> None:
    world.status, world.answer, world.headers = status, answer, {"location": "/elsewhere"}
    assert serve(kind).ask(SHA256, 10).answer is Answer.UNKNOWN
    assert len(world.asked) == 1


def test_an_answer_without_end_is_unknown(world: World, serve: Serve) -> None:
    world.answer = b" " * (9 << 20)
    assert "too long" in serve(VIRUSTOTAL).ask(SHA256, 20).words


def test_a_service_that_is_silent_is_unknown_in_time(world: World, serve: Serve) -> None:
    world.wait.clear()
    assert serve(VIRUSTOTAL).ask(SHA256, 0.3).words == "virustotal: it did not answer in time"


def test_a_service_that_is_away_is_unknown(world: World, serve: Serve) -> None:
    service = serve(VIRUSTOTAL)
    world.close()
    assert service.ask(SHA256, 5).answer is Answer.UNKNOWN


def test_who_is_known_here_is_not_asked_about_there(world: World, serve: Serve) -> None:
    digest = bytes.fromhex(SHA256)
    for lists in (Lists({digest: ""}), Lists(good={digest})):
        Reputation(lists, services=[serve(VIRUSTOTAL)]).scan(of(), 10)
    assert world.asked == []


def test_a_file_that_no_service_knows_is_unknown(world: World, serve: Serve) -> None:
    world.says(404, {"error": {"code": "NotFoundError"}})
    told = Reputation(Lists(), services=[serve(VIRUSTOTAL)]).scan(of(), 10)
    assert (told.answer, told.words) == (Answer.UNKNOWN, "virustotal: it does not know the file")


@pytest.mark.parametrize(
    ("given_answers", "expected"),
    [
        ([Answer.CLEAN, None], "clean"),
        ([None, None], "unknown"),
        ([Answer.CLEAN, Answer.UNKNOWN], "unknown"),
        ([Answer.UNKNOWN, Answer.SUSPICIOUS], "suspicious"),
        ([Answer.CLEAN, Answer.INFECTED], "infected"),
        ([], "unknown"),
    ],
)
def test_of_several_services_the_gravest_word_counts(
    given_answers: list[Answer | None], expected: str
) -> None:
    assert together([Told(answer, "") for answer in given_answers]).answer == expected
    assert together([Told(answer, "") for answer in reversed(given_answers)]).answer == expected


# -- quotas ------------------------------------------------------------------------------------------------


def test_a_quota_outlives_the_program_and_is_per_service(tmp_path: Path) -> None:
    def quota(service: str = "one") -> Quota:
        return Quota(tmp_path / "quota.db", service, 2, 3)

    assert [quota().spend(1000.0), quota().spend(1001.0)] == ["", ""]
    assert quota().spend(1002.0) == "its quota of 2 a minute is spent"
    assert quota("two").spend(1002.0) == ""
    assert quota().spend(1062.0) == ""
    assert quota().spend(1200.0) == "its quota of 3 a day is spent"
    assert quota().spend(1000.0 + 86_401) == ""
    assert (tmp_path / "quota.db").stat().st_mode & 0o777 == 0o600


def test_a_clock_that_was_set_back_gives_no_questions_away(tmp_path: Path) -> None:
    quota = Quota(tmp_path / "quota.db", "one", 100, 2)
    assert [quota.spend(10_000_000.0), quota.spend(10_000_001.0)] == ["", ""]
    assert "spent" in quota.spend(5.0)


def test_many_at_once_spend_no_more_than_there_is(tmp_path: Path) -> None:
    spent: list[str] = []

    def spends() -> None:
        spent.append(Quota(tmp_path / "quota.db", "one", 5, 5).spend(1000.0))

    threads = [threading.Thread(target=spends) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(spent).count("") == 5


def test_a_spent_quota_is_unknown_and_nothing_is_asked(world: World, serve: Serve) -> None:
    world.says(200, virustotal())
    service = serve(VIRUSTOTAL, per_minute=1)
    assert service.ask(SHA256, 10).answer is Answer.CLEAN
    assert service.ask(SHA256, 10) == Told(Answer.UNKNOWN, "virustotal: its quota of 1 a minute is spent")
    assert len(world.asked) == 1


def test_a_quota_that_cannot_be_kept_is_spent(tmp_path: Path) -> None:
    (tmp_path / "quota.db").write_text("no database " * 100)
    assert "cannot be kept" in Quota(tmp_path / "quota.db", "one", 5, 5).spend(1.0)
    assert "cannot be kept" in Quota(tmp_path / "none" / "quota.db", "one", 5, 5).spend(1.0)
