"""One spelling for every signed value: JSON as msgspec writes it, and nothing else is read back."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from korora.errors import IntegrityError

T = TypeVar("T")


def encoded(value: object) -> bytes:
    """UTF-8 JSON without white space, fields in the order of their definition, bytes as base64."""
    return msgspec.json.encode(value)


def decoded(text: bytes, kind: type[T]) -> T:
    """IntegrityError(kind="malformed-statement") unless `encoded` writes exactly this text for the value."""
    try:
        value = msgspec.json.decode(text, type=kind)
        if encoded(value) != text:
            raise ValueError("it is not in canonical form")
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise IntegrityError(
            f"a {kind.__name__} statement cannot be read: {error}",
            kind="malformed-statement",
            remedy="both sides must run the same version of Korora; if they do, find out who changed it",
        ) from error
    return value
