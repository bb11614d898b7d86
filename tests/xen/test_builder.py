"""The domain builder against xl: a paused domain's memory, parameters and first vCPU.

Contract §10. xl builds a guest that never runs; dom0 reads all of its memory. The same
configuration is built here, and every page, every parameter and the first vCPU's registers must be
the same.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.hvm_save import HvmSaveCode
from tests.xen_firmware import require_firmware
from tools.hypervisor.domain import Domain
from tools.hypervisor.hypervisor import Hypervisor
from tools.hypervisor.images.cpu_start import CpuStart
from tools.toolstack.builder import build_domain, image_of, ram_regions
from tools.toolstack.memory_layout import layout_of
from tools.toolstack.xlcfg import read_config
from tools.xenlab import find_release

from .support import Guest, Host

PAGE = 0x1000
MEMORY = 32
CONFIGS: tuple[dict[str, object], ...] = (
    {"vcpus": 2, "maxvcpus": 3},
    {"firmware": True, "hpet": 0, "timer_mode": 3, "vpt_align": 0, "apic": 0},
    {"mmio_hole": 3072, "videoram": 4, "acpi_s3": 0},
)
DESCRIPTOR = struct.Struct("<HHI")
REGISTERS = struct.Struct("<16Q6Q")
REGISTERS_OFFSET = 512
"""In struct hvm_hw_cpu (public/arch-x86/hvm/save.h): after the FPU's state, RAX, RBX …, RIP,
RFLAGS, CR0, CR2, CR3, CR4."""
RBX, RIP, CR0 = 1, 16, 18
XENS_OWN = {"0"}
"""Parameters that are Xen's business: none that the toolstack sets."""


@pytest.mark.parametrize("settings", CONFIGS, ids=["vcpus", "firmware", "hole"])
def test_s10_a_paused_domain_is_the_same_byte_for_byte(
    host: Host, make_guest: Callable[..., Guest], tmp_path: Path, settings: dict[str, object]
) -> None:
    extra = dict(settings)
    firmware = host.firmware("hello") if extra.pop("firmware", False) else None
    guest = make_guest("built", firmware=firmware, memory=MEMORY, extra=extra)
    guest.create("-p")
    name = f"{guest.name}.json"
    arguments = (str(guest.domid), str(MEMORY + 1), f"/share/{name}", host.release)
    host.dom0_python("image", *arguments)
    theirs = json.loads((host.share / name).read_text())
    for domain, start in built(host, guest, tmp_path):
        assert ours(domain) == theirs["pages"]
        different = {
            index: (value, domain.params.peek(int(index)))
            for index, value in theirs["params"].items()
            if index not in XENS_OWN and domain.params.peek(int(index)) != value
        }
        assert different == {}
        registers = first_vcpu(bytes.fromhex(theirs["context"]))
        assert (registers[RIP], registers[RBX]) == (start.ip, start.ebx)
        assert registers[CR0] & 1


def built(host: Host, guest: Guest, folder: Path) -> Iterator[tuple[Domain, CpuStart]]:
    """The same guest, built here."""
    hvmloader, seabios = require_firmware(host.release)
    text = guest.config
    if guest.firmware is None:
        text += f'firmware_override="{hvmloader}"\n'
    else:
        text = text.replace(guest.firmware, str(host.share / Path(guest.firmware).name))
    text += f'bios_path_override="{seabios}"\n'
    path = folder / "guest.cfg"
    path.write_text(text)
    config = read_config(path, lambda line: None)
    layout = layout_of(config)
    hypervisor = Hypervisor(str(folder / "xen"))
    try:
        domain = hypervisor.create_domain(
            vcpus=config.vcpus, max_vcpus=config.maxvcpus, ram=ram_regions(layout)
        )
        image = image_of(config, layout)
        yield domain, build_domain(domain, hypervisor.store, image).start
    finally:
        hypervisor.close()


def ours(domain: Domain) -> dict[str, str]:
    """The pages that are not all zeros, as image.py writes them."""
    pages = {}
    for gpa, size, _ in domain.memory.regions:
        for at in range(gpa, gpa + size, PAGE):
            data = domain.memory.read(at, PAGE)
            if any(data):
                pages[str(at // PAGE)] = data.hex()
    return pages


def first_vcpu(context: bytes) -> tuple[Any, ...]:
    """The registers in the first CPU record of Xen's save records."""
    at = 0
    while at < len(context):
        code, _, length = DESCRIPTOR.unpack_from(context, at)
        at += DESCRIPTOR.size
        if code == HvmSaveCode.CPU:
            return REGISTERS.unpack_from(context, at + REGISTERS_OFFSET)
        at += length
    raise AssertionError("no vCPU in the context")


def test_the_laboratorys_own_firmware_is_what_is_built_with(release: str) -> None:
    hvmloader, _ = require_firmware(release)
    assert find_release(release).xen in str(hvmloader)
