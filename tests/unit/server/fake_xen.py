"""Xen's half of an ioreq server, played honestly: its state machine, its limits, its punishments.

A `Domain` is what the hypervisor keeps: ioreq servers, event channels, the guest's memory. A
`FakeXen` is what one emulator process has of it. What Xen would answer by crashing the guest, by
leaving a vCPU asleep for ever or by crashing itself is written down in `Domain.punishments`.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import weakref
from collections.abc import Callable, Sequence
from errno import EEXIST, EINVAL, ENOENT, ENOSPC, ENOTCONN
from pathlib import Path

from dm.errors import HostError
from dm.hypervisor.interface import Hypervisor, ServerPages, Store
from dm.machine.fakes import FakeMemory, FakePlatform

PAGE = 4096
SLOT = struct.Struct("<QQIIIHBB")
ENTRY = struct.Struct("<II")
RING_SLOTS = 511
NONE, READY, INPROCESS, ANSWERED = range(4)
READ, DF, POINTER = 0x20, 0x40, 0x10
PIO, COPY, CONFIG, TIME_OFFSET, INVALIDATE = 0, 1, 2, 7, 8
ONES = (1 << 64) - 1
SERVER_LIMIT = 8


class Channel:
    """One event channel between the domain and an emulator."""

    def __init__(self, number: int, server: FakeServer, vcpu: int | None) -> None:
        self.number = number
        self.server = server
        self.vcpu = vcpu
        self.owner: FakeXen | None = None
        self.local = 0


class FakeServer:
    """One ioreq server as Xen keeps it."""

    def __init__(self, domain: Domain, number: int) -> None:
        self.id = number
        self.enabled = False
        self.mapped = False
        self.synchronous = bytearray(PAGE)
        self.buffered = bytearray(PAGE)
        self.has_ring = True
        self.channels = [domain.channel(self, vcpu) for vcpu in range(domain.vcpus)]
        self.ring_channel = domain.channel(self, None)
        self.ranges = FakePlatform()
        self.pending: set[int] = set()
        self.woken: set[int] = set()

    def slot(self, vcpu: int) -> tuple[int, ...]:
        """addr, data, count, size, vp_eport, pad, flags, type."""
        return SLOT.unpack_from(self.synchronous, vcpu * SLOT.size)

    def state(self, vcpu: int) -> int:
        """The state nibble."""
        return self.synchronous[vcpu * SLOT.size + 30] & 0xF

    @property
    def pointers(self) -> tuple[int, int]:
        """The ring's read and write pointers."""
        return ENTRY.unpack_from(self.buffered)


class Domain:
    """One guest."""

    def __init__(self, vcpus: int = 2, ram: int = 1 << 16) -> None:
        self.vcpus = vcpus
        self.memory = FakeMemory(ram)
        self.servers: dict[int, FakeServer] = {}
        self.channels: dict[int, Channel] = {}
        self.platform = FakePlatform()
        self.punishments: list[str] = []
        self._last_port = 6
        self.journal: list[str] = []

    def channel(self, server: FakeServer, vcpu: int | None) -> Channel:
        """Allocate a port of the domain."""
        self._last_port += 1
        made = Channel(self._last_port, server, vcpu)
        self.channels[made.number] = made
        return made

    def send(
        self,
        server: FakeServer,
        vcpu: int = 0,
        *,
        kind: int = PIO,
        address: int = 0,
        data: int = 0,
        count: int = 1,
        size: int = 1,
        flags: int = 0,
    ) -> bool:
        """ioreq_send: a vCPU asks and goes to sleep. Says whether the request went out."""
        channel = server.channels[vcpu]
        if not server.enabled or not server.mapped:
            self.punishments.append(f"request to server {server.id}, which is not ready")
            return False
        old = server.slot(vcpu)
        if old[6] & 0xF != NONE:
            self.punishments.append(f"domain crash: vCPU {vcpu}, bad IO state {old[6] & 0xF}")
            return False
        if old[4] != channel.number:
            self.punishments.append(f"domain crash: vCPU {vcpu}, bad event channel {old[4]}")
            return False
        SLOT.pack_into(
            server.synchronous, vcpu * 32, address, data, count, size, old[4], 0, flags, kind
        )
        server.pending.add(vcpu)
        server.woken.discard(vcpu)
        server.synchronous[vcpu * 32 + 30] = flags | READY
        self.signal(channel)
        return True

    def send_buffered(
        self, server: FakeServer, address: int, data: int, size: int = 1, kind: int = COPY
    ) -> bool:
        """ioreq_send_buffered in legacy mode: False when it must go the synchronous way."""
        read, write = server.pointers
        slots = 2 if size == 8 else 1
        if address > 0xFFFFF or (write - read & 0xFFFFFFFF) > RING_SLOTS - slots:
            return False
        header = kind | (size.bit_length() - 1) << 10 | address << 12
        for index in range(slots):
            place = 8 + (write + index & 0xFFFFFFFF) % RING_SLOTS * 8
            ENTRY.pack_into(server.buffered, place, header, data >> 32 * index & 0xFFFFFFFF)
        ENTRY.pack_into(server.buffered, 0, read, write + slots & 0xFFFFFFFF)
        self.signal(server.ring_channel)
        return True

    def answer(self, server: FakeServer, vcpu: int = 0) -> int | None:
        """wait_for_io after a wake-up: the slot's data, or None while the vCPU sleeps."""
        if vcpu not in server.woken:
            return None
        server.woken.discard(vcpu)
        state, data = server.state(vcpu), server.slot(vcpu)[1]
        if state in (READY, INPROCESS):
            return None
        if state > ANSWERED:
            self.punishments.append(f"domain crash: vCPU {vcpu}, state {state}")
            return None
        server.pending.discard(vcpu)
        server.synchronous[vcpu * 32 + 30] &= 0xF0
        return data if state == ANSWERED else ONES

    def signal(self, channel: Channel) -> None:
        """Raise the emulator's end of an event channel."""
        if channel.owner is not None:
            channel.owner.raise_port(channel.local)

    def kill(self, process: FakeXen) -> None:
        """A process dies: its event channels are free again, its servers stay as they are."""
        for channel in self.channels.values():
            if channel.owner is process:
                channel.owner = None
        process.close()


class FakeStore(Store):
    """xenstore as a dictionary."""

    def __init__(self) -> None:
        self.nodes: dict[str, str] = {}

    def read(self, path: str) -> str | None:
        return self.nodes.get(path)

    def write(self, path: str, value: str) -> None:
        self.nodes[path] = value

    def remove(self, path: str) -> None:
        self.nodes.pop(path, None)


class FakeXen(Hypervisor):
    """What one emulator process has of a domain."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.domid = 5
        self.memory = domain.memory
        self.using = -1
        self.rings = True
        self.folder: Path | None = None
        self.maps: list[int] = []
        self.created: set[int] = set()
        self.event_fd, self._kernels = [end.detach() for end in socket.socketpair()]
        for fd in (self.event_fd, self._kernels):
            os.set_blocking(fd, False)
        self._close = weakref.finalize(self, _close_all, self.event_fd, self._kernels)
        self.local: dict[int, Channel] = {}
        self._masked: set[int] = set()
        self._pending: set[int] = set()
        self._next = 100
        self.failures: dict[str, HostError] = {}
        self.notified: list[int] = []

    def _enter(self, call: str, *details: object) -> None:
        entry = " ".join(map(str, (call, *details)))
        self.domain.journal.append(entry)
        for key in (call, entry):
            if key in self.failures:
                raise self.failures[key]

    def _find(self, server: int) -> FakeServer:
        found = self.domain.servers.get(server)
        if found is None:
            raise HostError(f"server {server}: no such server", ENOENT)
        return found

    def vcpu_count(self) -> int:
        return self.domain.vcpus

    def cpu_count(self) -> int:
        return 2

    def exclusive(self) -> Callable[[], None]:
        return lambda: None

    def run_file(self, suffix: str) -> str | None:
        return None if self.folder is None else str(self.folder / suffix)

    def create_server(self) -> int:
        self._enter("create")
        free = [n for n in range(SERVER_LIMIT) if n not in self.domain.servers]
        if not free:
            raise HostError("create: no space left", ENOSPC)
        self.domain.servers[free[0]] = FakeServer(self.domain, free[0])
        self.domain.servers[free[0]].has_ring = self.rings
        self.created.add(free[0])
        return free[0]

    def server_ids(self) -> list[int]:
        return sorted(self.domain.servers)

    def use_server(self, server: int) -> None:
        self.using = server

    def map_server(self, server: int) -> ServerPages:
        self._enter("map", server)
        found = self._find(server)
        found.mapped = True
        self.maps.append(server)
        ring = memoryview(found.buffered) if found.has_ring else None
        return ServerPages(memoryview(found.synchronous), ring)

    def unmap_server(self, server: int) -> None:
        if server in self.maps:
            self.maps.remove(server)

    def buffered_port(self, server: int) -> int:
        found = self._find(server)
        return found.ring_channel.number if found.has_ring else 0

    def enable_server(self, server: int, *, enabled: bool) -> None:
        self._enter("enable" if enabled else "disable", server)
        found = self._find(server)
        if enabled and not found.mapped:
            self.domain.punishments.append(f"server {server} enabled before its page was mapped")
        if enabled and not found.enabled and found.mapped:
            for vcpu, channel in enumerate(found.channels):
                struct.pack_into("<I", found.synchronous, vcpu * 32 + 24, channel.number)
        found.enabled = enabled

    def destroy_server(self, server: int) -> None:
        self._enter("destroy", server)
        found = self._find(server)
        for vcpu in sorted(found.pending - found.woken):
            self.domain.punishments.append(f"vCPU {vcpu} never wakes: server {server} destroyed")
        for channel in (*found.channels, found.ring_channel):
            del self.domain.channels[channel.number]
        found.enabled = False
        del self.domain.servers[server]

    def claim(self, space: int, first: int, last: int) -> None:
        try:
            self._find(self.using).ranges.claim(space, first, last)
        except HostError as error:
            if error.errno != EEXIST or self.using in self.created:
                raise

    def release(self, space: int, first: int, last: int) -> None:
        self._find(self.using).ranges.release(space, first, last)

    def set_isa_irq(self, irq: int, level: int) -> None:
        self._enter("isa", irq, level)
        self.domain.platform.set_isa_irq(irq, level)

    def set_intx(self, slot: int, pin: int, level: int) -> None:
        self.domain.platform.set_intx(slot, pin, level)

    def set_link_route(self, link: int, irq: int) -> None:
        self.domain.platform.set_link_route(link, irq)

    def shutdown(self, reason: str) -> None:
        self.domain.platform.shutdown(reason)

    def inject_msi(self, address: int, data: int) -> None:
        self.domain.platform.inject_msi(address, data)

    def bind(self, remote_port: int) -> int:
        self._enter("bind", remote_port)
        channel = self.domain.channels.get(remote_port)
        if channel is None or channel.owner is not None:
            raise HostError(f"bind {remote_port}: invalid argument", EINVAL)
        self._next += 1
        channel.owner, channel.local = self, self._next
        self.local[self._next] = channel
        self.raise_port(self._next)
        return self._next

    def unbind(self, port: int) -> None:
        self._enter("unbind", port)
        channel = self.local.pop(port, None)
        if channel is None:
            raise HostError(f"unbind {port}: not connected", ENOTCONN)
        channel.owner = None

    def notify(self, port: int) -> None:
        self._enter("notify", port)
        channel = self.local.get(port)
        if channel is None:
            raise HostError(f"notify {port}: not connected", ENOTCONN)
        self.notified.append(port)
        if channel.vcpu is not None:
            channel.server.woken.add(channel.vcpu)

    def events(self) -> Sequence[int]:
        return self.announced()

    def unmask(self, ports: Sequence[int]) -> None:
        os.write(self.event_fd, struct.pack(f"{len(ports)}I", *ports))

    def raise_port(self, port: int) -> None:
        """An event for a local port: announced once, until it is written back."""
        self.pump()
        if port in self._masked:
            self._pending.add(port)
            return
        self._masked.add(port)
        os.write(self._kernels, struct.pack("I", port))

    def pump(self) -> None:
        """What the kernel does with ports that were written back: unmask them."""
        try:
            data = os.read(self._kernels, 1 << 16)
        except BlockingIOError:
            return
        for (port,) in struct.iter_unpack("I", data):
            if port not in self.local or port not in self._masked:
                continue
            self._masked.discard(port)
            if port in self._pending:
                self._pending.discard(port)
                self.raise_port(port)

    @property
    def readable(self) -> bool:
        """Whether an event channel is announced now."""
        self.pump()
        return bool(select.select([self.event_fd], [], [], 0)[0])

    def announced(self) -> list[int]:
        """Read what is announced, as an emulator would."""
        self.pump()
        try:
            return [port for (port,) in struct.iter_unpack("I", os.read(self.event_fd, 4096))]
        except BlockingIOError:
            return []

    def store(self) -> Store:
        return FakeStore()

    def close(self) -> None:
        self._close()


def _close_all(*fds: int) -> None:
    for fd in fds:
        os.close(fd)
