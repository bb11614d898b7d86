"""What a device is: the base class that turns declarations into a running device.

Life cycle: *defined* (the class body is checked and its layout of state is fixed), *constructed*
(options are set), *bound* (the machine gives it a region of state and its collaborators),
*reset*. Nothing is declared after the class is defined.
"""

from __future__ import annotations

from dm.errors import ConfigError

from .cells import BULK, DeviceCells, Layout
from .character import Character, LiveCharacter
from .deferral import Deferral
from .line import IsaLine, LiveLine
from .register import DeclarationError
from .state import Fifo, LiveTimer, Memory, Option, Timer, Transient, Word
from .window import LiveWindow, Window

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .platform import GuestMemory, Platform
    from .register import RegisterSlot

__all__ = ["Collaborators", "Deferral", "Device"]


class Collaborators:
    """What a machine hands to each of its devices.

    ``now`` gives guest time in nanoseconds; ``timer_changed`` and ``remap`` tell the machine that
    a timer or a window's place changed; ``report`` logs what a guest triggered; ``contain`` counts
    and logs an exception of the device's.
    """

    __slots__ = (
        "contain",
        "memory",
        "now",
        "platform",
        "remap",
        "report",
        "running",
        "timer_changed",
    )

    def __init__(
        self,
        platform: Platform,
        memory: GuestMemory,
        now: Callable[[], int],
        timer_changed: Callable[[LiveTimer], None],
        remap: Callable[[Device], None],
        report: Callable[[Device, str, tuple[object, ...]], None],
        running: Callable[[], bool],
        contain: Callable[[Exception, str], None],
    ) -> None:
        self.platform = platform
        self.memory = memory
        self.now = now
        self.timer_changed = timer_changed
        self.remap = remap
        self.report = report
        self.running = running
        self.contain = contain


class Device:
    """The base of every device. See the package's documentation for what a subclass declares.

    ``version`` is the version of its saved state; ``upgrade`` reads older ones.
    """

    version = 1
    summary = ""

    _layout: Layout = Layout()
    _declared: dict[str, Any] = {}
    _handlers: dict[tuple[int, str], str] = {}
    _register_handlers: dict[int, dict[str, str]] = {}
    _kept: tuple[Any, ...] = ()

    name: str
    memory: GuestMemory
    platform: Platform
    now: Callable[[], int]
    windows: tuple[LiveWindow, ...]
    lines: tuple[LiveLine, ...]
    timers: tuple[LiveTimer, ...]
    cells: DeviceCells
    _words: dict[str, tuple[memoryview[int], int]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        declared: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            for name, value in base.__dict__.items():
                if isinstance(value, _DECLARATIONS):
                    if name in _KIT_NAMES:
                        raise DeclarationError(f"{cls.__name__}.{name}: the name is the kit's own")
                    declared[name] = value
                elif name in declared:
                    raise DeclarationError(f"{cls.__name__}.{name} replaces a declaration")
        cls._declared = declared
        cls._layout = _make_layout(declared)
        cls._handlers = _collect_handlers(cls)
        cls._register_handlers = {}
        for (declaration, event), name in cls._handlers.items():
            cls._register_handlers.setdefault(declaration, {})[event] = name

    def __init__(self, name: str = "", **options: Any) -> None:
        self.__dict__["name"] = name or type(self).__name__.lower()
        for key, declaration in self._declared.items():
            if not isinstance(declaration, Option):
                continue
            value = options.pop(key, declaration.default)
            if isinstance(value, str) and declaration.kind is not str:
                value = declaration.parse(value)
            self.__dict__[key] = value
        if options:
            known = ", ".join(k for k, d in self._declared.items() if isinstance(d, Option))
            raise ConfigError(
                f"{type(self).__name__} has no option {next(iter(options))!r}"
                f" (it has: {known or 'none'})"
            )
        for key, declaration in self._declared.items():
            if isinstance(declaration, Transient):
                self.__dict__[key] = None

    def __setattr__(self, name: str, value: object) -> None:
        if not hasattr(getattr(type(self), name, None), "__set__") and not isinstance(
            self._declared.get(name), Transient
        ):
            raise AttributeError(
                f"{type(self).__name__}.{name} is not declared: state that a guest can observe"
                " is a register, Word, Fifo, Memory or Timer; anything else is Transient()"
            )
        object.__setattr__(self, name, value)

    def bind(self, region: memoryview[int], collaborators: Collaborators) -> None:
        """Bring the device to life over its region of state; the machine calls this once."""
        own = self.__dict__
        own["memory"] = collaborators.memory
        own["platform"] = collaborators.platform
        own["now"] = collaborators.now
        own["_collaborators"] = collaborators
        cells = DeviceCells(self._layout, region)
        own["cells"] = cells
        own["_words"] = {
            name: cells.typed(name) for name, d in self._declared.items() if isinstance(d, Word)
        }
        windows: list[LiveWindow] = []
        timers: list[LiveTimer] = []
        lines: list[LiveLine] = []
        for name, declaration in self._declared.items():
            if isinstance(declaration, Window):
                windows.extend(self._bind_window(name, declaration, cells))
            elif isinstance(declaration, Memory | Fifo):
                own[name] = declaration.bind(cells)
            elif isinstance(declaration, Timer):
                own[name] = self._bind_timer(name, declaration, cells, collaborators)
                timers.append(own[name])
            elif isinstance(declaration, IsaLine):
                lines.append(self._bind_line(name, declaration, cells))
            elif isinstance(declaration, Character):
                own[name] = self._bind_character(declaration)
        own["windows"] = tuple(windows)
        own["timers"] = tuple(timers)
        own["lines"] = tuple(lines) + self.more_lines()
        settlers = [line.settler() for line in self.lines]
        own["settle"] = _settle_all(settlers)
        own["has_lines"] = bool(settlers)

    has_lines: bool = False

    def settle(self) -> None:
        """Drive every line whose derived level changed."""

    def more_lines(self) -> tuple[LiveLine, ...]:
        """Lines that a base class adds beside the declared ones."""
        return ()

    def _bind_window(
        self, name: str, declaration: Window[Any], cells: DeviceCells
    ) -> list[LiveWindow]:
        bank = declaration.bank.bind(cells, name, self._events)
        self.__dict__[name] = bank
        if declaration.space is None:
            return []
        size = declaration.bank.size
        wanted = self.window_base(declaration)
        return [LiveWindow(name, self, bank, declaration.space, size, wanted)]

    def window_base(self, declaration: Window[Any]) -> Callable[[], int | None]:
        """How the place of a window is found: derived by a method, or declared."""
        method = self._handlers.get((id(declaration), "address"))
        if method is not None:
            bound: Callable[[], int | None] = getattr(self, method)
            return bound
        base = declaration.default_base(self)
        return lambda: base

    def _events(self, slot: RegisterSlot[Any]) -> dict[str, Callable[..., Any]]:
        names = self._register_handlers.get(id(slot.origin))
        return {event: getattr(self, names[event]) for event in names} if names else {}

    def _bind_timer(
        self, name: str, declaration: Timer, cells: DeviceCells, collaborators: Collaborators
    ) -> LiveTimer:
        method = self._handlers.get((id(declaration), "expired"))
        if method is None:
            raise DeclarationError(f"{type(self).__name__}.{name} fires, but nothing handles it")
        armed, deadline = cells.typed(f"{name}.armed"), cells.typed(f"{name}.deadline")
        changed = collaborators.timer_changed
        handler = getattr(self, method)

        def fire() -> None:
            try:
                handler()
            finally:
                self.settle()

        return LiveTimer(armed, deadline, collaborators.now, changed, fire)

    def _bind_line(self, name: str, declaration: IsaLine, cells: DeviceCells) -> LiveLine:
        method = self._handlers.get((id(declaration), "level"))
        if method is None:
            raise DeclarationError(f"{type(self).__name__}.{name} has no level method")
        irq, drive = declaration.number(self), self.platform.set_isa_irq
        if not 0 <= irq <= 15:
            raise ConfigError(f"{self.name}: there is no ISA interrupt {irq}")
        return LiveLine(
            getattr(self, method), cells.typed(f"{name}.driven"), lambda level: drive(irq, level)
        )

    def _bind_character(self, declaration: Character) -> LiveCharacter:
        received = self._handlers.get((id(declaration), "received"))
        room = self._handlers.get((id(declaration), "room"))
        return LiveCharacter(
            getattr(self, received) if received else None,
            getattr(self, room) if room else None,
            lambda: self.settle(),  # noqa: PLW0108 - it is made after this
            self._collaborators.running,
            lambda error: self._collaborators.contain(error, f"{self.name}, input"),
        )

    def character_plug(self) -> LiveCharacter | None:
        """The device's first declared character plug."""
        for name, declaration in self._declared.items():
            if isinstance(declaration, Character):
                plug: LiveCharacter = self.__dict__[name]
                return plug
        return None

    def power_on(self) -> None:
        """Give every declared cell its reset value, then let the device add its own."""
        self.cells.reset()
        self.on_reset()

    def on_reset(self) -> None:
        """Override for reset values that depend on options."""

    def forward(self) -> None:
        """Override to tell the platform again what it keeps for the device beside lines and ranges.

        Called whenever the platform may not know: when it becomes ready, after a reset, after a
        load. A pure function of state, like the level of a line.
        """

    def on_wake(self) -> None:
        """Override for what is different from a reset when the guest wakes from ACPI S3."""

    def restored(self) -> None:
        """Override for host-side work after a load; state needs none."""

    def upgrade(self, version: int, fields: dict[str, int | bytes]) -> dict[str, int | bytes]:
        """Override to read the saved fields of an older ``version`` of the class."""
        raise ConfigError(f"{self.name}: saved by version {version}, this is {self.version}")

    def remap(self) -> None:
        """Say that the place of a window may have changed."""
        self._collaborators.remap(self)

    def defer(self) -> Deferral:
        """Make a deferral for the request under way: ``raise self.defer()``, keep the object."""
        return Deferral(self)

    def warn(self, message: str, *arguments: object) -> None:
        """Log something that the guest triggered; rate-limited, one logger per device."""
        self._collaborators.report(self, message, arguments)

    _collaborators: Collaborators


_DECLARATIONS = (Option, Word, Memory, Fifo, Timer, Window, IsaLine, Character, Transient)
_STATEFUL = (Word, Memory, Fifo, Timer, IsaLine)
_KIT_NAMES = frozenset(Device.__dict__) | frozenset(Device.__annotations__)


def _make_layout(declared: dict[str, Any]) -> Layout:
    """Place every register and field of state, in the order of declaration; bulk memory last."""
    layout = Layout()
    bulk: dict[str, int] = {}
    for name, declaration in declared.items():
        if isinstance(declaration, Window):
            for register, slot, _, _ in declaration.bank.registers():
                layout.word(f"{name}.{register}", slot.width or 0, slot.reset)
            for memory, item in declaration.bank.memories.items():
                if item.length > BULK:
                    bulk[f"{name}.{memory}"] = item.length
                else:
                    layout.memory(f"{name}.{memory}", item.length)
        elif isinstance(declaration, Memory) and declaration.length > BULK:
            bulk[name] = declaration.length
        elif isinstance(declaration, _STATEFUL):
            declaration.layout(layout)
    for name, length in bulk.items():
        layout.memory(name, length)
    return layout


def _collect_handlers(cls: type[Device]) -> dict[tuple[int, str], str]:
    """Find the marked methods: (declaration, event) to the method's name."""
    handlers: dict[tuple[int, str], str] = {}
    known = _known_slots(cls)
    own = {id(declaration) for declaration in cls._declared.values()}
    for base in reversed(cls.__mro__):
        for name, value in base.__dict__.items():
            if not getattr(value, "__dict__", None):
                continue
            for slot, event in getattr(value, "_register_events", ()):
                if id(slot) not in known:
                    raise DeclarationError(f"{cls.__name__}.{name} handles a foreign register")
                _enter(cls, handlers, (id(slot), event), name)
            for mark, event in (("_timer", "expired"), ("_window", "address"), ("_line", "level")):
                if hasattr(value, mark):
                    declaration = getattr(value, mark)
                    _check_own(cls, own, declaration, name)
                    _enter(cls, handlers, (id(declaration), event), name)
            if hasattr(value, "_character"):
                character, event = value._character
                _check_own(cls, own, character, name)
                _enter(cls, handlers, (id(character), event), name)
    return handlers


def _known_slots(cls: type[Device]) -> set[int]:
    """The identities of all registers in the class's windows."""
    known: set[int] = set()
    for declaration in cls._declared.values():
        if isinstance(declaration, Window):
            known |= {id(slot.origin) for _, slot, _, _ in declaration.bank.registers()}
    return known


def _check_own(cls: type[Device], own: set[int], declaration: object, name: str) -> None:
    if id(declaration) not in own:
        raise DeclarationError(f"{cls.__name__}.{name} handles what the class does not declare")


def _enter(
    cls: type[Device], handlers: dict[tuple[int, str], str], key: tuple[int, str], name: str
) -> None:
    previous = handlers.get(key)
    if previous not in (None, name):
        raise DeclarationError(f"{cls.__name__}: {previous} and {name} handle the same event")
    handlers[key] = name


def _settle_all(settlers: list[Callable[[], None]]) -> Callable[[], None]:
    if len(settlers) == 1:
        return settlers[0]

    def settle() -> None:
        for each in settlers:
            each()

    return settle
