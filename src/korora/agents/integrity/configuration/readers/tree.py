"""XML as a tree, and a tree as settings by path.

Promise: no document type, so no entity and no other file; bounded depth and number of elements. What comes
before a place where the text is broken is kept, and the place is told. Spelling of prefixes, order of
attributes and of differently named elements, comments and white space around text do not show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol
from xml.etree.ElementTree import ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from korora.agents.integrity.configuration.readers.reading import MAX_PATH, escaped, unreadable
from korora.errors import UsageError
from korora.model.vm_settings import Severity

MAX_DEPTH: Final = 64
MAX_ELEMENTS: Final = 50_000
_FEED_BYTES: Final = 64 << 10
_PREFIXES: Final = {
    "http://libvirt.org/schemas/domain/qemu/1.0": "qemu:",
    "http://libvirt.org/schemas/domain/xen/1.0": "xen:",
    "http://schemas.dmtf.org/ovf/envelope/1": "ovf:",
    "http://schemas.dmtf.org/ovf/envelope/2": "ovf2:",
    "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData": "rasd:",
    "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData": "vssd:",
    "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_StorageAllocationSettingData.xsd": "sasd:",
    "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_EthernetPortAllocationSettingData.xsd": "epasd:",
    "http://www.vmware.com/schema/ovf": "vmw:",
    "http://www.virtualbox.org/ovf/machine": "vbox:",
    "http://www.w3.org/2001/XMLSchema-instance": "xsi:",
    "http://www.w3.org/XML/1998/namespace": "xml:",
}


@dataclass(slots=True)
class Node:
    """An element. `name` has no prefix in the name space of the document's first element.

    `texts`: its pieces of text between its children, without white space around.
    """

    name: str
    attributes: dict[str, str]
    namespace: str = ""
    path: str = ""
    texts: list[str] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\0".join(self.texts)  # XML has no zero, so pieces cannot run into each other

    def named(self, name: str) -> Iterator[Node]:
        return (child for child in self.children if child.name == name)

    def below(self) -> Iterator[Node]:
        """Itself, and all that is in it."""
        yield self
        for child in self.children:
            yield from child.below()

    def first(self, *names: str) -> Node | None:
        """Down by the first child of each name."""
        node: Node | None = self
        for name in names:
            node = next(node.named(name), None) if node is not None else None
        return node


@dataclass(frozen=True, slots=True)
class Document:
    """`problem`: where and why its text is broken; empty if it was read to its end."""

    root: Node
    problem: str = ""


Key = Callable[[Node], str | None]


class Settings(Protocol):
    def put(self, path: str, value: str, place: str = "") -> str: ...
    def bad(self, place: str, text: str, why: str) -> None: ...
    def note(self, severity: Severity, kind: str, message: str) -> None: ...


def read_document(data: bytes) -> Document:
    """UsageError(kind="bad-configuration") when not even its first element can be read, or it is hostile."""
    building = _Building()
    parser = DefusedXMLParser(target=building, forbid_dtd=True)
    problem = ""
    try:
        for at in range(0, len(data), _FEED_BYTES):
            parser.feed(data[at : at + _FEED_BYTES])
        parser.close()
    except DefusedXmlException as error:
        raise unreadable("it has a document type or an entity") from error
    except UsageError:
        raise
    except (ParseError, ValueError, LookupError) as error:
        problem = str(error)
    if building.root is None:
        raise unreadable(problem or "it has no element")
    return Document(building.root, problem)


class _Building:
    """What the parser calls. Text is gathered, for it comes in pieces."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self._open: list[Node] = []
        self._text: list[str] = []
        self._count = 0

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._end_text()
        self._count += 1
        if self._count > MAX_ELEMENTS:
            raise unreadable(f"it has more than {MAX_ELEMENTS} elements")
        if len(self._open) >= MAX_DEPTH:
            raise unreadable(f"its elements lie more than {MAX_DEPTH} deep")
        said = {_named(key): value for key, value in attributes.items()}
        space, name = _split(tag)
        if self.root is None or space == self.root.namespace:
            node = Node(name, said, space)
        else:
            node = Node(_named(tag) if space else f"{{}}{name}", said, space)
        if self._open:
            self._open[-1].children.append(node)
        else:
            self.root = node
        self._open.append(node)

    def end(self, _tag: str) -> None:
        self._end_text()
        self._open.pop()

    def data(self, text: str) -> None:
        self._text.append(text)

    def close(self) -> None:
        """Nothing is left to do."""

    def _end_text(self) -> None:
        text = "".join(self._text).strip()
        self._text.clear()
        if text and self._open:
            self._open[-1].texts.append(text)


def flatten(document: Document, into: Settings, keys: Mapping[str, Key]) -> None:
    """Put every attribute and text into `into`, and its path on each element.

    An element is told from its siblings of the same name by its key, as `name[key]`, if `keys` has one for
    that name, else by its number, as `name`, `name[2]`, `name[3]`: of these the order counts.
    """
    document.root.path = document.root.name
    if document.root.namespace:
        into.put(f"{document.root.path}/@xmlns", document.root.namespace)
    _flatten(document.root, into, keys)


def _flatten(node: Node, into: Settings, keys: Mapping[str, Key]) -> None:
    for key in sorted(node.attributes):
        into.put(f"{node.path}/@{key}", node.attributes[key])
    if node.text or not (node.attributes or node.children):
        into.put(node.path, node.text)
    numbers: dict[str, int] = {}
    for child in node.children:
        segment = _segment(child, keys, numbers)
        if len(node.path) + len(segment) > MAX_PATH:
            into.bad(node.path, segment, "an element's name is too long; what is in it was not read")
            continue
        if child.name in keys and "#" in segment:
            into.note("warning", "twice", f"{node.path}/{segment.partition('#')[0]} is there more than once")
        child.path = f"{node.path}/{segment}"
        _flatten(child, into, keys)


def _segment(node: Node, keys: Mapping[str, Key], numbers: dict[str, int]) -> str:
    key = keys[node.name](node) if node.name in keys else None
    segment = node.name if key is None else f"{node.name}[{escaped(key)}]"
    number = numbers[segment] = numbers.get(segment, 0) + 1
    if number == 1:
        return segment
    return f"{segment}[{number}]" if key is None else f"{segment}#{number}"


def _named(tag: str) -> str:
    """`{uri}name` with the usual prefix of a known name space, or with the whole of another."""
    space, name = _split(tag)
    if not space:
        return name
    prefix = _PREFIXES.get(space)
    return f"{{{escaped(space)}}}{name}" if prefix is None else prefix + name


def _split(tag: str) -> tuple[str, str]:
    space, _, name = tag[1:].partition("}") if tag[:1] == "{" else ("", "", tag)
    return space, name
