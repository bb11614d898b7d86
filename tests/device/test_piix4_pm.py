"""Power management: PM1a_CNT, the APM ports, GPE0 and the SCI, PCI and CPU hotplug."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.piix4_pm import MAX_VCPUS, Piix4Pm
from dm.device.platform import PORT
from dm.errors import ConfigError
from dm.machine.fakes import TestBench

from .support import restored

DEVFN = 1 << 3 | 3
CONTROL = 0xB004
STATUS, ENABLE = 0xAFE0, 0xAFE2
PCI_EVENT, CPU_EVENT = 1 << 1, 1 << 2
SLEEP_ENABLE = 1 << 13
SCI = 9


def with_pm_base(*, cpus: int = 1) -> tuple[TestBench, Piix4Pm]:
    """A function whose PM block is where hvmloader puts it."""
    device = Piix4Pm(cpus=cpus)
    bench = TestBench(device)
    bench.config_write(DEVFN, 0x40, 0xB001)
    bench.config_write(DEVFN, 0x80, 0x01, 1)
    return bench, device


@pytest.fixture
def bench() -> TestBench:
    return with_pm_base()[0]


class TestConfiguration:
    def test_hvmloader_finds_the_function_that_it_asserts(self, bench: TestBench) -> None:
        assert bench.config_read(DEVFN, 0x00) == 0x71138086
        assert bench.config_read(DEVFN, 0x0A, 2) == 0x0680
        assert bench.config_read(DEVFN, 0x08, 1) == 3

    def test_it_interrupts_by_pin_a_on_irq_9(self, bench: TestBench) -> None:
        assert bench.config_read(DEVFN, 0x3C, 2) == 0x0109

    def test_only_the_control_register_of_the_pm_block_is_claimed(self, bench: TestBench) -> None:
        claimed = [r for r in bench.platform.claimed[PORT] if 0xB000 <= r[0] <= 0xB03F]
        assert claimed == [(0xB004, 0xB005)]

    def test_nothing_of_the_pm_block_is_claimed_before_it_is_enabled(self) -> None:
        bench = TestBench(Piix4Pm())
        bench.config_write(DEVFN, 0x40, 0xB001)
        assert bench.read(CONTROL, 2) == 0xFFFF
        assert all(first < 0xB000 for first, _ in bench.platform.claimed[PORT])

    def test_the_pm_block_moves_with_its_base(self, bench: TestBench) -> None:
        bench.config_write(DEVFN, 0x40, 0x00001F41)
        assert bench.read(0x1F44, 2) == 0
        assert bench.read(CONTROL, 2) == 0xFFFF
        assert (0x1F44, 0x1F45) in bench.platform.claimed[PORT]

    def test_the_pm_block_goes_with_its_enable_bit(self, bench: TestBench) -> None:
        bench.config_write(DEVFN, 0x80, 0x00, 1)
        assert bench.read(CONTROL, 2) == 0xFFFF

    def test_a_base_of_zero_is_nowhere(self, bench: TestBench) -> None:
        bench.config_write(DEVFN, 0x40, 0x00000001)
        assert all(first > 0x04 for first, _ in bench.platform.claimed[PORT])

    def test_a_restore_finds_the_pm_block_where_it_was(self) -> None:
        bench, _ = with_pm_base()
        bench.write(CONTROL, 0x0001, 2)
        other = restored(bench, Piix4Pm())
        assert other.read(CONTROL, 2) == 0x0001
        assert (0xB004, 0xB005) in other.platform.claimed[PORT]


class TestControl:
    def test_hvmloader_sets_sci_en_by_the_apm_port(self, bench: TestBench) -> None:
        assert bench.read(CONTROL) & 1 == 0
        bench.write(0xB2, 0xF1)
        assert bench.read(CONTROL) & 1 == 1

    def test_the_apm_port_clears_sci_en(self, bench: TestBench) -> None:
        bench.write(0xB2, 0xF1)
        bench.write(0xB2, 0xF0)
        assert bench.read(CONTROL) & 1 == 0

    def test_other_apm_commands_change_nothing(self, bench: TestBench) -> None:
        bench.write(0xB2, 0xF1)
        bench.write(0xB2, 0x42)
        assert bench.read(CONTROL, 2) == 1
        assert bench.read(0xB2) == 0x42

    def test_apm_registers_are_kept(self, bench: TestBench) -> None:
        bench.write(0xB2, 0xABCD, 2)
        assert (bench.read(0xB2), bench.read(0xB3)) == (0xCD, 0xAB)

    @pytest.mark.parametrize("kind", [0, 2])
    def test_soft_off_and_suspend_to_disk_end_the_guest(self, bench: TestBench, kind: int) -> None:
        bench.write(CONTROL, kind << 10 | SLEEP_ENABLE | 1, 2)
        assert bench.platform.shutdowns == ["poweroff"]
        assert bench.platform.suspends == 0

    def test_suspend_to_ram_suspends(self, bench: TestBench) -> None:
        bench.write(CONTROL, 1 << 10 | SLEEP_ENABLE | 1, 2)
        assert bench.platform.suspends == 1
        assert bench.platform.shutdowns == []

    @pytest.mark.parametrize("kind", range(3, 8))
    def test_other_sleep_types_do_nothing(self, bench: TestBench, kind: int) -> None:
        bench.write(CONTROL, kind << 10 | SLEEP_ENABLE, 2)
        assert bench.platform.shutdowns == []
        assert bench.platform.suspends == 0

    def test_a_sleep_type_alone_does_nothing(self, bench: TestBench) -> None:
        bench.write(CONTROL, 0x1C01, 2)
        assert bench.platform.shutdowns == []
        assert bench.read(CONTROL, 2) == 0x1C01

    def test_sleep_enable_reads_as_zero(self, bench: TestBench) -> None:
        bench.write(CONTROL, 7 << 10 | SLEEP_ENABLE | 1, 2)
        assert bench.read(CONTROL, 2) == 7 << 10 | 1

    def test_the_high_byte_alone_can_put_the_guest_to_sleep(self, bench: TestBench) -> None:
        bench.write(0xB2, 0xF1)
        bench.write(CONTROL + 1, SLEEP_ENABLE >> 8)
        assert bench.platform.shutdowns == ["poweroff"]
        assert bench.read(CONTROL, 2) == 1


class TestGpe0:
    def test_status_and_enables_read_as_zero_after_reset(self, bench: TestBench) -> None:
        assert bench.read(STATUS, 4) == 0

    def test_enables_are_kept(self, bench: TestBench) -> None:
        bench.write(ENABLE, 0x5A)
        bench.write(ENABLE + 1, 0xA5)
        assert bench.read(ENABLE, 2) == 0xA55A

    def test_an_event_raises_the_sci_only_when_enabled(self) -> None:
        bench, device = with_pm_base(cpus=1)
        device.plug_vcpu(1)
        assert bench.read(STATUS) == CPU_EVENT
        assert bench.platform.isa[SCI] == 0
        bench.write(ENABLE, CPU_EVENT)
        assert bench.platform.isa[SCI] == 1

    def test_clearing_the_status_lowers_the_sci(self) -> None:
        bench, device = with_pm_base(cpus=1)
        bench.write(ENABLE, CPU_EVENT | PCI_EVENT)
        device.plug_vcpu(1)
        assert bench.platform.isa[SCI] == 1
        bench.write(STATUS, PCI_EVENT)
        assert bench.platform.isa[SCI] == 1
        bench.write(STATUS, CPU_EVENT)
        assert bench.platform.isa[SCI] == 0

    def test_the_status_cannot_be_set_by_the_guest(self, bench: TestBench) -> None:
        bench.write(ENABLE, 0xFFFF, 2)
        bench.write(STATUS, 0xFFFF, 2)
        bench.write(STATUS, 0x0000, 2)
        assert bench.read(STATUS, 2) == 0
        assert bench.platform.isa[SCI] == 0

    def test_an_sci_that_xen_dropped_is_raised_again_at_the_next_gpe_access(self) -> None:
        bench, device = with_pm_base(cpus=1)
        bench.write(ENABLE, CPU_EVENT | PCI_EVENT)
        device.plug_vcpu(1)
        bench.platform.isa[SCI] = 0
        bench.write(STATUS, PCI_EVENT)
        assert bench.platform.isa[SCI] == 1

    def test_the_sci_is_derived_again_after_a_restore(self) -> None:
        bench, device = with_pm_base(cpus=1)
        bench.write(ENABLE, CPU_EVENT)
        device.plug_vcpu(1)
        other = restored(bench, Piix4Pm(cpus=1))
        assert other.platform.isa[SCI] == 1
        other.write(STATUS, CPU_EVENT)
        assert other.platform.isa[SCI] == 0

    def test_a_reset_lowers_the_sci(self) -> None:
        bench, device = with_pm_base(cpus=1)
        bench.write(ENABLE, CPU_EVENT)
        device.plug_vcpu(1)
        bench.machine.reset()
        assert bench.platform.isa[SCI] == 0


class TestCpuHotplug:
    @given(st.integers(1, MAX_VCPUS))
    def test_the_bitmap_has_the_vcpus_of_the_start(self, cpus: int) -> None:
        bench, device = with_pm_base(cpus=cpus)
        bitmap = sum(bench.read(0xAF00 + index) << 8 * index for index in range(32))
        assert bitmap == (1 << cpus) - 1
        assert device.online == list(range(cpus))

    def test_a_plugged_vcpu_is_in_the_bitmap_and_raises_gpe_2(self) -> None:
        bench, device = with_pm_base(cpus=2)
        bench.write(ENABLE, CPU_EVENT)
        assert device.plug_vcpu(9)
        assert bench.read(0xAF00) == 0b11
        assert bench.read(0xAF01) == 0b10
        assert device.online == [0, 1, 9]
        assert bench.platform.isa[SCI] == 1

    def test_a_vcpu_that_is_there_already_raises_nothing(self) -> None:
        bench, device = with_pm_base(cpus=2)
        assert not device.plug_vcpu(1)
        assert bench.read(STATUS) == 0

    def test_the_guest_cannot_change_the_bitmap(self) -> None:
        bench, device = with_pm_base(cpus=2)
        bench.write(0xAF00, 0)
        assert device.online == [0, 1]

    def test_only_bytes_are_read(self) -> None:
        bench, _ = with_pm_base(cpus=16)
        assert bench.read(0xAF00, 2) == 0

    @pytest.mark.parametrize("vcpu", [-1, MAX_VCPUS])
    def test_a_vcpu_that_cannot_be_is_refused(self, vcpu: int) -> None:
        _, device = with_pm_base()
        with pytest.raises(ConfigError, match="no vCPU"):
            device.plug_vcpu(vcpu)

    @pytest.mark.parametrize("cpus", [0, MAX_VCPUS + 1])
    def test_a_number_of_vcpus_that_cannot_be_is_refused(self, cpus: int) -> None:
        with pytest.raises(ConfigError, match="cpus="):
            TestBench(Piix4Pm(cpus=cpus))

    def test_plugged_vcpus_survive_a_restore(self) -> None:
        bench, device = with_pm_base(cpus=1)
        device.plug_vcpu(3)
        other = Piix4Pm(cpus=1)
        restored(bench, other)
        assert other.online == [0, 3]


class TestPciHotplug:
    def test_no_slot_came_or_goes_and_all_but_the_fixed_may_go(self, bench: TestBench) -> None:
        assert [bench.read(0xAE00 + at, 4) for at in (0, 4, 8, 12)] == [0, 0, 0, 0xFFFFFFFC]

    def test_a_plugged_slot_raises_gpe_1_and_stays_up_for_each_read(self) -> None:
        bench, device = with_pm_base()
        bench.write(ENABLE, PCI_EVENT)
        device.plug_slot(5)
        assert bench.platform.isa[SCI] == 1
        assert bench.read(0xAE00, 4) == 1 << 5
        assert bench.read(0xAE00, 4) == 1 << 5

    def test_an_ejected_slot_is_reported_and_its_bits_are_cleared(self) -> None:
        bench, device = with_pm_base()
        ejected: list[int] = []
        device.ejected = ejected.append
        device.plug_slot(5)
        device.unplug_slot(5)
        device.unplug_slot(6)
        assert bench.read(0xAE04, 4) == 0b11 << 5
        bench.write(0xAE08, 1 << 5, 4)
        assert ejected == [5]
        assert bench.read(0xAE00, 4) == 0
        assert bench.read(0xAE04, 4) == 1 << 6

    def test_an_eject_of_several_slots_takes_the_lowest(self) -> None:
        bench, device = with_pm_base()
        ejected: list[int] = []
        device.ejected = ejected.append
        bench.write(0xAE08, 0xFFFFFFFC, 4)
        assert ejected == [2]

    @pytest.mark.parametrize("value", [0, 0b11, 0xFFFFFFFF])
    def test_a_fixed_slot_is_not_ejected(self, value: int) -> None:
        bench, device = with_pm_base()
        ejected: list[int] = []
        device.ejected = ejected.append
        bench.write(0xAE08, value, 4)
        assert ejected == []

    @pytest.mark.parametrize("slot", [-1, 0, 1, 32])
    def test_a_slot_that_cannot_be_plugged_is_refused(self, slot: int) -> None:
        _, device = with_pm_base()
        with pytest.raises(ConfigError, match="slot"):
            device.plug_slot(slot)
        with pytest.raises(ConfigError, match="slot"):
            device.unplug_slot(slot)
