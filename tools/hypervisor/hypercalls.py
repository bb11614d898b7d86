"""What a guest gets of Xen's hypercall interface: discovery by CPUID, a page of stubs, calls.

Only what small guests use: their version, ending themselves or asking for a soft reset, and their
own HVM parameters. Everything else answers ENOSYS, as Xen does for a hypercall it lacks.

Facts: public/arch-x86/cpuid.h (leaves), public/xen.h (stubs of 32 bytes), xen/common/sched/core.c
(do_sched_op), xen/arch/x86/hvm/hvm.c (do_hvm_op).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from errno import EFAULT, EINVAL, ENOSYS, ESRCH
from typing import TYPE_CHECKING

from protocol import layouts

from .errors import HypercallError

if TYPE_CHECKING:
    from .domain import Domain

__all__ = ["HYPERCALL_MSR", "Hypercalls"]

HYPERCALL_MSR = 0x40000200
"""The MSR that takes the GPA of a page to be filled with stubs; where Xen has it for guests that
see Hyper-V's leaves, too, so that it is never one of Hyper-V's."""
VMCALL = b"\x0f\x01\xc1"
DOMID_SELF = 0x7FF0
VERSION = 4 << 16 | 17
"""The Xen release whose behaviour is played."""
LAST_LEAF = layouts.XEN_CPUID_FIRST + 4
PARAM = struct.Struct(layouts.HVM_PARAM_FORMAT)
MASK_32 = 0xFFFFFFFF
MASK_64 = (1 << 64) - 1


class Hypercalls:
    """The interface of one domain. Arguments that are addresses are guest-physical."""

    msr = HYPERCALL_MSR

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._handlers: dict[int, Callable[[Sequence[int]], int]] = {
            layouts.HYPERCALL_XEN_VERSION: self._version,
            layouts.HYPERCALL_SCHED_OP: self._sched_op,
            layouts.HYPERCALL_HVM_OP: self._hvm_op,
        }

    def cpuid(self, leaf: int) -> tuple[int, int, int, int] | None:
        """EAX, EBX, ECX and EDX of one of Xen's leaves; None when it is not one."""
        first = layouts.XEN_CPUID_FIRST
        if leaf == first:
            b, c, d = struct.unpack("<III", layouts.XEN_SIGNATURE)
            return LAST_LEAF, b, c, d
        if leaf == first + 1:
            return VERSION, 0, 0, 0
        if leaf == first + 2:
            return 1, HYPERCALL_MSR, 0, 0
        return (0, 0, 0, 0) if first < leaf <= LAST_LEAF else None

    def fill_page(self, gpa: int, instruction: bytes = VMCALL) -> None:
        """Write the stubs to the page at ``gpa``: number to EAX, ``instruction``, return."""
        stubs = bytearray()
        for number in range(layouts.IOREQ_PAGE_SIZE // layouts.HYPERCALL_STUB_SIZE):
            stub = b"\xb8" + struct.pack("<I", number) + instruction + b"\xc3"
            stubs += stub.ljust(layouts.HYPERCALL_STUB_SIZE, b"\xcc")
        self._domain.memory.write(gpa & ~(layouts.IOREQ_PAGE_SIZE - 1), bytes(stubs))

    def call(self, vcpu: int, number: int, arguments: Sequence[int], wide: bool) -> int:
        """Perform a hypercall; gives what EAX (RAX with ``wide``) holds afterwards.

        ``arguments``: up to five registers. ``vcpu``: who calls; none of these calls differ by it.
        """
        handler = self._handlers.get(number)
        try:
            if handler is None:
                raise HypercallError(ENOSYS, f"hypercall {number}")
            result = handler(arguments)
        except HypercallError as error:
            result = -(error.errno or EINVAL)
        return result & (MASK_64 if wide else MASK_32)

    def _version(self, arguments: Sequence[int]) -> int:
        if arguments[0] == layouts.XEN_VERSION_OP_VERSION:
            return VERSION
        raise HypercallError(ENOSYS, f"XENVER {arguments[0]}")

    def _sched_op(self, arguments: Sequence[int]) -> int:
        operation, at = arguments[0], arguments[1]
        if operation == layouts.SCHED_OP_SHUTDOWN:
            (reason,) = struct.unpack(layouts.SCHED_SHUTDOWN_FORMAT, self._read(at, 4))
            self._domain.shutdown(reason)
        elif operation != layouts.SCHED_OP_YIELD:
            raise HypercallError(ENOSYS, f"SCHEDOP {operation}")
        return 0

    def _hvm_op(self, arguments: Sequence[int]) -> int:
        operation, at = arguments[0], arguments[1]
        domid, pad, index, value = PARAM.unpack(self._read(at, PARAM.size))
        if domid != DOMID_SELF:
            raise HypercallError(ESRCH, "HVM parameters of another domain")
        if operation == layouts.HVM_OP_SET_PARAM:
            self._domain.params.set(index, value)
        elif operation == layouts.HVM_OP_GET_PARAM:
            value = self._domain.params.get(index)
            self._domain.memory.write(at, PARAM.pack(domid, pad, index, value))
        else:
            raise HypercallError(ENOSYS, f"HVMOP {operation}")
        return 0

    def _read(self, gpa: int, length: int) -> bytes:
        if self._domain.memory.find(gpa) is None:
            raise HypercallError(EFAULT, f"there is no RAM at {gpa:#x}")
        return self._domain.memory.read(gpa, length)
