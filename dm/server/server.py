"""The ioreq server: from creation to destruction, one turn of service, and predecessors.

Start-up: create, map the pages, enable, bind the ports (xen/common/ioreq.c: enabling before the
page is mapped would crash the hypervisor; a slot's port is known only after enabling). Shut-down:
disable, answer every slot, let the vCPUs take the answers, destroy.

Nothing ties a server to a process: it stays enabled when its process dies, and its vCPUs wait. A
server whose ports can be bound belongs to nobody alive. It is adopted: mapped and bound, and once
the own server has taken the ranges over, what stands in its slots is answered and it goes. At no
time is a range without a server. Emulators of different roles leave each other's servers alone;
those of attached devices are marked by a file.
"""

from __future__ import annotations

import os
from time import sleep

from dm.device.deferral import Deferral
from dm.device.platform import MEMORY
from dm.errors import GuestError, HostError
from dm.observe.log import Log
from protocol import layouts

from .executor import Executor, Request
from .ring import BufferedRing
from .slots import Slots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dm.device.device import Device
    from dm.hypervisor.interface import Hypervisor
    from dm.machine.machine import Machine

__all__ = ["IoreqServer"]

TAKING_LOOKS = 200
TAKING_PAUSE = 0.001
"""How often, and after how many seconds each, the end looks whether the answers were taken."""
ROLE_LENGTH = 64
COPY = layouts.IOREQ_TYPE_COPY


class IoreqServer:
    """One ioreq server of one domain, serving one machine.

    ``pause`` lets seconds pass. ``attached``: the machine stands beside the domain's own device
    model and is not it; of several such machines each takes those servers that have its ``role``.
    """

    def __init__(
        self,
        hypervisor: Hypervisor,
        machine: Machine,
        pause: Callable[[float], object] = sleep,
        *,
        attached: bool = False,
        role: str = "",
    ) -> None:
        self._attached = attached
        self._role = role
        self._hypervisor = hypervisor
        self._pause = pause
        self._machine = machine
        self.executor = Executor(machine)
        self._log = Log("server")
        self.id = -1
        self.slots: Slots
        self.ring: BufferedRing | None = None
        self._vcpu_of: dict[int, int] = {}
        self._port_of: dict[int, int] = {}
        self._buffered_port = -1
        self._masks = hypervisor.masks
        self._masked: list[int] = []
        self.ring_announced = False
        self.paused = False
        self._predecessors: list[IoreqServer] = []
        self.adopted = False

    def open(self) -> None:
        """Create the server and take those of dead predecessors; requests may wait afterwards."""
        end = self._hypervisor.exclusive()
        opening = self._hypervisor.run_file("opening")
        try:
            if opening is not None:
                if os.path.exists(opening):
                    self._end_unopened()
                _write(opening, b"")
            self._find_predecessors()
            self.id = self._hypervisor.create_server()
            self._mark()
            self._map(self.id)
            self._hypervisor.enable_server(self.id, enabled=True)
            self._bind_all()
        finally:
            _remove(opening)
            end()

    def _end_unopened(self) -> None:
        """Destroy the server of a process that died while it opened it: it has no ports to bind.

        The caller alone is opening one now, and such a process leaves a file behind.
        """
        for server in self._hypervisor.server_ids():
            try:
                self._map(server)
                never = not any(map(self.slots.remote_port, range(self.slots.vcpus)))
                del self.slots
                self.ring = None
                self._hypervisor.unmap_server(server)
                if never:
                    self._hypervisor.destroy_server(server)
                    _remove(self._marker(server))
            except HostError as error:
                self._log.info("%s", error)
        self.id = -1

    def _find_predecessors(self) -> None:
        for server in self._hypervisor.server_ids():
            if self._role_of(server) != (self._role if self._attached else None):
                continue
            other = IoreqServer(
                self._hypervisor,
                self._machine,
                self._pause,
                attached=self._attached,
                role=self._role,
            )
            if other._take(server):
                self._log.warning("ioreq server %d was left behind; it is taken over", server)
                self._predecessors.append(other)
        self.adopted = bool(self._predecessors)

    def _marker(self, server: int) -> str | None:
        return self._hypervisor.run_file(f"attached{server}")

    def _role_of(self, server: int) -> str | None:
        """The role of the attached devices whose server it is; None for a device model's."""
        marker = self._marker(server)
        try:
            with open(marker or "", encoding="utf-8", errors="replace") as file:
                return file.read(ROLE_LENGTH)
        except OSError:
            return None

    def _mark(self) -> None:
        """Leave a file with the role when the server is one of attached devices, else none."""
        marker = self._marker(self.id)
        if marker is not None and self._attached:
            _write(marker, self._role.encode())
        else:
            _remove(marker)

    def _unmark(self) -> None:
        _remove(self._marker(self.id) if self._attached else None)

    def _take(self, server: int) -> bool:
        """Try to bind the ports of an existing server: only a dead owner's are free."""
        try:
            self._map(server)
            self._bind_all()
        except HostError:
            self._unbind_all()
            self._hypervisor.unmap_server(server)
            self.id = -1
            return False
        return True

    def _map(self, server: int) -> None:
        self.id = server
        self._hypervisor.use_server(server)
        pages = self._hypervisor.map_server(server)
        vcpus = self._hypervisor.vcpu_count()
        self.slots = Slots(
            pages.synchronous, vcpus, self._machine, self.executor, self._notify_vcpu
        )
        self.ring = None
        if pages.buffered is not None:
            memory = self._machine.spaces.memory_at
            self.ring = BufferedRing(pages.buffered, self._execute_buffered, memory)

    def _bind_all(self) -> None:
        for vcpu in range(self.slots.vcpus):
            port = self._hypervisor.bind(self.slots.remote_port(vcpu))
            self._vcpu_of[port] = vcpu
            self._port_of[vcpu] = port
        remote = self._hypervisor.buffered_port(self.id)
        if remote and self.ring is not None:
            self._buffered_port = self._hypervisor.bind(remote)

    def _unbind_all(self) -> None:
        ports = list(self._vcpu_of)
        if self._buffered_port >= 0:
            ports.append(self._buffered_port)
        for port in ports:
            try:
                self._hypervisor.unbind(port)
            except HostError as error:
                self._log.warning("%s", error)
        self._vcpu_of.clear()
        self._port_of.clear()
        self._buffered_port = -1

    def under_way(self) -> set[int]:
        """The vCPUs whose requests predecessors had begun and not answered."""
        return {vcpu for other in self._predecessors for vcpu in other.slots.under_way()}

    def settle_predecessors(self) -> None:
        """Answer what predecessors left, and end them; call when the ranges are claimed.

        One whose request a device answers later stays, disabled, until this server's end.
        """
        for other in self._predecessors:
            other.slots.begin_again()
        for other in list(self._predecessors):
            self._hypervisor.enable_server(other.id, enabled=False)
            for vcpu in range(other.slots.vcpus):
                other.drain()
                if other.slots.adopt(vcpu):
                    other._notify_vcpu(vcpu)
            if not other.slots.waiting:
                server = other.id
                other.close()
                self._hypervisor.unmap_server(server)
                self._predecessors.remove(other)

    def _execute_buffered(self, kind: int, address: int, size: int, data: int) -> None:
        """Perform one buffered write; nobody waits for it, so errors are only counted."""
        try:
            if kind == COPY:
                # What the executor does with one memory write, without a Request for each entry.
                self._machine.bus.write(MEMORY, address, size, data)
            else:
                self.executor.execute(Request(kind, 0, address, data, 1, size))
        except Deferral:
            # The device finishes it later; nobody waits for the answer.
            pass
        except GuestError as error:
            self._log.limited("buffered request at %#x: %s", address, error)
        except Exception as error:
            self._machine.contain(error, f"buffered request at {address:#x}")

    def drain(self) -> int:
        """Execute what waits in the ring; gives the number of requests."""
        ring = self.ring
        if ring is None or ring.empty:
            return 0
        return ring.drain()

    def events(self) -> int:
        """Serve what event channels announce now; see `announced`."""
        return self.announced(self._hypervisor.events())

    def announced(self, ports: Sequence[int]) -> int:
        """Serve what ``ports`` announced; gives the number of answers.

        Ports stay masked until `unmask`; the ring's port stays masked until `unmask_ring`, so that
        entries do not wake the process one by one.
        """
        answers = 0
        for port in ports:
            if port == self._buffered_port:
                self.ring_announced = True
                continue
            if self._masks:
                self._masked.append(port)
            vcpu = self._vcpu_of.get(port)
            if vcpu is not None and not self.paused:
                answers += self.serve(vcpu)
        return answers

    def serve(self, vcpu: int) -> bool:
        """Serve one vCPU's slot, the ring first; says whether there was an answer.

        The slot must be READY before the ring is drained: only then is all that the vCPU wrote
        before its request in the ring. A slot that becomes READY in between waits for its event.
        """
        return self.slots.is_ready(vcpu) and self.serve_ready(vcpu)

    def serve_ready(self, vcpu: int) -> bool:
        """The same for a slot that was seen READY."""
        ring = self.ring
        if ring is not None and not ring.empty:
            ring.drain()
        if self.slots.serve(vcpu):
            self._hypervisor.notify(self._port_of[vcpu])
            return True
        return False

    def serve_all(self) -> int:
        """Serve every READY slot, announced or not; gives the number of answers."""
        answers = 0
        for vcpu in range(self.slots.vcpus):
            if self.slots.is_ready(vcpu):
                answers += self.serve(vcpu)
        return answers

    def _notify_vcpu(self, vcpu: int) -> None:
        self._hypervisor.notify(self._port_of[vcpu])

    def abandon(self, device: Device) -> None:
        """Settle what ``device``, which another stands in for now, had yet to answer."""
        for server in (self, *self._predecessors):
            for vcpu in server.slots.abandon(device):
                server._notify_vcpu(vcpu)

    def unmask(self) -> None:
        """Let the vCPUs' ports announce again; what came meanwhile is announced at once."""
        if self._masked:
            self._hypervisor.unmask(self._masked)
            self._masked.clear()

    def unmask_ring(self) -> None:
        """Let the ring's port announce again."""
        self.ring_announced = False
        self._hypervisor.unmask((self._buffered_port,))

    def close(self) -> None:
        """Disable the server, answer every slot, destroy it. No slot is left unanswered.

        An answer that its vCPU has not taken when the server goes is lost, the read then gives 0
        (xen/common/ioreq.c: get_pending_vcpu finds nothing); a vCPU that is paused takes none.
        """
        for other in self._predecessors:
            other.close()
        self._predecessors.clear()
        if self.id < 0:
            return
        hypervisor = self._hypervisor
        self._try(lambda: hypervisor.enable_server(self.id, enabled=False))
        self.drain()
        # Opening may have failed before the page was mapped, or before every port was bound.
        for vcpu in self.slots.flush() if hasattr(self, "slots") else ():
            port = self._port_of.get(vcpu)
            if port is not None:
                self._try(lambda: hypervisor.notify(port))  # noqa: B023 - called at once
        self._wait_taken()
        self._unbind_all()
        self._try(lambda: hypervisor.destroy_server(self.id))
        self._unmark()
        self.id = -1

    def _wait_taken(self) -> None:
        for _ in range(TAKING_LOOKS if hasattr(self, "slots") else 0):
            if not self.slots.untaken or self._hypervisor.gone:
                return
            self._pause(TAKING_PAUSE)

    def _try(self, action: Callable[[], object]) -> None:
        """Go on whatever happens: on the way out the domain may be gone already."""
        try:
            action()
        except HostError as error:
            self._log.info("%s", error)


def _write(path: str, data: bytes) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}", error.errno or 0) from None


def _remove(path: str | None) -> None:
    if path is not None and os.path.exists(path):
        os.unlink(path)
