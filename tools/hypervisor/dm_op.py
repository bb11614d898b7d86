"""The device-model hypercall: what each sub-operation checks, in which order, and what it does.

Facts: xen/arch/x86/hvm/dm.c (dm_op, argument sizes, padding), xen/common/ioreq.c
(ioreq_server_dm_op). Not modelled: relocate_memory (ENOSYS), write-trapped memory
(map_mem_type_to_ioreq_server answers EOPNOTSUPP, as for a domain without HAP).
"""

from __future__ import annotations

from collections.abc import Callable
from errno import (
    EBUSY,
    EFAULT,
    EINVAL,
    ENOENT,
    ENOSPC,
    ENOSYS,
    EOPNOTSUPP,
    EPERM,
    ESRCH,
)
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from protocol import layouts

from .errors import HypercallError
from .memory import PAGE_SHIFT
from .vcpu_thread import Event

if TYPE_CHECKING:
    from .domain import Domain

__all__ = ["perform"]

OPERATION = Struct("<II")
HEADER = layouts.DM_OP_U_OFFSET
SIZE = layouts.DM_OP_SIZE
EXTENT = Struct(layouts.DM_OP_MODIFIED_MEMORY_EXTENT_FORMAT)
VRAM_LIMIT = 1 << 30 - PAGE_SHIFT
"""Pages of video memory that can be tracked: 1 GiB."""
PINNED_LIMIT = 64
CACHE_ATTRIBUTES = (
    layouts.MEM_CACHEATTR_UC,
    layouts.MEM_CACHEATTR_WC,
    layouts.MEM_CACHEATTR_WT,
    layouts.MEM_CACHEATTR_WP,
    layouts.MEM_CACHEATTR_WB,
    layouts.MEM_CACHEATTR_UCM,
)
MEMORY_TYPES = (layouts.MEM_TYPE_RAM_RW, layouts.MEM_TYPE_RAM_RO, layouts.MEM_TYPE_MMIO_DM)


class Call:
    """One call: who calls on which domain, buffer 0 and buffer 1, both changeable."""

    def __init__(self, domain: Domain, emulator: int, argument: bytearray, buffer: bytearray):
        self.domain = domain
        self.emulator = emulator
        self.argument = argument
        self.buffer = buffer

    def store(self, structure: Struct, *values: int) -> None:
        """Write results into the argument, from its begin."""
        structure.pack_into(self.argument, HEADER, *values)


def _check_padding(*padding: int) -> None:
    if any(padding):
        raise HypercallError(EINVAL, "padding is not zero")


def _create(call: Call, mode: int, pad0: int, pad1: int, pad2: int, number: int) -> None:
    _check_padding(pad0, pad1, pad2)
    server = call.domain.servers.create(call.emulator, mode)
    call.store(CREATE, mode, 0, 0, 0, server.id)


def _info(call: Call, number: int, flags: int, port: int, gfn: int, ring_gfn: int) -> None:
    if flags & ~layouts.INFO_FLAG_NO_GFNS:
        raise HypercallError(EINVAL, f"there are no flags {flags:#x}")
    servers = call.domain.servers
    server = servers.get(number, call.emulator)
    if not flags & layouts.INFO_FLAG_NO_GFNS:
        servers.map_guest_pages(server)
        gfn = server.gfns[0]
        ring_gfn = server.gfns[1] if server.has_ring else ring_gfn
    if server.ring_channel is not None:
        port = server.ring_channel.port
    call.store(INFO, number, flags, port, gfn, ring_gfn)


def _check_range(first: int, last: int) -> None:
    if first > last:
        raise HypercallError(EINVAL, f"a range from {first:#x} to {last:#x}")


def _map(call: Call, number: int, pad: int, space: int, first: int, last: int) -> None:
    _check_padding(pad)
    _check_range(first, last)
    server = call.domain.servers.get(number, call.emulator)
    if space >= len(server.ranges):
        raise HypercallError(EINVAL, f"there are no ranges of type {space}")
    server.ranges[space].add(first, last)
    call.domain.servers.changed()


def _unmap(call: Call, number: int, pad: int, space: int, first: int, last: int) -> None:
    _check_padding(pad)
    _check_range(first, last)
    server = call.domain.servers.get(number, call.emulator)
    if space >= len(server.ranges):
        raise HypercallError(EINVAL, f"there are no ranges of type {space}")
    server.ranges[space].remove(first, last)
    call.domain.servers.changed()


def _set_state(call: Call, number: int, enabled: int, pad: int) -> None:
    _check_padding(pad)
    server = call.domain.servers.get(number, call.emulator)
    if enabled:
        server.enable()
    else:
        server.disable()
    call.domain.servers.changed()


def _destroy(call: Call, number: int, pad: int) -> None:
    _check_padding(pad)
    call.domain.servers.destroy(call.domain.servers.get(number, call.emulator))


def _track_vram(call: Call, count: int, pad: int, first_gfn: int) -> None:
    _check_padding(pad)
    if count > VRAM_LIMIT:
        raise HypercallError(EINVAL, f"{count} pages of video memory")
    if not call.domain.alive:
        raise HypercallError(ESRCH, "the domain is dying")
    if len(call.buffer) < (count + 7) // 8:
        raise HypercallError(EINVAL, f"{len(call.buffer)} bytes cannot tell of {count} pages")
    bitmap = call.domain.dirty.watch(first_gfn, count)
    call.buffer[: len(bitmap)] = bitmap


def _set_intx(call: Call, segment: int, bus: int, device: int, intx: int, level: int) -> None:
    if segment or bus:
        raise HypercallError(EINVAL, f"there are no lines on bus {segment}:{bus}")
    call.domain.interrupts.set_intx(device, intx, level)


def _set_isa(call: Call, irq: int, level: int) -> None:
    call.domain.interrupts.set_isa_irq(irq, level)


def _set_link(call: Call, link: int, irq: int) -> None:
    call.domain.interrupts.set_link_route(link, irq)


def _inject_msi(call: Call, data: int, pad: int, address: int) -> None:
    _check_padding(pad)
    call.domain.interrupts.inject_msi(address, data)


def _modified_memory(call: Call, count: int, opaque: int) -> None:
    if not call.domain.dirty.enabled:
        return
    if count * EXTENT.size > len(call.buffer):
        raise HypercallError(EFAULT, f"{len(call.buffer)} bytes do not hold {count} extents")
    for number, pad, first in reversed(
        list(EXTENT.iter_unpack(call.buffer[: count * EXTENT.size]))
    ):
        _check_padding(pad)
        _check_frames(call.domain, first, number)
        call.domain.dirty.mark(first, number)


def _check_frames(domain: Domain, first: int, count: int) -> None:
    if count and first + count - 1 > domain.memory.highest_gfn:
        raise HypercallError(EINVAL, f"{count} pages from GFN {first:#x} are beyond the memory")


def _set_mem_type(call: Call, count: int, mem_type: int, pad: int, first: int) -> None:
    _check_padding(pad)
    _check_frames(call.domain, first, count)
    if mem_type == layouts.MEM_TYPE_IOREQ_SERVER:
        raise HypercallError(EOPNOTSUPP, "memory cannot be write-trapped")
    if mem_type not in MEMORY_TYPES:
        raise HypercallError(EINVAL, f"there is no memory type {mem_type}")
    memory = call.domain.memory
    good = count
    if mem_type != layouts.MEM_TYPE_MMIO_DM:
        # Up to the first hole; a hole can only be told that it is one.
        run = next(memory.frames(first, count), range(0))
        good = len(run) if run.start == first else 0
    memory.page_types(first, good, mem_type)
    if good < count:
        raise HypercallError(EINVAL, f"GFN {first + good:#x} is a hole")


def _inject_event(
    call: Call,
    number: int,
    vector: int,
    kind: int,
    length: int,
    pad0: int,
    error_code: int,
    pad1: int,
    cr2: int,
) -> None:
    _check_padding(pad0, pad1)
    vcpu = call.domain.find_vcpu(number)
    if vcpu is None:
        raise HypercallError(EINVAL, f"there is no vCPU {number}")
    vcpu.inject(Event(vector, kind, error_code, length, cr2))


def _map_mem_type(call: Call, number: int, mem_type: int, flags: int, opaque: int) -> None:
    raise HypercallError(EOPNOTSUPP, "memory cannot be write-trapped")


def _shutdown(call: Call, reason: int) -> None:
    call.domain.shutdown(reason)


def _relocate(call: Call, count: int, pad: int, source: int, target: int) -> None:
    _check_padding(pad)
    raise HypercallError(ENOSYS, "memory does not move here")


def _pin(call: Call, first: int, last: int, attribute: int, pad: int) -> None:
    """What a vCPU's caches would do with these frames; nothing here depends on it."""
    _check_padding(pad)
    pinned = call.domain.pinned
    if attribute == layouts.MEM_CACHEATTR_DELETE:
        exact = [one for one in pinned if one[:2] == (first, last)]
        if not exact:
            raise HypercallError(ENOENT, f"frames {first:#x} to {last:#x} are not pinned")
        pinned.remove(exact[0])
        return
    if first > last or last >= 1 << 52 - PAGE_SHIFT or attribute not in CACHE_ATTRIBUTES:
        raise HypercallError(EINVAL, f"frames {first:#x} to {last:#x}, attribute {attribute}")
    if any(one[0] <= last and first <= one[1] for one in pinned):
        raise HypercallError(EBUSY, f"frames {first:#x} to {last:#x} are pinned in part")
    if len(pinned) >= PINNED_LIMIT:
        raise HypercallError(ENOSPC, f"{PINNED_LIMIT} ranges are pinned")
    pinned.append((first, last, attribute))


def _nr_vcpus(call: Call, count: int) -> None:
    call.store(NR_VCPUS, call.domain.max_vcpus)


class Operation(NamedTuple):
    """A sub-operation: its argument and what performs it, with the domain's lock or without."""

    argument: Struct
    perform: Callable[..., None]
    locked: bool = True


CREATE = Struct(layouts.DM_OP_CREATE_IOREQ_SERVER_FORMAT)
INFO = Struct(layouts.DM_OP_GET_IOREQ_SERVER_INFO_FORMAT)
RANGE = Struct(layouts.DM_OP_IOREQ_SERVER_RANGE_FORMAT)
NR_VCPUS = Struct(layouts.DM_OP_NR_VCPUS_FORMAT)

OPERATIONS = {
    layouts.DM_OP_CREATE_IOREQ_SERVER: Operation(CREATE, _create),
    layouts.DM_OP_GET_IOREQ_SERVER_INFO: Operation(INFO, _info),
    layouts.DM_OP_MAP_IO_RANGE_TO_IOREQ_SERVER: Operation(RANGE, _map),
    layouts.DM_OP_UNMAP_IO_RANGE_FROM_IOREQ_SERVER: Operation(RANGE, _unmap),
    layouts.DM_OP_SET_IOREQ_SERVER_STATE: Operation(
        Struct(layouts.DM_OP_SET_IOREQ_SERVER_STATE_FORMAT), _set_state
    ),
    layouts.DM_OP_DESTROY_IOREQ_SERVER: Operation(
        Struct(layouts.DM_OP_DESTROY_IOREQ_SERVER_FORMAT), _destroy
    ),
    layouts.DM_OP_TRACK_DIRTY_VRAM: Operation(
        Struct(layouts.DM_OP_TRACK_DIRTY_VRAM_FORMAT), _track_vram
    ),
    layouts.DM_OP_SET_PCI_INTX_LEVEL: Operation(
        Struct(layouts.DM_OP_SET_PCI_INTX_LEVEL_FORMAT), _set_intx
    ),
    layouts.DM_OP_SET_ISA_IRQ_LEVEL: Operation(
        Struct(layouts.DM_OP_SET_ISA_IRQ_LEVEL_FORMAT), _set_isa
    ),
    layouts.DM_OP_SET_PCI_LINK_ROUTE: Operation(
        Struct(layouts.DM_OP_SET_PCI_LINK_ROUTE_FORMAT), _set_link
    ),
    layouts.DM_OP_MODIFIED_MEMORY: Operation(
        Struct(layouts.DM_OP_MODIFIED_MEMORY_FORMAT), _modified_memory
    ),
    layouts.DM_OP_SET_MEM_TYPE: Operation(Struct(layouts.DM_OP_SET_MEM_TYPE_FORMAT), _set_mem_type),
    layouts.DM_OP_INJECT_EVENT: Operation(Struct(layouts.DM_OP_INJECT_EVENT_FORMAT), _inject_event),
    layouts.DM_OP_INJECT_MSI: Operation(Struct(layouts.DM_OP_INJECT_MSI_FORMAT), _inject_msi),
    layouts.DM_OP_MAP_MEM_TYPE_TO_IOREQ_SERVER: Operation(
        Struct(layouts.DM_OP_MAP_MEM_TYPE_TO_IOREQ_SERVER_FORMAT), _map_mem_type
    ),
    layouts.DM_OP_REMOTE_SHUTDOWN: Operation(
        Struct(layouts.DM_OP_REMOTE_SHUTDOWN_FORMAT), _shutdown, locked=False
    ),
    layouts.DM_OP_RELOCATE_MEMORY: Operation(
        Struct(layouts.DM_OP_RELOCATE_MEMORY_FORMAT), _relocate
    ),
    layouts.DM_OP_PIN_MEMORY_CACHEATTR: Operation(
        Struct(layouts.DM_OP_PIN_MEMORY_CACHEATTR_FORMAT), _pin
    ),
    layouts.DM_OP_NR_VCPUS: Operation(NR_VCPUS, _nr_vcpus),
}
"""All but set_irq_level, which only Arm has."""


def perform(domain: Domain, emulator: int, data: bytes, *, privileged: bool = True) -> bytes:
    """Perform one dm_op; gives the buffers as the call changed them.

    ``emulator``: the domain that calls; ``data``: struct xen_dm_op, then the second buffer, if
    any; ``privileged``: whether it may call at all. HypercallError: in Xen's order ESRCH, EPERM,
    EFAULT, EOPNOTSUPP, EINVAL for padding, then what the operation has.
    """
    if not domain.alive:
        raise HypercallError(ESRCH, f"domain {domain.domid} is gone")
    if emulator == domain.domid or not privileged:
        raise HypercallError(EPERM, f"domain {emulator} has no power over domain {domain.domid}")
    if len(data) < HEADER:
        raise HypercallError(EFAULT, "buffer 0 has no operation")
    number, pad = OPERATION.unpack_from(data)
    operation = OPERATIONS.get(number)
    if operation is None:
        raise HypercallError(EOPNOTSUPP, f"there is no operation {number}")
    if len(data) < HEADER + operation.argument.size:
        raise HypercallError(EFAULT, f"buffer 0 is too short for operation {number}")
    _check_padding(pad)
    call = Call(domain, emulator, bytearray(data[:SIZE]), bytearray(data[SIZE:]))
    values = operation.argument.unpack_from(data, HEADER)
    if operation.locked:
        with domain.lock:
            operation.perform(call, *values)
    else:
        operation.perform(call, *values)
    return bytes(call.argument + call.buffer)
