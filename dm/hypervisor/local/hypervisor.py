"""The stand-alone hypervisor as the other side of the interface: one domain, over one socket.

Requests are Xen's dm_op structures. Memory, pages and event channels come as descriptors. An event
channel is a pair of eventfds: the hypervisor raises the one, this side the other.
"""

from __future__ import annotations

import os
from errno import ENOTCONN, EPIPE, EPROTO
from fcntl import LOCK_EX, LOCK_UN, lockf
from mmap import mmap
from select import EPOLLIN
from struct import Struct

from dm.errors import HostError
from dm.hypervisor.interface import SHUTDOWN_REASONS, Hypervisor, ServerPages
from protocol import layouts

from . import operations
from .clock import LocalClock
from .connection import LocalConnection
from .memory import LocalMemory
from .ports import RAISE, Ports
from .store import LocalStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dm.hypervisor.interface import Listener

    from .operations import Operation

__all__ = ["LocalHypervisor"]

HELLO = Struct(layouts.LOCAL_HELLO_FORMAT)
DOMAIN = Struct(layouts.LOCAL_DOMAIN_FORMAT)
RESOURCE = Struct(layouts.LOCAL_RESOURCE_FORMAT)
PORT = Struct(layouts.LOCAL_PORT_FORMAT)
PARAM = Struct(layouts.LOCAL_PARAM_FORMAT)
HELLO_DESCRIPTORS = 4
NO_GFNS = layouts.INFO_FLAG_NO_GFNS
RELEASED = "@releaseDomain"


class LocalHypervisor(Hypervisor):
    """A domain of the hypervisor at ``path``; ``domid`` may be None when it has only one."""

    masks = False

    def __init__(self, path: str, domid: int | None = None) -> None:
        self._path = path
        self._connection = LocalConnection(path)
        try:
            body, descriptors = self._hello(domid)
        except HostError:
            self._connection.close()
            raise
        self._memory_fd, *clock = descriptors
        self.domid, _, mode = DOMAIN.unpack_from(body)
        self._where = f"domain {self.domid}"
        self.memory: LocalMemory = LocalMemory(
            self._memory_fd, self._regions, self._modified_memory
        )
        self.clock: LocalClock | None = None
        if mode == layouts.LOCAL_CLOCK_MODE_VIRTUAL:
            self.clock = LocalClock(*clock)
        else:
            for fd in clock:
                os.close(fd)
        self._ports = Ports()
        self.event_fd = self._ports.fd
        self._buffered: set[int] = set()
        self._server = -1
        self._mapped: dict[int, mmap] = {}
        self._listener: Listener | None = None
        self._ended: Callable[[], object] = lambda: None
        self._released = False
        self._unfired = 1
        try:
            self.memory.take(self._regions())
        except HostError:
            self.close()
            raise

    def _hello(self, domid: int | None) -> tuple[bytes, list[int]]:
        """Say which domain is meant; gives LOCAL_DOMAIN and the descriptors."""
        what = f"hello({self._path})" if domid is None else f"hello({self._path}, domain {domid})"
        wanted = layouts.LOCAL_ANY_DOMAIN if domid is None else domid
        request = HELLO.pack(layouts.LOCAL_MAGIC, layouts.LOCAL_VERSION, wanted, os.getpid())
        body, descriptors = self._connection.call_for_descriptors(
            layouts.LOCAL_CALL_HELLO, request, HELLO_DESCRIPTORS, what
        )
        if len(body) != DOMAIN.size:
            for fd in descriptors:
                os.close(fd)
            raise HostError(f"{self._path}: {len(body)} bytes do not describe a domain", EPROTO)
        return body, descriptors

    def _call(self, call: int, body: bytes, name: str, details: str = "") -> bytes:
        return self._connection.call(call, body, f"{name}({self._where}{details})")

    def _dm_op(self, operation: Operation, *values: int, extra: bytes = b"") -> bytes:
        body = operation.pack(*values) + extra
        return self._connection.call(
            layouts.LOCAL_CALL_DM_OP, body, f"{operation.name}({self._where})"
        )

    def _regions(self) -> bytes:
        """The domain's LOCAL_REGIONs."""
        what = f"memory({self._where})"
        _, (fd,) = self._connection.call_for_descriptors(layouts.LOCAL_CALL_MEMORY, b"", 1, what)
        try:
            size = os.fstat(fd).st_size
            regions = os.pread(fd, size, 0)
        except OSError as error:
            raise HostError(f"{what}: {error.strerror}", error.errno or 0) from None
        finally:
            os.close(fd)
        if len(regions) != size or size % layouts.LOCAL_REGION_SIZE:
            raise HostError(f"{what}: {len(regions)} bytes are no regions", EPROTO)
        return regions

    def vcpu_count(self) -> int:
        """See `Hypervisor.vcpu_count`."""
        answer = self._dm_op(operations.NR_VCPUS, 0)
        return min(operations.NR_VCPUS.unpack(answer)[0], layouts.IOREQ_SLOT_COUNT)

    def cpu_count(self) -> int:
        """See `Hypervisor.cpu_count`: the CPUs that this process may use."""
        return len(os.sched_getaffinity(0))

    def create_server(self) -> int:
        """See `Hypervisor.create_server`."""
        mode = layouts.BUFIOREQ_MODE_LEGACY
        answer = self._dm_op(operations.CREATE_IOREQ_SERVER, mode, 0, 0, 0, 0)
        return operations.CREATE_IOREQ_SERVER.unpack(answer)[-1]

    def exclusive(self) -> Callable[[], None]:
        """See `Hypervisor.exclusive`: a record lock on the guest's memory file."""
        lockf(self._memory_fd, LOCK_EX)
        return lambda: lockf(self._memory_fd, LOCK_UN)

    def run_file(self, suffix: str) -> str | None:
        """See `Hypervisor.run_file`: a file beside the socket."""
        return f"{self._path}-{self.domid}.{suffix}"

    def server_ids(self) -> list[int]:
        """See `Hypervisor.server_ids`."""
        found = []
        for server in range(layouts.IOREQ_SERVER_MAX):
            try:
                self._info(server)
            except HostError:
                if self._connection.ended:
                    raise
                continue
            found.append(server)
        return found

    def _info(self, server: int) -> int:
        """The ring's event channel of ``server``."""
        answer = self._dm_op(operations.GET_IOREQ_SERVER_INFO, server, NO_GFNS, 0, 0, 0)
        return operations.GET_IOREQ_SERVER_INFO.unpack(answer)[2]

    def use_server(self, server: int) -> None:
        """See `Hypervisor.use_server`."""
        self._server = server

    def map_server(self, server: int) -> ServerPages:
        """See `Hypervisor.map_server`."""
        page = layouts.IOREQ_PAGE_SIZE
        try:
            mapped = self._acquire(server, layouts.IOREQ_SERVER_FRAME_BUFIOREQ, 2)
        except HostError:
            # A server without a ring has no such frame.
            mapped = self._acquire(server, layouts.IOREQ_SERVER_FRAME_IOREQ, 1)
        self._mapped[server] = mapped
        view = memoryview(mapped)
        return ServerPages(view[-page:], view[:page] if len(view) > page else None)

    def _acquire(self, server: int, frame: int, count: int) -> mmap:
        """Map ``count`` frames of a server (XENMEM_acquire_resource)."""
        what = f"resource({self._where}, server {server})"
        kind = layouts.XENMEM_RESOURCE_IOREQ_SERVER
        _, (fd,) = self._connection.call_for_descriptors(
            layouts.LOCAL_CALL_RESOURCE, RESOURCE.pack(kind, server, frame, count), 1, what
        )
        try:
            return mmap(fd, count * layouts.IOREQ_PAGE_SIZE)
        except (OSError, ValueError) as error:
            raise HostError(f"{what}: mmap: {error}") from None
        finally:
            os.close(fd)

    def unmap_server(self, server: int) -> None:
        """See `Hypervisor.unmap_server`: the mapping ends with the last view of it."""
        self._mapped.pop(server, None)

    def buffered_port(self, server: int) -> int:
        """See `Hypervisor.buffered_port`."""
        port = self._info(server)
        self._buffered.add(port)
        return port

    def enable_server(self, server: int, *, enabled: bool) -> None:
        """See `Hypervisor.enable_server`."""
        self._dm_op(operations.SET_IOREQ_SERVER_STATE, server, int(enabled), 0)

    def destroy_server(self, server: int) -> None:
        """See `Hypervisor.destroy_server`."""
        self._dm_op(operations.DESTROY_IOREQ_SERVER, server, 0)

    def claim(self, space: int, first: int, last: int) -> None:
        """See `Platform.claim`."""
        self._dm_op(operations.MAP_IO_RANGE, self._server, 0, space, first, last)

    def release(self, space: int, first: int, last: int) -> None:
        """See `Platform.release`."""
        self._dm_op(operations.UNMAP_IO_RANGE, self._server, 0, space, first, last)

    def set_isa_irq(self, irq: int, level: int) -> None:
        """See `Platform.set_isa_irq`."""
        self._dm_op(operations.SET_ISA_IRQ_LEVEL, irq, level)

    def set_intx(self, slot: int, pin: int, level: int) -> None:
        """See `Platform.set_intx`."""
        self._dm_op(operations.SET_PCI_INTX_LEVEL, 0, 0, slot, pin, level)

    def set_link_route(self, link: int, irq: int) -> None:
        """See `Platform.set_link_route`."""
        self._dm_op(operations.SET_PCI_LINK_ROUTE, link, irq)

    def inject_msi(self, address: int, data: int) -> None:
        """See `Platform.inject_msi`."""
        self._dm_op(operations.INJECT_MSI, data, 0, address)

    def set_memory_type(self, first_gfn: int, count: int, *, writable: bool) -> None:
        """See `Platform.set_memory_type`."""
        kind = layouts.MEM_TYPE_RAM_RW if writable else layouts.MEM_TYPE_RAM_RO
        self._dm_op(operations.SET_MEM_TYPE, count, kind, 0, first_gfn)

    def shutdown(self, reason: str) -> None:
        """See `Platform.shutdown`."""
        self._dm_op(operations.REMOTE_SHUTDOWN, SHUTDOWN_REASONS[reason])

    def set_sleep_state(self, state: int) -> None:
        """See `Hypervisor.set_sleep_state`."""
        body = PARAM.pack(layouts.HVM_PARAM_ACPI_S_STATE, 0, state)
        self._call(layouts.LOCAL_CALL_SET_PARAM, body, "set_param", ", HVM_PARAM_ACPI_S_STATE")

    def bind(self, remote_port: int) -> int:
        """See `Hypervisor.bind`."""
        what = f"bind_interdomain({self._where}, port {remote_port})"
        body, (front, back) = self._connection.call_for_descriptors(
            layouts.LOCAL_CALL_BIND, PORT.pack(remote_port), 2, what
        )
        if len(body) != PORT.size:
            os.close(front)
            os.close(back)
            raise HostError(f"{what}: an answer of {len(body)} bytes", EPROTO)
        port: int = PORT.unpack(body)[0]
        self._ports.add(port, front, back, masks=remote_port in self._buffered)
        self._buffered.discard(remote_port)
        return port

    def unbind(self, port: int) -> None:
        """See `Hypervisor.unbind`."""
        what = f"unbind({self._where}, port {port})"
        try:
            self._ports.drop(port)
        except KeyError:
            raise HostError(f"{what}: it is not bound", ENOTCONN) from None
        if not self.gone:
            self._connection.call(layouts.LOCAL_CALL_UNBIND, PORT.pack(port), what)

    def announce_to(self, listener: Listener, announce: Callable[[Sequence[int]], object]) -> None:
        """See `Hypervisor.announce_to`."""
        self._ports.announce_to(listener, announce)

    def events(self) -> Sequence[int]:
        """See `Hypervisor.events`."""
        return self._ports.pending()

    def unmask(self, ports: Sequence[int]) -> None:
        """See `Hypervisor.unmask`: only the ring's port was masked."""
        self._ports.unmask(ports)

    def notify(self, port: int) -> None:
        """See `Hypervisor.notify`."""
        try:
            os.write(self._ports.backs[port], RAISE)
        except (KeyError, OSError) as error:
            raise HostError(f"notify({self._where}, port {port}): {error}") from None

    def set_dirty_log(self, *, enabled: bool) -> None:
        """See `Hypervisor.set_dirty_log`."""
        self.memory.dirty_log = enabled

    def _modified_memory(self, first_gfn: int, count: int) -> None:
        extent = operations.EXTENT.pack(count, 0, first_gfn)
        self._dm_op(operations.MODIFIED_MEMORY, 1, 0, extra=extent)

    def restrict(self) -> None:
        """See `Hypervisor.restrict`."""
        self._call(layouts.LOCAL_CALL_RESTRICT, b"", "restrict")

    def store(self) -> LocalStore:
        """See `Hypervisor.store`."""
        return LocalStore(self._connection)

    def attend(self, listener: Listener, ended: Callable[[], object]) -> None:
        """See `Hypervisor.attend`: a watch tells of domains that are gone."""
        self._listener, self._ended = listener, ended
        listener.add(self._connection.fileno(), EPOLLIN, self._heard)
        self._connection.kept = self._look_later
        self.store().watch(RELEASED, RELEASED)

    def _look_later(self) -> None:
        """Something was said unasked while an answer was awaited: look at it from the loop."""
        if self._listener is not None:
            self._listener.call_at(self._listener.now(), lambda: self._heard(0))

    def _heard(self, events: int) -> None:
        """Some domain is gone, perhaps this one; or the hypervisor itself."""
        if self._released:
            return
        told = len(self._connection.events())
        # A watch fires once when it is set.
        first = min(told, self._unfired)
        self._unfired -= first
        if told > first:
            try:
                self.vcpu_count()
            except HostError:
                self._released = True
        elif self._connection.ended:
            raise HostError(f"the hypervisor at {self._path} is gone", EPIPE)
        if self._released and self._listener is not None:
            self._listener.remove(self._connection.fileno())
            self._ended()

    @property
    def gone(self) -> bool:
        """See `Hypervisor.gone`."""
        return self._released or self._connection.ended

    def close(self) -> None:
        """See `Hypervisor.close`."""
        self._mapped.clear()
        self._ports.close()
        self.memory.close()
        if self.clock is not None:
            self.clock.close()
        os.close(self._memory_fd)
        self._connection.close()
