"""`-observe`: what a user wants to see of a running machine, and how it is wired to it.

    -observe trace=FILE|-[,format=text|plain|perfetto][,device=NAME][,register=NAME]
             [,direction=read|write]
    -observe record=FILE
    -observe suggest=FILE|-
    -observe reload=on
    -observe stop-on-error=on

They may stand in one option or in several; ``-`` is standard error, since standard output may be
the guest's console. A trace to a file that ends in ``.json`` has the format perfetto. With
suggest= the machine asks for all ports and all memory, so that it sees what no device has; not if
it stands beside another machine. Nothing of this is imported without the option.
"""

from __future__ import annotations

from dm.errors import ConfigError
from dm.machine.machine import Machine
from dm.observe.output import Output

from .argv_report import user_device
from .argv_values import as_switch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from dm.device.device import Device
    from dm.device.platform import GuestMemory, Platform
    from dm.observe.debugger import Debugger
    from dm.observe.events import Sink
    from dm.server.loop import Loop
    from dm.server.server import IoreqServer

    from .reloading import Reloader

__all__ = ["Observation"]

OPTION = "-observe"
FILTER_KEYS = ("device", "register", "direction")
KEYS = ("trace", "format", *FILTER_KEYS, "record", "suggest", "reload", "stop-on-error")
SLACK = 1 << 20
"""Bytes of which each device's state is to be a multiple, so that a reloaded class finds room."""


class Observation:
    """What `-observe` asked for. ``records``: the keys and values of each time it was given.

    Files are made at once. Raises ConfigError for what cannot be.
    """

    def __init__(self, records: list[dict[str, str]]) -> None:
        self._sinks: list[Sink] = []
        self._sources: dict[str, str] = {}
        self._given: dict[str, dict[str, str]] = {}
        self._reload = self._stop = self._everything = False
        self._debugger: Debugger | None = None
        self._reloader: Reloader | None = None
        for values in records:
            for key in values:
                if key not in KEYS:
                    known = ", ".join(KEYS)
                    raise ConfigError(f"{OPTION}: there is no {key!r} (there are {known})")
            self._reload |= as_switch(OPTION, "reload", values.get("reload", "off"))
            self._stop |= as_switch(OPTION, "stop-on-error", values.get("stop-on-error", "off"))
            if "trace" in values:
                self._sinks.append(_trace(values))
            elif any(key in values for key in ("format", *FILTER_KEYS)):
                raise ConfigError(f"{OPTION}: trace= is missing, which the other keys are about")
            if "record" in values:
                from dm.observe.record import Recorder

                self._sinks.append(Recorder(Output("record", values["record"]), self._sources))
            if "suggest" in values:
                from dm.observe.suggest import Suggestions

                self._everything = True
                self._sinks.append(Suggestions(Output("suggest", values["suggest"])))

    def machine(
        self,
        kind: str,
        platform: Platform,
        memory: GuestMemory,
        host_now: Callable[[], int],
    ) -> Machine:
        """The machine that devices are to be added to."""
        if self._sinks or self._stop:
            from dm.observe.debugger import Debugger
            from dm.observe.machine import ObservedMachine

            failed = None
            if self._stop:
                self._debugger = Debugger()
                failed = self._debugger.failed
            # A machine beside another one must not take what is the other's.
            made: Machine = ObservedMachine(
                kind,
                platform,
                memory,
                host_now,
                self._sinks,
                failed,
                everything=self._everything and kind != "none",
            )
        else:
            made = Machine(kind, platform, memory, host_now)
        made.slack = SLACK if self._reload else 0
        return made

    def name(self, device: Device, driver: str, given: dict[str, str]) -> None:
        """Say what ``-device`` named and which options it gave, for a device that was added."""
        self._sources[device.name] = driver
        self._given[device.name] = {key.replace("-", "_"): value for key, value in given.items()}

    def watch(self, machine: Machine, loop: Loop, server: IoreqServer) -> None:
        """Begin to reload classes, if asked to; call when the machine is sealed."""
        if not self._reload:
            return
        from .reloading import Reloader

        self._reloader = Reloader(machine, server.abandon)
        for device in machine.devices:
            own = user_device(self._sources.get(device.name, ""))
            if own is not None and own[0].endswith(".py"):
                self._reloader.add(device, own[0], self._given[device.name])
        self._reloader.add_catalogued(self._given)
        self._reloader.watch(loop)

    def interrupt(self) -> None:
        """Have a debugger left, should one wait for its user; from any thread."""
        if self._debugger is not None:
            self._debugger.interrupt()

    def close(self) -> None:
        """Complete and close all files."""
        if self._reloader is not None:
            self._reloader.close()
        for sink in self._sinks:
            sink.close()
        if self._debugger is not None:
            self._debugger.close()
            self._debugger = None


def _trace(values: dict[str, str]) -> Sink:
    from dm.observe.filter import Filter

    path = values["trace"]
    form = values.get("format", "perfetto" if path.endswith(".json") else "text")
    if form not in ("text", "plain", "perfetto"):
        raise ConfigError(f"{OPTION} format={form}: it is text, plain or perfetto")
    wanted = Filter(*[values.get(key, "") for key in FILTER_KEYS])
    output = Output("trace", path)
    if form == "perfetto":
        from dm.observe.perfetto import PerfettoTrace

        return PerfettoTrace(output, wanted)
    from dm.observe.trace import TextTrace

    return TextTrace(output, wanted, timed=form == "text")
