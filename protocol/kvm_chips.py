"""The state of KVM's interrupt controllers, and whether a vCPU waits for one: ioctl requests.

Source: linux/kvm.h, asm/kvm.h; Documentation/virt/kvm/api.rst.
"""

from __future__ import annotations

import ctypes as c
from enum import IntEnum, unique

from .kvm import kvm_request

__all__ = ["KvmChipRequest", "KvmIoapicState", "KvmLapicState", "KvmMpState", "KvmRunState"]

_WRITE, _READ = 1, 2


class KvmIoapicState(c.Structure):
    """struct kvm_irqchip with the I/O APIC's state in it; ``chip_id`` says which chip is wanted."""

    _fields_ = (
        ("chip_id", c.c_uint32),
        ("pad", c.c_uint32),
        ("base_address", c.c_uint64),
        ("select", c.c_uint32),
        ("id", c.c_uint32),
        ("requests", c.c_uint32),
        ("pad2", c.c_uint32),
        ("redirections", c.c_uint64 * 24),
        ("rest", c.c_uint8 * 296),
    )


class KvmLapicState(c.Structure):
    """struct kvm_lapic_state: the registers as in the local APIC's page, from its begin."""

    _fields_ = (("registers", c.c_uint32 * 256),)


class KvmMpState(c.Structure):
    """struct kvm_mp_state: a KvmRunState."""

    _fields_ = (("mp_state", c.c_uint32),)


@unique
class KvmRunState(IntEnum):
    """Whether a vCPU runs, or what it waits for."""

    RUNNABLE = 0
    UNINITIALIZED = 1
    INIT_RECEIVED = 2
    HALTED = 3
    SIPI_RECEIVED = 4


@unique
class KvmChipRequest(IntEnum):
    """Requests, by the names of linux/kvm.h."""

    GET_IRQCHIP = kvm_request(0x62, _READ | _WRITE, c.sizeof(KvmIoapicState))
    GET_LAPIC = kvm_request(0x8E, _READ, c.sizeof(KvmLapicState))
    GET_MP_STATE = kvm_request(0x98, _READ, c.sizeof(KvmMpState))
    SET_MP_STATE = kvm_request(0x99, _WRITE, c.sizeof(KvmMpState))
    SET_LAPIC = kvm_request(0x8F, _WRITE, c.sizeof(KvmLapicState))
