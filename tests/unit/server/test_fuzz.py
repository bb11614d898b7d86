"""Any bytes in both pages: nothing gets out, every READY slot is answered, nobody is hurt."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .board import DEVFN, PORTS, WINDOW, Rig
from .fake_xen import ANSWERED, ENTRY, INPROCESS, POINTER, READ, READY, SLOT, Domain

VCPUS = 128
SECONDS = 5.0
"""A turn takes milliseconds; only one that does not end takes this."""


def states(page: bytes | bytearray) -> list[int]:
    return [page[vcpu * 32 + 30] & 0xF for vcpu in range(VCPUS)]


def forbidden_changes(before: bytes, after: bytes) -> list[int]:
    """The offsets at which a server may not have written what it wrote."""
    wrong = []
    for offset in range(len(before)):
        if before[offset] == after[offset]:
            continue
        flags = before[offset // 32 * 32 + 30]
        in_slot = offset % 32
        served = flags & 0xF == READY
        plain_read = flags & READ and not flags & POINTER
        state_only = in_slot == 30 and not (before[offset] ^ after[offset]) & 0xF0
        if not served or not (state_only or (8 <= in_slot < 16 and plain_read)):
            wrong.append(offset)
    return wrong


def plausible(chance: random.Random) -> bytes:
    """A page in which most slots look like what Xen sends."""
    page = bytearray(chance.randbytes(4096))
    for vcpu in range(VCPUS):
        if chance.random() < 0.2:
            continue
        kind = chance.choice((0, 0, 1, 1, 2, 7, 8, chance.randrange(256)))
        base = chance.choice((PORTS, 0x300, WINDOW, DEVFN << 32, chance.getrandbits(64)))
        SLOT.pack_into(
            page,
            vcpu * 32,
            base + chance.randrange(64) & (1 << 64) - 1,
            chance.choice((chance.randrange(1 << 17), chance.getrandbits(64))),
            chance.choice((1, 1, 1, 2, 16, chance.getrandbits(32))),
            chance.choice((1, 2, 4, 8, chance.getrandbits(32))),
            chance.getrandbits(32),
            chance.getrandbits(16),
            chance.choice((READY, READY | READ, chance.randrange(256))),
            kind,
        )
    return bytes(page)


def serve(rig: Rig, page: bytes, ring: bytes) -> None:
    """Serve the pages, and check what is left of them."""
    server, xens = rig.server, rig.xens
    xens.synchronous[:] = page
    xens.buffered[:] = ring
    before = time.monotonic()
    for vcpu in range(VCPUS):
        server.serve(vcpu)
    server.serve_all()
    assert time.monotonic() - before < SECONDS
    assert forbidden_changes(page, bytes(xens.synchronous)) == []
    assert bytes(xens.buffered[4:]) == ring[4:]
    now = states(xens.synchronous)
    late = sum(state == INPROCESS for state in now) - states(page).count(INPROCESS)
    assert READY not in now
    assert now.count(ANSWERED) - states(page).count(ANSWERED) + late == states(page).count(READY)
    assert late <= server.slots.waiting
    for deferral in rig.troubled.waiting:
        deferral.complete(0x55)
    rig.troubled.waiting.clear()
    assert server.slots.waiting == 0
    assert states(xens.synchronous).count(INPROCESS) == states(page).count(INPROCESS)
    rig.mixed.log.clear()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", [plausible, lambda chance: chance.randbytes(4096)])
def test_random_pages_are_answered_in_bounded_time(
    make: Callable[[random.Random], bytes], seed: int
) -> None:
    chance = random.Random(seed)
    rig = Rig(Domain(vcpus=VCPUS))
    for _ in range(150):
        ring = bytearray(chance.randbytes(4096))
        if chance.random() < 0.8:
            read = chance.choice((chance.getrandbits(32), 0xFFFFFFFE, 509))
            ENTRY.pack_into(ring, 0, read, read + chance.randrange(20) & 0xFFFFFFFF)
        serve(rig, make(chance), bytes(ring))


@settings(max_examples=60)
@given(st.binary(max_size=4096), st.binary(max_size=4096))
def test_any_bytes_in_both_pages_are_answered(page: bytes, ring: bytes) -> None:
    rig = Rig(Domain(vcpus=VCPUS))
    serve(rig, page.ljust(4096, b"\0"), ring.ljust(4096, b"\0"))
    rig.xen.close()


@pytest.mark.parametrize("seed", range(4))
def test_pages_that_change_while_they_are_served_harm_nobody(seed: int) -> None:
    chance = random.Random(seed)
    rig = Rig(Domain(vcpus=VCPUS))

    class Flipping(list[object]):
        """The log of the test device, which overwrites the pages whenever it is touched."""

        def append(self, entry: object) -> None:
            for _ in range(8):
                rig.xens.synchronous[chance.randrange(4096)] = chance.randrange(256)
                rig.xens.buffered[chance.randrange(4096)] = chance.randrange(256)

    rig.mixed.log = Flipping()
    for _ in range(60):
        rig.xens.synchronous[:] = plausible(chance)
        rig.xens.buffered[:] = chance.randbytes(4096)
        for vcpu in range(VCPUS):
            rig.server.serve(vcpu)
        for deferral in rig.troubled.waiting:
            deferral.complete(0)
        rig.troubled.waiting.clear()
        assert rig.server.slots.waiting == 0


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_in_the_pages_the_end_answers_it(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(20):
        rig = Rig(Domain(vcpus=VCPUS))
        xens = rig.xens
        page = plausible(chance)
        xens.synchronous[:] = page
        xens.buffered[:] = chance.randbytes(4096)
        rig.server.close()
        now = states(xens.synchronous)
        assert READY not in now
        assert INPROCESS not in now
        asked = [v for v, state in enumerate(states(page)) if state in (READY, INPROCESS)]
        assert [v for v in asked if v not in xens.woken] == []
        rig.xen.close()


@pytest.mark.parametrize("seed", range(3))
def test_whatever_a_dead_predecessor_left_is_settled(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(20):
        domain = Domain(vcpus=VCPUS)
        dead = Rig(domain)
        page = bytearray(plausible(chance))
        for vcpu, channel in enumerate(dead.xens.channels):
            page[vcpu * 32 + 24 : vcpu * 32 + 28] = channel.number.to_bytes(4, "little")
        dead.xens.synchronous[:] = page
        dead.xens.buffered[:] = chance.randbytes(4096)
        old = dead.xens
        domain.kill(dead.xen)
        rig = Rig(domain)
        for deferral in rig.troubled.waiting:
            deferral.complete(0)
        now = states(old.synchronous)
        assert READY not in now
        assert INPROCESS not in now
        asked = [v for v, state in enumerate(states(page)) if state in (1, 2, 3)]
        assert [v for v in asked if v not in old.woken] == []
        rig.xen.close()
