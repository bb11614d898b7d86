"""Building a domain: kernel, modules, tables, special pages, parameters, xenstore, first vCPU.

Facts: tools/libs/guest/xg_dom_hvmloader.c and xg_dom_core.c (xc_dom_build_image): the kernel at its
physical addresses, each module at the next page after what came before, the start info last;
tools/libs/light/libxl_dom.c (libxl__build_hvm, libxl__build_post, hvm_build_set_xs_values).

Not done, unlike libxl: ACPI tables for PVH guests, which libxl links in (such a guest gets no
RSDP); modules are taken as they are, compressed or not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from protocol.hvm_info import HVM_INFO_PADDR
from tools.hypervisor.errors import ImageError
from tools.hypervisor.hypercalls import Hypercalls
from tools.hypervisor.images.cpu_start import CpuStart
from tools.hypervisor.images.elf import ElfImage, load_segments, read_elf
from tools.hypervisor.images.flat import place, read_image
from tools.hypervisor.store_ring import StoreRing
from tools.toolstack.errors import ToolstackError

from .hvm_info import hvm_info
from .special_pages import (
    CONSOLE_GFN,
    IDENT_PT_GFN,
    STORE_GFN,
    identity_directory,
    params,
    special_ram,
)
from .start_info import Module, start_info_size, write_start_info

if TYPE_CHECKING:
    from tools.hypervisor.domain import Domain
    from tools.hypervisor.store import Store
    from tools.toolstack.memory_layout import MemoryLayout

    from .image import GuestImage

__all__ = ["Built", "build_domain", "ram_regions"]

PAGE = 0x1000
CONTROL_DOMAIN = 0


@dataclass(frozen=True, slots=True)
class Built:
    """A domain that can run. ``start``: its first vCPU's state; ``ring``: its way to xenstore."""

    start: CpuStart
    ring: StoreRing
    console_port: int


def ram_regions(layout: MemoryLayout) -> list[tuple[int, int]]:
    """What a domain of this layout is to be created with: addresses and bytes of RAM."""
    return [*layout.ram, special_ram(layout.kind)]


def build_domain(
    domain: Domain,
    store: Store,
    image: GuestImage,
    uuid: bytes = bytes(16),
    console: Callable[[], object] | None = None,
) -> Built:
    """Build ``image`` in a new domain that was created with `ram_regions`.

    ``console``: who is told when the guest signals its console's port; None: nobody.
    ToolstackError: a file cannot be used; the domain is as good as lost then.
    """
    calls = domain.hypercalls = Hypercalls(domain, uuid)
    ring = StoreRing(domain, calls.events, store, STORE_GFN)
    console_port = calls.events.open(CONTROL_DOMAIN, console or _nobody_listens)
    try:
        start = _load(domain, store, image, calls)
    except ImageError as error:
        raise ToolstackError(str(error)) from None
    domain.memory.write(IDENT_PT_GFN * PAGE, identity_directory())
    if image.kind == "hvm":
        domain.memory.write(HVM_INFO_PADDR, hvm_info(image))
    for index, value in params(image, ring.port, console_port):
        domain.params.set(index, value)
    _write_nodes(domain, store, image, ring.port, console_port)
    return Built(start, ring, console_port)


class _Loader:
    """Puts segments one after the other, each at the beginning of a page."""

    def __init__(self, domain: Domain, kernel: ElfImage, name: str) -> None:
        self._memory = domain.memory
        first = min(segment.paddr for segment in kernel.segments)
        if first % PAGE:
            raise ImageError(f"{name}: it begins at {first:#x}, not at the beginning of a page")
        load_segments(domain.memory, kernel, name)
        self.end = _up(max(segment.paddr + segment.size for segment in kernel.segments))

    def put(self, data: bytes, what: str) -> int:
        """Place ``data`` and give its address."""
        at = self.end
        place(self._memory, at, data, what)
        self.end = _up(at + len(data))
        return at


def _load(domain: Domain, store: Store, image: GuestImage, calls: Hypercalls) -> CpuStart:
    kernel = read_elf(image.kernel)
    entry = _entry(kernel, image)
    loader = _Loader(domain, kernel, str(image.kernel))
    modules = []
    home = f"/local/domain/{domain.domid}/hvmloader"
    if image.firmware is not None:
        data = read_image(image.firmware)
        modules.append(Module(loader.put(data, str(image.firmware)), len(data), "firmware"))
    for name, tables in (("acpi", image.acpi), ("smbios", image.smbios)):
        if tables is not None:
            data = read_image(tables)
            at = loader.put(data, str(tables))
            store.write(f"{home}/{name}/address", f"{at:#x}")
            store.write(f"{home}/{name}/length", f"{len(data):#x}")
    for path, text in image.modules:
        data = read_image(path)
        modules.append(Module(loader.put(data, str(path)), len(data), text))
    memory_map = image.layout.memory_map()
    calls.memory.memory_map = [(e.start, e.size, e.type.value) for e in memory_map]
    size = start_info_size(image.cmdline, len(memory_map))
    info = write_start_info(loader.end, image.cmdline, modules, memory_map)
    assert len(info) == size
    return CpuStart("protected", ip=entry, ebx=loader.put(info, "start info"))


def _entry(kernel: ElfImage, image: GuestImage) -> int:
    """Where the first vCPU begins: a firmware's ELF entry, a PVH kernel's by its note."""
    if image.kind == "pvh":
        if kernel.phys32_entry is None:
            raise ImageError(f"{image.kernel}: no PVH kernel: it lacks the note with the entry")
        return kernel.phys32_entry
    if kernel.bits != 32:
        raise ImageError(f"{image.kernel}: firmware of an HVM guest is a 32-bit ELF file")
    if not any(0 <= kernel.entry - one.paddr < one.size for one in kernel.segments):
        raise ImageError(f"{image.kernel}: its entry {kernel.entry:#x} lies in no segment")
    return kernel.entry


def _write_nodes(
    domain: Domain, store: Store, image: GuestImage, store_port: int, console_port: int
) -> None:
    """What hvmloader reads, and where xenstored and the console find their pages and ports."""
    home = f"/local/domain/{domain.domid}"
    nodes = {
        "store/port": str(store_port),
        "store/ring-ref": str(STORE_GFN),
        "console/port": str(console_port),
        "console/ring-ref": str(CONSOLE_GFN),
    }
    if image.kind == "hvm":
        nodes |= {"hvmloader/bios": image.bios, "hvmloader/allow-memory-relocate": "0"}
        nodes |= {f"platform/{name}": value for name, value in image.platform}
    for path, value in nodes.items():
        store.write(f"{home}/{path}", value)


def _up(address: int) -> int:
    return -(-address // PAGE) * PAGE


def _nobody_listens() -> None:
    """The guest's console: the stand-alone hypervisor has no back end for it."""
