"""PCI functions: BAR sizing, decoding, capabilities, INTx against MSI (PCI 3.0, 6.2 and 6.8)."""

from __future__ import annotations

import pytest

from dm import (
    RW,
    Bank,
    BankMemory,
    Bit,
    Capability,
    ConfigError,
    DeclarationError,
    MmioBar,
    MmioWindow,
    MsiCapability,
    PciConfig,
    PciDevice,
    PciIdentity,
    PciWindow,
    PortBar,
    Register,
)
from dm.device.device import Device
from dm.device.platform import MEMORY, PCI, PORT
from dm.errors import HostError
from dm.machine.fakes import TestBench

DEVFN = 0x20
IO, MEM, MASTER, NO_INTX = 1, 2, 4, 0x400
COMMAND, STATUS, BAR0 = 4, 6, 0x10


class Control(Register, width=32):
    request = Bit(0)


class Window(Bank, size=0x1000, width=32):
    control = Control.at(0)
    memory = BankMemory(0x100, 0x100)


class Ports(Bank, size=16, width=8):
    data = Register.at(0)


class Large(Bank, size=0x1_0000_0000, width=32):
    data = Register.at(0)


class Vendor(Capability):
    capability_id = 0x09
    length = 8


class Card(PciDevice):
    identity = PciIdentity(
        vendor=0x1234,
        device=0x5678,
        class_code=0x020304,
        revision=7,
        subsystem_vendor=0xAAAA,
        subsystem=0xBBBB,
        pin=2,
    )
    capabilities = (MsiCapability(0x40), Vendor(0x60))
    window = MmioBar(Window, 0)
    ports = PortBar(Ports, 1)
    wide = MmioBar(Large, 2, bits=64, prefetchable=True)

    def irq_level(self) -> bool:
        return bool(self.window.control.request)


class Bench(TestBench):
    """A card at 04.0 with short names for what the tests do."""

    def __init__(self, *others: Device) -> None:
        self.card = Card("card", addr="4")
        super().__init__(*others, self.card)

    def read_config(self, register: int, size: int = 4) -> int:
        return self.config_read(DEVFN, register, size)

    def write_config(self, register: int, value: int, size: int = 4) -> None:
        self.config_write(DEVFN, register, value, size)

    @property
    def line(self) -> int:
        return self.platform.intx.get((4, 1), 0)


class TestIdentity:
    def test_configuration_space_says_who_it_is(self) -> None:
        bench = Bench()
        assert bench.read_config(0) == 0x56781234
        assert bench.read_config(8) == 0x02030407
        assert bench.read_config(0x2C) == 0xBBBBAAAA
        assert bench.read_config(0x3C) == 0x0200
        assert bench.read_config(0x0E, 1) == 0

    def test_the_identity_cannot_be_written(self) -> None:
        bench = Bench()
        before = [bench.read_config(register) for register in (0, 8, 0x2C)]
        for register in (0, 8, 0x2C):
            bench.write_config(register, 0xFFFFFFFF)
        assert [bench.read_config(register) for register in (0, 8, 0x2C)] == before

    def test_only_the_function_that_is_there_answers(self) -> None:
        bench = Bench()
        assert bench.config_read(DEVFN + 1, 0) == 0xFFFFFFFF
        assert bench.platform.claimed[PCI] == [(DEVFN, DEVFN)]

    def test_a_pin_that_does_not_exist_is_an_error(self) -> None:
        with pytest.raises(DeclarationError, match="interrupt pin 5"):
            PciIdentity(vendor=1, device=1, class_code=0, pin=5)


class TestBarSizing:
    @pytest.mark.parametrize(("register", "size", "flags"), [(BAR0, 0x1000, 0), (BAR0 + 4, 16, 1)])
    def test_all_ones_read_back_as_size_and_type(
        self, register: int, size: int, flags: int
    ) -> None:
        bench = Bench()
        assert bench.read_config(register) == flags
        bench.write_config(register, 0xFFFFFFFF)
        assert bench.read_config(register) == -size & 0xFFFFFFFF | flags
        bench.write_config(register, 0)
        assert bench.read_config(register) == flags

    def test_a_64_bit_bar_takes_two_registers(self) -> None:
        bench = Bench()
        bench.write_config(BAR0 + 8, 0xFFFFFFFF)
        bench.write_config(BAR0 + 12, 0xFFFFFFFF)
        assert bench.read_config(BAR0 + 8) == 0xC
        assert bench.read_config(BAR0 + 12) == 0xFFFFFFFF

    def test_bars_that_are_not_there_and_the_rom_stay_zero(self) -> None:
        bench = Bench()
        for register in (BAR0 + 16, BAR0 + 20, 0x30):
            bench.write_config(register, 0xFFFFFFFF)
            assert bench.read_config(register) == 0

    def test_sizing_by_bytes_works_too(self) -> None:
        bench = Bench()
        for byte in range(4):
            bench.write_config(BAR0 + byte, 0xFF, 1)
        assert bench.read_config(BAR0) == 0xFFFFF000

    def test_sizing_while_decoding_claims_nothing_of_it(self) -> None:
        bench = Bench()
        bench.write_config(COMMAND, IO | MEM, 2)
        bench.write_config(BAR0, 0xFFFFFFFF)
        bench.write_config(BAR0 + 4, 0xFFFFFFFF)
        assert bench.platform.claimed[PORT] == bench.platform.claimed[MEMORY] == []


class TestDecoding:
    def test_nothing_is_decoded_before_the_command_register_says_so(self) -> None:
        bench = Bench()
        bench.write_config(BAR0, 0xE0000000)
        bench.write_config(BAR0 + 4, 0xC000)
        assert bench.platform.claimed[MEMORY] == bench.platform.claimed[PORT] == []
        bench.write_config(COMMAND, MEM, 2)
        assert bench.platform.claimed[MEMORY] == [(0xE0000000, 0xE0000FFF)]
        assert bench.platform.claimed[PORT] == []
        bench.write_config(COMMAND, IO, 2)
        assert bench.platform.claimed[MEMORY] == []
        assert bench.platform.claimed[PORT] == [(0xC000, 0xC00F)]

    def test_a_bar_that_moves_takes_its_registers_along(self) -> None:
        bench = Bench()
        bench.write_config(COMMAND, MEM, 2)
        bench.write_config(BAR0, 0xE0000000)
        bench.store(0xE0000100, 0x11223344)
        bench.write_config(BAR0, 0xE0800000)
        assert bench.load(0xE0800100) == 0x11223344
        assert bench.load(0xE0000100) == 0xFFFFFFFF

    def test_a_bar_at_zero_or_at_the_end_of_the_space_is_nowhere(self) -> None:
        bench = Bench()
        bench.write_config(COMMAND, IO | MEM, 2)
        bench.write_config(BAR0, 0xFFFFF000)
        bench.write_config(BAR0 + 4, 0x10000)
        assert bench.platform.claimed[MEMORY] == bench.platform.claimed[PORT] == []

    def test_a_64_bit_bar_is_placed_above_4_gib(self) -> None:
        bench = Bench()
        bench.write_config(COMMAND, MEM, 2)
        bench.write_config(BAR0 + 12, 0x10)
        assert bench.platform.claimed[MEMORY] == [(0x10_0000_0000, 0x10_FFFF_FFFF)]
        bench.store(0x10_0000_0000, 0x5A)
        assert bench.load(0x10_0000_0000) == 0x5A

    def test_a_bar_over_a_fixed_window_loses(self) -> None:
        class Fixed(Device):
            window = MmioWindow(Window, at=0xE0000800)

        bench = Bench(Fixed("fixed"))
        bench.store(0xE0000900, 0xF1ED)
        bench.write_config(COMMAND, MEM, 2)
        bench.write_config(BAR0, 0xE0000000)
        bench.store(0xE0000100, 0xCA4D)
        assert (bench.load(0xE0000900), bench.load(0xE0000100)) == (0xF1ED, 0xCA4D)
        assert bench.platform.claimed[MEMORY] == [(0xE0000000, 0xE00017FF)]

    def test_memory_that_another_window_hides_is_not_moved_with_the_rest(self) -> None:
        class Hiding(Bank, size=16, width=32):
            data = Register.at(0, reset=0x55555555)

        class Above(Device):
            window = MmioWindow(Hiding, at=0xE0000180)

        bench = Bench(Above("above"))
        bench.write_config(COMMAND, MEM, 2)
        bench.write_config(BAR0, 0xE0000000)
        bus = bench.machine.bus
        bus.write_block(MEMORY, 0xE0000100, 4, 4, b"\xaa" * 0x100)
        assert bench.load(0xE0000180) == 0xAAAAAAAA
        assert bytes(bench.card.window.memory[0x80:0x90]) == bytes(16)
        block = bus.read_block(MEMORY, 0xE0000100, 4, 64, 4)
        assert block[0x80:0x84] == b"\xaa" * 4
        assert block[0x84:0x90] == b"\xff" * 12


class TestClaims:
    def test_only_what_changes_is_asked_for(self) -> None:
        bench = Bench()
        calls: list[tuple[str, int, int, int]] = []
        claim, release = bench.platform.claim, bench.platform.release

        def noted_claim(space: int, first: int, last: int) -> None:
            calls.append(("claim", space, first, last))
            claim(space, first, last)

        def noted_release(space: int, first: int, last: int) -> None:
            calls.append(("release", space, first, last))
            release(space, first, last)

        bench.platform.claim = noted_claim  # type: ignore[method-assign]
        bench.platform.release = noted_release  # type: ignore[method-assign]
        bench.write_config(COMMAND, MEM, 2)
        bench.write_config(BAR0, 0xE0000000)
        bench.write_config(BAR0, 0xE0000000)
        bench.write_config(COMMAND, MEM | MASTER, 2)
        bench.write_config(BAR0, 0xE0001000)
        bench.machine.reset()
        assert calls == [
            ("claim", MEMORY, 0xE0000000, 0xE0000FFF),
            ("release", MEMORY, 0xE0000000, 0xE0000FFF),
            ("claim", MEMORY, 0xE0001000, 0xE0001FFF),
            ("release", MEMORY, 0xE0001000, 0xE0001FFF),
        ]

    def test_a_claim_that_is_refused_is_counted_and_tried_again_with_the_next_move(self) -> None:
        bench = Bench()
        claim = bench.platform.claim

        def refuse(space: int, first: int, last: int) -> None:
            raise HostError("no more ranges", 12)

        bench.platform.claim = refuse  # type: ignore[method-assign]
        bench.write_config(COMMAND, MEM, 2)
        bench.write_config(BAR0, 0xE0000000)
        assert bench.machine.errors == 1
        assert bench.machine.spaces.claimed(MEMORY) == []
        bench.platform.claim = claim  # type: ignore[method-assign]
        bench.write_config(BAR0, 0xE0002000)
        assert bench.machine.spaces.claimed(MEMORY) == [(0xE0002000, 0xE0002FFF)]


class TestCapabilities:
    def test_the_chain_leads_through_all_of_them(self) -> None:
        bench = Bench()
        assert bench.read_config(STATUS, 2) & 0x10
        found, pointer = [], bench.read_config(0x34, 1)
        while pointer:
            identity, following = bench.read_config(pointer, 1), bench.read_config(pointer + 1, 1)
            found.append((pointer, identity))
            pointer = following
        assert found == [(0x40, 5), (0x60, 9)]

    def test_a_function_without_any_has_no_chain(self) -> None:
        class Plain(PciDevice):
            identity = PciIdentity(vendor=1, device=2, class_code=0)

        bench = TestBench(Plain("plain", addr="4"))
        assert bench.config_read(DEVFN, STATUS, 2) & 0x10 == 0
        assert bench.config_read(DEVFN, 0x34, 1) == 0

    @pytest.mark.parametrize("offset", [0x3C, 0x41, 0xFC, 0x100])
    def test_a_capability_that_cannot_stand_there_is_an_error(self, offset: int) -> None:
        with pytest.raises(DeclarationError, match="cannot stand"):
            MsiCapability(offset)

    def test_capabilities_that_overlap_are_an_error(self) -> None:
        with pytest.raises(DeclarationError, match="overlaps"):

            class Twice(PciDevice):
                identity = PciIdentity(vendor=1, device=2, class_code=0)
                capabilities = (MsiCapability(0x40), MsiCapability(0x44))

    def test_only_the_writable_bits_of_msi_are_written(self) -> None:
        bench = Bench()
        for register in range(0x40, 0x50, 4):
            bench.write_config(register, 0xFFFFFFFF)
        assert bench.read_config(0x42, 2) == 0x0081
        assert bench.read_config(0x44) == 0xFFFFFFFC
        assert bench.read_config(0x48) == 0xFFFFFFFF
        assert bench.read_config(0x4C, 2) == 0xFFFF


class TestInterrupts:
    def prepared(self, command: int = MEM | MASTER) -> Bench:
        bench = Bench()
        bench.write_config(BAR0, 0xE0000000)
        bench.write_config(COMMAND, command, 2)
        return bench

    def enable_msi(self, bench: Bench) -> None:
        bench.write_config(0x44, 0xFEE01000)
        bench.write_config(0x48, 0x1)
        bench.write_config(0x4C, 0x4041, 2)
        bench.write_config(0x42, 1, 2)

    def test_the_pin_follows_the_request(self) -> None:
        bench = self.prepared()
        bench.store(0xE0000000, 1)
        assert (bench.line, bench.read_config(STATUS, 2) & 8) == (1, 8)
        bench.store(0xE0000000, 0)
        assert (bench.line, bench.read_config(STATUS, 2) & 8) == (0, 0)

    def test_interrupt_disable_holds_the_pin_but_not_the_status(self) -> None:
        bench = self.prepared(MEM | MASTER | NO_INTX)
        bench.store(0xE0000000, 1)
        assert (bench.line, bench.read_config(STATUS, 2) & 8) == (0, 8)
        bench.write_config(COMMAND, MEM, 2)
        assert bench.line == 1
        bench.write_config(COMMAND, MEM | NO_INTX, 2)
        assert bench.line == 0

    def test_with_msi_each_rising_edge_is_one_message_and_the_pin_rests(self) -> None:
        bench = self.prepared()
        self.enable_msi(bench)
        for _ in range(2):
            bench.store(0xE0000000, 1)
            bench.store(0xE0000000, 1)
            bench.store(0xE0000000, 0)
        assert bench.platform.msis == [(0x1FEE01000, 0x4041)] * 2
        assert bench.line == 0

    def test_enabling_msi_lowers_a_pin_that_was_high(self) -> None:
        bench = self.prepared()
        bench.store(0xE0000000, 1)
        self.enable_msi(bench)
        assert (bench.line, bench.platform.msis) == (0, [])
        bench.write_config(0x42, 0, 2)
        assert bench.line == 1

    def test_a_function_that_may_not_master_the_bus_sends_no_message(self) -> None:
        bench = self.prepared(MEM)
        self.enable_msi(bench)
        bench.store(0xE0000000, 1)
        assert bench.platform.msis == []

    def test_a_load_drives_the_pin_and_repeats_no_message(self) -> None:
        bench = self.prepared()
        self.enable_msi(bench)
        bench.store(0xE0000000, 1)
        bench.machine.after_load()
        assert len(bench.platform.msis) == 1
        bench.write_config(0x42, 0, 2)
        bench.platform.intx.clear()
        bench.machine.after_load()
        assert bench.line == 1

    def test_a_reset_lowers_the_pin(self) -> None:
        bench = self.prepared()
        bench.store(0xE0000000, 1)
        bench.machine.reset()
        assert bench.line == 0


class TestPlaces:
    def test_functions_that_ask_for_no_place_get_free_slots(self) -> None:
        bench = TestBench(Card("a"), Card("b", addr="1"), Card("c"))
        assert [function.devfn for function in bench.machine.functions()] == [0x10, 0x08, 0x18]

    @pytest.mark.parametrize("addr", ["20", "1.8", "x", "1.x", "-1", "1.1.1"])
    def test_a_place_that_is_not_on_the_bus_is_refused(self, addr: str) -> None:
        with pytest.raises(ConfigError, match="addr="):
            TestBench(Card("card", addr=addr))

    def test_a_place_that_is_taken_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"b: 4\.0 belongs to a"):
            TestBench(Card("a", addr="4"), Card("b", addr="4.0"))

    def test_a_full_bus_is_an_error(self) -> None:
        with pytest.raises(ConfigError, match="PCI bus 0 is full"):
            TestBench(*(Card(f"card{n}") for n in range(32)))

    def test_addresses_are_hexadecimal(self) -> None:
        bench = TestBench(Card("card", addr="1f.7"))
        assert bench.config_read(0xFF, 0) == 0x56781234


class TestMistakes:
    def test_two_windows_behind_one_bar(self) -> None:
        with pytest.raises(DeclarationError, match="two windows want bar1"):

            class Twice(PciDevice):
                identity = PciIdentity(vendor=1, device=2, class_code=0)
                wide = MmioBar(Window, 0, bits=64)
                ports = PortBar(Ports, 1)

    def test_registers_of_ones_own_lie_beside_the_header(self) -> None:
        class OwnConfig(PciConfig):
            scratch = Register.at(0x44, width=32, access=RW)

        class Own(PciDevice):
            identity = PciIdentity(vendor=1, device=2, class_code=0)
            config = PciWindow(OwnConfig)

        bench = TestBench(Own("own", addr="4"))
        bench.config_write(DEVFN, 0x44, 0xCAFE)
        assert bench.config_read(DEVFN, 0x44) == 0xCAFE

        with pytest.raises(DeclarationError, match="overlaps"):

            class Over(PciConfig):
                scratch = Register.at(0x3E, width=32)
