"""How the Unicorn library is driven: the one module that imports it, and its C interface.

The Python binding is left aside on the hot paths: a hook through it costs twice as much as a plain
ctypes callback. Functions that are called inside a hook keep the interpreter's lock; only running
the guest gives it up.

The library is GPL-2 and optional: `EngineUnavailable` when it is not there.
Facts: include/unicorn/unicorn.h and x86.h of Unicorn 2.1.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import weakref
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from ...errors import EngineUnavailable

__all__ = [
    "ACCESS_HOOK",
    "HOOK_ALL",
    "HOOK_INSN_INVALID",
    "HOOK_INTR",
    "HOOK_MEM_READ",
    "HOOK_MEM_WRITE",
    "HOOK_WRITE_PROTECTED",
    "INTERRUPT_HOOK",
    "PLAIN_HOOK",
    "PROTECTED_HOOK",
    "Emulator",
    "Library",
    "load",
]

MODE_64: Final = 8
"""The one mode that resumes at any RIP in every processor mode: the others cut it to 16 or 32 bits
and to their own idea of a segment."""
ARCH_X86: Final = 4
RWX: Final = 7
RX: Final = 5
OK: Final = 0

HOOK_INTR: Final = 1 << 0
HOOK_INSN: Final = 1 << 1
HOOK_WRITE_PROTECTED: Final = 1 << 8
HOOK_MEM_READ: Final = 1 << 10
HOOK_MEM_WRITE: Final = 1 << 11
HOOK_INSN_INVALID: Final = 1 << 14
HOOK_ALL: Final = (1, 0)
"""An upside-down range stands for every address."""

CTL_WRITE: Final = 1 << 30
CTL_USE_EXITS: Final = 4 | CTL_WRITE | 1 << 26
CTL_FORGET_CODE_IN: Final = 9 | CTL_WRITE | 2 << 26
CTL_FORGET_CODE: Final = 10 | CTL_WRITE
CTL_FORGET_TRANSLATIONS: Final = 11 | CTL_WRITE
"""Control codes: number, direction, and how many arguments follow."""
VERSION: Final = (2, 1)

_u32, _u64, _i32, _ptr = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int32, ctypes.c_void_p
IN_HOOK: Final = ctypes.CFUNCTYPE(_u32, _ptr, _u32, _i32, _ptr)
OUT_HOOK: Final = ctypes.CFUNCTYPE(None, _ptr, _u32, _i32, _u32, _ptr)
PLAIN_HOOK: Final = ctypes.CFUNCTYPE(_u32, _ptr, _ptr)
INTERRUPT_HOOK: Final = ctypes.CFUNCTYPE(None, _ptr, _u32, _ptr)
ACCESS_HOOK: Final = ctypes.CFUNCTYPE(None, _ptr, _i32, _u64, _i32, _u64, _ptr)
PROTECTED_HOOK: Final = ctypes.CFUNCTYPE(ctypes.c_bool, _ptr, _i32, _u64, _i32, _u64, _ptr)
MMIO_READ: Final = ctypes.CFUNCTYPE(_u64, _ptr, _u64, _u32, _ptr)
MMIO_WRITE: Final = ctypes.CFUNCTYPE(None, _ptr, _u64, _u32, _u64, _ptr)
_PROTOTYPES: Final = {
    "uc_open": (_i32, _i32, _ptr),
    "uc_close": (_ptr,),
    "uc_strerror": (_i32,),
    "uc_version": (_ptr, _ptr),
    "uc_mem_map_ptr": (_ptr, _u64, _u64, _u32, _ptr),
    "uc_mem_protect": (_ptr, _u64, _u64, _u32),
    "uc_mem_unmap": (_ptr, _u64, _u64),
    "uc_hook_del": (_ptr, ctypes.c_size_t),
    "uc_mmio_map": (_ptr, _u64, _u64, _ptr, _ptr, _ptr, _ptr),
    "uc_emu_start": (_ptr, _u64, _u64, _u64, ctypes.c_size_t),
    "uc_reg_write": (_ptr, _i32, _ptr),
    "uc_context_alloc": (_ptr, _ptr),
    "uc_context_free": (_ptr,),
    "uc_context_reg_read": (_ptr, _i32, _ptr),
    "uc_context_reg_write": (_ptr, _i32, _ptr),
}


class Library:
    """The library's functions. Those that a hook calls take ctypes objects, made once, as they are:
    conversion by prototype would double what they cost."""

    def __init__(self, path: str) -> None:
        free, held = ctypes.CDLL(path), ctypes.PyDLL(path)
        for name, arguments in _PROTOTYPES.items():
            getattr(free, name).argtypes = arguments
        free.uc_strerror.restype = ctypes.c_char_p
        free.uc_version.restype = _u32
        self.free = free
        self.stop = held.uc_emu_stop
        self.read_register = held.uc_reg_read
        self.save = held.uc_context_save
        self.restore = held.uc_context_restore
        for function in (self.stop, self.read_register, self.save, self.restore):
            function.restype = None

    def version(self) -> tuple[int, int]:
        """Major and minor version."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.free.uc_version(ctypes.addressof(major), ctypes.addressof(minor))
        return major.value, minor.value

    def error(self, number: int) -> str:
        """The library's own words for an error."""
        text: bytes = self.free.uc_strerror(number)
        return text.decode("ascii", "replace")


@lru_cache(maxsize=1)
def load() -> Library:
    """The library, from the unicorn package or the system. EngineUnavailable: there is none."""
    path = _find()
    if path is None:
        raise EngineUnavailable("the unicorn engine needs the package unicorn (ioreqd[unicorn])")
    try:
        library = Library(path)
    except (OSError, AttributeError) as error:
        raise EngineUnavailable(f"the unicorn library cannot be loaded: {error}") from error
    if library.version() != VERSION:
        have = ".".join(map(str, library.version()))
        raise EngineUnavailable(f"the unicorn engine needs unicorn 2.1, not {have}")
    return library


def _find() -> str | None:
    """Where the library is. The package itself is not imported, which takes longer than a guest."""
    specification = importlib.util.find_spec("unicorn")
    if specification is not None and specification.submodule_search_locations:
        for place in specification.submodule_search_locations:
            for found in sorted(Path(place, "lib").glob("libunicorn.so*")):
                return str(found)
    return ctypes.util.find_library("unicorn")


class Emulator:
    """One processor of the library, its memory map and hooks. Nothing here knows x86.

    ``handle`` is what the library's hot functions take. Hooks and mappings live as long as this.
    What the library refuses is a RuntimeError, a defect of ours.
    """

    def __init__(self) -> None:
        self.library = load()
        handle = _ptr()
        self._check(self.library.free.uc_open(ARCH_X86, MODE_64, ctypes.addressof(handle)), "open")
        self.handle = handle
        self._kept: dict[object, Any] = {}
        """Callbacks, by the hook or by the hole that they belong to."""
        self._close = weakref.finalize(self, self.library.free.uc_close, _ptr(handle.value))
        self._control(CTL_USE_EXITS, 1)

    def close(self) -> None:
        """Free the processor. Its thread has ended."""
        self._close()
        self._kept.clear()

    def map_ram(self, gpa: int, size: int, address: int, *, writable: bool = True) -> None:
        """Make ``size`` bytes of this process's memory at ``address`` the guest's at ``gpa``.

        Writes to what is not ``writable`` are dropped once a hook has let them pass.
        """
        free = self.library.free
        self._check(free.uc_mem_map_ptr(self.handle, gpa, size, RWX, address), "map memory")
        if not writable:
            # Memory that is mapped so from the start would take the writes that a hook lets pass.
            self._check(free.uc_mem_protect(self.handle, gpa, size, RX), "protect memory")

    def map_mmio(
        self,
        gpa: int,
        size: int,
        read: Callable[[int | None, int, int, None], int],
        write: Callable[[int | None, int, int, int, None], None],
    ) -> None:
        """Have callbacks called with (handle, offset, size[, value], None) for what lies there."""
        load_, store = MMIO_READ(read), MMIO_WRITE(write)
        self._kept[gpa] = (load_, store)
        free = self.library.free
        self._check(free.uc_mmio_map(self.handle, gpa, size, load_, None, store, None), "map MMIO")

    def unmap(self, gpa: int, size: int) -> None:
        """Undo one `map_ram` or `map_mmio`, the whole of it.

        The library looks ``gpa`` up as code at that linear address, which may fault: the caller
        restores all registers. It takes some ten nanoseconds for each page.
        """
        self._check(self.library.free.uc_mem_unmap(self.handle, gpa, size), "unmap memory")
        self._kept.pop(gpa, None)

    def hook(self, kind: int, prototype: Any, function: Any, span: tuple[int, int]) -> int:
        """Add a hook for ``span``, first and last address, or `HOOK_ALL`. For `unhook`: its id."""
        return self._add(kind, prototype(function), span, [])

    def unhook(self, hook: int) -> None:
        """Take a hook away."""
        self._check(self.library.free.uc_hook_del(self.handle, hook), "take a hook away")
        self._kept.pop(("hook", hook), None)

    def hook_instruction(self, name: str, function: Any) -> None:
        """Hook an instruction of `INSTRUCTIONS`."""
        number, prototype = INSTRUCTIONS[name]
        self._add(HOOK_INSN, prototype(function), HOOK_ALL, [ctypes.c_int(number)])

    def run(self, rip: int, count: int) -> int:
        """Run at most ``count`` instructions from ``rip``; gives the library's error number."""
        error: int = self.library.free.uc_emu_start(self.handle, rip, 0, 0, count)
        return error

    def forget_code(self) -> None:
        """Drop all translated code: somebody else may have written to it."""
        self._control(CTL_FORGET_CODE)

    def forget_code_in(self, linear: int, length: int) -> None:
        """Drop what was translated from a range of linear addresses within a page."""
        self._control(CTL_FORGET_CODE_IN, linear, linear + length)

    def forget_translations(self) -> None:
        """Drop what is known of page tables."""
        self._control(CTL_FORGET_TRANSLATIONS)

    def _add(self, kind: int, callback: Any, span: tuple[int, int], more: list[Any]) -> int:
        first, last = span
        added = ctypes.c_size_t()
        error = self.library.free.uc_hook_add(
            *(self.handle, ctypes.byref(added), ctypes.c_int(kind), callback, None),
            *(_u64(first), _u64(last), *more),
        )
        self._check(error, "add a hook")
        self._kept["hook", added.value] = callback
        return added.value

    def _control(self, code: int, *arguments: int) -> None:
        values = [_u64(value) for value in arguments]
        self._check(self.library.free.uc_ctl(self.handle, ctypes.c_uint(code), *values), "control")

    def _check(self, error: int, what: str) -> None:
        if error != OK:
            raise RuntimeError(f"unicorn would not {what}: {self.library.error(error)}")


INSTRUCTIONS: Final = {
    "IN": (218, IN_HOOK),
    "OUT": (500, OUT_HOOK),
    "CPUID": (113, PLAIN_HOOK),
    "RDTSC": (608, PLAIN_HOOK),
    "SYSCALL": (699, PLAIN_HOOK),
    "SYSENTER": (700, PLAIN_HOOK),
}
"""Instructions that can be hooked: the library's number and the callback's type."""
