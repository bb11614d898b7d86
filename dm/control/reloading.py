"""Live reload: a device file that is saved is loaded again, and its devices go on with their state.

A file that cannot be loaded, or whose class cannot stand in, changes nothing: one line says why.
"""

from __future__ import annotations

import sys

from dm.device.device import Device
from dm.device.state import Option
from dm.host.inotify import FileWatch
from dm.machine.reload import replace
from dm.observe.log import Log

from .device_file import class_in, load_device_file, place_of, told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from dm.machine.machine import Machine
    from dm.server.loop import Loop

__all__ = ["Reloader"]


class Origin:
    """Where a device's class comes from: a file, and its name there. ``given``: its options as
    they were given, None where they are not known.
    """

    __slots__ = ("given", "name", "path")

    def __init__(self, path: str, name: str, given: dict[str, str] | None) -> None:
        self.path = path
        self.name = name
        self.given = given


class Reloader:
    """Reloads the devices of a machine while it runs.

    ``replaced`` is called with each device that another stands in for now. ``say`` is given lines
    for the user.
    """

    def __init__(
        self,
        machine: Machine,
        replaced: Callable[[Device], object],
        say: Callable[[str], object] | None = None,
    ) -> None:
        self._machine = machine
        self._replaced = replaced
        self._say = say or (lambda line: Log("reload").warning("%s", line))
        self._origins: dict[str, Origin] = {}
        self._watch: FileWatch | None = None

    def add(self, device: Device, path: str, given: dict[str, str] | None = None) -> None:
        """Reload ``device`` when the file at ``path`` changes."""
        self._origins[device.name] = Origin(path, type(device).__qualname__, given)

    def add_catalogued(self, given: dict[str, dict[str, str]]) -> None:
        """Reload all other devices from the files of their modules, too.

        ``given``: by the device's name, the options that it was given, where they are known.
        """
        for device in self._machine.devices:
            module = sys.modules.get(type(device).__module__)
            path = getattr(module, "__file__", None)
            if device.name not in self._origins and path:
                self.add(device, path, given.get(device.name))

    def watch(self, loop: Loop) -> None:
        """Begin to look at the files; HostError when they cannot be watched."""
        self._watch = FileWatch(loop, self.changed)
        for origin in self._origins.values():
            self._watch.add(origin.path)

    def changed(self, path: str) -> None:
        """The file at ``path`` was written: load it again for all devices that come from it."""
        classes: dict[str, type[Device]] = {}
        for device in list(self._machine.devices):
            origin = self._origins.get(device.name)
            if origin is None or origin.path != path:
                continue
            try:
                if origin.name not in classes:
                    module = load_device_file(path, type(device).__module__)
                    classes[origin.name] = class_in(module, origin.name)
                self._reload(device, classes[origin.name], origin)
            except (Exception, SystemExit) as error:
                self._say(f"{place_of(path, error)}: {device.name} is as before: {told(error)}")

    def _reload(self, device: Device, fresh: type[Device], origin: Origin) -> None:
        options, dropped = _options(device, fresh, origin.given)
        notes = replace(self._machine, device, lambda: fresh(device.name, **options))
        self._replaced(device)
        self._say(f"{origin.path}: {device.name} goes on as the new {fresh.__name__}")
        for note in [*dropped, *notes]:
            self._say(f"{origin.path}: {device.name}: {note}")

    def close(self) -> None:
        """Reload nothing any more."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None


def _options(
    device: Device, fresh: type[Device], given: dict[str, str] | None
) -> tuple[dict[str, object], list[str]]:
    """The options of the new device, and a line for each that it does not have."""
    values: dict[str, object] = {}
    for key, declaration in type(device)._declared.items():
        if not isinstance(declaration, Option):
            continue
        value = device.__dict__[key]
        if key in given if given is not None else value != declaration.default:
            values[key] = value
    known = {key for key, d in fresh._declared.items() if isinstance(d, Option)}
    dropped = [f"it has no option {key} any more" for key in values if key not in known]
    return {key: value for key, value in values.items() if key in known}, dropped
