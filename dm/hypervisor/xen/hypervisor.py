"""Xen as the other side of the interface: one domain, through Xen's stable libraries.

Facts: public/hvm/dm_op.h; xen/common/ioreq.c; the order of restricting as in QEMU's
accel/xen/xen-all.c (open everything, then xentoolcore_restrict_all).
"""

from __future__ import annotations

import os
from errno import ESRCH
from fcntl import LOCK_EX, flock
from struct import Struct

from dm.device.platform import PCI
from dm.errors import HostError
from dm.hypervisor.interface import SHUTDOWN_REASONS, Hypervisor, ServerPages
from protocol import layouts

from .ffi import U8, U16, U32, UINT, byref, get_errno
from .library import CALL, DEVICEMODEL, EVTCHN, TOOLCORE, Library
from .memory import ForeignMemory, MapCache
from .store import XenStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

__all__ = ["XenHypervisor"]

RUN_DIRECTORY = "/var/run/xen"
RUN_PREFIX = "ioreqd-"
PHYSICAL_CPUS = "/sys/devices/system/xen_cpu"

HVM_PARAM = Struct(layouts.HVM_PARAM_FORMAT)
PORTS_LENGTH = 4 * (layouts.IOREQ_SLOT_COUNT + 1) * 2
PACK_PORT = Struct("I").pack


class XenHypervisor(Hypervisor):
    """A domain of this Xen host."""

    def __init__(self, domid: int) -> None:
        self.domid = domid
        self._where = f"domain {domid}"
        self._dm = Library(*DEVICEMODEL)
        self._dm_handle = self._dm.open(None, 0)
        self._events = Library(*EVTCHN)
        self._events_handle = self._events.open(None, 0)
        self.event_fd = self._events.call("fd", "", self._events_handle)
        os.set_blocking(self.event_fd, False)
        self.foreign = ForeignMemory(domid)
        self._cache = MapCache(
            self.foreign.map_pages, self.foreign.unmap_pages, self._modified_memory
        )
        self.memory = self._cache
        self._server = -1
        self._mapped: dict[int, Any] = {}
        self._notify = self._events.function("notify")
        self._swept = False
        self._sched: tuple[Library, Any] | None = None

    def _call(self, name: str, *arguments: object) -> None:
        self._dm.call(name, self._where, self._dm_handle, self.domid, *arguments)

    def vcpu_count(self) -> int:
        """See `Hypervisor.vcpu_count`."""
        count = UINT()
        self._call("nr_vcpus", byref(count))
        return min(count.value, layouts.IOREQ_SLOT_COUNT)

    def cpu_count(self) -> int:
        """The host's physical CPUs as Linux shows them to dom0; else the CPUs of this process."""
        try:
            names = os.listdir(PHYSICAL_CPUS)
        except OSError:
            return len(os.sched_getaffinity(0))
        return sum(name.startswith("xen_cpu") for name in names) or 1

    def yield_cpu(self) -> bool:
        """See `Hypervisor.yield_cpu`: SCHEDOP_yield, which Xen refuses a restricted process.

        Without it, Xen's scheduler lets this CPU go on for a millisecond after a notification.
        """
        try:
            if self._sched is None:
                library = Library(*CALL)
                handle = library.call("_open", self._where, None, 0)
                self._sched = library, handle
            library, handle = self._sched
            library.call(
                "2", self._where, handle, layouts.HYPERCALL_SCHED_OP, layouts.SCHED_OP_YIELD, 0
            )
        except HostError:
            return False
        return True

    def create_server(self) -> int:
        """See `Hypervisor.create_server`."""
        server = U16()
        self._call("create_ioreq_server", layouts.BUFIOREQ_MODE_LEGACY, byref(server))
        return server.value

    def exclusive(self) -> Callable[[], None]:
        """See `Hypervisor.exclusive`: a lock on Xen's run-time directory, which leaves no file."""
        try:
            directory = os.open(RUN_DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return lambda: None
        flock(directory, LOCK_EX)
        return lambda: os.close(directory)

    def run_file(self, suffix: str) -> str | None:
        """See `Hypervisor.run_file`."""
        if not self._swept:
            try:
                self._sweep(os.listdir(RUN_DIRECTORY))
            except OSError:
                return None
            self._swept = True
        return f"{RUN_DIRECTORY}/{RUN_PREFIX}{self.domid}.{suffix}"

    def _sweep(self, names: list[str]) -> None:
        """Remove the files of domains that are gone; once is enough for a process."""
        for name in names:
            domid = name.removeprefix(RUN_PREFIX).partition(".")[0]
            if name.startswith(RUN_PREFIX) and domid.isdecimal() and not self._exists(int(domid)):
                try:
                    os.unlink(f"{RUN_DIRECTORY}/{name}")
                except OSError:
                    continue

    def _exists(self, domid: int) -> bool:
        count = UINT()
        result = self._dm.function("nr_vcpus")(self._dm_handle, domid, byref(count))
        return result == 0 or get_errno() != ESRCH

    def server_ids(self) -> list[int]:
        """See `Hypervisor.server_ids`."""
        found = []
        for server in range(layouts.IOREQ_SERVER_MAX):
            try:
                self.buffered_port(server)
            except HostError:
                # No such server, or another domain's.
                continue
            found.append(server)
        return found

    def use_server(self, server: int) -> None:
        """See `Hypervisor.use_server`."""
        self._server = server

    def map_server(self, server: int) -> ServerPages:
        """See `Hypervisor.map_server`."""
        page = layouts.IOREQ_PAGE_SIZE
        kind = layouts.XENMEM_RESOURCE_IOREQ_SERVER
        first = layouts.IOREQ_SERVER_FRAME_BUFIOREQ
        try:
            address, mapped = self.foreign.map_resource(kind, server, first, 2)
        except HostError:
            # A server without a ring has no such frame.
            first = layouts.IOREQ_SERVER_FRAME_IOREQ
            address, mapped = self.foreign.map_resource(kind, server, first, 1)
        self._mapped[server] = mapped
        size = (layouts.IOREQ_SERVER_FRAME_IOREQ - first + 1) * page
        view = memoryview((U8 * size).from_address(address)).cast("B")
        synchronous = view[size - page :]
        return ServerPages(synchronous, view[:page] if size > page else None)

    def unmap_server(self, server: int) -> None:
        """See `Hypervisor.unmap_server`."""
        mapped = self._mapped.pop(server, None)
        if mapped is not None:
            self.foreign.unmap_resource(mapped)

    def buffered_port(self, server: int) -> int:
        """See `Hypervisor.buffered_port`."""
        port = U32(0)
        self._call("get_ioreq_server_info", server, None, None, byref(port))
        return port.value

    def enable_server(self, server: int, *, enabled: bool) -> None:
        """See `Hypervisor.enable_server`."""
        self._call("set_ioreq_server_state", server, int(enabled))

    def destroy_server(self, server: int) -> None:
        """See `Hypervisor.destroy_server`."""
        self._call("destroy_ioreq_server", server)

    def claim(self, space: int, first: int, last: int) -> None:
        """See `Platform.claim`."""
        self._range("map", "to", space, first, last)

    def release(self, space: int, first: int, last: int) -> None:
        """See `Platform.release`."""
        self._range("unmap", "from", space, first, last)

    def _range(self, verb: str, preposition: str, space: int, first: int, last: int) -> None:
        if space != PCI:
            name = f"{verb}_io_range_{preposition}_ioreq_server"
            self._call(name, self._server, space, first, last)
            return
        for sbdf in range(first, last + 1):
            name = f"{verb}_pcidev_{preposition}_ioreq_server"
            place = (sbdf >> 16, sbdf >> 8 & 0xFF, sbdf >> 3 & 0x1F, sbdf & 7)
            self._call(name, self._server, *place)

    def set_isa_irq(self, irq: int, level: int) -> None:
        """See `Platform.set_isa_irq`."""
        self._call("set_isa_irq_level", irq, level)

    def set_intx(self, slot: int, pin: int, level: int) -> None:
        """See `Platform.set_intx`."""
        self._call("set_pci_intx_level", 0, 0, slot, pin, level)

    def set_link_route(self, link: int, irq: int) -> None:
        """See `Platform.set_link_route`."""
        self._call("set_pci_link_route", link, irq)

    def inject_msi(self, address: int, data: int) -> None:
        """See `Platform.inject_msi`."""
        self._call("inject_msi", address, data)

    def set_memory_type(self, first_gfn: int, count: int, *, writable: bool) -> None:
        """See `Platform.set_memory_type`."""
        kind = layouts.MEM_TYPE_RAM_RW if writable else layouts.MEM_TYPE_RAM_RO
        self._call("set_mem_type", kind, first_gfn, count)

    def shutdown(self, reason: str) -> None:
        """See `Platform.shutdown`."""
        self._call("shutdown", SHUTDOWN_REASONS[reason])

    def set_sleep_state(self, state: int) -> None:
        """See `Hypervisor.set_sleep_state`."""
        from ctypes import memmove

        call = Library(*CALL)
        handle = call.call("_open", self._where, None, 0)
        buffer = None
        try:
            buffer = call.call("_alloc_buffer", self._where, handle, HVM_PARAM.size)
            argument = HVM_PARAM.pack(self.domid, 0, layouts.HVM_PARAM_ACPI_S_STATE, state)
            memmove(buffer, argument, HVM_PARAM.size)
            call.call(
                "2", self._where, handle, layouts.HYPERCALL_HVM_OP, layouts.HVM_OP_SET_PARAM, buffer
            )
        finally:
            if buffer is not None:
                call.function("_free_buffer")(handle, buffer)
            call.function("_close")(handle)

    def bind(self, remote_port: int) -> int:
        """See `Hypervisor.bind`."""
        port: int = self._events.call(
            "bind_interdomain", self._where, self._events_handle, self.domid, remote_port
        )
        return port

    def unbind(self, port: int) -> None:
        """See `Hypervisor.unbind`."""
        self._events.call("unbind", self._where, self._events_handle, port)

    def notify(self, port: int) -> None:
        """See `Hypervisor.notify`."""
        if self._notify(self._events_handle, port) < 0:
            raise self._events.error("notify", f"{self._where}, port {port}", get_errno())

    def events(self) -> Sequence[int]:
        """See `Hypervisor.events`: reading gives ports and masks them (drivers/xen/evtchn.c)."""
        try:
            return memoryview(os.read(self.event_fd, PORTS_LENGTH)).cast("I")
        except BlockingIOError:
            return ()

    def unmask(self, ports: Sequence[int]) -> None:
        """See `Hypervisor.unmask`: ports that are written back are unmasked."""
        os.write(self.event_fd, b"".join(map(PACK_PORT, ports)))

    def set_dirty_log(self, *, enabled: bool) -> None:
        """See `Hypervisor.set_dirty_log`."""
        self._cache.dirty_log = enabled

    def _modified_memory(self, first_gfn: int, count: int) -> None:
        self._call("modified_memory", first_gfn, count)

    def restrict(self) -> None:
        """See `Hypervisor.restrict`."""
        Library(*TOOLCORE).call("restrict_all", self._where, self.domid)

    def store(self) -> XenStore:
        """See `Hypervisor.store`."""
        return XenStore()

    def close(self) -> None:
        """See `Hypervisor.close`."""
        self.memory.invalidate()
        for server in list(self._mapped):
            self.unmap_server(server)
        if self._sched is not None:
            library, handle = self._sched
            library.function("_close")(handle)
        self.foreign.close()
        self._events.call("close", "", self._events_handle)
        self._dm.call("close", "", self._dm_handle)
