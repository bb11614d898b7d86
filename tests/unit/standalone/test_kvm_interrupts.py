"""Interrupts of a guest on KVM: the kernel's controllers, this side's timekeepers, and events."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol import layouts
from tools.hypervisor.vcpu_thread import Event

from .kvm_support import DATA, LONG, KvmGuest, kvm_guest, until

COMMAND = 0x1000
"""The port by which a guest says how far it is."""
SPIN = "1: pause; jmp 1b"
PM_TIMER = 0xB008
LAPIC = 0xFEE00000
LAPIC_ON = f"mov ${LAPIC}, %esi; movl $0x1ff, 0xf0(%rsi)"
END_OF_LAPIC = f"movl $0, {LAPIC + 0xB0 - (1 << 32)}"
NO_ERROR_CODE = 0xFFFFFFFF


def ready(guest: KvmGuest, count: int = 1) -> None:
    """Wait until the guest has said something ``count`` times, or has ended."""
    until(lambda: len(guest.writes) >= count or guest.domain.state != "running")


def finish(guest: KvmGuest) -> None:
    """Wait until the guest ends as it wants to."""
    assert guest.engine.join(20)
    assert guest.domain.crash_message is None, guest.domain.crash_message


def test_an_isa_interrupt_comes_through_the_pic(tmp_path: Path) -> None:
    source = f"""{LONG}
    gate 0x25, handler; pics 0x20, 0xdf, 0xff
    mov ${COMMAND}, %dx; out %al, %dx; sti
    1: hlt; jmp 1b
    handler: mov $0x25, %ebx; jmp finish"""
    with kvm_guest(tmp_path, source) as guest:
        guest.engine.start()
        ready(guest)
        with guest.domain.lock:
            guest.domain.interrupts.set_isa_irq(5, 1)
        finish(guest)
    assert guest.last == 0x25


def test_a_level_comes_again_until_it_falls(tmp_path: Path) -> None:
    """INTx through a link to a level-triggered input; a device drops it in its third handler."""
    source = f"""{LONG}
    gate 0x2a, handler; pics 0x20, 0xfb, 0xfb
    mov $4, %al; mov $0x4d1, %dx; out %al, %dx
    sti; mov ${COMMAND}, %dx; out %al, %dx; mov $300000, %edi; 1: pause; dec %edi; jnz 1b
    mov %ecx, %ebx; jmp finish
    handler: inc %ecx; push %rax; push %rdx; mov ${COMMAND}, %dx; out %al, %dx; end_of_interrupt
    pop %rdx; pop %rax; iretq"""
    with kvm_guest(tmp_path, source.replace("xor %ebx", "xor %ecx, %ecx; xor %ebx")) as guest:
        interrupts = guest.domain.interrupts
        interrupts.set_link_route(1, 10)

        class Device:
            count = 0

            def read(self, address: int, size: int) -> int | None:
                return None

            def write(self, address: int, size: int, value: int) -> bool:
                self.count += 1
                interrupts.set_intx(5, 0, int(self.count < 4))
                return True

        guest.domain.intercepts.remove(guest.log)
        guest.domain.intercepts.add_ports(COMMAND, COMMAND, Device())
        guest.run()
    assert guest.last == 3


@pytest.mark.parametrize("vector", [0x41, 0xFE])
def test_a_message_comes_through_the_local_apic(tmp_path: Path, vector: int) -> None:
    source = f"""{LONG}
    gate {vector}, handler; pics 0x20, 0xff, 0xff; {LAPIC_ON}
    mov ${COMMAND}, %dx; out %al, %dx; sti
    1: hlt; jmp 1b
    handler: mov $0x33, %ebx; jmp finish"""
    with kvm_guest(tmp_path, source) as guest:
        guest.engine.start()
        ready(guest)
        with guest.domain.lock:
            guest.domain.interrupts.inject_msi(LAPIC, vector)
        finish(guest)
    assert guest.last == 0x33


def test_the_pit_ticks(tmp_path: Path) -> None:
    source = f"""{LONG}
    gate 0x20, handler; pics 0x20, 0xfe, 0xff
    mov $0x34, %al; out %al, $0x43; mov $0xa9, %al; out %al, $0x40; mov $4, %al; out %al, $0x40
    sti
    1: hlt; cmp $10, %ebx; jb 1b; jmp finish
    handler: push %rax; inc %ebx; end_of_interrupt; pop %rax; iretq"""
    with kvm_guest(tmp_path, source) as guest:
        before = guest.domain.clock.now()
        guest.run()
        assert guest.domain.clock.now() - before > 9 * 1_000_000
    assert guest.last == 10


def test_the_clock_chip_is_this_sides_and_interrupts_periodically(tmp_path: Path) -> None:
    """Register C must be read for the next interrupt to come."""
    source = f"""{LONG}
    gate 0x28, handler; pics 0x20, 0xfb, 0xfe
    mov $0xa, %al; out %al, $0x70; mov $0x26, %al; out %al, $0x71
    mov $0xb, %al; out %al, $0x70; mov $0x42, %al; out %al, $0x71
    sti
    1: hlt; cmp $5, %ebx; jb 1b; jmp finish
    handler: push %rax; inc %ebx; mov $0xc, %al; out %al, $0x70; in $0x71, %al; mov %al, {DATA}
    end_of_interrupt; pop %rax; iretq"""
    with kvm_guest(tmp_path, source) as guest:
        guest.run()
        assert guest.word() & 0xC0 == 0xC0
    assert guest.last == 5


def test_the_pm_timer_counts(tmp_path: Path) -> None:
    source = f"""{LONG}
    mov ${PM_TIMER}, %dx; in %dx, %eax; mov %eax, {DATA}
    mov %eax, %ecx
    1: in %dx, %eax; cmp %eax, %ecx; je 1b; mov %eax, {DATA + 4}; jmp finish"""
    with kvm_guest(tmp_path, source) as guest:
        guest.run()
        first, second = guest.word(), guest.word(DATA + 4)
    assert 0 < (second - first & 0xFFFFFF) < 3_579_545


def event(
    vector: int, kind: int, length: int = 0, code: int = NO_ERROR_CODE, cr2: int = 0
) -> Event:
    return Event(vector, kind, code, length, cr2)


LOOPS = {
    "spinning": "1: pause; jmp 1b",
    "halted": "1: hlt; jmp 1b",
    "at a port": f"mov ${COMMAND}, %dx; 1: out %al, %dx; jmp 1b",
}


@pytest.mark.parametrize("loop", LOOPS)
def test_an_injected_nmi_comes_whatever_the_vcpu_does(tmp_path: Path, loop: str) -> None:
    """At a port most kicks find it on this side, where an access itself looks at them."""
    source = f"""{LONG}
    gate 2, handler; mov ${COMMAND}, %dx; out %al, %dx
    {LOOPS[loop]}
    handler: inc %ebx; cmp $20, %ebx; je finish; push %rax; push %rdx; mov ${COMMAND + 1}, %dx
    out %al, %dx; pop %rdx; pop %rax; iretq"""
    with kvm_guest(tmp_path, source) as guest:
        guest.engine.start()
        ready(guest)
        vcpu = guest.domain.vcpus[0]
        for count in range(20):
            vcpu.inject(event(2, layouts.EVENT_TYPE_NMI))
            until(
                lambda done=count + 1: (  # type: ignore[misc]
                    sum(port == COMMAND + 1 for port, _, _ in guest.writes) >= done
                    or guest.domain.state != "running"
                )
            )
        finish(guest)
    assert guest.last == 20


@pytest.mark.parametrize(
    ("injected", "pushed"),
    [
        (event(13, layouts.EVENT_TYPE_HW_EXC, code=0x1230), 0x1230),
        (event(14, layouts.EVENT_TYPE_HW_EXC, code=2, cr2=0xDEAD000), 2),
        (event(6, layouts.EVENT_TYPE_HW_EXC), None),
        (event(0x80, layouts.EVENT_TYPE_SW_INT, length=2), None),
        (event(3, layouts.EVENT_TYPE_SW_EXC, length=1), None),
        (event(0x55, layouts.EVENT_TYPE_EXT_INT), None),
    ],
)
def test_an_event_comes_after_the_access_under_way(
    tmp_path: Path, injected: Event, pushed: int | None
) -> None:
    """What the access read is in its register, and the frame says where the guest then was."""
    source = f"""{LONG}
    gate {injected.vector}, handler; sti; mov ${COMMAND}, %dx; in %dx, %eax
    here: jmp here
    handler: mov %eax, {DATA}; mov %cr2, %rcx; mov %ecx, {DATA + 4}; pop %rcx; mov %ecx, {DATA + 8}
    pop %rcx; mov %ecx, {DATA + 12}; movl $here, {DATA + 16}; jmp finish"""
    with kvm_guest(tmp_path, source) as guest:
        vcpu = guest.domain.vcpus[0]

        class Injecting:
            def read(self, address: int, size: int) -> int | None:
                vcpu.inject(injected)
                return 0x13572468

            def write(self, address: int, size: int, value: int) -> bool:
                return False

        guest.domain.intercepts.remove(guest.log)
        guest.domain.intercepts.add_ports(COMMAND, COMMAND + 3, Injecting())
        guest.run()
        words = [guest.word(DATA + 4 * n) for n in range(5)]
    assert words[0] == 0x13572468
    if injected.cr2:
        assert words[1] == injected.cr2
    frame = words[2:4]
    if pushed is not None:
        assert frame.pop(0) == pushed
    assert frame[0] == words[4] + injected.length


def test_what_kvm_cannot_inject_crashes_the_domain_with_a_reason(tmp_path: Path) -> None:
    with kvm_guest(tmp_path, f"{LONG} {SPIN}") as guest:
        guest.engine.start()
        guest.domain.vcpus[0].inject(event(0x80, layouts.EVENT_TYPE_HW_EXC))
        assert guest.engine.join(20)
        message = guest.domain.crash_message
    assert message is not None
    assert "vCPU 0" in message
    assert "does not inject vector 0x80 of type 3" in message
    assert guest.engine.error is None


def test_the_guest_starts_its_second_vcpu(tmp_path: Path) -> None:
    """INIT and STARTUP through the local APIC; Xen gives vCPU 1 the APIC id 2."""
    entry = 0x6000
    source = f"""{LONG}
    {LAPIC_ON}; cld; mov $second, %esi; mov ${entry}, %edi; mov $(second_end - second), %ecx
    rep movsb; mov ${LAPIC}, %esi
    movl $0x02000000, 0x310(%rsi); movl $0x4500, 0x300(%rsi)
    movl $0x02000000, 0x310(%rsi); movl ${0x4600 | entry >> 12}, 0x300(%rsi)
    1: pause; cmpl $0x55, {DATA}; jne 1b
    mov $1, %eax; cpuid; shr $24, %ebx; shl $8, %ebx; or {DATA + 4}, %bl; jmp finish
    .code16
    second: mov $1, %eax; cpuid; shr $24, %ebx; mov ${DATA >> 4}, %ax; mov %ax, %ds
    mov %bl, 4; movl $0x55, 0; mov ${COMMAND}, %dx; 1: out %al, %dx; jmp 1b
    second_end:"""
    with kvm_guest(tmp_path, source, vcpus=2) as guest:
        guest.run()
    assert guest.last == 0x0002


def test_a_message_reaches_the_vcpu_that_it_names(tmp_path: Path) -> None:
    """Nobody has APIC id 1; a message of fixed delivery to it is lost without an error."""
    source = f"""{LONG}
    gate 0x44, wrong; gate 0x45, right; pics 0x20, 0xff, 0xff; {LAPIC_ON}
    mov ${COMMAND}, %dx; out %al, %dx; sti
    1: hlt; jmp 1b
    wrong: mov $1, %ebx; jmp finish
    right: mov $2, %ebx; jmp finish"""
    with kvm_guest(tmp_path, source, vcpus=2) as guest:
        guest.engine.start()
        ready(guest)
        with guest.domain.lock:
            guest.domain.interrupts.inject_msi(LAPIC | 1 << 12, 0x44)
            guest.domain.interrupts.inject_msi(LAPIC | 2 << 12, 0x44)
            guest.domain.interrupts.inject_msi(LAPIC, 0x45)
        finish(guest)
    assert guest.last == 2
