"""What a guest gets of Xen's hypercall interface: discovery by CPUID, a page of stubs, calls.

What firmware and small guests use: their version, ending themselves or asking for a soft reset,
HVM parameters, their memory and event channels. Everything else answers ENOSYS, as Xen does for a
hypercall it lacks.

Facts: public/arch-x86/cpuid.h (leaves), public/xen.h (stubs of 32 bytes), xen/common/sched/core.c
(do_sched_op), xen/common/kernel.c (do_xen_version), xen/arch/x86/hvm/hvm.c (do_hvm_op).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from errno import EFAULT, EINVAL, ENOSYS, ESRCH
from typing import TYPE_CHECKING

from protocol import layouts

from .errors import HypercallError, NotRamError
from .guest_arguments import GuestArguments
from .guest_events import GuestEvents
from .hypercall_memory import MemoryOps
from .hypercall_vcpu import VcpuOps
from .shared_info import SharedInfo

if TYPE_CHECKING:
    from .domain import Domain

__all__ = ["HYPERCALL_MSR", "Hypercalls"]

HYPERCALL_MSR = 0x40000200
"""The MSR that takes the GPA of a page to be filled with stubs; where Xen has it for guests that
see Hyper-V's leaves, too, so that it is never one of Hyper-V's."""
VMCALL = b"\x0f\x01\xc1"
VERSION = 4 << 16 | 17
"""The Xen release whose behaviour is played."""
EXTRA_VERSION = b".7"
CAPABILITIES = b"hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64 "
TEXT_SIZES = {
    layouts.XEN_VERSION_OP_EXTRAVERSION: (EXTRA_VERSION, 16),
    layouts.XEN_VERSION_OP_CAPABILITIES: (CAPABILITIES, 1024),
}
"""Texts and the room that they have in the guest's buffer."""
PAGE_SIZE = layouts.IOREQ_PAGE_SIZE
LAST_LEAF = layouts.XEN_CPUID_FIRST + 5
HVM_FEATURES = layouts.HVM_CPUID_VCPU_ID_PRESENT | layouts.HVM_CPUID_DOMID_PRESENT
PARAM = struct.Struct(layouts.HVM_PARAM_FORMAT)
SHUTDOWN = struct.Struct(layouts.SCHED_SHUTDOWN_FORMAT)
FEATURES = struct.Struct(layouts.XEN_FEATURE_INFO_FORMAT)
MASK_32 = 0xFFFFFFFF
MASK_64 = (1 << 64) - 1

Handler = Callable[[GuestArguments, Sequence[int], int], int]


class Hypercalls:
    """The interface of one domain. Arguments that are addresses are guest-physical.

    ``uuid``: the domain's, as it sees it. ``shared``: the page that it shares with Xen; ``events``:
    its event channels; ``memory``: its operations on memory.
    """

    msr = HYPERCALL_MSR

    def __init__(self, domain: Domain, uuid: bytes = bytes(16)) -> None:
        self._domain = domain
        self._uuid = uuid
        self.shared = SharedInfo(domain)
        self.events = GuestEvents(domain, self.shared)
        self.memory = MemoryOps(domain, self.shared)
        self._vcpus = VcpuOps(domain)
        self._handlers: dict[int, Handler] = {
            layouts.HYPERCALL_MEMORY_OP: self._memory_op,
            layouts.HYPERCALL_XEN_VERSION: self._version,
            layouts.HYPERCALL_VCPU_OP: self._vcpu_op,
            layouts.HYPERCALL_SCHED_OP: self._sched_op,
            layouts.HYPERCALL_EVENT_CHANNEL_OP: self._event_channel_op,
            layouts.HYPERCALL_HVM_OP: self._hvm_op,
        }

    def cpuid(self, leaf: int, vcpu: int = 0) -> tuple[int, int, int, int] | None:
        """EAX, EBX, ECX and EDX of one of Xen's leaves for ``vcpu``; None when it is not one."""
        first = layouts.XEN_CPUID_FIRST
        if leaf == first:
            b, c, d = struct.unpack("<III", layouts.XEN_SIGNATURE)
            return LAST_LEAF, b, c, d
        if leaf == first + 1:
            return VERSION, 0, 0, 0
        if leaf == first + 2:
            return 1, HYPERCALL_MSR, 0, 0
        if leaf == first + 3:
            return 0, 0, self.shared.tsc_khz, 0
        if leaf == first + 4:
            return HVM_FEATURES, vcpu, self._domain.domid, 0
        return (0, 0, 0, 0) if first < leaf <= LAST_LEAF else None

    def fill_page(self, gpa: int, instruction: bytes = VMCALL, *, wide: bool = True) -> None:
        """Write the stubs to the page at ``gpa``: number to EAX, ``instruction``, return.

        ``wide``: whether the guest that asks runs 64-bit code, which settles the shape of what it
        shares with Xen.
        """
        stubs = bytearray()
        for number in range(PAGE_SIZE // layouts.HYPERCALL_STUB_SIZE):
            stub = b"\xb8" + struct.pack("<I", number) + instruction + b"\xc3"
            stubs += stub.ljust(layouts.HYPERCALL_STUB_SIZE, b"\xcc")
        self._domain.memory.write(gpa & ~(PAGE_SIZE - 1), bytes(stubs))
        with self._domain.lock:
            self.shared.latch(wide=wide)

    def call(self, vcpu: int, number: int, arguments: Sequence[int], wide: bool) -> int:
        """Perform a hypercall; gives what EAX (RAX with ``wide``) holds afterwards.

        ``arguments``: up to five registers. ``vcpu``: who calls.
        """
        handler = self._handlers.get(number)
        try:
            if handler is None:
                raise HypercallError(ENOSYS, f"hypercall {number}")
            guest = GuestArguments(self._domain.memory, wide=wide)
            result = handler(guest, arguments, vcpu)
        except HypercallError as error:
            result = -(error.errno or EINVAL)
        except NotRamError:
            # Another vCPU gave the page away meanwhile.
            result = -EFAULT
        return result & (MASK_64 if wide else MASK_32)

    def reset(self) -> None:
        """A soft reset: what the guest shares with Xen is as at the start, and its ports are gone.

        Called after the domain's own event channels were closed.
        """
        with self._domain.lock:
            self.events.forget()
            self.memory.reset()
            self.shared.reset()

    def _memory_op(self, guest: GuestArguments, arguments: Sequence[int], vcpu: int) -> int:
        return self.memory.perform(guest, arguments[0], arguments[1], vcpu)

    def _event_channel_op(self, guest: GuestArguments, arguments: Sequence[int], vcpu: int) -> int:
        self.events.perform(guest, arguments[0], arguments[1], vcpu)
        return 0

    def _vcpu_op(self, guest: GuestArguments, arguments: Sequence[int], vcpu: int) -> int:
        return self._vcpus.perform(guest, *arguments[:3])

    def _version(self, guest: GuestArguments, arguments: Sequence[int], vcpu: int) -> int:
        operation, at = arguments[0], arguments[1]
        if operation == layouts.XEN_VERSION_OP_VERSION:
            return VERSION
        if operation == layouts.XEN_VERSION_OP_PAGESIZE:
            return PAGE_SIZE
        if operation in TEXT_SIZES:
            text, size = TEXT_SIZES[operation]
            guest.write_bytes(at, text.ljust(size, b"\0"))
        elif operation == layouts.XEN_VERSION_OP_GUEST_HANDLE:
            guest.write_bytes(at, self._uuid)
        elif operation == layouts.XEN_VERSION_OP_GET_FEATURES:
            index, _ = guest.read(FEATURES, at)
            if index:
                raise HypercallError(EINVAL, f"there are no features {index}")
            guest.write(FEATURES, at, index, 0)
        else:
            raise HypercallError(ENOSYS, f"XENVER {operation}")
        return 0

    def _sched_op(self, guest: GuestArguments, arguments: Sequence[int], vcpu: int) -> int:
        operation, at = arguments[0], arguments[1]
        if operation == layouts.SCHED_OP_SHUTDOWN:
            (reason,) = guest.read(SHUTDOWN, at)
            self._domain.shutdown(reason)
        elif operation == layouts.SCHED_OP_POLL:
            self.events.poll(guest, at)
        elif operation != layouts.SCHED_OP_YIELD:
            raise HypercallError(ENOSYS, f"SCHEDOP {operation}")
        return 0

    def _hvm_op(self, guest: GuestArguments, arguments: Sequence[int], vcpu: int) -> int:
        operation, at = arguments[0], arguments[1]
        if operation not in (layouts.HVM_OP_SET_PARAM, layouts.HVM_OP_GET_PARAM):
            raise HypercallError(ENOSYS, f"HVMOP {operation}")
        domid, pad, index, value = guest.read(PARAM, at)
        if domid != layouts.DOMID_SELF:
            raise HypercallError(ESRCH, "HVM parameters of another domain")
        if operation == layouts.HVM_OP_SET_PARAM:
            self._domain.params.set(index, value, by_guest=True)
        else:
            value = self._domain.params.get(index)
            guest.write(PARAM, at, domid, pad, index, value)
        return 0
