"""How a vCPU runs, halts, is interrupted, rests and ends, in virtual time unless said otherwise."""

from __future__ import annotations

import struct
import threading
from pathlib import Path

import pytest

from protocol import layouts
from tools.hypervisor.clock import RealClock, VirtualClock
from tools.hypervisor.domain import Domain
from tools.hypervisor.engines.unicorn import UnicornEngine, library, registers
from tools.hypervisor.errors import EngineUnavailable
from tools.hypervisor.hypercalls import Hypercalls
from tools.hypervisor.images import CpuStart
from tools.hypervisor.vcpu_thread import Event

from .machine import CODE, DATA, Guest, assemble, guest
from .test_unicorn_events import PROTECTED

FINISH = "mov $0xf5, %dx; out %eax, %dx; 1: jmp 1b"
COUNTER = DATA + 0x800
LAPIC = 0xFEE00000
KICK = 0x300
"""A port at which the test's device raises ISA interrupt 5."""

PIC = """
    mov $0x11, %al; out %al, $0x20; out %al, $0xa0
    mov $0x20, %al; out %al, $0x21; mov $0x28, %al; out %al, $0xa1
    mov $4, %al; out %al, $0x21; mov $2, %al; out %al, $0xa1
    mov $1, %al; out %al, $0x21; out %al, $0xa1
    mov $0xff, %al; out %al, $0xa1
"""
"""The 8259 pair at vectors 0x20 and 0x28, the second one masked."""


def with_interrupts(mask: int, vector: int, body: str) -> str:
    """A protected-mode guest that counts interrupts of ``vector`` at COUNTER."""
    return f"""{PROTECTED} {PIC}
    mov ${mask}, %al; out %al, $0x21
    gate {vector}, handler
    movl $0, {COUNTER}
    {body}
    handler: incl {COUNTER}; push %eax; mov $0x20, %al; out %al, $0x20; pop %eax; iret"""


class Kicker:
    """A device that gives an edge on an ISA interrupt when a port is written."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        domain.intercepts.add_ports(KICK, KICK, self)

    def read(self, address: int, size: int) -> int | None:
        return None

    def write(self, address: int, size: int, value: int) -> bool:
        for level in (0, 1):
            self.domain.interrupts.set_isa_irq(5, level)
        return True


def counter(made: Guest) -> int:
    value: int = struct.unpack("<I", made.domain.memory.read(COUNTER, 4))[0]
    return value


def test_the_timer_wakes_a_halted_guest(tmp_path: Path) -> None:
    body = f"sti; 2: hlt; cmpl $5, {COUNTER}; jb 2b; cli; jmp finish"
    setup = "mov $0x34, %al; out %al, $0x43; xor %al, %al; out %al, $0x40; out %al, $0x40;"
    with guest(tmp_path, with_interrupts(0xFE, 0x20, setup + body)) as made:
        made.run()
        assert counter(made) == 5
        period = 65536 * 1_000_000_000 / 1193182
        assert 5 * period * 0.99 < made.domain.clock.now() < 5 * period * 1.01


def test_the_timer_wakes_a_halted_guest_in_real_time(tmp_path: Path) -> None:
    body = f"sti; 2: hlt; cmpl $3, {COUNTER}; jb 2b; cli; jmp finish"
    setup = "mov $0x34, %al; out %al, $0x43; mov $0x10, %al; out %al, $0x40; out %al, $0x40;"
    with guest(tmp_path, with_interrupts(0xFE, 0x20, setup + body), clock=RealClock()) as made:
        made.run()
        assert counter(made) >= 3


def test_the_timer_interrupts_a_guest_that_spins(tmp_path: Path) -> None:
    body = f"sti; 2: cmpl $5, {COUNTER}; jb 2b; cli; jmp finish"
    setup = "mov $0x34, %al; out %al, $0x43; mov $0x10, %al; out %al, $0x40; out %al, $0x40;"
    with guest(tmp_path, with_interrupts(0xFE, 0x20, setup + body)) as made:
        made.run()
        assert counter(made) == 5


def test_an_interrupt_that_a_port_write_causes_comes_before_the_next_instruction(
    tmp_path: Path,
) -> None:
    """emu_stop in a port hook stops after the instruction: no further one of its block runs."""
    body = f"""
    sti; mov ${KICK}, %dx; xor %eax, %eax
    out %al, %dx; mov {COUNTER}, %eax; out %al, $0x90
    out %al, %dx; out %al, $0x91; mov {COUNTER}, %eax; jmp finish"""
    with guest(tmp_path, with_interrupts(0xDF, 0x25, body)) as made:
        Kicker(made.domain)
        made.run()
    assert made.last == 2
    assert made.log == [("out", 0x90, 1, 1), ("out", 0x91, 1, 1)]


@pytest.mark.parametrize("shadow", ["sti; cli", "sti; nop; cli"])
def test_the_instruction_after_sti_runs_before_any_interrupt(tmp_path: Path, shadow: str) -> None:
    body = f"""
    cli; mov ${KICK}, %dx; out %al, %dx
    mov $30000, %ecx; 2: {shadow}; loop 2b
    mov {COUNTER}, %eax; jmp finish"""
    with guest(tmp_path, with_interrupts(0xDF, 0x25, body)) as made:
        Kicker(made.domain)
        made.run()
    assert made.last == (1 if "nop" in shadow else 0)


def test_no_wake_up_is_lost_between_sti_and_hlt(tmp_path: Path) -> None:
    body = f"""
    mov $300, %ecx; mov ${KICK}, %dx
    2: cli; out %al, %dx; sti; hlt; loop 2b
    mov {COUNTER}, %eax; jmp finish"""
    with guest(tmp_path, with_interrupts(0xDF, 0x25, body)) as made:
        Kicker(made.domain)
        made.run()
    assert made.last == 300


def test_an_interrupt_waits_while_a_block_is_handed_out(tmp_path: Path) -> None:
    """A string instruction that was served as one request is not interrupted half-way."""
    body = f"""
    cli; mov ${KICK}, %dx; out %al, %dx
    mov $1000, %ecx; mov $0xd0000000, %edi; mov ${DATA + 0x3000}, %esi; cld
    sti; rep movsl
    cli; mov {COUNTER}, %eax; jmp finish"""
    with guest(tmp_path, with_interrupts(0xDF, 0x25, body)) as made:
        Kicker(made.domain)
        made.run()
    assert made.last == 1
    assert sum(entry[3] for entry in made.log if entry[0] == "to") == 1000  # type: ignore[misc]


def test_an_nmi_comes_with_interrupts_off(tmp_path: Path) -> None:
    source = f"""{PROTECTED}
    gate 2, handler
    cli; movl $0x400, {LAPIC + 0x300}
    2: jmp 2b
    handler: mov $0x17, %eax; jmp finish"""
    with guest(tmp_path, source) as made:
        made.run()
    assert made.last == 0x17


def test_halting_with_interrupts_off_powers_off(tmp_path: Path) -> None:
    with guest(tmp_path, "cli; hlt") as made:
        made.run()
    assert made.domain.state == "shutdown"
    assert made.domain.shutdown_reason == layouts.SHUTDOWN_REASON_POWEROFF


def test_what_merely_looks_like_hlt_does_not_halt(tmp_path: Path) -> None:
    """A chunk may end behind any instruction whose last byte is that of HLT."""
    source = f"mov $200000, %ecx; 2: movb $0xf4, %al; movb $0xf4, %bl; loop 2b; {FINISH}"
    with guest(tmp_path, source) as made:
        made.run()
    assert made.last is not None


def test_a_hlt_with_prefixes_is_passed_whole(tmp_path: Path) -> None:
    body = f"""
    mov ${KICK}, %dx; mov $7, %ebx
    cli; out %al, %dx; sti; .byte 0x66, 0xf3, 0xf4; dec %ebx
    mov %ebx, %eax; jmp finish"""
    with guest(tmp_path, with_interrupts(0xDF, 0x25, body)) as made:
        Kicker(made.domain)
        made.run()
    assert made.last == 6


def test_code_above_64_kib_goes_on_after_each_chunk(tmp_path: Path) -> None:
    source = f"""
    mov $next, %esi; mov $0x200000, %edi; mov $64, %ecx; cld; rep movsb; mov $0x200000, %eax
    jmp *%eax
    next: mov $300000, %ecx; xor %eax, %eax; 2: inc %eax; loop 2b; {FINISH}"""
    with guest(tmp_path, source) as made:
        made.run()
    assert made.last == 300000


def test_a_spinning_guest_can_be_stopped_from_another_thread(tmp_path: Path) -> None:
    with guest(tmp_path, "out %al, $0x80; 2: jmp 2b", clock=RealClock()) as made:
        started = threading.Event()
        made.recorders[0].on_write = lambda *_: started.set()
        made.engine.start()
        assert started.wait(10)
        made.engine.stop()
        assert made.engine.join(0)
        assert made.engine.error is None


def test_a_halted_guest_can_be_stopped_from_another_thread(tmp_path: Path) -> None:
    with guest(tmp_path, "sti; 2: hlt; jmp 2b", clock=RealClock()) as made:
        made.engine.start()
        made.engine.stop()
        assert made.engine.join(0)


def test_a_paused_guest_stands_still(tmp_path: Path) -> None:
    source = f"""
    mov $3, %ecx; 2: mov %cl, %al; out %al, $0x80; loop 2b; {FINISH}"""
    with guest(tmp_path, source) as made:
        domain, paused = made.domain, threading.Event()

        def on_write(address: int, value: int) -> None:
            if value == 2:
                domain.pause()
                paused.set()

        made.recorders[0].on_write = on_write
        made.engine.start()
        assert paused.wait(10)
        assert not made.engine.join(0.05)
        assert [entry[3] for entry in made.log] == [3, 2]
        domain.unpause()
        assert made.engine.join(10)
    assert [entry[3] for entry in made.log] == [3, 2, 1]


def test_a_guest_goes_on_after_a_soft_reset(tmp_path: Path) -> None:
    source = f"""
    mov ${Hypercalls.msr}, %ecx; mov $0x40000, %eax; xor %edx, %edx; wrmsr
    movl ${layouts.SHUTDOWN_REASON_SOFT_RESET}, {DATA}; mov $2, %ebx; mov ${DATA}, %ecx
    mov ${0x40000 + 32 * 29}, %eax; call *%eax
    add $0x55, %eax; {FINISH}"""
    with guest(tmp_path, source) as made:
        made.domain.hypercalls = Hypercalls(made.domain)
        seen: list[int | None] = []

        def on_shutdown(domain: Domain) -> None:
            seen.append(domain.shutdown_reason)
            if domain.shutdown_reason == layouts.SHUTDOWN_REASON_SOFT_RESET:
                domain.soft_reset()

        made.domain.on_shutdown.append(on_shutdown)
        made.run()
    assert seen == [layouts.SHUTDOWN_REASON_SOFT_RESET, 0]
    assert made.last == 0x55


@pytest.mark.parametrize("access", ["in $0x80, %al", "mov 0xd0000000, %eax"])
def test_what_a_device_in_this_process_raises_ends_the_engine(tmp_path: Path, access: str) -> None:
    with guest(tmp_path, f"{access}; out %al, $0x99; {FINISH}") as made:
        error = ZeroDivisionError("a device's own")

        def on_read(address: int) -> None:
            raise error

        made.recorders[0].on_read = on_read
        made.engine.start()
        assert made.engine.join(10)
        assert made.engine.error is error
        assert made.domain.state == "crashed"
    assert len(made.log) == 1


def test_an_injected_event_is_delivered(tmp_path: Path) -> None:
    source = f"""{PROTECTED}
    gate 14, handler
    out %al, $0x80; 2: jmp 2b
    handler: pop %eax; mov %cr2, %ebx; add %ebx, %eax; jmp finish"""
    with guest(tmp_path, source) as made:
        vcpu = made.domain.vcpus[0]

        event = Event(14, layouts.EVENT_TYPE_HW_EXC, 6, 0, 0x123000)
        made.recorders[0].on_write = lambda *_: vcpu.inject(event)
        made.run()
    assert made.last == 0x123006


def test_virtual_time_is_the_same_each_time(tmp_path: Path) -> None:
    source = """
    mov $40, %edi; 2: rdtsc; out %eax, $0x80; mov $3000, %ecx; 3: loop 3b; dec %edi; jnz 2b
    out %al, $0xf5; 4: jmp 4b"""
    logs = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        with guest(tmp_path / str(number), source) as made:
            made.run()
        logs.append(made.log)
    values = [entry[3] for entry in logs[0]]
    assert logs[0] == logs[1]
    assert values == sorted(values)  # type: ignore[type-var]
    assert values[-1] > values[0]  # type: ignore[operator]


START_OTHERS = f"""
    movl $0xc4500, {LAPIC + 0x300}; movl $0xc4609, {LAPIC + 0x300}
"""
"""INIT and STARTUP at 0x9000 for all but oneself."""


def place_other(made: Guest, tmp_path: Path, source: str) -> None:
    """Put the real-mode code of the other vCPUs where STARTUP sends them."""
    (tmp_path / "other").mkdir()
    code = assemble(tmp_path / "other", source, 16, 0x9000)
    made.domain.memory.write(0x9000, code)


def test_the_other_vcpus_start_by_init_and_startup_and_locks_hold(tmp_path: Path) -> None:
    other = """
    xor %ax, %ax; mov %ax, %ds; mov $1000, %cx
    2: lock incl 0x5000; out %al, $0x80; loop 2b
    lock incl 0x5004; 3: hlt; jmp 3b"""
    source = f"""
    movl $0, 0x5000; movl $0, 0x5004; {START_OTHERS}
    mov $1000, %ecx; 2: lock incl 0x5000; out %al, $0x81; loop 2b
    3: cmpl $3, 0x5004; jb 3b
    mov 0x5000, %eax; {FINISH}"""
    with guest(tmp_path, source, vcpus=4, clock=RealClock()) as made:
        place_other(made, tmp_path, other)
        made.run()
    assert made.last == 4000
    assert len(made.log) == 4000


def test_a_vcpu_knows_its_own_apic_id(tmp_path: Path) -> None:
    other = """
    xor %ax, %ax; mov %ax, %ds; mov $1, %eax; cpuid; shr $24, %ebx; mov %ebx, 0x5008
    3: hlt; jmp 3b"""
    source = f"""
    movl $0, 0x5008; {START_OTHERS} 2: cmpl $0, 0x5008; je 2b; mov 0x5008, %eax; {FINISH}"""
    with guest(tmp_path, source, vcpus=2, clock=RealClock()) as made:
        place_other(made, tmp_path, other)
        made.run()
    assert made.last == 2


def test_a_domain_is_off_when_its_last_vcpu_is_down(tmp_path: Path) -> None:
    source = f"{START_OTHERS} mov $20000, %ecx; 2: out %al, $0x81; loop 2b; cli; hlt"
    with guest(tmp_path, source, vcpus=3, clock=VirtualClock()) as made:
        place_other(made, tmp_path, "out %al, $0x80; cli; hlt")
        made.run()
        assert made.domain.shutdown_reason == layouts.SHUTDOWN_REASON_POWEROFF
    assert sum(entry[1] == 0x80 for entry in made.log) == 2


def test_without_the_library_there_is_one_readable_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_find", lambda: None)
    library.load.cache_clear()
    with pytest.raises(EngineUnavailable, match=r"needs the package unicorn") as caught:
        UnicornEngine(Domain(1, vcpus=1, ram=[(0, 0x100000)]), CpuStart("real", ip=CODE))
    library.load.cache_clear()
    assert "\n" not in str(caught.value)


def test_a_library_with_another_register_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registers, "DR", registers.DR + 8)
    with pytest.raises(EngineUnavailable, match=r"2\.1\.4"):
        UnicornEngine(Domain(1, vcpus=1, ram=[(0, 0x100000)]), CpuStart("real", ip=CODE))


def test_an_interrupt_after_the_end_of_the_engine_hurts_nobody(tmp_path: Path) -> None:
    """The clock and the emulators outlive it."""
    with guest(tmp_path, FINISH) as made:
        made.run()
        made.engine.stop()
        made.engine.stop()
        made.engine.board.on_interrupt(0)
        made.engine.board.bus.on_init(0)
        made.engine.board.bus.on_startup(0, 9)
