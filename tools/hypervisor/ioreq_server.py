"""One ioreq server as the hypervisor has it: its pages, ports and ranges, and how requests go out.

Facts: xen/common/ioreq.c (ioreq_server_init, _enable, ioreq_send, ioreq_send_buffered) and
public/hvm/ioreq.h. The domain's lock guards all of it, except the pages, which are shared with the
emulator.
"""

from __future__ import annotations

import mmap
import os
import weakref
from errno import EEXIST, EINVAL, ENOENT, EPERM
from struct import Struct
from typing import TYPE_CHECKING, NoReturn

from protocol import layouts

from .errors import DomainEnded, HypercallError
from .ranges import Ranges
from .shared_files import sealed_file

if TYPE_CHECKING:
    from .domain import Domain
    from .event_channel import Channel
    from .vcpu import Vcpu

__all__ = ["IoreqServer"]

PAGE = layouts.IOREQ_PAGE_SIZE
SLOT = Struct(layouts.IOREQ_FORMAT)
SLOT_SIZE = layouts.IOREQ_SIZE
FLAGS = layouts.IOREQ_FLAGS_OFFSET
STATE_MASK = layouts.IOREQ_STATE_MASK
READY = layouts.IOREQ_STATE_READY
PORT_WORD = layouts.IOREQ_VP_EPORT_OFFSET // 4
SLOT_WORDS = SLOT_SIZE // 4
ENTRY = Struct(layouts.BUF_IOREQ_FORMAT)
RING_SLOTS = layouts.BUFIOREQ_SLOT_COUNT
RING_START = layouts.BUFFERED_PAGE_BUF_IOREQ_OFFSET
RING_ADDRESS_LIMIT = 1 << 20
RING_SIZES = {1: 0, 2: 1, 4: 2, 8: 3}
MASK_32 = 0xFFFFFFFF


class IoreqServer:
    """A server of one domain.

    ``emulator``: the domain that created it and may drive it. ``mode``: a BUFIOREQ_MODE_* value.
    ``page``, ``ring``: its pages, None until an emulator acquires them. ``pending``: the vCPUs
    that wait for an answer. ``default``: the original design's server that takes what no other
    one claims; its pages are the guest's own.
    """

    def __init__(
        self, domain: Domain, number: int, emulator: int, mode: int, *, default: bool = False
    ) -> None:
        self.domain = domain
        self.id = number
        self.emulator = emulator
        self.mode = mode
        self.default = default
        self.enabled = False
        self.ranges = (Ranges(), Ranges(), Ranges())
        self.channels: dict[int, Channel] = {}
        self.ring_channel: Channel | None = None
        self.page: memoryview[int] | None = None
        self.ring: memoryview[int] | None = None
        self.fd = -1
        self.gfns: list[int] = []
        self.pending: set[int] = set()
        self._words: memoryview[int]
        self._quads: memoryview[int]
        self._ring_words: memoryview[int]
        self._ring_pointers: memoryview[int]

    @property
    def has_ring(self) -> bool:
        """Whether it was created with a buffered ring."""
        return self.mode != layouts.BUFIOREQ_MODE_OFF

    def add_vcpu(self, vcpu: Vcpu) -> None:
        """Give a vCPU its port, and vCPU 0 the ring's, too. HypercallError: no port is free."""
        if vcpu.id in self.channels:
            raise HypercallError(EEXIST, f"vCPU {vcpu.id} is there already")
        self.channels[vcpu.id] = self.domain.event_channels.allocate(vcpu, self.emulator)
        if vcpu.id == 0 and self.has_ring:
            self.ring_channel = self.domain.event_channels.allocate(vcpu, self.emulator)
        if self.enabled:
            self._write_port(vcpu.id)

    def remove_vcpu(self, vcpu: Vcpu) -> None:
        """Free a vCPU's port, and the ring's with vCPU 0."""
        channel = self.channels.pop(vcpu.id, None)
        if channel is not None:
            self.domain.event_channels.free(channel)
        if vcpu.id == 0 and self.ring_channel is not None:
            self.domain.event_channels.free(self.ring_channel)
            self.ring_channel = None
        self.pending.discard(vcpu.id)

    def acquire(self, frame: int, count: int) -> int:
        """XENMEM_acquire_resource; gives the memory file whose first page is ``frame``.

        Both pages are allocated by the first call, zeroed. HypercallError: ENOENT for the ring of
        a server without one, EPERM after the GFN flavour, EINVAL no frame, beyond the last one, or
        only the synchronous page of a server with a ring: here, unlike on Xen, what is handed out
        begins with the first frame.
        """
        last_frame = layouts.IOREQ_SERVER_FRAME_IOREQ
        if count < 1 or frame + count - 1 > last_frame:
            raise HypercallError(EINVAL, f"no frames {frame} to {frame + count - 1}")
        if self.gfns:
            raise HypercallError(EPERM, f"server {self.id} has its pages in the guest")
        first = layouts.IOREQ_SERVER_FRAME_BUFIOREQ if self.has_ring else last_frame
        if frame < first:
            raise HypercallError(ENOENT, f"server {self.id} has no ring")
        if self.page is None:
            self._allocate(last_frame - first + 1)
        if frame != first:
            raise HypercallError(EINVAL, "frames are handed out from the first one on")
        return self.fd

    def _allocate(self, pages: int) -> None:
        self.fd = sealed_file("ioreq server", pages * PAGE)
        weakref.finalize(self, os.close, self.fd)
        whole = memoryview(mmap.mmap(self.fd, pages * PAGE))
        self.set_pages(whole[-PAGE:], whole[:PAGE] if self.has_ring else None)

    def set_pages(self, page: memoryview[int], ring: memoryview[int] | None) -> None:
        """Let ``page`` and ``ring`` be the server's pages."""
        self.page = page
        self._words = page.cast("I")
        self._quads = page.cast("Q")
        if ring is not None:
            self.ring = ring
            self._ring_words = ring.cast("I")
            self._ring_pointers = ring.cast("Q")

    def enable(self) -> None:
        """Let requests come; a page that was acquired before gets the ports now.

        Pages of the guest stay where they are in its memory: Xen takes them out for as long as the
        server is enabled (hvm_remove_ioreq_gfn), so that a guest there cannot forge requests. Here
        it can, and harms itself.
        """
        if self.enabled:
            return
        self._clear_guest_pages()
        self.enabled = True
        for number in self.channels:
            self._write_port(number)

    def disable(self) -> None:
        """Let no more requests come. One under way still ends as usual."""
        if self.enabled:
            self.enabled = False
            self._clear_guest_pages()

    def _clear_guest_pages(self) -> None:
        """Pages in the guest are cleared whenever they change hands."""
        if self.gfns and not self.default:
            for gfn in self.gfns:
                self.domain.memory.write(gfn * PAGE, bytes(PAGE))

    def _write_port(self, number: int) -> None:
        if self.page is not None:
            self._words[number * SLOT_WORDS + PORT_WORD] = self.channels[number].port

    def replace_emulator(self, emulator: int) -> None:
        """Give the server to the emulator domain ``emulator``: every vCPU gets a new port.

        The new ports are allocated before an old one is freed, so that it happens as a whole or
        not at all (HypercallError: no port is free). A request under way stays in its slot for
        the new emulator, whose binding announces it.
        """
        table = self.domain.event_channels
        old = list(self.channels.values())
        fresh: list[Channel] = []
        try:
            for channel in old:
                fresh.append(table.allocate(channel.vcpu, emulator))
            if self.ring_channel is not None:
                old.append(self.ring_channel)
                fresh.append(table.allocate(self.ring_channel.vcpu, emulator))
        except HypercallError:
            for channel in fresh:
                table.free(channel)
            raise
        for channel in old:
            table.free(channel)
        if self.ring_channel is not None:
            self.ring_channel = fresh.pop()
        self.channels = dict(zip(self.channels, fresh, strict=True))
        self.emulator = emulator
        for number in self.channels:
            self._write_port(number)

    def send(
        self,
        vcpu: Vcpu,
        kind: int,
        address: int,
        data: int,
        count: int,
        size: int,
        flags: int,
    ) -> None:
        """Put a request into the vCPU's slot and announce it. ``flags``: direction, pointer, df.

        A slot that the emulator left in a wrong state ends the domain: DomainEnded, with Xen's
        message as the domain's. (Xen itself crashes a domain for a port access only and injects
        #GP for one to memory.)
        """
        page = self.page
        if page is None:
            self._crash(
                f"ioreq server {self.id} was enabled before its page was acquired: "
                "Xen would follow a null pointer here"
            )
        number = vcpu.id
        at = number * SLOT_SIZE
        state = page[at + FLAGS] & STATE_MASK
        if state:
            self._crash(f"device model set bad IO state {state}")
        channel = self.channels[number]
        port = self._words[number * SLOT_WORDS + PORT_WORD]
        if port != channel.port:
            self._crash(f"device model set bad event channel {port}")
        SLOT.pack_into(page, at, address, data, count, size, port, 0, flags, kind)
        self.pending.add(number)
        page[at + FLAGS] = flags | READY
        channel.notify()

    def _crash(self, message: str) -> NoReturn:
        # The vCPU announces it once it has let the domain's lock go.
        self.domain.crash(message, locked=True)
        raise DomainEnded(message)

    def take(self, number: int) -> int:
        """The answer in a vCPU's slot, which is free again afterwards: all ones if it was free."""
        self.pending.discard(number)
        page = self.page
        assert page is not None
        at = number * SLOT_SIZE
        if not page[at + FLAGS] & STATE_MASK:
            return (1 << 64) - 1
        data = self._quads[number * (SLOT_SIZE // 8) + 1]
        page[at + FLAGS] &= ~STATE_MASK & 0xFF
        return data

    def send_buffered(self, kind: int, address: int, data: int, size: int, direction: int) -> bool:
        """Put a request into the ring; False when it must go through a slot.

        ``size``: 1, 2, 4 or 8 bytes; 8 take two entries. The ring is announced after every entry.
        """
        ring = self.ring
        log2 = RING_SIZES.get(size)
        if ring is None or self.ring_channel is None or log2 is None:
            return False
        if address >= RING_ADDRESS_LIMIT:
            return False
        slots = 2 if size == 8 else 1
        words = self._ring_words
        read, write = words[0], words[1]
        if (write - read) & MASK_32 > RING_SLOTS - slots:
            return False
        if read >= RING_SLOTS and read == write and self.mode == layouts.BUFIOREQ_MODE_ATOMIC:
            write = self._lower_pointers(read)
        header = (
            kind
            | direction << layouts.BUF_IOREQ_DIR_SHIFT
            | log2 << layouts.BUF_IOREQ_SIZE_SHIFT
            | address << layouts.BUF_IOREQ_ADDR_SHIFT
        )
        for index in range(slots):
            place = RING_START + ((write + index) & MASK_32) % RING_SLOTS * ENTRY.size
            ENTRY.pack_into(ring, place, header, data >> 32 * index & MASK_32)
        words[1] = (write + slots) & MASK_32
        self.ring_channel.notify()
        return True

    def _lower_pointers(self, pointer: int) -> int:
        """Bring both pointers of an empty ring below 511 without moving an index; atomic mode only.

        Xen does it by compare-and-exchange while entries are being consumed. Nobody adds to the
        read pointer of an empty ring, so that there one 64-bit store does it.
        """
        lowered = pointer % RING_SLOTS
        self._ring_pointers[0] = lowered | lowered << 32
        return lowered
