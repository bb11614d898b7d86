"""The dm_ops that this side asks for: each one's name, number and the struct of its argument.

A request is the whole struct xen_dm_op (public/hvm/dm_op.h): number, padding, the argument, zeros.
"""

from __future__ import annotations

from errno import EPROTO
from struct import Struct

from dm.errors import HostError
from protocol import layouts

__all__ = [
    "CREATE_IOREQ_SERVER",
    "DESTROY_IOREQ_SERVER",
    "EXTENT",
    "GET_IOREQ_SERVER_INFO",
    "INJECT_MSI",
    "MAP_IO_RANGE",
    "MODIFIED_MEMORY",
    "NR_VCPUS",
    "REMOTE_SHUTDOWN",
    "SET_IOREQ_SERVER_STATE",
    "SET_ISA_IRQ_LEVEL",
    "SET_MEM_TYPE",
    "SET_PCI_INTX_LEVEL",
    "SET_PCI_LINK_ROUTE",
    "UNMAP_IO_RANGE",
    "Operation",
]


class Operation:
    """One sub-operation; ``name`` stands in error messages."""

    __slots__ = ("_number", "_pack", "_unpack", "name")

    def __init__(self, name: str, number: int, argument: str) -> None:
        layout = Struct(layouts.DM_OP_FORMAT[:3] + argument[1:])
        self.name = f"dm_op_{name}"
        self._number = number
        self._pack = layout.pack
        self._unpack = layout.unpack_from

    def pack(self, *values: int) -> bytes:
        """The structure with these fields of the argument, padding included."""
        return self._pack(self._number, 0, *values).ljust(layouts.DM_OP_SIZE, b"\0")

    def unpack(self, data: bytes) -> tuple[int, ...]:
        """The fields of the argument, padding included; HostError when the structure is short."""
        if len(data) < layouts.DM_OP_SIZE:
            raise HostError(f"{self.name}: an answer of {len(data)} bytes", EPROTO)
        return self._unpack(data)[2:]


CREATE_IOREQ_SERVER = Operation(
    "create_ioreq_server",
    layouts.DM_OP_CREATE_IOREQ_SERVER,
    layouts.DM_OP_CREATE_IOREQ_SERVER_FORMAT,
)
GET_IOREQ_SERVER_INFO = Operation(
    "get_ioreq_server_info",
    layouts.DM_OP_GET_IOREQ_SERVER_INFO,
    layouts.DM_OP_GET_IOREQ_SERVER_INFO_FORMAT,
)
MAP_IO_RANGE = Operation(
    "map_io_range_to_ioreq_server",
    layouts.DM_OP_MAP_IO_RANGE_TO_IOREQ_SERVER,
    layouts.DM_OP_IOREQ_SERVER_RANGE_FORMAT,
)
UNMAP_IO_RANGE = Operation(
    "unmap_io_range_from_ioreq_server",
    layouts.DM_OP_UNMAP_IO_RANGE_FROM_IOREQ_SERVER,
    layouts.DM_OP_IOREQ_SERVER_RANGE_FORMAT,
)
SET_IOREQ_SERVER_STATE = Operation(
    "set_ioreq_server_state",
    layouts.DM_OP_SET_IOREQ_SERVER_STATE,
    layouts.DM_OP_SET_IOREQ_SERVER_STATE_FORMAT,
)
DESTROY_IOREQ_SERVER = Operation(
    "destroy_ioreq_server",
    layouts.DM_OP_DESTROY_IOREQ_SERVER,
    layouts.DM_OP_DESTROY_IOREQ_SERVER_FORMAT,
)
SET_PCI_INTX_LEVEL = Operation(
    "set_pci_intx_level",
    layouts.DM_OP_SET_PCI_INTX_LEVEL,
    layouts.DM_OP_SET_PCI_INTX_LEVEL_FORMAT,
)
SET_ISA_IRQ_LEVEL = Operation(
    "set_isa_irq_level", layouts.DM_OP_SET_ISA_IRQ_LEVEL, layouts.DM_OP_SET_ISA_IRQ_LEVEL_FORMAT
)
SET_PCI_LINK_ROUTE = Operation(
    "set_pci_link_route",
    layouts.DM_OP_SET_PCI_LINK_ROUTE,
    layouts.DM_OP_SET_PCI_LINK_ROUTE_FORMAT,
)
MODIFIED_MEMORY = Operation(
    "modified_memory", layouts.DM_OP_MODIFIED_MEMORY, layouts.DM_OP_MODIFIED_MEMORY_FORMAT
)
SET_MEM_TYPE = Operation(
    "set_mem_type", layouts.DM_OP_SET_MEM_TYPE, layouts.DM_OP_SET_MEM_TYPE_FORMAT
)
INJECT_MSI = Operation("inject_msi", layouts.DM_OP_INJECT_MSI, layouts.DM_OP_INJECT_MSI_FORMAT)
REMOTE_SHUTDOWN = Operation(
    "remote_shutdown", layouts.DM_OP_REMOTE_SHUTDOWN, layouts.DM_OP_REMOTE_SHUTDOWN_FORMAT
)
NR_VCPUS = Operation("nr_vcpus", layouts.DM_OP_NR_VCPUS, layouts.DM_OP_NR_VCPUS_FORMAT)
EXTENT = Struct(layouts.DM_OP_MODIFIED_MEMORY_EXTENT_FORMAT)
"""What MODIFIED_MEMORY's second buffer is an array of."""
