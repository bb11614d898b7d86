"""What a character back end is: bytes to the host, bytes from the host, a label and a file name.

A device writes and is called with what arrives; it never waits. Each kind of back end has a module
of its own, imported when one is opened.
"""

from __future__ import annotations

from dm.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Cancellable(Protocol):
        """A timer that was asked for and can be called off."""

        def cancel(self) -> None:
            """Forgets the timer; harmless once it has fired."""

    class Loop(Protocol):
        """What back ends need of the process's event loop (one thread, epoll, level-triggered)."""

        def add(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
            """Calls ``callback(mask)`` while one of ``events`` (select.EPOLL…) holds."""

        def modify(self, fd: int, events: int) -> None:
            """Waits for other events of a descriptor that was added."""

        def remove(self, fd: int) -> None:
            """Forgets the descriptor; it must still be open."""

        def now(self) -> int:
            """Monotonic time in nanoseconds."""

        def call_at(self, deadline: int, callback: Callable[[], None]) -> Cancellable:
            """Calls ``callback`` once at that time of :meth:`now`, in nanoseconds."""

    class Listed(Protocol):
        """What query-chardev shows: back ends, and the monitors' own connections."""

        label: str

        @property
        def filename(self) -> str:
            """The address in QEMU's notation."""

        @property
        def frontend_open(self) -> bool:
            """True when something in the machine uses it."""

        def close(self) -> None:
            """Gives everything back to the host; may be called twice."""


__all__ = ["KEPT_BYTES", "Chardev", "ChardevSet", "ChardevSpec"]

# Output that nobody reads is kept up to this size, the newest bytes of it.
KEPT_BYTES = 64 << 10


class ChardevSpec:
    """A back end as the command line names it.

    :param backend: QEMU's name of the kind, or ``chardev`` for a reference to the label in
        ``values["id"]``.
    :param values: its parameters as texts; ``origin``: the option as it stood, for messages.
    """

    __slots__ = ("backend", "label", "origin", "values")

    def __init__(self, backend: str, label: str, values: dict[str, str], origin: str) -> None:
        self.backend = backend
        self.label = label
        self.values = values
        self.origin = origin

    def on(self, key: str, default: str = "off") -> bool:
        """Whether a switch is on; its spelling was checked when the command line was read."""
        return self.values.get(key, default) in ("on", "yes", "true", "y")


class Chardev:
    """A back end that drops what is written; the others build on it.

    - ``label``: its name, ``serial0`` and so on
    - ``dropped``: bytes of output that were lost because nobody took them
    """

    kind = "null"

    def __init__(self, label: str) -> None:
        self.label = label
        self.dropped = 0
        self._receive: Callable[[bytes], None] | None = None
        self._room: Callable[[], int] = _no_room
        self._opened: Callable[[bool], None] | None = None
        self._writable: Callable[[], None] | None = None

    @property
    def filename(self) -> str:
        """The address in QEMU's notation (QEMU 7.2, the filename of query-chardev)."""
        return self.kind

    @property
    def frontend_open(self) -> bool:
        """True when a device has connected itself."""
        return self._receive is not None

    @property
    def backend_open(self) -> bool:
        """True when somebody on the host's side can be reading."""
        return True

    def connect(
        self,
        receive: Callable[[bytes], None],
        room: Callable[[], int],
        opened: Callable[[bool], None] | None = None,
        writable: Callable[[], None] | None = None,
    ) -> None:
        """A device takes the back end.

        :param receive: called with bytes from the host, never more than ``room()`` just said.
        :param room: how many bytes the device can take now; call :meth:`accept_input` when it grows
            from nothing.
        :param opened: called with True or False when a peer on the host comes or goes.
        :param writable: called when a write that was not fully accepted may be repeated.
        """
        self._receive, self._room = receive, room
        self._opened, self._writable = opened, writable
        self.accept_input()

    def write(self, data: bytes) -> int:
        """Takes bytes from the device; returns how many. Never waits, never raises."""
        return len(data)

    def accept_input(self) -> None:
        """The device can take bytes again."""

    def close(self) -> None:
        """Gives everything back to the host; may be called twice."""


def _no_room() -> int:
    return 0


def _open_null(spec: ChardevSpec, loop: Loop) -> Chardev:
    return Chardev(spec.label)


def _open_pty(spec: ChardevSpec, loop: Loop) -> Chardev:
    from dm.host.pty import PtyChardev

    return PtyChardev(spec.label, loop)


def _open_file(spec: ChardevSpec, loop: Loop) -> Chardev:
    from dm.host.files import FileChardev

    return FileChardev(spec.label, spec.values["path"], append=spec.on("append"))


def _open_stdio(spec: ChardevSpec, loop: Loop) -> Chardev:
    from dm.host.stdio import StdioChardev

    return StdioChardev(spec.label, loop, signals=spec.on("signal", "on"))


def _open_ring(spec: ChardevSpec, loop: Loop) -> Chardev:
    from dm.host.files import RingChardev

    return RingChardev(spec.label, spec.values.get("size", ""), spec.origin)


def _open_socket(spec: ChardevSpec, loop: Loop) -> Chardev:
    from dm.host.sockets import SocketChardev

    return SocketChardev(spec, loop)


_OPENERS: dict[str, Callable[[ChardevSpec, Loop], Chardev]] = {
    "null": _open_null,
    "pty": _open_pty,
    "file": _open_file,
    "stdio": _open_stdio,
    "ringbuf": _open_ring,
    "memory": _open_ring,
    "socket": _open_socket,
}


class ChardevSet:
    """All back ends of the process by label, in the order in which they were opened."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._entries: dict[str, Listed] = {}

    def open(self, spec: ChardevSpec) -> Chardev:
        """Opens what the spec names; raises ConfigError naming the option.

        A kind that is not modelled drops its output; a reference gives the back end it names.
        """
        if spec.backend == "chardev":
            return self._referenced(spec)
        if spec.label in self._entries:
            raise ConfigError(f"{spec.origin}: duplicate id '{spec.label}'")
        opener = _OPENERS.get(spec.backend, _open_null)
        try:
            chardev = opener(spec, self._loop)
        except OSError as error:
            cause = error.strerror or str(error)
            raise ConfigError(f"{spec.origin}: {cause}") from error
        self._entries[spec.label] = chardev
        return chardev

    def _referenced(self, spec: ChardevSpec) -> Chardev:
        wanted = spec.values["id"]
        found = self._entries.get(wanted)
        if not isinstance(found, Chardev):
            raise ConfigError(f"{spec.origin}: chardev '{wanted}' not found")
        if found.frontend_open:
            raise ConfigError(f"{spec.origin}: chardev '{wanted}' is already in use")
        return found

    def add(self, entry: Listed) -> None:
        """Lists something that is not a back end: a monitor's connection."""
        self._entries[entry.label] = entry

    def entries(self) -> list[tuple[str, str, bool]]:
        """(label, file name, in use) of everything, for query-chardev."""
        return [(one.label, one.filename, one.frontend_open) for one in self._entries.values()]

    def close(self) -> None:
        """Closes everything."""
        for one in self._entries.values():
            one.close()
