"""Event channels as pairs of eventfds: the hypervisor raises the front one, this side the back one.

One epoll object stands for all of them, as Xen's event-channel device does, or each is a descriptor
of the process's loop: a wake-up through two epoll objects costs a fifth of a round trip more.
"""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dm.hypervisor.interface import Listener

__all__ = ["RAISE", "Ports"]

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
    """The bound ports.

    ``fd`` is readable when one of them was raised. ``backs``: this side's end of each.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.fd = self._epoll.fileno()
        self._port_of: dict[int, int] = {}
        self._fronts: dict[int, int] = {}
        self.backs: dict[int, int] = {}
        self._masking: dict[int, int] = {}
        self._listener: Listener | None = None
        self._announce: Callable[[Sequence[int]], object] = lambda ports: None

    def announce_to(self, listener: Listener, announce: Callable[[Sequence[int]], object]) -> None:
        """Have ``listener`` call ``announce`` with each port that is raised.

        Before the first is added; `pending` gives none then.
        """
        self._listener = listener
        self._announce = announce

    def _announcer(self, port: int, *, masks: bool) -> Callable[[int], object]:
        """What the listener calls when ``port`` was raised."""
        announce, ports = self._announce, (port,)
        if not masks:
            return lambda events: announce(ports)

        def masked(events: int) -> None:
            self._consume(port)
            announce(ports)

        return masked

    def _consume(self, port: int) -> None:
        """Only a raise of a masking port that comes after this may be announced by `unmask`."""
        try:
            os.read(self._masking[port], COUNT_SIZE)
        except BlockingIOError:
            return

    def add(self, port: int, front: int, back: int, *, masks: bool) -> None:
        """Add a port; the descriptors become this object's.

        ``masks``: once announced it stays quiet until `unmask`, as every port of Xen's does.
        """
        self._port_of[front] = port
        self._fronts[port] = front
        self.backs[port] = back
        if masks:
            os.set_blocking(front, False)
            self._masking[port] = front
        events = MASKS if masks else ANNOUNCES
        if self._listener is None:
            self._epoll.register(front, events)
        else:
            self._listener.add(front, events, self._announcer(port, masks=masks))

    def drop(self, port: int) -> None:
        """Forget a port; KeyError when there is none."""
        front, back = self._fronts.pop(port), self.backs.pop(port)
        del self._port_of[front]
        self._masking.pop(port, None)
        if self._listener is None:
            self._epoll.unregister(front)
        else:
            self._listener.remove(front)
        os.close(front)
        os.close(back)

    def pending(self) -> Sequence[int]:
        """The ports that were raised, without waiting."""
        port_of, masking = self._port_of, self._masking
        ports = [port_of[fd] for fd, _ in self._epoll.poll(0, AT_ONCE)]
        for port in ports:
            if port in masking:
                self._consume(port)
        return ports

    def unmask(self, ports: Sequence[int]) -> None:
        """Let those of ``ports`` that mask announce again; a raise meanwhile counts."""
        for port, front in self._masking.items():
            if port in ports:
                (self._listener or self._epoll).modify(front, MASKS)

    def close(self) -> None:
        """Drop every port."""
        for port in list(self._fronts):
            self.drop(port)
        self._epoll.close()
