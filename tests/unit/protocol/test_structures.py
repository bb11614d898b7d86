"""What is particular to single structures: unions, counts, checksums, padding."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest
from construct import ConstructError, Int32ub, Int32ul, Struct
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import dm_op, hvm_info, libxl_stream, pci, state
from protocol.bitfields import bitfields
from protocol.inspection import inspect_bits, inspect_layout
from tests.unit.protocol.strategies import values

quick = settings(max_examples=25, deadline=None)


@pytest.mark.parametrize("op", dm_op.DmOp)
@quick
@given(data=st.data())
def test_dm_op_holds_the_argument_that_the_operation_selects(
    op: dm_op.DmOp, data: st.DataObject
) -> None:
    argument = data.draw(values(dm_op.DM_OP_ARGUMENTS[op]))
    built = dm_op.DM_OP.build({"op": op, "u": argument})
    assert len(built) == 32
    parsed = dm_op.DM_OP.parse(built)
    assert {name: parsed.u[name] for name in argument} == argument
    assert dm_op.DM_OP_ARGUMENTS[op].build(argument) == built[8:][: _size(op)]


def test_dm_op_keeps_the_bytes_of_an_unknown_operation() -> None:
    raw = struct.pack("<II", 99, 0) + bytes(range(24))
    assert dm_op.DM_OP.parse(raw).u == bytes(range(24))


def test_every_dm_op_has_an_argument() -> None:
    assert set(dm_op.DM_OP_ARGUMENTS) == set(dm_op.DmOp)


def _size(op: dm_op.DmOp) -> int:
    size: int = dm_op.DM_OP_ARGUMENTS[op].sizeof()
    return size


def test_sbdf_packs_like_the_configuration_address() -> None:
    sbdf = {"segment": 0, "bus": 1, "device": 3, "function": 2}
    packed = int.from_bytes(dm_op.PCI_SBDF.build(sbdf), "little")
    assert packed == 0x11A
    address = {"register": 0, "bus": 1, "device": 3, "function": 2, "enable": 1}
    latch = int.from_bytes(pci.PCI_CONFIG_ADDRESS.build(address), "little")
    assert latch == 0x80000000 | packed << 8


@quick
@given(table=values(hvm_info.HVM_INFO_TABLE))
def test_hvm_info_checksum_makes_the_bytes_add_up_to_zero(table: dict[str, Any]) -> None:
    built = hvm_info.HVM_INFO_TABLE.build(table)
    table["checksum"] = hvm_info.hvm_info_checksum(built)
    final = hvm_info.HVM_INFO_TABLE.build(table)
    assert sum(final) % 256 == 0
    assert hvm_info.hvm_info_checksum(final) == table["checksum"]


def test_hvm_info_table_without_its_signature_is_refused() -> None:
    with pytest.raises(ConstructError):
        hvm_info.HVM_INFO_TABLE.parse(bytes(48))


@quick
@given(entries=st.lists(values(hvm_info.E820_ENTRY), max_size=5))
def test_e820_table_has_count_and_entries_where_hvmloader_looks(
    entries: list[dict[str, int]],
) -> None:
    page = hvm_info.HVM_E820_TABLE.build({"nr": len(entries), "entries": entries})
    assert page[0x1E8:0x1EC] == struct.pack("<I", len(entries))
    assert page[0x2D0:] == b"".join(
        struct.pack("<QQI", entry["addr"], entry["size"], entry["type"]) for entry in entries
    )


def test_e820_table_of_too_many_entries_is_refused() -> None:
    page = bytearray(4096)
    page[0x1E8:0x1EC] = struct.pack("<I", hvm_info.E820_ENTRY_MAX + 1)
    with pytest.raises(ConstructError):
        hvm_info.HVM_E820_TABLE.parse(bytes(page))


def test_bit_fields_count_from_bit_zero() -> None:
    word = bitfields(low=3, _gap=4, middle=8, high=1)
    assert word.build({"low": 5, "middle": 0xAB, "high": 1}) == struct.pack("<H", 0xD585)
    assert [(bit.name, bit.shift, bit.mask) for bit in inspect_bits(word)] == [
        ("low", 0, 0x7),
        ("_gap", 3, 0x78),
        ("middle", 7, 0x7F80),
        ("high", 15, 0x8000),
    ]


def test_bit_fields_that_fill_no_word_are_refused() -> None:
    with pytest.raises(ValueError, match="7 bits"):
        bitfields(low=3, high=4)


def test_mixed_byte_orders_have_no_format() -> None:
    layout = inspect_layout("mixed" / Struct("a" / Int32ub, "b" / Int32ul))
    with pytest.raises(ValueError, match="byte orders"):
        _ = layout.format


def _record(kind: int, body: bytes) -> dict[str, Any]:
    return {"type": kind, "crc32": zlib.crc32(body), "body": body}


@quick
@given(bodies=st.lists(st.tuples(st.integers(1, 3), st.binary(max_size=30)), max_size=4))
def test_state_container_is_as_long_as_its_header_says(bodies: list[tuple[int, bytes]]) -> None:
    records = [_record(kind, body) for kind, body in bodies]
    end = _record(state.StateRecordType.END, state.STATE_END.build({"crc32": 0}))
    payload = b"".join(state.STATE_RECORD.build(record) for record in [*records, end])
    header = {"record_count": len(records) + 1, "payload_length": len(payload)}
    built = state.STATE_CONTAINER.build({"header": header, "records": [*records, end]})
    assert built[:8] == b"IOREQDST"
    assert len(built) == 32 + len(payload)
    assert built[32:] == payload
    parsed = state.STATE_CONTAINER.parse(built)
    assert [(record.type, record.body) for record in parsed.records[:-1]] == bodies


@quick
@given(body=st.binary(max_size=30))
def test_state_records_are_padded_with_zeros_to_eight_bytes(body: bytes) -> None:
    built = state.STATE_RECORD.build(_record(2, body))
    assert len(built) % state.STATE_ALIGNMENT == 0
    assert built == struct.pack("<IIII", 2, len(body), zlib.crc32(body), 0) + body.ljust(
        -(-len(body) // 8) * 8, b"\0"
    )


def test_state_record_that_claims_more_than_there_is_is_refused() -> None:
    header = struct.pack("<IIII", 3, 0xFFFFFFFF, 0, 0)
    with pytest.raises(ConstructError):
        state.STATE_RECORD.parse(header + bytes(64))


def test_state_device_has_its_heads_packed() -> None:
    fields = [{"kind": state.StateFieldKind.UNSIGNED, "name": b"a.b", "value": b"\x05\0"}]
    built = state.STATE_DEVICE.build(
        {"version": 7, "name": b"com1", "class_name": b"Uart", "fields": fields}
    )
    assert built == b"\x07\0\x01\0\x04\x04com1Uart" + b"\x01\x03\x02\0\0\0a.b\x05\0"


def test_an_xl_save_file_can_be_walked_to_the_emulator_record() -> None:
    blob = b"IOREQDST-and-more"
    emulator = {"id": libxl_stream.LibxlEmulatorId.QEMU_UPSTREAM, "index": 0}
    context = libxl_stream.LIBXL_EMULATOR_HEADER.build(emulator) + blob
    stream = io.BytesIO(_save_file(b"{}\0", context))
    xl = libxl_stream.XL_SAVE_HEADER.parse_stream(stream)
    assert xl.magic == libxl_stream.XL_SAVE_MAGIC
    stream.seek(xl.optional_data_len, io.SEEK_CUR)
    assert libxl_stream.LIBXL_HEADER.parse_stream(stream).version == 2
    found = []
    while (record := libxl_stream.LIBXL_RECORD.parse_stream(stream)).type:
        found.append((record.type, record.body))
        if record.type == libxl_stream.LibxlRecordType.LIBXC_CONTEXT:
            _skip_libxc(stream)
    assert found == [(1, b""), (3, context)]
    assert stream.read() == b""


def _skip_libxc(stream: io.BytesIO) -> None:
    image = libxl_stream.LIBXC_IMAGE_HEADER.parse_stream(stream)
    assert (image.marker, image.id) == (
        libxl_stream.LIBXC_IMAGE_MARKER,
        libxl_stream.LIBXC_IMAGE_ID,
    )
    assert libxl_stream.LIBXC_DOMAIN_HEADER.parse_stream(stream).page_shift == 12
    while libxl_stream.LIBXC_RECORD.parse_stream(stream).type:
        pass


def _save_file(config: bytes, context: bytes) -> bytes:
    """An xl save file, put together by hand as Xen's documents lay it out."""
    optional = struct.pack("<I", len(config)) + config
    xl = b"Xen saved domain, xl format\n \0 \r" + struct.pack(
        "<IIII", 0x01020304, 3, 0, len(optional)
    )
    libxc = (
        b"\xff" * 8
        + b"XENF"
        + struct.pack(">IHHI", 3, 0, 0, 0)
        + struct.pack("<IHHII", 2, 12, 0, 4, 17)
        + struct.pack("<II", 0x0A, 5)
        + b"hello\0\0\0"
        + struct.pack("<II", 0, 0)
    )
    emulator = struct.pack("<II", 3, len(context)) + context + bytes(-len(context) % 8)
    end = struct.pack("<II", 0, 0)
    libxl = b"LibxlFmt" + struct.pack(">II", 2, 0) + struct.pack("<II", 1, 0)
    return xl + optional + libxl + libxc + emulator + end
