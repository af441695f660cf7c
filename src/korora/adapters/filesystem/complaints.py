"""What The Sleuth Kit and the libyal libraries complain of, in words for who never heard of them.

Promise: no name of a library, of its functions or of its lines is left, whatever it says. Words that are no
library's stay as they are. Limit: what is in brackets is the library's own, and English for its developers.
"""

from __future__ import annotations

import re
from typing import Final

MAX_CHARS: Final = 500
_WRAPPED: Final = re.compile(r"""\bOSError\((['"])(.*?)\1,?\)""", re.DOTALL)
"""What the disk itself said, as it comes through a library."""
_SLEUTH_KIT: Final = re.compile(r"^\w+: \(\w+\.\w+:\d+\) ", re.DOTALL)
_LIBYAL: Final = re.compile(r"(?:^|(?<=\. ))(?:py|lib)\w+: ")
_BEFORE: Final = re.compile(r"^.*?(?:with error: |Read error: |Unable to (?:open|read) [a-z ]+: )", re.DOTALL)
_FUNCTION: Final = re.compile(r"\b\w+_\w+: ")
_NO_FILE_SYSTEM: Final = "it is no file system that is known here, or where it begins is damaged"
_DAMAGED: Final = "what it says of itself is damaged"

_SAID: Final = (
    ("Cannot determine file system type", _NO_FILE_SYSTEM),
    ("Unsupported file system type", _NO_FILE_SYSTEM),
    (
        "Possible encryption detected",
        "it is no file system that is known here: it looks encrypted, or like noise",
    ),
    ("Encryption detected", "it is encrypted"),
    ("Multiple file system types detected", "it looks like more than one file system"),
    ("Offset missing in partial image", "it lies beyond the end of the volume"),
    ("Error reading image file", "a part of it cannot be read"),
    ("Attribute not found in file", "a part of it that should be there is not"),
    ("Invalid metadata address", "it leads to what is not there"),
    ("Error in metadata structure", _DAMAGED),
    ("File system is corrupt", _DAMAGED),
    ("Corrupt file data", _DAMAGED),
    ("Invalid magic value", _DAMAGED),
    ("General file system error", _DAMAGED),
    ("unknown libtsk error", _DAMAGED),
)
"""Of The Sleuth Kit, the first that is in its words."""


def plain(text: str) -> str:
    """In bounds, on one line."""
    if wrapped := _WRAPPED.search(text):
        text = wrapped[2]
    return _plain(text.replace("\n", " "))[:MAX_CHARS]


def _plain(text: str) -> str:
    if _SLEUTH_KIT.match(text):
        return next((words for said, words in _SAID if said in text), None) or _rest(text)
    if _LIBYAL.match(text):
        return _of_libyal(text)
    return text


def _rest(text: str) -> str:
    said = _FUNCTION.sub("", _BEFORE.sub("", _SLEUTH_KIT.sub("", text))).strip(" .")
    return f"it cannot be read ({said})" if said else "it cannot be read"


def _of_libyal(text: str) -> str:
    """Their second sentence is the cause, the first what was asked, the others whom it passed."""
    sentences = [one.strip(" .") for one in _LIBYAL.split(text) if one.strip(" .")]
    cause = (sentences[1:] or sentences)[0]
    if "superblock" not in text:
        return f"it cannot be read ({cause})"
    if cause.startswith("unable to read"):
        return f"one of its superblocks is damaged, or beyond the end of the volume ({cause})"
    return f"its superblock is damaged, or it has features that are not read ({cause})"
