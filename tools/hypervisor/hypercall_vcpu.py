"""VCPU_OP: a guest gives a further vCPU its first state, brings it up, and takes it down.

Facts: xen/common/domain.c (do_vcpu_op), xen/arch/x86/hvm/domain.c (arch_set_info_hvm_guest):
ENOENT for a vCPU that there is not, EEXIST for one that has a state, EINVAL for bringing one up
that has none. Not modelled, and EOPNOTSUPP: a state other than flat 32-bit code without paging, and
an engine that cannot do it; vCPUs can be started by their local APICs there. Those that are count
as down.
"""

from __future__ import annotations

import struct
from errno import EEXIST, EINVAL, ENOENT, ENOSYS, EOPNOTSUPP
from typing import TYPE_CHECKING

from protocol import layouts

from .errors import HypercallError
from .images.cpu_start import CpuStart

if TYPE_CHECKING:
    from .domain import Domain
    from .guest_arguments import GuestArguments

__all__ = ["VcpuOps"]

MODE_32 = 0
REGISTERS = struct.Struct("<13I")
CONTEXT = struct.Struct(layouts.VCPU_HVM_CONTEXT_FORMAT)
EAX, EBX, ESP, EIP, CR0 = 0, 3, 4, 8, 10
PROTECTION, PAGING = 1, 1 << 31
SEGMENT_BASES = struct.Struct("<5I")
BASES_OFFSET = 64
"""In the registers: after EFER."""


class VcpuOps:
    """The operations of one domain."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._states: dict[int, CpuStart | None] = {}
        """Of the vCPUs that have one, that of their begin until they have begun."""
        self._up: set[int] = {0}

    def perform(self, arguments: GuestArguments, operation: int, vcpu: int, at: int) -> int:
        """VCPU_OP about ``vcpu`` with its argument at ``at``. HypercallError."""
        if self._domain.find_vcpu(vcpu) is None:
            raise HypercallError(ENOENT, f"there is no vCPU {vcpu}")
        if operation == layouts.VCPU_OP_IS_UP:
            return int(vcpu in self._up)
        if self._domain.on_vcpu is None:
            raise HypercallError(EOPNOTSUPP, "the engine starts vCPUs by their local APICs only")
        if operation == layouts.VCPU_OP_INITIALISE:
            self._initialise(vcpu, *arguments.read(CONTEXT, at))
        elif operation == layouts.VCPU_OP_UP:
            if vcpu not in self._states:
                raise HypercallError(EINVAL, f"vCPU {vcpu} has no state to begin with")
            if vcpu not in self._up:
                self._up.add(vcpu)
                start, self._states[vcpu] = self._states[vcpu], None
                self._domain.on_vcpu(vcpu, start, True)
        elif operation == layouts.VCPU_OP_DOWN:
            self._up.discard(vcpu)
            self._states.setdefault(vcpu, None)
            self._domain.on_vcpu(vcpu, None, False)
        else:
            raise HypercallError(ENOSYS, f"VCPUOP {operation}")
        return 0

    def _initialise(self, vcpu: int, mode: int, pad: int, data: bytes) -> None:
        if vcpu in self._states or vcpu == 0:
            raise HypercallError(EEXIST, f"vCPU {vcpu} has a state")
        if pad:
            raise HypercallError(EINVAL, "padding is not zero")
        registers = REGISTERS.unpack_from(data)
        flat = not any(SEGMENT_BASES.unpack_from(data, BASES_OFFSET))
        plain = registers[CR0] & (PROTECTION | PAGING) == PROTECTION
        if mode != MODE_32 or not flat or not plain:
            raise HypercallError(EOPNOTSUPP, "not flat 32-bit code without paging")
        self._states[vcpu] = CpuStart(
            "protected",
            ip=registers[EIP],
            eax=registers[EAX],
            ebx=registers[EBX],
            sp=registers[ESP],
        )
