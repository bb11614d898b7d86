from __future__ import annotations

import copy
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dm.errors import ConfigError
from dm.machine.container import load, save
from dm.machine.fakes import TestBench
from dm.machine.machine import Machine
from dm.machine.snapshot import ENTRY_LIMIT, LATEST, parse
from protocol.state import STATE_CONTAINER, STATE_HEADER, StateFieldKind, StateRecordType

from .specimens import TRAP, Gadget, Leaf, Records, bench, build, records_of

MACHINE, GADGET, LARGE, LEAF = range(4)


def fill(machine: Machine, seed: int) -> None:
    """Give every cell a value within its mask, then let lines and windows follow."""
    for device, position, _ in machine.regions():
        for cell in device.cells.layout.cells.values():
            block = b""
            while len(block) < cell.size:
                seed = seed * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
                block += (seed >> 32).to_bytes(4, "little")
            value = block[: cell.size]
            if not cell.bulk:
                number = int.from_bytes(value, "little") & cell.mask
                value = number.to_bytes(cell.size, "little")
            start = position + cell.offset
            machine.buffer[start : start + cell.size] = value
    machine.after_load()


def sample(seed: int = 1) -> bytes:
    source = bench()
    fill(source.machine, seed)
    source.machine.clock.set(123456789)
    return save(source.machine)


def refusal(data: bytes, machine: Machine | None = None) -> str:
    """The message that ``load`` gives, after checking that nothing changed."""
    machine = bench().machine if machine is None else machine
    before, time = bytes(machine.buffer), machine.clock.now()
    with pytest.raises(ConfigError) as caught:
        load(machine, data)
    assert bytes(machine.buffer) == before
    assert machine.clock.now() == time
    message = str(caught.value)
    assert "\n" not in message
    return message


@settings(max_examples=60)
@given(st.integers(0, (1 << 64) - 1), st.integers(0, LATEST))
def test_a_fresh_machine_becomes_the_saved_one(seed: int, time: int) -> None:
    source, target = bench(), bench()
    fill(source.machine, seed)
    source.machine.clock.set(time)
    data = save(source.machine)
    load(target.machine, data)
    assert target.machine.buffer == source.machine.buffer
    assert target.machine.clock.now() == time
    assert target.platform.isa == source.platform.isa
    assert target.platform.intx == source.platform.intx
    assert save(target.machine) == data


def test_a_timer_goes_on_where_it_was() -> None:
    source, target = bench(), bench()
    gadget, copied = source.machine.devices[0], target.machine.devices[0]
    assert isinstance(gadget, Gadget)
    assert isinstance(copied, Gadget)
    source.machine.start()
    source.advance(500)
    gadget.alarm.start_in(1000)
    source.machine.stop()
    load(target.machine, save(source.machine))
    target.machine.start()
    target.advance(999)
    assert target.platform.isa[5] == 0
    target.advance(1)
    assert target.platform.isa[5] == 1


def test_a_window_follows_the_loaded_registers() -> None:
    source, target = bench(), bench()
    devfn = 1 << 3
    source.config_write(devfn, 0x10, 0xF000_0000)
    source.config_write(devfn, 0x04, 2, 2)
    source.store(0xF000_0000, 0xABCD)
    load(target.machine, save(source.machine))
    assert target.load(0xF000_0000) == 0xABCD


def test_every_truncation_is_refused() -> None:
    data, machine = sample(), bench().machine
    before = bytes(machine.buffer)
    for length in range(len(data)):
        with pytest.raises(ConfigError):
            load(machine, data[:length])
    assert bytes(machine.buffer) == before


def test_every_flipped_byte_is_refused() -> None:
    data, machine = bytearray(sample()), bench().machine
    before = bytes(machine.buffer)
    for position in range(len(data)):
        for flip in (0x01, 0xFF):
            data[position] ^= flip
            with pytest.raises(ConfigError):
                load(machine, data)
            data[position] ^= flip
    assert bytes(machine.buffer) == before
    load(machine, data)


@settings(max_examples=60)
@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    refusal(noise)
    refusal(sample()[:32] + noise)
    refusal(sample() + noise + b"\0")


def test_the_declarations_read_what_save_writes() -> None:
    data = sample()
    container = STATE_CONTAINER.parse(data)
    assert STATE_CONTAINER.build(container) == data
    assert container.header.payload_length == len(data) - STATE_HEADER.sizeof()
    assert zlib.crc32(data[:-24]) == int.from_bytes(container.records[-1].body, "little")
    assert [r.type for r in container.records] == [
        StateRecordType.MACHINE,
        StateRecordType.DEVICE,
        StateRecordType.MEMORY,
        StateRecordType.DEVICE,
        StateRecordType.END,
    ]
    kind, large = records_of(data)[LARGE]
    assert (kind, large.name, len(large.data)) == (StateRecordType.MEMORY, b"gadget.0.large", 257)


def test_load_reads_what_the_declarations_write() -> None:
    data = sample()
    machine = bench().machine
    again = build(records_of(data))
    assert again == data
    load(machine, again)
    assert save(machine) == data


def test_the_order_of_devices_does_not_matter() -> None:
    data, machine = sample(), bench().machine
    records = records_of(data)
    load(machine, build([records[MACHINE], records[LEAF], records[GADGET], records[LARGE]]))
    assert save(machine) == data


def _field(records: Records, index: int, name: bytes) -> Any:
    return next(field for field in records[index][1].fields if field.name == name)


def _set(index: int, attribute: str, value: object) -> Callable[[Records], None]:
    return lambda records: setattr(records[index][1], attribute, value)


def _value(name: bytes, value: bytes, kind: int = StateFieldKind.UNSIGNED) -> Callable[..., None]:
    def change(records: Records) -> None:
        field = _field(records, GADGET, name)
        field.value, field.kind = value, kind

    return change


def _rename(old: bytes, new: bytes) -> Callable[[Records], None]:
    return lambda records: setattr(_field(records, GADGET, old), "name", new)


def _drop_field(records: Records) -> None:
    records[GADGET][1].fields.pop(2)


def _double_field(records: Records) -> None:
    fields = records[GADGET][1].fields
    fields.append(fields[0])


def _memory_as_field(records: Records) -> None:
    records[LARGE][1].name = b"gadget.0.small"


WRONG: dict[str, tuple[Callable[[Records], object], str]] = {
    "machine": (_set(MACHINE, "name", b"other"), "machine 'other', this one is 'specimen'"),
    "machine name": (_set(MACHINE, "name", b"\xff"), "not UTF-8"),
    "unknown device": (_set(LEAF, "name", b"branch"), "a device 'branch'"),
    "missing device": (lambda r: r.pop(LEAF), "nothing for device 'leaf'"),
    "device twice": (lambda r: r.append(r[LEAF]), "device 'leaf' is there twice"),
    "class": (_set(LEAF, "class_name", b"a.B"), "'leaf' was saved by class 'a.B'"),
    "newer version": (_set(GADGET, "version", 4), "'gadget.0' was saved by version 4"),
    "unknown version": (_set(GADGET, "version", 0), "no version 0 was ever released"),
    "clumsy upgrade": (_set(GADGET, "version", 1), "version 1 cannot be read"),
    "missing field": (_drop_field, "'ports.table[1]' was not saved"),
    "unknown field": (_rename(b"odd", b"even"), "saved field 'even' is unknown"),
    "field twice": (_double_field, "field 'ports.control' twice"),
    "beyond the mask": (_value(b"odd", b"\0\x20"), "'odd': 0x2000 is beyond 0x1fff"),
    "odd width": (_value(b"odd", b"\0\0\0"), "field 'odd': kind 1 of 3 bytes"),
    "no width": (_value(b"odd", b""), "field 'odd': kind 1 of 0 bytes"),
    "unknown kind": (_value(b"odd", b"\0\0", 9), "field 'odd': kind 9"),
    "bytes for a number": (_value(b"odd", b"\0\0", 2), "'odd': bytes were saved"),
    "a number for bytes": (_value(b"small", bytes(8)), "'small': a number was saved"),
    "short bytes": (_value(b"small", bytes(255), 2), "'small': 255 bytes were saved, 256 are"),
    "memory size": (_set(LARGE, "data", bytes(258)), "'large': 258 bytes were saved, 257 are"),
    "memory missing": (lambda r: r.pop(LARGE), "field 'large' was not saved"),
    "memory twice": (lambda r: r.insert(LARGE, r[LARGE]), "field 'large' twice"),
    "memory unknown": (_set(LARGE, "name", b"gadget.0.x"), "saved field 'x' is unknown"),
    "memory elsewhere": (_set(LARGE, "name", b"leaf.x"), "is not of device 'gadget.0'"),
    "memory over a field": (_memory_as_field, "field 'small' twice"),
    "memory first": (lambda r: r.insert(1, r.pop(LARGE)), "unexpected record of type 3"),
    "memory flags": (_set(LARGE, "reserved", 1), "unknown flags"),
    "two machines": (lambda r: r.append(r[MACHINE]), "unexpected record of type 1"),
    "no machine": (lambda r: r.pop(MACHINE), "the first record is not the machine's"),
    "nothing": (lambda r: r.clear(), "nothing before the end"),
    "unknown record": (lambda r: r.append((77, b"")), "unexpected record of type 77"),
    "long body": (lambda r: r.append((2, b"\1\0\0\0\1\1ab!")), "1 bytes too many"),
    "short body": (lambda r: r.append((2, b"\1\0\1\0\1\1ab")), "6 bytes expected, 0 left"),
    "long value": (lambda r: r.append((3, b"\1\0\0\0\xff\xff\xff\xffa")), "4294967295 bytes"),
    "refused by a device": (
        _value(b"wide", TRAP.to_bytes(8, "little")),
        "refused while it was applied: no such",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_this_machines_state_is_refused(name: str) -> None:
    change, message = WRONG[name]
    records = copy.deepcopy(records_of(sample()))
    change(records)
    assert message in refusal(build(records))


def test_what_a_device_refuses_leaves_lines_and_windows_as_they_were() -> None:
    target = bench()
    fill(target.machine, 9)
    isa, intx = dict(target.platform.isa), dict(target.platform.intx)
    claimed = {space: list(ranges) for space, ranges in target.platform.claimed.items()}
    records = records_of(sample(4))
    _value(b"wide", TRAP.to_bytes(8, "little"))(records)
    refusal(build(records), target.machine)
    assert (target.platform.isa, target.platform.intx) == (isa, intx)
    assert target.platform.claimed == claimed


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"version": 2}, "format 2"),
        ({"flags": 1}, "unknown flags"),
        ({"reserved": 1}, "unknown flags"),
        ({"record_count": 4}, "more records than the 4"),
        ({"record_count": 6}, "5 records where the header counts 6"),
        ({"record_count": ENTRY_LIMIT + 1}, "too many"),
        ({"payload_length": 1 << 63}, "9223372036854775808 bytes should follow"),
    ],
)
def test_a_header_that_lies_is_refused(header: dict[str, int], message: str) -> None:
    assert message in refusal(build(records_of(sample()), **header))


def test_the_whole_is_checked_beside_the_records() -> None:
    """A record exchanged for another intact one is noticed by END alone."""
    one, two = sample(1), sample(2)
    start = STATE_HEADER.sizeof() + 16 + 24
    assert one[:start] == two[:start]
    assert "checksum of the whole" in refusal(one[:-24] + two[-24:])


def test_an_older_version_is_read_by_the_class() -> None:
    target = TestBench(Gadget("gadget.0", base=0x1234), Leaf("leaf"), kind="specimen")
    target.machine.stop()
    records = records_of(sample())
    gadget = records[GADGET][1]
    gadget.version = 2
    gadget.fields = [field for field in gadget.fields if field.name != b"odd"]
    load(target.machine, build(records))
    loaded = target.machine.devices[0]
    assert isinstance(loaded, Gadget)
    assert loaded.odd == 0x1234


def test_names_with_dots_keep_apart() -> None:
    first = TestBench(Gadget("a.large"), Gadget("a", base=0x400))
    second = TestBench(Gadget("a.large"), Gadget("a", base=0x400))
    for made in (first, second):
        made.machine.stop()
    fill(first.machine, 3)
    load(second.machine, save(first.machine))
    assert second.machine.buffer == first.machine.buffer


def test_a_name_that_does_not_fit_is_an_error_of_the_user() -> None:
    made = TestBench(Gadget("g" * 256))
    with pytest.raises(ConfigError, match="at most 255 bytes"):
        save(made.machine)


def test_more_fields_than_anybody_needs_are_refused() -> None:
    fields = [{"kind": 1, "name": f"{n}".encode(), "value": b"\0"} for n in range(60000)]
    device = {"version": 1, "class_name": b"c", "fields": fields}
    records: Records = [(StateRecordType.MACHINE, {"guest_time_ns": 0, "name": b"m"})]
    body = build([(StateRecordType.DEVICE, device | {"name": b"d"})])
    raw = STATE_CONTAINER.parse(body).records[0].body
    for index in range(5):
        records.append((StateRecordType.DEVICE, raw.replace(b"dc", b"%dc" % index, 1)))
    with pytest.raises(ConfigError, match=f"more than {ENTRY_LIMIT} fields"):
        parse(build(records))


def test_a_guest_time_beyond_any_guest_is_refused() -> None:
    source = bench()
    source.machine.clock.set(LATEST + 1)
    with pytest.raises(ConfigError, match="guest time"):
        load(bench().machine, save(source.machine))
