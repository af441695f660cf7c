"""The index of one scope: origins, the parts in them, and own copies. See docs/adr/0016.

A part's key is the first 8 bytes of its name: whatever is found is compared with the whole name. A kept
chunk's bytes are at `number << 20` of their origin, so that units in it have places, too.
"""

from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x4B6F7263  # "Korc"
VERSION: Final = 1
TABLES: Final = (
    """CREATE TABLE origin (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        path BLOB NOT NULL,
        device INTEGER NOT NULL,
        inode INTEGER NOT NULL,
        entries INTEGER NOT NULL,
        size INTEGER NOT NULL,
        used_at INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE part (
        key INTEGER NOT NULL,
        origin INTEGER NOT NULL,
        place INTEGER NOT NULL,
        length INTEGER NOT NULL,
        PRIMARY KEY (key, origin)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE kept (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        origin INTEGER NOT NULL,
        name BLOB NOT NULL,
        length INTEGER NOT NULL
    ) STRICT""",
    "CREATE INDEX kept_name ON kept (name)",
    "CREATE TABLE counter (what TEXT PRIMARY KEY, count INTEGER NOT NULL) STRICT, WITHOUT ROWID",
)
STATEMENTS: Final = (
    *TABLES,
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)
