"""VMware's .vmx: lines of `key = "value"`, in the encoding that `.encoding` names.

Keys and the words TRUE and FALSE are told apart without regard to case. What VMware takes of a key that comes
twice with different values is not known, so such a key cannot be read. A file that is encrypted neither.

Source: the keys as VMware's products write them, and the table of them in libvirt's src/vmx/vmx.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from korora.agents.integrity.configuration.readers.reading import Gathering
from korora.model.vm_settings import ConfigurationFormat, Fact, Field, Part, VmConfiguration

_MIB: Final = 2**20
_LINE: Final = re.compile(r"""\s*([^\s="#]+)\s*=\s*(?:"([^"]*)"|([^"\s]*))\s*""")
_ENCODING: Final = re.compile(
    rb"""^[ \t]*\.encoding[ \t]*=[ \t]*"?([A-Za-z0-9_-]{1,20})"?[ \t\r]*$""", re.MULTILINE | re.IGNORECASE
)
_ESCAPE: Final = re.compile(r"\|([0-9A-Fa-f]{2})")
_CODECS: Final = {
    "utf-8": "utf-8", "windows-1252": "cp1252", "iso-8859-1": "latin-1", "us-ascii": "ascii", "gbk": "gbk",
    "shift_jis": "cp932", "windows-1250": "cp1250", "windows-1251": "cp1251", "big5": "big5", "euc-kr":
    "euc_kr", "windows-949": "cp949", "windows-932": "cp932", "iso-8859-15": "iso8859_15", "gb18030":
    "gb18030",
}  # fmt: skip
_WORDS: Final = {"true": "TRUE", "false": "FALSE"}
_FREE_TEXT: Final = ("displayname", "annotation", "guestinfo.")
_SWITCH: Final = {"TRUE": "on", "FALSE": "off"}
_KINDS: Final = {
    "nat": "NAT",
    "bridged": "bridged",
    "hostonly": "host-only",
    "custom": "custom",
    "pvn": "pvn",
}
_DISK: Final = re.compile(r"((?:scsi|sata|ide|nvme)[0-9]{1,2}:[0-9]{1,2}|floppy[0-9])\.present")
_NIC: Final = re.compile(r"(ethernet[0-9]{1,2})\.present")
_ADDRESS: Final = re.compile(r"ethernet[0-9]{1,2}\.(?:generated)?address")
_SHARE: Final = re.compile(r"(sharedfolder[0-9]{1,3})\.present")
_PASSED: Final = re.compile(r"(pcipassthru[0-9]{1,2})\.present|(usb\.autoconnect\.device[0-9]{1,2})")


def read(data: bytes) -> VmConfiguration:
    gathering = Gathering(ConfigurationFormat.VMWARE)
    lines: dict[str, str] = {}
    for number, line in enumerate(_decoded(gathering, data).split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            gathering.bad(f"line {number}", line, 'is no key = "value"')
        elif match[1].lower() != ".encoding":
            value = match[2] if match[2] is not None else match[3]
            _put(gathering, lines, match[1].lower(), value, f"line {number}")
    if "encryption.data" in gathering.settings:
        gathering.bad("encryption.data", "", "the settings in it are encrypted")
    gathering.part(Part.VM, "", "", _vm(gathering))
    _devices(gathering)
    return gathering.done()


def _decoded(gathering: Gathering, data: bytes) -> str:
    match = _ENCODING.search(data)
    named = match[1].decode().lower() if match else "utf-8"
    codec = _CODECS.get(named)
    if codec is None:
        gathering.bad(".encoding", named, "is an encoding that Korora does not read")
    text = data.decode(codec or "ascii", "backslashreplace").removeprefix("\ufeff")
    try:
        data.decode(codec or "utf-8")
    except ValueError as error:
        gathering.bad("the whole file", "", f"is not in the encoding that it names: {error}"[:300])
    return text


def _put(gathering: Gathering, lines: dict[str, str], key: str, value: str, place: str) -> None:
    plain = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), value)
    if not key.startswith(_FREE_TEXT):
        plain = _WORDS.get(plain.lower(), plain)
    if key in lines:
        if gathering.settings[key] != plain:
            gathering.bad(place, f'{key} = "{plain}"', f"is set in {lines[key]} to something else")
        gathering.note("warning", "twice", f"{key!r} is set in {lines[key]} and in {place}")
    lines.setdefault(key, place)
    gathering.put(key, plain, place)


def _vm(gathering: Gathering) -> Iterator[Fact | None]:
    yield gathering.text(Field.NAME, "displayname")
    yield gathering.uuid(Field.UUID, "uuid.bios")
    yield gathering.number(Field.MEMORY, "memsize", unit=_MIB)
    yield gathering.number(Field.CPUS, "numvcpus") or Fact(Field.CPUS, "1")
    masks = tuple(sorted(path for path in gathering.settings if path.startswith("cpuid.")))
    yield gathering.joined(Field.CPU_MODEL, *masks)
    yield gathering.text(Field.MACHINE, "virtualhw.version")
    firmware = {"efi": "uefi", "bios": "bios", "EFI": "uefi", "BIOS": "bios"}
    yield gathering.word(Field.FIRMWARE, "firmware", firmware) or Fact(Field.FIRMWARE, "bios")
    yield gathering.joined(Field.FIRMWARE_IMAGE, "bios440.filename", "efi32.filename", "efi64.filename")
    yield _switch(gathering, Field.SECURE_BOOT, "uefi.secureboot.enabled")
    yield _switch(gathering, Field.TPM, "vtpm.present")
    yield gathering.joined(Field.BOOT_ORDER, "bios.bootorder", "efi.bootorder")


def _switch(gathering: Gathering, field: Field, path: str) -> Fact | None:
    """Off where it is not said."""
    if path not in gathering.settings:
        return Fact(field, "off")
    return gathering.word(field, path, _SWITCH)


def _is(gathering: Gathering, path: str, *, default: bool = False) -> bool:
    value = gathering.settings.get(path)
    return default if value is None else value == "TRUE"


def _devices(gathering: Gathering) -> None:
    """Those that are present: other settings of theirs have no effect."""
    for path in list(gathering.settings):
        if _ADDRESS.fullmatch(path):
            gathering.mac(path)
        if (match := _DISK.fullmatch(path)) and _is(gathering, path):
            gathering.part(Part.DISK, match[1], match[1], _disk(gathering, match[1]))
        elif (match := _NIC.fullmatch(path)) and _is(gathering, path):
            gathering.part(Part.NIC, match[1], match[1], _adapter(gathering, match[1]))
        elif (match := _SHARE.fullmatch(path)) and _is(gathering, path):
            gathering.part(Part.SHARE, match[1], match[1], _share(gathering, match[1]))
        elif (match := _PASSED.fullmatch(path)) and (match[2] or _is(gathering, path)):
            root = match[1] or match[2]
            said = gathering.under(root)
            value = " ".join(f"{one}={gathering.settings[one]}" for one in said)
            gathering.part(Part.PASSED, root, root, [Fact(Field.DEVICE, value, said)])
    root = "remotedisplay.vnc"
    if _is(gathering, f"{root}.enabled"):
        gathering.part(Part.DISPLAY, "vnc", root, _display(gathering, root))


def _disk(gathering: Gathering, root: str) -> Iterator[Fact | None]:
    device = gathering.settings.get(f"{root}.devicetype", "").lower()
    kind = "cdrom" if "cdrom" in device else "floppy" if root.startswith("floppy") else "disk"
    yield Fact(Field.KIND, kind, (f"{root}.devicetype",))
    path = gathering.text(Field.PATH, f"{root}.filename")
    yield path
    if path is not None and kind == "disk" and path.value.lower().endswith(".vmdk"):
        yield Fact(Field.FORMAT, "vmdk")
    yield Fact(Field.BUS, re.sub("[0-9:]", "", root))
    said = gathering.word(Field.READ_ONLY, f"{root}.readonly", {"TRUE": "yes", "FALSE": "no"})
    yield said or Fact(Field.READ_ONLY, "yes" if kind == "cdrom" else "no")


def _adapter(gathering: Gathering, root: str) -> Iterator[Fact | None]:
    """Bridged if nothing else is said; an ESXi host knows networks by name alone."""
    kind = gathering.word(Field.KIND, f"{root}.connectiontype", _KINDS)
    yield kind or Fact(Field.KIND, "bridged")
    yield gathering.joined(Field.NETWORK, f"{root}.networkname", f"{root}.vnet")
    static = gathering.settings.get(f"{root}.addresstype", "").lower() == "static"
    yield gathering.mac(f"{root}.address" if static else f"{root}.generatedaddress")
    yield gathering.text(Field.MODEL, f"{root}.virtualdev")


def _share(gathering: Gathering, root: str) -> Iterator[Fact | None]:
    yield gathering.text(Field.PATH, f"{root}.hostpath")
    yield gathering.text(Field.DEVICE, f"{root}.guestname")
    yield gathering.word(Field.READ_ONLY, f"{root}.writeaccess", {"TRUE": "no", "FALSE": "yes"}) or Fact(
        Field.READ_ONLY, "yes"
    )


def _display(gathering: Gathering, root: str) -> Iterator[Fact | None]:
    """Open to every address if none is said."""
    yield Fact(Field.KIND, "vnc", (f"{root}.enabled",))
    yield gathering.text(Field.ADDRESS, f"{root}.ip")
    paths = (f"{root}.password", f"{root}.key")
    secured = any(gathering.settings.get(path) for path in paths)
    yield Fact(Field.PASSWORD, "set" if secured else "none", paths)
