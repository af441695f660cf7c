"""The lab's site: authority, operators, rules and every configuration file. Writes only what differs.

Operators: `alice` may migrate every VM between all hosts; `mallory` has a key that every host knows, and may
do nothing. Limit: all private keys lie in the lab's folder, readable by root; this is a lab.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from korora.authority import create_authority
from korora.errors import ToolError
from korora.lab.guest.image import KERNELS, cache_folder
from korora.lab.host_tpm import manufacturer_certificates
from korora.lab.layout import LabHost, Layout
from korora.lab.measured_boot import MeasuredBoot
from korora.model.inspection import Check
from korora.policy.reference_values import rendered

_PLAIN_PEM = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

SITE_NAME = "lab"
OPERATOR = "alice"
APPROVER = "bob"
OUTSIDER = "mallory"


def write_site(layout: Layout, hosts: tuple[LabHost, ...], boot: MeasuredBoot) -> None:
    """All files of the site and of its hosts. Keys and the authority are made once."""
    _ensure_authority(layout)
    for name in (OPERATOR, APPROVER, OUTSIDER):
        _ensure_operator(layout, name)
    _write(reference_values(layout), rendered(boot.reference()))
    _write(authorization(layout), _authorization_text(layout))
    (layout.site / "policies").mkdir(exist_ok=True)
    _write(layout.site / "policies" / "lab.cedar", _POLICY)
    _write(layout.site / "examples.toml", _EXAMPLES)
    _write(inspection(layout), _INSPECTION)
    _write(layout.configuration, _korora_text(layout, hosts, {}, OPERATOR))
    for host in hosts:
        _write(host.configuration, _hostd_text(layout, host, hosts))


def configuration_through(
    layout: Layout,
    hosts: tuple[LabHost, ...],
    addresses: Mapping[str, str],
    name: str,
    operator: str = OPERATOR,
) -> Path:
    """Another korora.toml, in which some hosts have the address of a forwarder, or another operator asks."""
    path = layout.directory / f"korora-{name}.toml"
    _write(path, _korora_text(layout, hosts, addresses, operator))
    return path


def authority_certificate(layout: Layout) -> Path:
    return layout.site / "authority.pem"


def authority_key(layout: Layout) -> Path:
    return layout.site / "authority-key.pem"


def reference_values(layout: Layout) -> Path:
    return layout.site / "reference.toml"


def authorization(layout: Layout) -> Path:
    return layout.site / "authorization.toml"


def inspection(layout: Layout) -> Path:
    """What is looked at in a VM before it leaves, on every host."""
    return layout.site / "inspection.toml"


def operator_key(layout: Layout, name: str = OPERATOR) -> Path:
    return layout.operators / f"{name}.pem"


def _ensure_authority(layout: Layout) -> None:
    if not authority_certificate(layout).exists():
        certificate, key = create_authority(f"Korora lab {layout.id}", time.time())
        _write_private(authority_key(layout), key)
        authority_certificate(layout).write_bytes(certificate)


def _ensure_operator(layout: Layout, name: str) -> None:
    path = operator_key(layout, name)
    if not path.exists():
        _write_private(path, Ed25519PrivateKey.generate().private_bytes(*_PLAIN_PEM))


def _public_hex(layout: Layout, name: str) -> str:
    key = load_pem_private_key(operator_key(layout, name).read_bytes(), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ToolError(f"{operator_key(layout, name)} is not an Ed25519 key", kind="lab-site")
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def _authorization_text(layout: Layout) -> str:
    return (
        f'[operators.{OPERATOR}]\nkey = "{_public_hex(layout, OPERATOR)}"\n\n'
        f'[operators.{APPROVER}]\nkey = "{_public_hex(layout, APPROVER)}"\n\n'
        f'[operators.{OUTSIDER}]\nkey = "{_public_hex(layout, OUTSIDER)}"\n'
    )


_POLICY: Final = f"""// {OPERATOR} may migrate every VM between all hosts. What no policy permits is denied.
@id("{OPERATOR} migrates")
permit (principal == Operator::"{OPERATOR}", action == Action::"migrate", resource);

// {OPERATOR} closes flags on the data of VMs; in a site of more people that would be somebody else.
@id("{OPERATOR} resolves")
permit (principal == Operator::"{OPERATOR}", action == Action::"resolve", resource);

// Where a second person is asked for, {APPROVER} may agree.
@id("{APPROVER} approves")
permit (principal == Operator::"{APPROVER}", action in [Action::"approve", Action::"govern"], resource);
"""
_INSPECTION: Final = "".join(
    (
        "# Nothing is looked at in a VM before it moves. Write report, flag or block to have it looked at.\n",
        "[checks]\n",
        *(f'{check} = "off"\n' for check in Check),
    )
)
_EXAMPLES: Final = f"""# What the policy is meant to say: korora policy test
[[example]]
operator = "{OPERATOR}"
vm = "web-1"
from = "a"
to = "b"
expect = "yes"

[[example]]
operator = "{OUTSIDER}"
vm = "web-1"
from = "a"
to = "b"
expect = "no"
"""


def _korora_text(
    layout: Layout, hosts: tuple[LabHost, ...], addresses: Mapping[str, str], operator: str
) -> str:
    text = (
        f'[site]\nname = "{SITE_NAME}"\n{_trust(layout)}'
        f"authority_key = {_text(authority_key(layout))}\n"
        f"authorization = {_text(authorization(layout))}\n\n"
        f'[operator]\nname = "{operator}"\nkey = {_text(operator_key(layout, operator))}\n'
    )
    for host in hosts:
        address = addresses.get(host.name, host.address)
        text += f'\n[hosts.{host.name}]\naddress = "{address}"\napi = {_text(host.api)}\n'
    return text


def _hostd_text(layout: Layout, host: LabHost, hosts: tuple[LabHost, ...]) -> str:
    text = (
        f'name = "{host.name}"\nstate = {_text(host.state)}\nlisten = "{host.address}"\n'
        f'api = {_text(host.api)}\ntpm = "{host.tpm}"\nevent_log = {_text(host.event_log)}\n'
        f"authorization = {_text(authorization(layout))}\ninspection = {_text(inspection(layout))}\n"
        f"storage = [{', '.join(map(_text, _storage(layout)))}]\n\n[site]\n{_trust(layout)}"
    )
    for other in hosts:
        if other.name != host.name:
            text += f'\n[hosts.{other.name}]\naddress = "{other.address}"\n'
    return f'{text}\n[store.tenants]\ntwins = ["twin-*"]\n'


def _storage(layout: Layout) -> tuple[Path, ...]:
    """The disks that all hosts see, and what the lab's guests boot."""
    return (layout.storage, cache_folder(), KERNELS)


def _trust(layout: Layout) -> str:
    makers = ", ".join(_text(path) for path in manufacturer_certificates(layout))
    return (
        f"authority = {_text(authority_certificate(layout))}\nmanufacturers = [{makers}]\n"
        f"reference_values = {_text(reference_values(layout))}\n"
    )


def _text(path: Path) -> str:
    return json.dumps(str(path))  # a JSON string is a TOML basic string


def _write_private(path: Path, pem: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(pem)


def _write(path: Path, text: str) -> None:
    """Leave a file alone that says the same already."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
