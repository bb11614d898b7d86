"""Declared state, options, timers, lines and character plugs of a device."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dm import (
    Bank,
    Character,
    ConfigError,
    DeclarationError,
    Device,
    Fifo,
    IsaLine,
    Memory,
    Option,
    PortWindow,
    Register,
    Timer,
    Transient,
    Word,
)
from dm.machine.fakes import FakeCharacter, TestBench


class Ports(Bank, size=4, width=8):
    level = Register.at(0)
    fault = Register.at(1)


class Everything(Device):
    base = Option(int, 0x300, "first port")
    irq = Option(int, 5, "interrupt")
    fast = Option(bool, False, "be fast")
    title = Option(str, "none", "name")
    ports = PortWindow(Ports, at=base)
    word = Word(13, reset=7)
    memory_area = Memory(8)
    queue = Fifo(4)
    first = Timer()
    second = Timer()
    line = IsaLine(irq)
    plug = Character()
    notes = Transient()

    def on_reset(self) -> None:
        self.notes = []

    @first.expired
    def _first(self) -> None:
        self.notes.append(("first", self.now()))
        if self.ports.fault.value == 1:
            self.second.stop()
        if self.ports.fault.value == 2:
            self.second.start_in(1000)
        if self.ports.fault.value == 3:
            self.ports.level.value = 1
            raise ZeroDivisionError
        if self.ports.fault.value == 4:
            self.first.start_in(0)

    @second.expired
    def _second(self) -> None:
        self.notes.append(("second", self.now()))

    @line.level
    def _level(self) -> bool:
        return bool(self.ports.level.value)

    @plug.received
    def _received(self, data: bytes) -> None:
        self.notes.append(("received", data))
        self.ports.level.value = 1
        if self.ports.fault.value:
            raise ZeroDivisionError

    @plug.room
    def _room(self) -> int:
        if self.ports.fault.value == 2:
            raise ZeroDivisionError
        return 3


def made(**options: object) -> tuple[TestBench, Everything]:
    device = Everything("device", **options)
    return TestBench(device), device


class TestState:
    def test_a_word_keeps_what_fits(self) -> None:
        _, device = made()
        assert device.word == 7
        device.word = 0x1FFF
        assert device.word == 0x1FFF

    @pytest.mark.parametrize("value", [0x2000, -1])
    def test_a_word_refuses_what_does_not_fit(self, value: int) -> None:
        _, device = made()
        with pytest.raises(ValueError, match="does not fit into 13 bits"):
            device.word = value

    @pytest.mark.parametrize(("bits", "reset"), [(0, 0), (65, 0), (4, 16), (4, -1)])
    def test_an_impossible_word_is_an_error_of_the_class(self, bits: int, reset: int) -> None:
        with pytest.raises(DeclarationError, match="does not fit into"):

            class Wrong(Device):
                word = Word(bits, reset=reset)

    def test_memory_and_fifo_need_a_length(self) -> None:
        with pytest.raises(DeclarationError, match="memory of 0 bytes"):

            class NoMemory(Device):
                area = Memory(0)

        with pytest.raises(DeclarationError, match="memory of 0 bytes"):

            class NoQueue(Device):
                queue = Fifo(0)

    def test_an_attribute_that_nobody_declared_is_refused(self) -> None:
        _, device = made()
        with pytest.raises(AttributeError, match="is not declared"):
            device.wrod = 1
        with pytest.raises(AttributeError, match="is not declared"):
            device.base = 1
        with pytest.raises(AttributeError, match="is not declared"):
            device.queue = 1  # type: ignore[assignment]

    def test_a_declaration_cannot_be_replaced_by_something_else(self) -> None:
        with pytest.raises(DeclarationError, match="replaces a declaration"):

            class Wrong(Everything):
                word = 5

    @pytest.mark.parametrize("name", ["memory", "platform", "now", "settle", "name", "windows"])
    def test_a_declaration_cannot_have_a_name_of_the_kits(self, name: str) -> None:
        with pytest.raises(DeclarationError, match="the kit's own"):
            type("Wrong", (Device,), {name: Word(8)})

    def test_two_machines_have_the_same_layout(self) -> None:
        (one, _), (two, _) = made(), made()
        assert one.machine.buffer == two.machine.buffer
        assert one.machine.state_size() % 8 == 0


@given(
    st.lists(st.one_of(st.integers(0, 255), st.just("pop"), st.just("clear"))),
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 0xFFFFFFFF),
)
def test_a_fifo_is_a_bounded_queue_whatever_a_saved_state_says(
    deeds: list[int | str], head: int, count: int
) -> None:
    _, device = made()
    queue = device.queue
    for name, value in (("queue.head", head), ("queue.count", count)):
        view, index = device.cells.typed(name)
        view[index] = value
    model = deque([0] * min(count, 4))
    for deed in deeds:
        if deed == "clear":
            queue.clear()
            model.clear()
        elif deed == "pop":
            if not model:
                with pytest.raises(IndexError):
                    queue.pop()
            else:
                assert queue.pop() == model.popleft()
        else:
            assert isinstance(deed, int)
            assert queue.push(deed) == (len(model) < 4)
            if len(model) < 4:
                model.append(deed)
        assert (len(queue), queue.room) == (len(model), 4 - len(model))
        assert not model or queue.peek() == model[0]


class TestOptions:
    @pytest.mark.parametrize(
        ("text", "value"), [("12", 12), ("0x30", 0x30), ("-1", -1), ("0b11", 3)]
    )
    def test_numbers(self, text: str, value: int) -> None:
        assert Everything("device", irq=text).irq == value

    @pytest.mark.parametrize("text", ["", "x", "1.5", "0x", "12 apples", "9" * 5000])
    def test_what_is_no_number_is_one_error(self, text: str) -> None:
        with pytest.raises(ConfigError, match=r"option irq: .* is not a number"):
            Everything("device", irq=text)

    @pytest.mark.parametrize(
        ("text", "value"), [("on", True), ("yes", True), ("off", False), ("false", False)]
    )
    def test_switches(self, text: str, value: bool) -> None:
        assert Everything("device", fast=text).fast is value

    def test_what_is_no_switch_is_one_error(self) -> None:
        with pytest.raises(ConfigError, match="neither on nor off"):
            Everything("device", fast="maybe")

    def test_text_is_taken_as_it_is(self) -> None:
        assert Everything("device", title="0x10").title == "0x10"

    def test_an_unknown_option_is_named_with_those_there_are(self) -> None:
        with pytest.raises(ConfigError, match=r"no option 'speed'.*base, irq, fast, title"):
            Everything("device", speed=1)

    def test_an_interrupt_that_does_not_exist_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="no ISA interrupt 16"):
            made(irq=16)
        with pytest.raises(DeclarationError, match="no ISA interrupt 16"):
            IsaLine(16)

    def test_two_devices_of_one_name_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="two devices named 'device'"):
            TestBench(Everything("device"), Everything("device", base=0x400))


class TestTimers:
    def test_they_fire_once_at_their_time_earliest_first(self) -> None:
        bench, device = made()
        device.second.start_in(500)
        device.first.start_in(1000)
        bench.advance(2000)
        assert device.notes == [("second", 500), ("first", 1000)]
        assert not device.first.armed

    def test_a_stopped_timer_does_not_fire_even_when_it_is_due_as_well(self) -> None:
        bench, device = made()
        device.ports.fault.value = 1
        device.first.start_in(500)
        device.second.start_in(500)
        bench.advance(2000)
        assert device.notes == [("first", 500)]

    def test_a_timer_that_is_started_again_while_it_is_due_fires_once_at_the_new_time(self) -> None:
        bench, device = made()
        device.ports.fault.value = 2
        device.first.start_in(500)
        device.second.start_in(500)
        bench.advance(5000)
        assert device.notes == [("first", 500), ("second", 1500)]

    def test_a_timer_that_starts_itself_for_now_does_not_hold_the_machine_up(self) -> None:
        bench, device = made()
        device.ports.fault.value = 4
        device.first.start_in(0)
        bench.machine.run_timers()
        assert len(device.notes) == 1
        assert device.first.armed

    def test_a_timer_that_raises_is_contained_and_the_line_is_settled(self) -> None:
        bench, device = made()
        device.ports.fault.value = 3
        device.first.start_in(1)
        bench.advance(10)
        assert (bench.machine.errors, bench.platform.isa[5]) == (1, 1)

    @pytest.mark.parametrize("deadline", [-5, 1 << 70])
    def test_a_deadline_stays_within_its_cell(self, deadline: int) -> None:
        _, device = made()
        device.first.start_at(deadline)
        assert 0 <= device.first.deadline < 1 << 64

    def test_a_timer_without_a_handler_is_an_error(self) -> None:
        class Wrong(Device):
            timer = Timer()

        with pytest.raises(DeclarationError, match="nothing handles it"):
            TestBench(Wrong())


class TestLines:
    def test_the_level_follows_state_and_is_driven_when_it_changes_only(self) -> None:
        bench, _ = made()
        levels: list[int] = []
        drive = bench.platform.set_isa_irq
        assert bench.platform.isa == {5: 0}
        bench.platform.isa.clear()
        for value in (1, 2, 0, 0):
            bench.write(0x300, value)
            levels.append(bench.platform.isa.pop(5, -1))
        assert levels == [1, -1, 0, -1]
        assert drive is not None

    def test_the_level_is_derived_again_from_restored_cells(self) -> None:
        bench, _ = made()
        bench.write(0x300, 1)
        other, _ = made()
        other.machine.buffer[:] = bench.machine.buffer
        other.machine.after_load()
        assert other.platform.isa[5] == 1

    def test_a_line_without_a_level_is_an_error(self) -> None:
        class Wrong(Device):
            line = IsaLine(3)

        with pytest.raises(DeclarationError, match="has no level method"):
            TestBench(Wrong())


class TestHandlers:
    def test_a_handler_of_another_classes_register_is_an_error(self) -> None:
        class Other(Bank, size=4, width=8):
            data = Register.at(0)

        with pytest.raises(DeclarationError, match="foreign register"):

            class Wrong(Device):
                ports = PortWindow(Ports, at=0)

                @Other.data.on_write
                def _write(self, new: int, old: int) -> None: ...

    def test_a_handler_of_another_classes_timer_or_line_is_an_error(self) -> None:
        with pytest.raises(DeclarationError, match="does not declare"):

            class WrongTimer(Device):
                @Everything.first.expired
                def _fire(self) -> None: ...

        with pytest.raises(DeclarationError, match="does not declare"):

            class WrongLine(Device):
                @Everything.line.level
                def _level(self) -> bool:
                    return False

        with pytest.raises(DeclarationError, match="does not declare"):

            class WrongPlug(Device):
                @Everything.plug.received  # type: ignore[attr-defined, untyped-decorator]
                def _received(self, data: bytes) -> None: ...

    def test_two_handlers_of_one_event_are_an_error(self) -> None:
        with pytest.raises(DeclarationError, match="_one and _two handle the same event"):

            class Wrong(Device):
                ports = PortWindow(Ports, at=0)

                @Ports.level.on_write
                def _one(self, new: int, old: int) -> None: ...

                @Ports.level.on_write
                def _two(self, new: int, old: int) -> None: ...

    def test_a_subclass_may_override_a_handler_by_its_name(self) -> None:
        class Later(Everything):
            def _first(self) -> None:
                self.notes.append("mine")

        device = Later("device")
        bench = TestBench(device)
        device.first.start_in(1)
        bench.advance(2)
        assert device.notes == ["mine"]


class TestCharacters:
    def test_input_comes_in_pieces_that_there_is_room_for_and_settles_lines(self) -> None:
        bench, device = made()
        host = FakeCharacter()
        device.plug.attach(host)
        host.feed(b"12345")
        assert device.notes == [("received", b"123"), ("received", b"45")]
        assert bench.platform.isa[5] == 1

    @pytest.mark.parametrize("fault", [1, 2])
    def test_a_device_that_raises_on_input_ends_nothing(self, fault: int) -> None:
        bench, device = made()
        host = FakeCharacter()
        device.plug.attach(host)
        device.ports.fault.value = fault
        host.feed(b"1")
        assert bench.machine.errors == 1
        assert bench.platform.isa.get(5) == (1 if fault == 1 else 0)

    def test_input_waits_while_the_machine_stands_still(self) -> None:
        bench, device = made()
        host = FakeCharacter()
        device.plug.attach(host)
        bench.machine.stop()
        host.feed(b"1")
        assert device.notes == []
        bench.machine.start()
        assert device.notes == [("received", b"1")]

    def test_unplugged_output_is_dropped(self) -> None:
        _, device = made()
        assert device.plug.write(b"123") == 3
        assert not device.plug.connected
        host = FakeCharacter()
        host.accepts = 2
        device.plug.attach(host)
        assert device.plug.write(b"123") == 2
        assert host.sent == b"12"
