"""A virtual machine of KVM: memory, interrupt controllers, vCPUs, by plain ioctl and mmap.

Facts: Documentation/virt/kvm/api.rst. The kernel's I/O APIC has 24 pins where Xen's has 48, so most
INTx lines reach the guest here by their PCI links alone.
"""

from __future__ import annotations

import contextlib
import ctypes as c
import mmap
import os
from collections.abc import Collection, Iterable

from protocol.kvm import (
    KVM_API_VERSION,
    KVM_CPUID_ENTRIES,
    KVM_MEM_READONLY,
    KVM_MSR_EXIT_REASONS,
    KVM_PIT_SPEAKER_DUMMY,
    KvmCap,
    KvmCpuid,
    KvmEnableCap,
    KvmIrqLevel,
    KvmIrqRouting,
    KvmIrqRoutingEntry,
    KvmMemoryRegion,
    KvmMsi,
    KvmPitConfig,
    KvmRegs,
    KvmRequest,
    KvmRun,
    KvmSignalMask,
    KvmSregs,
)
from protocol.kvm_chips import KvmChipRequest, KvmIoapicState, KvmMpState

from ...errors import EngineUnavailable
from .control import attempt, control

__all__ = ["ISA_IRQS", "KERNEL_PINS", "KvmCpu", "KvmMachine"]

DEVICE = "/dev/kvm"
KERNEL_PINS = 24
ISA_IRQS = 16
SIGNAL_SET = 8
"""Bytes of the kernel's sigset_t."""
TSS_ADDRESS = 0xFEFEC000
IDENTITY_MAP_ADDRESS = 0xFEFEF000
"""Three pages and one, guest-physical, that Intel's older hardware needs for real mode: just below
an HVM guest's special pages, where neither RAM nor a device is."""
PIC_MASTER, PIC_SLAVE, IOAPIC = 0, 1, 2
PIN_OF_CHIP = 1
NEEDED = (
    KvmCap.IRQCHIP,
    KvmCap.IRQ_ROUTING,
    KvmCap.PIT2,
    KvmCap.SIGNAL_MSI,
    KvmCap.IMMEDIATE_EXIT,
    KvmCap.X86_USER_SPACE_MSR,
)
LEAF_FEATURES, LEAF_EXTENDED_APIC = 1, 0x8000001E
LEAVES_TOPOLOGY = (0xB, 0x1F)
HYPERVISOR_LEAVES = range(0x40000000, 0x40010000)


class KvmCpu:
    """One vCPU: its descriptor and its run page."""

    def __init__(self, fd: int, size: int, apic_id: int) -> None:
        self.fd, self.apic_id = fd, apic_id
        self.page = mmap.mmap(fd, size)
        self.run = KvmRun.from_buffer(self.page)

    def regs(self) -> KvmRegs:
        """The general registers."""
        regs = KvmRegs()
        control(self.fd, KvmRequest.GET_REGS, regs)
        return regs

    def set_regs(self, regs: KvmRegs) -> None:
        """Set the general registers."""
        control(self.fd, KvmRequest.SET_REGS, regs)

    def sregs(self) -> KvmSregs:
        """The segment and control registers."""
        sregs = KvmSregs()
        control(self.fd, KvmRequest.GET_SREGS, sregs)
        return sregs

    def set_sregs(self, sregs: KvmSregs) -> None:
        """Set the segment and control registers."""
        control(self.fd, KvmRequest.SET_SREGS, sregs)

    @property
    def run_state(self) -> int:
        """Whether it runs, or what it waits for: a KvmRunState."""
        state = KvmMpState()
        control(self.fd, KvmChipRequest.GET_MP_STATE, state)
        return int(state.mp_state)

    @run_state.setter
    def run_state(self, state: int) -> None:
        control(self.fd, KvmChipRequest.SET_MP_STATE, KvmMpState(mp_state=state))

    def tsc_khz(self) -> int:
        """How fast its time-stamp counter runs; 0: unknown."""
        try:
            return control(self.fd, KvmRequest.GET_TSC_KHZ)
        except OSError:
            return 0

    def enter(self) -> int:
        """Run the guest until an exit; gives 0, or the error number: EINTR after a kick."""
        return attempt(self.fd, KvmRequest.RUN)

    def block_signals(self, signals: Collection[int]) -> None:
        """Have ``signals``, and no others, blocked while the guest runs."""
        mask = KvmSignalMask(len=SIGNAL_SET, sigset=sum(1 << number - 1 for number in signals))
        control(self.fd, KvmRequest.SET_SIGNAL_MASK, mask)

    def close(self) -> None:
        """Give the vCPU up; nobody may run it any more."""
        del self.run
        # What a failed thread's traceback still looks at goes when the traceback does.
        with contextlib.suppress(BufferError):
            self.page.close()
        os.close(self.fd)


class KvmMachine:
    """Raises EngineUnavailable, with one readable line, where KVM cannot be used."""

    def __init__(self) -> None:
        try:
            self._kvm = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise EngineUnavailable(f"{DEVICE}: {error.strerror}") from None
        self._vm = -1
        self.cpus: list[KvmCpu] = []
        self._slots: dict[tuple[int, int, int, bool], int] = {}
        self._free_slots: list[int] = []
        try:
            self._create()
        except OSError as error:
            self.close()
            raise EngineUnavailable(f"{DEVICE}: no virtual machine: {error.strerror}") from None
        except EngineUnavailable:
            self.close()
            raise

    def _create(self) -> None:
        version = control(self._kvm, KvmRequest.GET_API_VERSION, 0)
        if version != KVM_API_VERSION:
            raise EngineUnavailable(f"{DEVICE} speaks version {version}, not {KVM_API_VERSION}")
        missing = [cap.name for cap in NEEDED if not self.extension(cap)]
        if missing:
            raise EngineUnavailable(f"{DEVICE} lacks {', '.join(missing)}")
        self._page_size = control(self._kvm, KvmRequest.GET_VCPU_MMAP_SIZE, 0)
        self._vm = control(self._kvm, KvmRequest.CREATE_VM, 0)
        identity = c.c_uint64(IDENTITY_MAP_ADDRESS)
        control(self._vm, KvmRequest.SET_IDENTITY_MAP_ADDR, identity)
        control(self._vm, KvmRequest.SET_TSS_ADDR, TSS_ADDRESS)
        control(self._vm, KvmRequest.CREATE_IRQCHIP, 0)
        control(self._vm, KvmRequest.CREATE_PIT2, KvmPitConfig(flags=KVM_PIT_SPEAKER_DUMMY))
        self._route_interrupts()

    def _route_interrupts(self) -> None:
        """As in an HVM guest: IRQ n to the 8259 pair and to pin n, IRQ 0 to pin 2."""
        pins = []
        for irq in range(ISA_IRQS):
            pins.append((irq, PIC_MASTER if irq < 8 else PIC_SLAVE, irq % 8))
            if irq != 2:
                pins.append((irq, IOAPIC, irq or 2))
        pins += [(pin, IOAPIC, pin) for pin in range(ISA_IRQS, KERNEL_PINS)]
        routing = KvmIrqRouting(nr=len(pins))
        for index, (gsi, chip, pin) in enumerate(pins):
            entry = KvmIrqRoutingEntry(gsi=gsi, type=PIN_OF_CHIP, irqchip=chip, pin=pin)
            routing.entries[index] = entry
        control(self._vm, KvmRequest.SET_GSI_ROUTING, routing)

    def extension(self, capability: KvmCap) -> int:
        """What the kernel says about a capability; 0 when it lacks it."""
        return control(self._kvm, KvmRequest.CHECK_EXTENSION, int(capability))

    def ioapic(self) -> KvmIoapicState:
        """The state of the kernel's I/O APIC."""
        state = KvmIoapicState(chip_id=IOAPIC)
        control(self._vm, KvmChipRequest.GET_IRQCHIP, state)
        return state

    def let_msrs_out(self) -> None:
        """Have accesses to MSRs that the kernel does not know come out."""
        wanted = KvmEnableCap(cap=KvmCap.X86_USER_SPACE_MSR)
        wanted.args[0] = KVM_MSR_EXIT_REASONS
        control(self._vm, KvmRequest.ENABLE_CAP, wanted)

    def show_memory(self, runs: Iterable[tuple[int, int, int, bool]]) -> None:
        """Let exactly ``runs`` be the guest's RAM: guest-physical address, bytes, address here,
        whether it can be written: what is written leaves the guest if not.

        A run that is cut or grows is not there for a moment, as its length cannot be changed: a
        vCPU that comes to it then leaves the guest with an access to memory-mapped I/O. Raises
        OSError.
        """
        wanted = set(runs)
        for run in self._slots.keys() - wanted:
            slot = self._slots.pop(run)
            self._map(slot, run[0], 0, run[2], run[3])
            self._free_slots.append(slot)
        for run in sorted(wanted - self._slots.keys()):
            slot = self._free_slots.pop() if self._free_slots else len(self._slots)
            self._map(slot, *run)
            self._slots[run] = slot

    def _map(self, slot: int, gpa: int, size: int, address: int, writable: bool = True) -> None:
        region = KvmMemoryRegion(
            slot=slot,
            flags=0 if writable else KVM_MEM_READONLY,
            guest_phys_addr=gpa,
            memory_size=size,
            userspace_addr=address,
        )
        control(self._vm, KvmRequest.SET_USER_MEMORY_REGION, region)

    def add_cpu(self, apic_id: int) -> KvmCpu:
        """One more vCPU, which has no CPUID leaves yet."""
        fd = control(self._vm, KvmRequest.CREATE_VCPU, apic_id)
        cpu = KvmCpu(fd, self._page_size, apic_id)
        self.cpus.append(cpu)
        return cpu

    def identify(self, cpu: KvmCpu, leaves: Iterable[tuple[int, tuple[int, ...]]] = ()) -> None:
        """Give ``cpu`` its CPUID: what KVM offers, and ``leaves`` of four registers each."""
        control(cpu.fd, KvmRequest.SET_CPUID2, self._cpuid(cpu.apic_id, leaves))

    def _cpuid(self, apic_id: int, leaves: Iterable[tuple[int, tuple[int, ...]]]) -> KvmCpuid:
        cpuid = KvmCpuid(nent=KVM_CPUID_ENTRIES)
        control(self._kvm, KvmRequest.GET_SUPPORTED_CPUID, cpuid)
        entries = [
            entry
            for entry in cpuid.entries[: cpuid.nent]
            if entry.function not in HYPERVISOR_LEAVES
        ]
        for entry in entries:
            if entry.function == LEAF_FEATURES:
                entry.ebx = entry.ebx & 0x00FFFFFF | apic_id << 24
            elif entry.function in LEAVES_TOPOLOGY:
                entry.edx = apic_id
            elif entry.function == LEAF_EXTENDED_APIC:
                entry.eax = apic_id
        wanted = KvmCpuid()
        for index, entry in enumerate(entries):
            wanted.entries[index] = entry
        count = len(entries)
        for function, (a, b, cx, d) in leaves:
            entry = wanted.entries[count]
            entry.function, entry.eax, entry.ebx, entry.ecx, entry.edx = function, a, b, cx, d
            count += 1
        wanted.nent = count
        return wanted

    def set_gsi(self, gsi: int, level: int) -> None:
        """A pin above the ISA interrupts; those the kernel does not have reach nobody."""
        if ISA_IRQS <= gsi < KERNEL_PINS:
            self.set_pic(gsi, level)

    def set_pic(self, irq: int, level: int) -> None:
        """An ISA interrupt, at the 8259 pair and at the I/O APIC; once closed, nothing happens."""
        if self._vm >= 0:
            control(self._vm, KvmRequest.IRQ_LINE, KvmIrqLevel(irq=irq, level=level))

    def inject_msi(self, address: int, data: int) -> bool | None:
        """Deliver a message; False when no local APIC took it."""
        if self._vm < 0:
            return False
        message = KvmMsi(address_lo=address & 0xFFFFFFFF, address_hi=address >> 32, data=data)
        try:
            return control(self._vm, KvmRequest.SIGNAL_MSI, message) > 0
        except OSError:
            return False

    def close(self) -> None:
        """Give everything back; no thread may run a vCPU any more. Done again it does nothing.

        Under the domain's lock, if it is some domain's sink: the lines may still be set.
        """
        for cpu in self.cpus:
            cpu.close()
        self.cpus.clear()
        for fd in (self._vm, self._kvm):
            if fd >= 0:
                os.close(fd)
        self._vm = self._kvm = -1
