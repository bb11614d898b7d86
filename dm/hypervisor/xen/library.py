"""How Xen's libraries are called: sonames, prototypes, and errors that name call and domain.

The sonames are the same in Xen 4.17 and 4.20. Prototypes are those of the public headers
xendevicemodel.h, xenforeignmemory.h, xenevtchn.h, xenstore.h and xentoolcore.h.
"""

from __future__ import annotations

import os

from dm.errors import HostError

from .ffi import BOOL, INT, POINTER, STRING, U8, U16, U32, U64, UINT, ULONG, SharedObject, get_errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Prototype = tuple[str, Any, tuple[Any, ...]]

__all__ = [
    "CALL",
    "DEVICEMODEL",
    "EVTCHN",
    "FOREIGNMEMORY",
    "STORE",
    "TOOLCORE",
    "Library",
]

HANDLE, SIZE = POINTER, U64
DOMID = U16
DM = (HANDLE, DOMID)


class Library:
    """A shared library of Xen's, loaded at the first call, every prototype declared.

    ``prefix`` begins every function's name. A negative result, a null pointer or a false boolean
    means failure, and errno says why.
    """

    def __init__(self, soname: str, prefix: str, prototypes: tuple[Prototype, ...]) -> None:
        self.soname = soname
        self.prefix = prefix
        self.prototypes = prototypes
        self.functions: dict[str, Any] | None = None

    def function(self, name: str) -> Any:
        """The C function ``prefix + name``; HostError when the library cannot be loaded."""
        if self.functions is None:
            self.functions = self._load()
        return self.functions[name]

    def _load(self) -> dict[str, Any]:
        try:
            library = SharedObject(self.soname)
        except OSError as error:
            raise HostError(f"cannot load {self.soname}: {error}") from None
        functions = {}
        for name, result, arguments in self.prototypes:
            try:
                functions[name] = library.function(self.prefix + name, result, arguments)
            except AttributeError:
                raise HostError(f"{self.soname} has no {self.prefix}{name}") from None
        return functions

    def open(self, *arguments: object) -> Any:
        """Call the library's open function."""
        handle = self.function("open")(*arguments)
        if not handle:
            raise self.error("open", "", get_errno())
        return handle

    def call(self, name: str, domain: str, *arguments: object) -> Any:
        """Call a function; HostError when it fails. ``domain`` goes into the message."""
        result = self.function(name)(*arguments)
        if result is None or result is False or (result is not True and result < 0):
            raise self.error(name, domain, get_errno())
        return result

    def error(self, name: str, domain: str, errno: int) -> HostError:
        """What a failed call is reported as."""
        where = f"({domain})" if domain else ""
        return HostError(f"{self.prefix}{name}{where}: {os.strerror(errno)}", errno)


DEVICEMODEL = (
    "libxendevicemodel.so.1",
    "xendevicemodel_",
    (
        ("open", HANDLE, (HANDLE, UINT)),
        ("close", INT, (HANDLE,)),
        ("create_ioreq_server", INT, (*DM, INT, POINTER)),
        (
            "get_ioreq_server_info",
            INT,
            (*DM, U16, POINTER, POINTER, POINTER),
        ),
        ("map_io_range_to_ioreq_server", INT, (*DM, U16, INT, U64, U64)),
        ("unmap_io_range_from_ioreq_server", INT, (*DM, U16, INT, U64, U64)),
        ("map_pcidev_to_ioreq_server", INT, (*DM, U16, U16, U8, U8, U8)),
        ("unmap_pcidev_from_ioreq_server", INT, (*DM, U16, U16, U8, U8, U8)),
        ("set_ioreq_server_state", INT, (*DM, U16, INT)),
        ("destroy_ioreq_server", INT, (*DM, U16)),
        ("set_pci_intx_level", INT, (*DM, U16, U8, U8, U8, UINT)),
        ("set_isa_irq_level", INT, (*DM, U8, UINT)),
        ("set_pci_link_route", INT, (*DM, U8, U8)),
        ("inject_msi", INT, (*DM, U64, U32)),
        ("modified_memory", INT, (*DM, U64, U32)),
        ("set_mem_type", INT, (*DM, INT, U64, U32)),
        ("shutdown", INT, (*DM, UINT)),
        ("nr_vcpus", INT, (*DM, POINTER)),
        ("restrict", INT, DM),
    ),
)

FOREIGNMEMORY = (
    "libxenforeignmemory.so.1",
    "xenforeignmemory_",
    (
        ("open", HANDLE, (HANDLE, UINT)),
        ("close", INT, (HANDLE,)),
        (
            "map",
            HANDLE,
            (HANDLE, U32, INT, SIZE, POINTER, POINTER),
        ),
        ("unmap", INT, (HANDLE, HANDLE, SIZE)),
        (
            "map_resource",
            HANDLE,
            (HANDLE, DOMID, UINT, UINT, ULONG, ULONG, POINTER, INT, INT),
        ),
        ("unmap_resource", INT, (HANDLE, HANDLE)),
    ),
)

EVTCHN = (
    "libxenevtchn.so.1",
    "xenevtchn_",
    (
        ("open", HANDLE, (HANDLE, UINT)),
        ("close", INT, (HANDLE,)),
        ("fd", INT, (HANDLE,)),
        ("bind_interdomain", INT, (HANDLE, U32, U32)),
        ("unbind", INT, (HANDLE, U32)),
        ("notify", INT, (HANDLE, U32)),
    ),
)

CALL = (
    "libxencall.so.1",
    "xencall",
    (
        ("_open", HANDLE, (HANDLE, UINT)),
        ("_close", INT, (HANDLE,)),
        ("2", INT, (HANDLE, UINT, U64, U64)),
        ("_alloc_buffer", HANDLE, (HANDLE, SIZE)),
        ("_free_buffer", None, (HANDLE, HANDLE)),
    ),
)

STORE = (
    "libxenstore.so.4",
    "xs_",
    (
        ("open", HANDLE, (ULONG,)),
        ("close", None, (HANDLE,)),
        ("read", HANDLE, (HANDLE, U32, STRING, POINTER)),
        ("write", BOOL, (HANDLE, U32, STRING, STRING, UINT)),
        ("rm", BOOL, (HANDLE, U32, STRING)),
    ),
)

TOOLCORE = (
    "libxentoolcore.so.1",
    "xentoolcore_",
    (("restrict_all", INT, (DOMID,)),),
)
