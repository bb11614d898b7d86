"""Event channels as pairs of eventfds: the hypervisor raises the front one, this side the back one.

One epoll object stands for all of them, as Xen's event-channel device does.
"""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Ports"]

AT_ONCE = 128
RAISE = (1).to_bytes(8, "little")
"""What is written to an eventfd."""
COUNT_SIZE = 8
ANNOUNCES = select.EPOLLIN | select.EPOLLET
"""Each raise is announced, nothing is read. A port that is raised while it is served is announced
once more than on Xen; whether there is a request is looked up anyway."""
MASKS = ANNOUNCES | select.EPOLLONESHOT
"""Announced once, then quiet until it is unmasked."""


class Ports:
    """The bound ports. ``fd`` is readable when one of them was raised."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.fd = self._epoll.fileno()
        self._port_of: dict[int, int] = {}
        self._fronts: dict[int, int] = {}
        self._backs: dict[int, int] = {}
        self._masking: dict[int, int] = {}

    def add(self, port: int, front: int, back: int, *, masks: bool) -> None:
        """Add a port; the descriptors become this object's.

        ``masks``: once announced it stays quiet until `unmask`, as every port of Xen's does.
        """
        self._port_of[front] = port
        self._fronts[port] = front
        self._backs[port] = back
        if masks:
            os.set_blocking(front, False)
            self._masking[port] = front
        self._epoll.register(front, MASKS if masks else ANNOUNCES)

    def drop(self, port: int) -> None:
        """Forget a port; KeyError when there is none."""
        front, back = self._fronts.pop(port), self._backs.pop(port)
        del self._port_of[front]
        self._masking.pop(port, None)
        self._epoll.unregister(front)
        os.close(front)
        os.close(back)

    def pending(self) -> Sequence[int]:
        """The ports that were raised, without waiting."""
        port_of, masking = self._port_of, self._masking
        ports = [port_of[fd] for fd, _ in self._epoll.poll(0, AT_ONCE)]
        for port in ports:
            if port in masking:
                # Only a raise that comes after this one may be announced by `unmask`.
                try:
                    os.read(masking[port], COUNT_SIZE)
                except BlockingIOError:
                    continue
        return ports

    def unmask(self, ports: Sequence[int]) -> None:
        """Let those of ``ports`` that mask announce again; a raise meanwhile counts."""
        for port, front in self._masking.items():
            if port in ports:
                self._epoll.modify(front, MASKS)

    def notify(self, port: int) -> None:
        """Raise this side's end; KeyError when there is no such port."""
        os.write(self._backs[port], RAISE)

    def close(self) -> None:
        """Drop every port."""
        for port in list(self._fronts):
            self.drop(port)
        self._epoll.close()
