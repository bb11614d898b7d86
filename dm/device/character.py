"""A device's end of a character back end: bytes out, bytes in, and flow control between them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol, TypeVar

    F = TypeVar("F", bound=Callable[..., object])

    class CharacterBackend(Protocol):
        """The host's end, as `dm.host.chardev` implements it."""

        def connect(self, receive: Callable[[bytes], None], room: Callable[[], int]) -> None: ...
        def write(self, data: bytes) -> int: ...
        def accept_input(self) -> None: ...


INPUT_CHUNK = 4096
"""Bytes at a time for a device that never says how much room it has."""

__all__ = ["Character", "LiveCharacter"]


class Character:
    """``name = Character()``: a place to plug a chardev in; unplugged, output is dropped."""

    def __init__(self) -> None:
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    if TYPE_CHECKING:

        def __get__(self, device: Any, owner: type) -> LiveCharacter: ...

    def received(self, handler: F) -> F:
        """Call ``handler(self, data)`` with bytes from the host, never more than there is room."""
        handler._character = (self, "received")  # type: ignore[attr-defined]
        return handler

    def room(self, handler: F) -> F:
        """Ask ``handler(self) -> int`` how many bytes the device can take now."""
        handler._character = (self, "room")  # type: ignore[attr-defined]
        return handler


class LiveCharacter:
    """The plug of a running device."""

    __slots__ = ("_backend", "_contain", "_received", "_room", "_running", "after_input")

    def __init__(
        self,
        received: Callable[[bytes], object] | None,
        room: Callable[[], int] | None,
        after_input: Callable[[], object],
        running: Callable[[], bool],
        contain: Callable[[Exception], object],
    ) -> None:
        self._backend: CharacterBackend | None = None
        self._received = received
        self._room = room
        self.after_input = after_input
        self._running = running
        self._contain = contain

    def attach(self, backend: CharacterBackend) -> None:
        """Connect ``backend``; its input goes to the device from now on."""
        self._backend = backend
        backend.connect(self._deliver, self._space)

    def _space(self) -> int:
        """Bytes that the device takes now: none while the machine stands still."""
        if self._received is None or not self._running():
            return 0
        try:
            return INPUT_CHUNK if self._room is None else self._room()
        except Exception as error:
            self._contain(error)
            return 0

    def _deliver(self, data: bytes) -> None:
        """Hand ``data`` to the device, whose exceptions must not reach the host's end."""
        try:
            if self._received is not None:
                self._received(data)
        except Exception as error:
            self._contain(error)
        try:
            self.after_input()
        except Exception as error:
            self._contain(error)

    def hand_over(self, successor: LiveCharacter | None) -> None:
        """Unplug the back end and plug it into ``successor``; what it had for None is held back."""
        backend, self._backend = self._backend, None
        if backend is None:
            return
        if successor is None:
            backend.connect(lambda data: None, lambda: 0)
        else:
            successor.attach(backend)

    @property
    def connected(self) -> bool:
        """Whether a back end is plugged in."""
        return self._backend is not None

    def write(self, data: bytes) -> int:
        """Send ``data`` out; gives how many bytes were taken. Never blocks."""
        return len(data) if self._backend is None else self._backend.write(data)

    def accept_input(self) -> None:
        """Say that there is room again."""
        if self._backend is not None:
            self._backend.accept_input()
