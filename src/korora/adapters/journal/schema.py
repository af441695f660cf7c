"""The journal's tables. One version, no migrations: a file of another version is refused, never rewritten."""

from __future__ import annotations

APPLICATION_ID = 0x4B6F726F  # "Koro"
VERSION = 2

SCHEMA = (
    """CREATE TABLE vm (
        name TEXT PRIMARY KEY,
        definition TEXT NOT NULL,
        ownership TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        session TEXT,
        peer TEXT,
        qmp_socket TEXT
    ) STRICT""",
    """CREATE TABLE session (
        number INTEGER PRIMARY KEY,
        session TEXT NOT NULL UNIQUE,
        vm TEXT NOT NULL,
        role TEXT NOT NULL,
        peer TEXT NOT NULL,
        phase TEXT NOT NULL,
        outcome TEXT,
        detail BLOB NOT NULL
    ) STRICT""",
    "CREATE TABLE nonce (nonce TEXT PRIMARY KEY, not_after INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    """CREATE TABLE question (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        stage TEXT NOT NULL,
        detail BLOB NOT NULL
    ) STRICT""",
    "CREATE INDEX question_by_stage ON question (stage)",
    # The log only grows: the file itself refuses to change or drop what was appended.
    "CREATE TABLE leaf (number INTEGER PRIMARY KEY, content BLOB NOT NULL) STRICT",
    """CREATE TABLE node (
        level INTEGER NOT NULL,
        position INTEGER NOT NULL,
        hash BLOB NOT NULL,
        PRIMARY KEY (level, position)
    ) STRICT, WITHOUT ROWID""",
    "CREATE UNIQUE INDEX leaf_by_hash ON node (hash) WHERE level = 0",
    *(
        f"CREATE TRIGGER {table}_{verb.lower()} BEFORE {verb} ON {table}"
        " BEGIN SELECT raise(ABORT, 'the log only grows'); END"
        for table in ("leaf", "node")
        for verb in ("UPDATE", "DELETE")
    ),
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)
