"""The Summer device under a scripted bus: no guest, no process, virtual time."""

from summer import NANOSECONDS_PER_BYTE, Summer

from dm.testing import ScriptedBus, generic_device_tests, with_device

BAR = 0xE0000000
DATA = bytes(range(200))

TestGeneric = generic_device_tests(Summer)


@with_device(Summer)
def test_it_sums_and_interrupts_when_it_is_done(bus: ScriptedBus, device: Summer) -> None:
    """Not a nanosecond earlier; by a message, since the guest has enabled that."""
    bus.map_bar(device, 0, BAR)
    bus.enable_msi(device, data=0x51)
    bus.memory.write(0x1000, DATA)
    bus.write64(BAR + 0x00, 0x1000)
    bus.write32(BAR + 0x08, len(DATA))
    bus.write32(BAR + 0x0C, 1)
    bus.advance(ns=len(DATA) * NANOSECONDS_PER_BYTE - 1)
    assert (bus.read32(BAR + 0x10), bus.msis) == (0, [])
    bus.advance(ns=1)
    assert bus.read32(BAR + 0x10) == 1
    assert bus.read32(BAR + 0x14) == sum(DATA)
    assert bus.msis == [(0xFEE00000, 0x51)]


@with_device(Summer)
def test_memory_that_is_not_there_is_a_failure(bus: ScriptedBus, device: Summer) -> None:
    """The guest is told, and nothing else happens."""
    bus.map_bar(device, 0, BAR)
    bus.write64(BAR + 0x00, 1 << 60)
    bus.write32(BAR + 0x08, 16)
    bus.write32(BAR + 0x0C, 1)
    bus.advance(ms=1)
    assert bus.read32(BAR + 0x10) == 2
