"""Read the files of the sources. `recognised` says by its beginning what a file is; `READERS` reads it.

Promise: whatever is in a file, a reader ends, in memory that is bounded by the file's format (a line for
lists and CSV, `reading.DOCUMENT_MAX` for JSON, `openioc.XML_MAX` for XML), and tells of each entry that it
could not take. What is not understood is never silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO, Final

from korora.agents.integrity.indicators.readers import abuse, misp, openioc, plain, stix
from korora.agents.integrity.indicators.readers.reading import Item, Reader, UnreadableError
from korora.model.indicator import Provenance

STIX, MISP, OPENIOC, PLAIN = "stix", "misp", "openioc", "list"
READERS: Final[dict[str, Reader]] = {
    STIX: stix.read,
    MISP: misp.read,
    OPENIOC: openioc.read,
    **{service: abuse.reader(service) for service in abuse.COLUMNS},
    PLAIN: plain.read,
}
HEAD: Final = 1 << 16
"""Bytes of a file's beginning that `recognised` looks at."""
_MAGIC: Final = {
    b"PK\x03\x04": "a ZIP archive: unpack it first",
    b"\x1f\x8b": "compressed by gzip: unpack it first",
    b"\xff\xfe": "UTF-16 text: convert it to UTF-8 first",
    b"\xfe\xff": "UTF-16 text: convert it to UTF-8 first",
    b"SQLite format 3": "a database",
    b"%PDF": "a PDF document",
}
_ADDRESS: Final = re.compile(rb"\[[0-9a-fA-F:.]+\](?::[0-9]+)?\s")  # of a list, in brackets
_OPENIOC: Final = re.compile(rb"<(?:[\w.-]+:)?(?:OpenIOC|ioc)[\s/>]")
_STIX: Final = re.compile(rb'"type"\s*:\s*"bundle"|"spec_version"\s*:|"id"\s*:\s*"bundle--')
_MISP: Final = re.compile(rb'"(?:Event|Attribute|Object|response)"\s*:')


def recognised(head: bytes) -> str:
    """The format of a file that begins so, a key of `READERS`. UnreadableError: it is certainly none."""
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            raise UnreadableError(f"it is {what}")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith((b"{", b"[")) and not _ADDRESS.match(text):
        return _json(text)
    if text.startswith(b"<"):
        if _OPENIOC.search(text):
            return OPENIOC
        raise UnreadableError("it is XML, and no OpenIOC: export it as STIX 2.1")
    if b"\0" in head:
        raise UnreadableError("it is no text")
    for line in text.decode("utf-8", "replace").splitlines():
        service = abuse.service_of([name.strip().strip('"') for name in line.lstrip("# \t").split(",")])
        if service is not None:
            return service
    return PLAIN


def _json(text: bytes) -> str:
    if _STIX.search(text):
        return STIX
    if _MISP.search(text):
        return MISP
    raise UnreadableError("it is JSON, and neither a STIX bundle nor an export of MISP")


def read(name: str, file: BinaryIO, basis: Provenance) -> Iterator[Item]:
    """Entries and findings, in the file's order. `name`: a key of `READERS`."""
    return READERS[name](file, basis)
