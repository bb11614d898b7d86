"""How the modules of a start come in at one stroke: their byte code, kept together in one file.

Looking some seventy modules up, one after the other, costs more than running them. The first start
therefore notes which modules of ours it imports, and leaves their byte code in one file beside the
interpreter's own. Later starts run it. The file counts only for the Python that wrote it, and as
long as every source has the size and the time stamp it had then; without it, or where it cannot be
written, modules are imported as ever.

This module is found by its folder and imports nothing of ours: its package would bring what it is
there to bring.
"""

from __future__ import annotations

import gc
import marshal
import os
import sys
from mmap import PROT_READ, mmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any

    Source = tuple[str, str, bool, int, int]
    """Dotted name, path, whether it is a package, modification time in ns, size in bytes."""

__all__ = ["Startup"]

PACKAGES = ("protocol", "dm", "devices")
LIBRARY = ("bisect", "struct")
"""What they import of the standard library's sources."""
TELLING = "dm.hypervisor.xen.hypervisor"
"""A start without it was no guest's on Xen, and no example for those."""
SIZE_LENGTH = 8


class Startup:
    """The start of one process. ``root``: the folder that holds the packages."""

    def __init__(self, root: str) -> None:
        self._root = root
        tag = sys.implementation.cache_tag
        self._file = f"{root}/dm/control/__pycache__/ioreqd-dm.{tag}.start"
        self._order: list[str] = []
        self._recorder: object = None

    def begin(self) -> None:
        """Bring the modules in; where that cannot be done, take notes for the next time."""
        # What a start allocates stays: looking for garbage among it finds none.
        gc.disable()
        if not self._bring() and not sys.dont_write_bytecode and sys.pycache_prefix is None:
            self._recorder = _recorder(self._order)
            sys.meta_path.insert(0, self._recorder)  # type: ignore[arg-type]

    def end(self) -> None:
        """The guest runs; everything that a start needs has been imported."""
        if self._recorder is not None:
            sys.meta_path.remove(self._recorder)  # type: ignore[arg-type]
            self._keep()
        gc.freeze()
        gc.enable()

    def _stamp(self) -> tuple[str | None, int, int, str]:
        return sys.implementation.cache_tag, sys.hexversion, sys.flags.optimize, self._root

    def _bring(self) -> bool:
        try:
            with open(self._file, "rb", buffering=0) as file:
                # Mapped, not read: the pages are there already and need no copy.
                data = mmap(file.fileno(), 0, prot=PROT_READ)
            length = int.from_bytes(data[:SIZE_LENGTH], "little")
            body = SIZE_LENGTH + length
            stamp, size, sources = marshal.loads(data[SIZE_LENGTH:body])
            if stamp != self._stamp() or size != len(data) - body or not _current(sources):
                return False
            codes = marshal.loads(memoryview(data)[body:])
        except (OSError, EOFError, ValueError, TypeError):
            return False
        _run(sources, codes)
        return True

    def _keep(self) -> None:
        """Write the file; any failure leaves things as they are."""
        folder = os.path.dirname(self._file)
        if not os.access(folder, os.W_OK):
            return
        names = [name for name in self._order if name.partition(".")[0] in (*PACKAGES, *LIBRARY)]
        if TELLING not in names or not set(PACKAGES).issubset(names):
            return
        fresh = f"{self._file}.{os.getpid()}"
        try:
            sources = [_source(name) for name in names]
            body = marshal.dumps([_code(name) for name in names])
            head = marshal.dumps((self._stamp(), len(body), sources))
            with open(fresh, "wb") as file:
                file.write(len(head).to_bytes(SIZE_LENGTH, "little") + head + body)
            os.rename(fresh, self._file)
        except (OSError, ImportError, AttributeError, ValueError):
            if os.path.exists(fresh):
                os.unlink(fresh)


def _source(name: str) -> Source:
    module = sys.modules[name]
    path = str(module.__file__)
    status = os.stat(path)
    return name, path, hasattr(module, "__path__"), status.st_mtime_ns, status.st_size


def _code(name: str) -> CodeType:
    loader: Any = sys.modules[name].__loader__
    code: CodeType = loader.get_code(name)
    return code


def _current(sources: list[Source]) -> bool:
    stat = os.stat
    for _, path, _, time, size in sources:
        status = stat(path)
        if status.st_mtime_ns != time or status.st_size != size:
            return False
    return True


def _run(sources: list[Source], codes: list[CodeType]) -> None:
    """Make the modules that are not there yet and run them, each behind all that it imports."""
    modules, make = sys.modules, type(sys)
    missing: list[tuple[str, ModuleType, CodeType]] = []
    for (name, path, is_package, _, _), code in zip(sources, codes, strict=True):
        if name in modules:
            continue
        module = modules[name] = make(name)
        module.__file__ = path
        if is_package:
            module.__path__ = [os.path.dirname(path)]
        module.__package__ = name if is_package else name.rpartition(".")[0]
        missing.append((name, module, code))
    for name, module, code in missing:
        exec(code, module.__dict__)
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(modules[parent], last, module)


def _recorder(order: list[str]) -> object:
    """A finder that finds what Python's own does, and notes when a module has been run."""
    from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader

    class Noting(SourceFileLoader):
        def exec_module(self, module: ModuleType) -> None:
            super().exec_module(module)
            order.append(module.__name__)

    class Recorder:
        def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
            spec = PathFinder.find_spec(name, path, target)  # type: ignore[arg-type]
            if spec is not None and type(spec.loader) is SourceFileLoader:
                spec.loader = Noting(spec.loader.name, spec.loader.path)
            return spec

    return Recorder()
