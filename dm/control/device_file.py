"""How a Python file that somebody names becomes a module, the first time and after each edit.

Every way to a device's file comes here: the command line, a reload, the tools that read a class.
"""

from __future__ import annotations

import sys

from dm.device.device import Device
from dm.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["class_in", "load_device_file", "place_of", "told"]

PREFIX = "ioreqd_user_"


def load_device_file(path: str, name: str = "") -> ModuleType:
    """Run the file at ``path`` as the module ``name``, which is in ``sys.modules`` afterwards.

    Without a name it gets one of its own, in which the folder has no part: saved states name the
    modules of their classes, and may be loaded where the file lies elsewhere. Nothing compiled
    that lies beside the file is used: it may be as old as the last second. Raises what running
    the file raises; ``sys.modules`` is then as it was.
    """
    with open(path, "rb") as file:
        source = file.read()
    name = name or _free_name(path)
    module = type(sys)(name)
    module.__file__ = path
    if "." in name:
        module.__package__ = name.rpartition(".")[0]
    if "linecache" in sys.modules:
        sys.modules["linecache"].checkcache(path)
    before = sys.modules.get(name)
    # While it runs, too: a dataclass looks its annotations up in its module.
    sys.modules[name] = module
    try:
        exec(compile(source, path, "exec"), module.__dict__)
    except BaseException:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        raise
    return module


def _free_name(path: str) -> str:
    """The file's own name; a number follows when another file has it already."""
    first = name = PREFIX + path.rpartition("/")[2].removesuffix(".py").replace(".", "_")
    number = 1
    while name in sys.modules and getattr(sys.modules[name], "__file__", None) != path:
        number += 1
        name = f"{first}_{number}"
    return name


def class_in(module: ModuleType, name: str) -> type[Device]:
    """The device class ``name``, which may have dots; ConfigError when there is none."""
    found: object = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type) or not issubclass(found, Device):
        raise ConfigError(f"it has no device class {name}")
    return found


def place_of(path: str, error: BaseException) -> str:
    """``path``, with the line where ``error`` was raised in it, as far as it was there."""
    line = None
    if isinstance(error, SyntaxError):
        line = error.lineno if error.filename == path else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return path if line is None else f"{path}:{line}"


def told(error: BaseException) -> str:
    """``error`` in one line."""
    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return " ".join(f"{type(error).__name__}: {text}".split())
