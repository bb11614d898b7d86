"""The paravirtual console: lines out of a ring that the guest writes as it likes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.hypervisor.domain import Domain
from tools.toolstack.life.console_ring import ConsoleRing

GFN, OUT, INDEXES = 2, 1024, 3072


class Ring:
    def __init__(self, gfn: int = GFN) -> None:
        self.domain = Domain(1, vcpus=1, ram=[(0, 0x10000)])
        self.lines: list[str] = []
        self.ring = ConsoleRing(self.domain, gfn, self.lines.append)

    def say(self, data: bytes) -> None:
        """As a guest does, as far as there is room."""
        page = self.domain.memory.view(GFN << 12, 4096)
        _, _, taken, written = struct.unpack_from("<IIII", page, INDEXES)
        assert (written - taken) % (1 << 32) + len(data) <= 2048
        for byte in data:
            page[OUT + written % 2048] = byte
            written = (written + 1) % (1 << 32)
        struct.pack_into("<I", page, INDEXES + 12, written)

    @property
    def taken(self) -> tuple[int, int]:
        found = struct.unpack("<II", self.domain.memory.read((GFN << 12) + INDEXES + 8, 8))
        return found[0], found[1]


@given(st.lists(st.binary(max_size=2048), max_size=8))
def test_all_that_is_written_is_taken_and_only_text_is_told(parts: list[bytes]) -> None:
    ring = Ring()
    for part in parts:
        ring.say(part)
        ring.ring.serve()
    assert ring.taken[0] == ring.taken[1]
    ring.ring.close()
    whole = b"".join(parts)
    text = bytes(byte for byte in whole if 0x20 <= byte < 0x7F or byte in (9, 10))
    told = "\n".join(ring.lines)
    longest = max((len(line) for line in text.split(b"\n")), default=0)
    if longest < 1024:
        assert told.rstrip("\n") == text.decode().rstrip("\n")
    assert all(line.isprintable() or "\t" in line for line in ring.lines)


def test_the_indexes_wrap_around_at_32_bits() -> None:
    ring = Ring()
    start = (1 << 32) - 3
    ring.domain.memory.write((GFN << 12) + INDEXES + 8, struct.pack("<II", start, start))
    ring.say(b"across\n")
    ring.ring.serve()
    assert ring.lines == ["across"]


@pytest.mark.parametrize("written", [2049, 1 << 31, (1 << 32) - 1])
def test_indexes_that_cannot_be_end_the_service(written: int) -> None:
    ring = Ring()
    ring.domain.memory.write((GFN << 12) + INDEXES + 12, struct.pack("<I", written))
    ring.ring.serve()
    ring.domain.memory.write((GFN << 12) + INDEXES + 12, struct.pack("<I", 0))
    ring.say(b"text\n")
    ring.ring.serve()
    assert ring.lines == []


def test_a_page_that_is_no_memory_ends_the_service() -> None:
    ring = Ring(0x12345)
    ring.ring.serve()
    assert ring.lines == []


def test_a_line_without_an_end_is_cut() -> None:
    ring = Ring()
    for _ in range(3):
        ring.say(b"x" * 2000)
        ring.ring.serve()
    assert [len(line) for line in ring.lines] == [1024] * 5
