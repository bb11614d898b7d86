"""What a guest can do to xenstore, its memory's map and its own vCPUs: nobody else suffers."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from errno import EINVAL
from functools import partial

import pytest

from protocol import layouts
from tools.hypervisor import dm_op
from tools.hypervisor.domain import Domain
from tools.hypervisor.errors import HypercallError
from tools.hypervisor.hypercalls import Hypercalls
from tools.hypervisor.memory import GuestMemory
from tools.hypervisor.store import GUEST_NODE_LIMIT, Store, StoreError
from tools.hypervisor.store_client import StoreClient
from tools.hypervisor.store_ring import StoreRing

from .core_emulator import Running

HEADER = struct.Struct(layouts.XS_MESSAGE_FORMAT)
READ, WRITE = layouts.XS_MESSAGE_TYPE_READ, layouts.XS_MESSAGE_TYPE_WRITE
WATCH, RM = layouts.XS_MESSAGE_TYPE_WATCH, layouts.XS_MESSAGE_TYPE_RM
MKDIR = layouts.XS_MESSAGE_TYPE_MKDIR
SET_PERMS = layouts.XS_MESSAGE_TYPE_SET_PERMS
PAGE = 4096
ARGUMENT, EXTENTS = 0x800, 0x1000


class Client:
    """A guest's wire protocol, in the test's thread."""

    def __init__(self, store: Store, guest: int) -> None:
        self._client = StoreClient(store, lambda message: None, lambda domid: True, guest)

    def ask(self, kind: int, payload: bytes) -> bytes:
        message = HEADER.pack(kind, 1, 0, len(payload)) + payload
        return self._client.handle(message)[HEADER.size :]


@pytest.fixture
def store() -> Store:
    made = Store()
    made.write("/local/domain/1/secret", "s3cret")
    made.write("/local/domain/2/name", "two")
    made.write("/local/domain/2/vm", "/vm/two")
    made.write("/vm/two/image", "hvm")
    return made


@pytest.mark.parametrize("kind", [WRITE, MKDIR, RM, SET_PERMS])
@pytest.mark.parametrize("path", ["vm", "vm/x", "/local/domain/2/vm", "/local/domain/2", "domid"])
def test_a_guest_does_not_change_who_it_is(store: Store, kind: int, path: str) -> None:
    store.write("/local/domain/2/vm/x", "")
    store.write("/local/domain/2/domid", "2")
    tail = {WRITE: b"/local/domain/1", SET_PERMS: b"n2\0"}.get(kind, b"")
    assert Client(store, 2).ask(kind, path.encode() + b"\0" + tail) == b"EACCES\0"
    assert Client(store, 2).ask(READ, b"/local/domain/1/secret\0") == b"EACCES\0"
    assert Client(store, 2).ask(READ, b"/vm/two/image\0") == b"hvm"


@pytest.mark.parametrize("value", ["", "/", "/vm", "/local/domain/1", "/vm/"])
def test_what_is_no_path_of_a_vm_opens_nothing(store: Store, value: str) -> None:
    store.write("/local/domain/2/vm", value)
    assert Client(store, 2).ask(READ, b"/local/domain/1/secret\0") == b"EACCES\0"
    assert Client(store, 2).ask(READ, b"/vm/two/image\0") == b"EACCES\0"


def test_a_guest_makes_so_many_nodes_and_leaves_the_rest_to_others(store: Store) -> None:
    guest = Client(store, 2)
    made = 0
    while guest.ask(WRITE, b"data/%d\0x" % made) == b"OK\0":
        made += 1
    assert made == GUEST_NODE_LIMIT - 1
    assert guest.ask(MKDIR, b"data/more\0") == b"ENOSPC\0"
    assert guest.ask(WRITE, b"data/0\0new value") == b"OK\0"
    store.write("/local/domain/2/data/toolstack", "")
    assert Client(store, 1).ask(WRITE, b"a\0x") == b"OK\0"
    assert guest.ask(RM, b"data/0\0") == guest.ask(WRITE, b"data/again\0x") == b"OK\0"
    assert guest.ask(WRITE, b"data/again2\0x") == b"ENOSPC\0"
    assert guest.ask(RM, b"data\0") == guest.ask(WRITE, b"a/b/c\0x") == b"OK\0"
    store.remove("/local/domain/2")
    with pytest.raises(StoreError, match="ENOENT"):
        store.directory("/local/domain/2")


class Ring:
    """A guest with a ring at GFN 16, which reads whatever comes."""

    def __init__(self, store: Store, domid: int) -> None:
        self.domain = Domain(domid, vcpus=1, ram=[(0, 1 << 20)])
        calls = self.domain.hypercalls = Hypercalls(self.domain)
        self.ring = StoreRing(self.domain, calls.events, store, 16)
        self._page = self.domain.memory.view(16 * PAGE, PAGE)

    def ask(self, kind: int, payload: bytes) -> None:
        message = HEADER.pack(kind, 1, 0, len(payload)) + payload
        _, written, _, given = struct.unpack_from("<IIII", self._page, 2048)
        struct.pack_into("<I", self._page, 2048 + 8, given)
        for index, byte in enumerate(message):
            self._page[(written + index) % 1024] = byte
        struct.pack_into("<I", self._page, 2048 + 4, (written + len(message)) & 0xFFFFFFFF)
        self.ring.serve()


def _tell(ring: StoreRing, event: bytes, path: str) -> None:
    ring._tell(event)


def test_two_guests_that_watch_each_other_are_both_served() -> None:
    store = Store()
    guests = [Ring(store, domid) for domid in (1, 2)]
    for guest, other in zip(guests, reversed(guests), strict=True):
        event = HEADER.pack(layouts.XS_MESSAGE_TYPE_WATCH_EVENT, 0, 0, 4) + b"x\0t\0"
        store.watch(f"/local/domain/{other.domain.domid}/x", partial(_tell, guest.ring, event))

    def work(guest: Ring) -> None:
        for _ in range(3000):
            guest.ask(WRITE, b"x\0v")

    running = [Running(partial(work, guest)) for guest in guests]
    for one in running:
        one.result()
    assert [guest.ring.broken for guest in guests] == [None, None]
    assert Running(lambda: store.write("/local/domain/1/x", "last")).result() is None


def test_who_tells_a_guest_does_not_do_its_requests() -> None:
    store = Store()
    guest = Ring(store, 1)
    guest.ask(WATCH, b"x\0t\0")
    serve, guest.ring.serve = guest.ring.serve, lambda: None  # type: ignore[method-assign]
    guest.ask(WRITE, b"y\0v")
    store.write("/local/domain/1/x", "told")
    assert store.read("/local/domain/1/y") is None
    serve()
    assert store.read("/local/domain/1/y") == "v"


def perform(domain: Domain, operation: int, *gfns: int, order: int = 0, vcpu: int = 0) -> int:
    assert domain.hypercalls is not None
    domain.memory.write(EXTENTS, struct.pack(f"<{len(gfns)}Q", *gfns))
    fields = struct.pack("<QQIIH6x", EXTENTS, len(gfns), order, 0, layouts.DOMID_SELF)
    domain.memory.write(ARGUMENT, fields)
    number = layouts.HYPERCALL_MEMORY_OP
    return domain.hypercalls.call(vcpu, number, [operation, ARGUMENT, 0, 0, 0], wide=True)


def test_a_change_of_a_memory_map_in_many_pieces_costs_as_much_as_copying_it() -> None:
    memory = GuestMemory([(number << 13, PAGE) for number in range(8192)])
    regions = memory.regions

    def change() -> None:
        offset = memory.unmap_page(2000)
        assert offset is not None
        memory.map_page(2000, offset)

    def seconds(work: Callable[[], object]) -> float:
        begin = time.thread_time()
        for _ in range(50):
            work()
        return time.thread_time() - begin

    # Looking at every region, let alone sorting them, costs 50 times as much.
    assert seconds(change) < 12 * seconds(lambda: [list(regions) for _ in range(4)])
    assert memory.regions == regions


def test_memory_without_ram_has_no_highest_gfn() -> None:
    domain = Domain(1, vcpus=1, ram=[(0, 2 * PAGE)])
    for gfn in (0, 1):
        domain.memory.unmap_page(gfn)
    assert domain.memory.highest_gfn == -1
    argument = struct.pack("<II", layouts.DM_OP_SET_MEM_TYPE, 0)
    argument += struct.pack("<IHHQ", 1, layouts.MEM_TYPE_RAM_RO, 0, 0)
    with pytest.raises(HypercallError) as caught:
        dm_op.perform(domain, 0, argument.ljust(32, b"\0"))
    assert caught.value.errno == EINVAL


@pytest.mark.parametrize("gone", [0, 1])
def test_a_vcpu_is_known_by_its_id_whatever_others_are_gone(gone: int) -> None:
    domain = Domain(1, vcpus=3, ram=[(0, 1 << 20)])
    calls = domain.hypercalls = Hypercalls(domain)
    domain.remove_vcpu(gone)
    assert perform(domain, layouts.MEMORY_OP_DECREASE_RESERVATION, 0x50, vcpu=2) == 1
    asked = [vcpu.id for vcpu in domain.vcpus if vcpu.attention]
    assert asked == [2]
    is_up = layouts.VCPU_OP_IS_UP
    answers = [calls.call(2, layouts.HYPERCALL_VCPU_OP, [is_up, n, 0, 0, 0], True) for n in (2, 3)]
    assert answers[0] == 0
    assert answers[1] >> 63
