"""Which TPM commands the daemon may put to a guest's vTPM, and what is made of the answers."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import tpm_backend
from korora.agents.vtpm.interposer import tpm_commands
from korora.errors import ToolError

READING = [
    tpm_commands.read_public(tpm_commands.EK_HANDLE),
    tpm_commands.nv_read_public(tpm_commands.EK_CERTIFICATE_INDEX),
    tpm_commands.nv_read(tpm_commands.EK_CERTIFICATE_INDEX, 0, 512),
    tpm_commands.pcr_read(range(8)),
    tpm_commands.nv_indices(),
]
OTHERS = {
    "extends a PCR": tpm_backend.pcr_extend(16, b"x"),
    "defines NV": tpm_backend.nv_define(0x01500001, 8),
    "writes NV": tpm_backend.nv_write(0x01500001, b"12345678"),
    "reads the guest's own NV": tpm_backend.nv_read(0x01500001, 8),
    "makes a key": tpm_backend.make_rsa_key(),
    "starts the TPM": tpm_backend.startup(),
    "has two commands in it": READING[0] + READING[0],
    "is cut": READING[0][:-1],
    "is empty": b"",
    "reads with an authorization": READING[2].replace(bytes.fromhex("40000009"), bytes.fromhex("02000000")),
}


@pytest.mark.parametrize("command", READING)
def test_commands_that_only_read_are_allowed(command: bytes) -> None:
    assert tpm_commands.is_allowed(command)


@pytest.mark.parametrize("command", OTHERS.values(), ids=OTHERS.keys())
def test_a_command_is_refused_that(command: bytes) -> None:
    assert not tpm_commands.is_allowed(command)


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF), st.binary(max_size=64))
def test_only_five_commands_are_allowed(tag: int, code: int, body: bytes) -> None:
    command = struct.pack(">HII", tag, 10 + len(body), code) + body
    if tpm_commands.is_allowed(command):
        assert code in (0x17E, 0x173, 0x169, 0x14E, 0x17A)
        assert tag == (0x8002 if code == 0x14E else 0x8001)


@given(st.binary(max_size=80))
def test_no_response_crashes_a_parser(body: bytes) -> None:
    response = struct.pack(">HII", 0x8001, 10 + len(body), 0) + body
    for parse in (
        tpm_commands.parse_name,
        tpm_commands.parse_nv_public,
        tpm_commands.parse_nv_data,
        tpm_commands.parse_pcrs,
        tpm_commands.parse_handles,
    ):
        with contextlib.suppress(ToolError):
            parse(response)


def test_a_failed_response_is_an_error_with_its_code() -> None:
    with pytest.raises(ToolError, match="0x101"):
        tpm_commands.parse_name(tpm_commands.failure())
