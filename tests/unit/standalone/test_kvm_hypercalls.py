"""The hypercall interface on KVM: Xen's CPUID leaves, the page by its MSR, the calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol import layouts

from .kvm_support import DATA, HYPERCALL_PAGE, LONG, PAGE, SHUTDOWN, kvm_guest

FAULT = "gate 13, fault"
FAULT_HANDLER = "fault: mov $13, %ebx; jmp finish"


def test_a_guest_finds_xen(tmp_path: Path) -> None:
    source = f"""{LONG} mov $0x40000000, %eax; cpuid; mov %eax, {DATA}; mov %ebx, {DATA + 4}
    mov %ecx, {DATA + 8}; mov %edx, {DATA + 12}; jmp finish"""
    with kvm_guest(tmp_path, source, hypercalls=True) as guest:
        guest.run()
        assert guest.domain.memory.read(DATA + 4, 12) == layouts.XEN_SIGNATURE
        assert guest.word() >= 0x40000002


def test_without_the_interface_there_is_no_hypervisor(tmp_path: Path) -> None:
    """Neither Xen nor KVM: firmware that saw the latter would use what is not there."""
    source = f"""{LONG} mov $0x40000000, %eax; cpuid; mov %ebx, {DATA}; mov %ecx, {DATA + 4}
    mov %edx, {DATA + 8}; jmp finish"""
    with kvm_guest(tmp_path, source) as guest:
        guest.run()
        found = guest.domain.memory.read(DATA, 12)
    assert b"KVM" not in found
    assert b"Xen" not in found


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        (layouts.SHUTDOWN_REASON_POWEROFF, "shutdown"),
        (layouts.SHUTDOWN_REASON_REBOOT, "shutdown"),
        (layouts.SHUTDOWN_REASON_CRASH, "crashed"),
    ],
)
def test_a_guest_shuts_itself_down(tmp_path: Path, reason: int, state: str) -> None:
    source = f"{LONG} {HYPERCALL_PAGE}; movl ${reason}, {DATA}; {SHUTDOWN}; jmp finish"
    with kvm_guest(tmp_path, source, hypercalls=True) as guest:
        guest.engine.start()
        assert guest.engine.join(20)
        assert guest.domain.shutdown_reason == reason
        assert guest.domain.state == state
        assert guest.engine.error is None
    assert guest.last is None


def test_a_call_answers_in_rax_and_leaves_the_other_registers(tmp_path: Path) -> None:
    """XENVER_version, and a number that Xen does not have: ENOSYS in 64 bits."""
    source = f"""{LONG} {HYPERCALL_PAGE}; mov $0x1122334455667788, %r9
    xor %edi, %edi; mov ${PAGE + 17 * 32}, %eax; call *%rax; mov %rax, {DATA}
    mov ${PAGE + 60 * 32}, %eax; call *%rax; mov %rax, {DATA + 8}; mov %r9, {DATA + 16}
    jmp finish"""
    with kvm_guest(tmp_path, source, hypercalls=True) as guest:
        guest.run()
        version, refused, kept = (
            int.from_bytes(guest.domain.memory.read(DATA + 8 * n, 8), "little") for n in range(3)
        )
    assert version >> 16 == 4
    assert refused == (1 << 64) - 38
    assert kept == 0x1122334455667788


def test_after_a_soft_reset_the_call_comes_back(tmp_path: Path) -> None:
    reason = layouts.SHUTDOWN_REASON_SOFT_RESET
    source = f"""{LONG} {HYPERCALL_PAGE}; movl ${reason}, {DATA}; {SHUTDOWN}; mov %eax, %ebx
    inc %ebx; jmp finish"""
    with kvm_guest(tmp_path, source, hypercalls=True) as guest:
        guest.domain.on_shutdown.append(
            lambda domain: domain.soft_reset() if domain.shutdown_reason == reason else None
        )
        guest.run()
    assert guest.last == 1


@pytest.mark.parametrize(
    "access",
    [
        "mov $0x40000200, %ecx; mov $0xc0000000, %eax; xor %edx, %edx; wrmsr",
        "mov $0x40000200, %ecx; rdmsr",
        "mov $0x12345, %ecx; rdmsr",
        "mov $0x12345, %ecx; wrmsr",
    ],
    ids=["a page outside of RAM", "the page's MSR read", "no MSR read", "no MSR written"],
)
def test_what_is_no_page_is_a_fault_of_the_guests(tmp_path: Path, access: str) -> None:
    source = f"{LONG} {FAULT}; {access}; jmp finish; {FAULT_HANDLER}"
    with kvm_guest(tmp_path, source, hypercalls=True) as guest:
        guest.run()
    assert guest.last == 13


def test_without_the_interface_the_port_is_a_port(tmp_path: Path) -> None:
    source = f"{LONG} mov $2, %edi; mov $29, %eax; out %eax, $0xea; mov %eax, %ebx; jmp finish"
    with kvm_guest(tmp_path, source) as guest:
        guest.run()
    assert guest.last == 29
