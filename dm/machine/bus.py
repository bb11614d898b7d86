"""Accesses of every shape: what the guest's instruction does to the machine's address spaces.

`Bus.read` and `Bus.write` take one element of 1, 2, 4 or 8 bytes at any address. `read_string` and
`write_string` are a string instruction's elements at one port, `read_block` and `write_block` a
run of addresses. Addresses that no window has read as ones and take writes without effect. Every
device that was touched has its lines settled before the call returns, exception or not.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dm.device.device import Device
    from dm.device.window import LiveWindow

    from .address_space import AddressSpaces

__all__ = ["Bus"]


class Bus:
    """The access rules over a machine's address spaces. ``space``: see `dm.device.platform`."""

    def __init__(self, spaces: AddressSpaces) -> None:
        self._spaces = spaces
        self.unclaimed = 0
        self.last: Device | None = None

    def read(self, space: int, address: int, size: int) -> int:
        """One element of ``size`` bytes at ``address``."""
        found = self._spaces.find(space, address)
        if found is not None and found[2] >= size:
            window, offset, _ = found
            self.last = window.device
            self._spaces.remember(space, address, size, window, offset)
            try:
                return window.bank.read(offset, size)
            finally:
                window.device.settle()
        return int.from_bytes(self._read_pieces(space, address, size), "little")

    def write(self, space: int, address: int, size: int, value: int) -> None:
        """Write the low ``size`` bytes of ``value`` at ``address``."""
        found = self._spaces.find(space, address)
        if found is not None and found[2] >= size:
            window, offset, _ = found
            self.last = window.device
            try:
                window.bank.write(offset, size, value)
            finally:
                window.device.settle()
            return
        data = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        self._write_pieces(space, address, data)

    def read_string(self, space: int, address: int, size: int, count: int) -> bytes:
        """``count`` elements read one by one from the same address, in that order."""
        found = self._spaces.find(space, address)
        if found is None or found[2] < size:
            pieces = [self.read(space, address, size) for _ in range(count)]
            return b"".join([piece.to_bytes(size, "little") for piece in pieces])
        window, offset, _ = found
        self.last = window.device
        try:
            return window.bank.read_string(offset, size, count)
        finally:
            window.device.settle()

    def write_string(self, space: int, address: int, size: int, data: bytes) -> None:
        """The elements of ``data``, ``size`` bytes each, written one by one to the same address."""
        found = self._spaces.find(space, address)
        if found is None or found[2] < size:
            for position in range(0, len(data), size):
                value = int.from_bytes(data[position : position + size], "little")
                self.write(space, address, size, value)
            return
        window, offset, _ = found
        self.last = window.device
        try:
            window.bank.write_string(offset, size, data)
        finally:
            window.device.settle()

    def read_block(self, space: int, first: int, size: int, count: int, step: int) -> bytes:
        """Elements at ``first``, ``first + step``, … as they lie in ascending addresses.

        ``step`` is ``size`` or ``-size`` (the direction flag); memory moves in one piece.
        """
        low = first if step > 0 else first - (count - 1) * size
        found = self._spaces.find(space, low)
        if found is not None and _moves_at_once(found, size, size * count):
            self.last = found[0].device
            return found[0].bank.read_bytes(found[1], size * count)
        elements = [
            self.read(space, first + index * step, size).to_bytes(size, "little")
            for index in range(count)
        ]
        return b"".join(elements if step > 0 else elements[::-1])

    def write_block(self, space: int, first: int, size: int, step: int, data: bytes) -> None:
        """The opposite of `read_block`: ``data`` lies as in ascending addresses."""
        count = len(data) // size
        low = first if step > 0 else first - (count - 1) * size
        found = self._spaces.find(space, low)
        if found is not None and _moves_at_once(found, size, len(data)):
            self.last = found[0].device
            found[0].bank.write_bytes(found[1], data)
            return
        for index in range(count):
            address = first + index * step
            at = address - low
            self.write(space, address, size, int.from_bytes(data[at : at + size], "little"))

    def _read_pieces(self, space: int, address: int, size: int) -> bytes:
        out = bytearray(b"\xff") * size
        position = 0
        while position < size:
            found = self._spaces.find(space, address + position)
            if found is None:
                self.unclaimed += 1
                position += 1
                continue
            window, offset, room = found
            take = min(room, size - position)
            self.last = window.device
            try:
                out[position : position + take] = window.bank.read_bytes(offset, take)
            finally:
                window.device.settle()
            position += take
        return bytes(out)

    def _write_pieces(self, space: int, address: int, data: bytes) -> None:
        position = 0
        while position < len(data):
            found = self._spaces.find(space, address + position)
            if found is None:
                self.unclaimed += 1
                position += 1
                continue
            window, offset, room = found
            take = min(room, len(data) - position)
            self.last = window.device
            try:
                window.bank.write_bytes(offset, data[position : position + take])
            finally:
                window.device.settle()
            position += take

    def describe(self, space: int, address: int) -> str:
        """Who answers at ``address``: device, window and register."""
        found = self._spaces.find(space, address)
        if found is None:
            return f"nobody at {address:#x}"
        return found[0].describe(address)


def _moves_at_once(found: tuple[LiveWindow, int, int], size: int, length: int) -> bool:
    """Whether elements of ``size`` bytes, ``length`` bytes in all, are plain memory in sight."""
    window, offset, room = found
    bank = window.bank
    return length <= room and size in bank.sizes and bank.is_memory(offset, length)
