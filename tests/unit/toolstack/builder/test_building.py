"""The builder's rules, one by one, on small ELF files (contract §10)."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from protocol import layouts
from protocol.hvm_info import HVM_INFO_PADDR, HVM_INFO_TABLE
from protocol.start_info import HVM_MEMMAP_ENTRY, HVM_MODLIST_ENTRY, HVM_START_INFO
from tools.hypervisor.domain import Domain
from tools.toolstack.builder import Built, GuestImage, build_domain, find_hvmloader, image_of
from tools.toolstack.errors import ToolstackError
from tools.toolstack.memory_layout import FOUR_GIB, MemoryLayout, lay_out
from tools.toolstack.rdm import RdmEntry
from tools.toolstack.xlcfg.config import GuestConfig

from .guests import CODE, LAYOUT, SIZE, elf, new_domain, note

PAGE = 0x1000
MIB = 1 << 20


def built_info(domain: Domain, built: Built) -> dict[str, int]:
    data = domain.memory.read(built.start.ebx, HVM_START_INFO.sizeof())
    return dict(HVM_START_INFO.parse(data))


def text_at(domain: Domain, at: int) -> str:
    return domain.memory.read(at, 64).split(b"\0")[0].decode()


def hvm(kernel: Path, layout: MemoryLayout = LAYOUT, **more: object) -> GuestImage:
    return GuestImage(kind="hvm", kernel=kernel, layout=layout, **more)  # type: ignore[arg-type]


def test_s10_modules_follow_the_kernel_page_by_page_and_the_start_info_is_last(
    tmp_path: Path,
) -> None:
    kernel = elf(tmp_path / "k", size=0x1001)
    files = {name: tmp_path / name for name in ("bios", "acpi", "smbios")}
    for name, path in files.items():
        path.write_bytes(name.encode() * 300)
    with new_domain(tmp_path) as (hypervisor, domain):
        image = hvm(kernel, firmware=files["bios"], acpi=files["acpi"], smbios=files["smbios"])
        built = build_domain(domain, hypervisor.store, image)
        read = domain.memory.read
        assert read(0x100000, len(CODE)) == CODE
        assert [read(at, 4) for at in (0x102000, 0x103000, 0x104000)] == [b"bios", b"acpi", b"smbi"]
        assert built.start.ebx == 0x105000
        home = f"/local/domain/{domain.domid}/hvmloader"
        nodes = {
            name: hypervisor.store.read(f"{home}/{name}")
            for name in ("acpi/address", "acpi/length", "smbios/address", "smbios/length")
        }
    assert nodes == {
        "acpi/address": "0x103000",
        "acpi/length": "0x4b0",
        "smbios/address": "0x104000",
        "smbios/length": "0x708",
    }


def test_s10_the_firmware_is_the_module_of_that_name(tmp_path: Path) -> None:
    bios = tmp_path / "bios"
    bios.write_bytes(b"x" * 5000)
    with new_domain(tmp_path) as (hypervisor, domain):
        image = hvm(elf(tmp_path / "k"), firmware=bios)
        built = build_domain(domain, hypervisor.store, image)
        info = built_info(domain, built)
        entry = HVM_MODLIST_ENTRY.parse(domain.memory.read(info["modlist_paddr"], 32))
        assert (info["nr_modules"], entry.paddr, entry.size) == (1, 0x101000, 5000)
        assert text_at(domain, entry.cmdline_paddr) == "firmware"


def test_s10_an_hvm_guest_has_no_command_line_and_no_rsdp(tmp_path: Path) -> None:
    with new_domain(tmp_path) as (hypervisor, domain):
        built = build_domain(domain, hypervisor.store, hvm(elf(tmp_path / "k")))
        info = built_info(domain, built)
    assert (info["cmdline_paddr"], info["rsdp_paddr"]) == (0, 0)
    assert (info["nr_modules"], info["modlist_paddr"]) == (0, 0)


def test_s9_the_map_has_low_ram_from_1_mib_exposed_regions_and_high_ram(tmp_path: Path) -> None:
    layout = lay_out(SIZE, [RdmEntry(0xE0000000, 2 * PAGE, "strict")], mmio_hole=FOUR_GIB - 8 * MIB)
    with new_domain(tmp_path, layout) as (hypervisor, domain):
        image = hvm(elf(tmp_path / "k"), layout)
        built = build_domain(domain, hypervisor.store, image)
        info = built_info(domain, built)
        assert info["memmap_entries"] == 3
        entries = [
            HVM_MEMMAP_ENTRY.parse(domain.memory.read(info["memmap_paddr"] + 24 * index, 24))
            for index in range(3)
        ]
        table = HVM_INFO_TABLE.parse(domain.memory.read(HVM_INFO_PADDR, 48))
    assert [(e.addr, e.size, e.type) for e in entries] == [
        (MIB, 7 * MIB, 1),
        (0xE0000000, 2 * PAGE, 2),
        (FOUR_GIB, 8 * MIB, 1),
    ]
    assert table.low_mem_pgend == 8 * MIB // PAGE
    assert table.high_mem_pgend == (FOUR_GIB + 8 * MIB) // PAGE


def test_s10_the_guests_hypercall_answers_the_same_map(tmp_path: Path) -> None:
    with new_domain(tmp_path) as (hypervisor, domain):
        build_domain(domain, hypervisor.store, hvm(elf(tmp_path / "k")))
        assert domain.hypercalls is not None
        assert domain.hypercalls.memory.memory_map == [(MIB, SIZE - MIB, 1)]


@pytest.mark.parametrize(("vcpus", "online"), [(1, 1), (9, 3), (128, 128)])
def test_s10_the_table_has_the_vcpus_that_may_be_and_a_bit_for_each_that_is(
    tmp_path: Path, vcpus: int, online: int
) -> None:
    with new_domain(tmp_path) as (hypervisor, domain):
        image = hvm(elf(tmp_path / "k"), vcpus=vcpus, online=online, apic=False)
        build_domain(domain, hypervisor.store, image)
        data = domain.memory.read(HVM_INFO_PADDR, 48)
    table = HVM_INFO_TABLE.parse(data)
    assert (table.nr_vcpus, table.apic_mode, table.reserved_mem_pgstart) == (vcpus, 0, 0xFEFF0)
    assert int.from_bytes(table.vcpu_online, "little") == (1 << online) - 1
    assert sum(data) & 0xFF == 0


def test_s10_store_is_port_1_console_is_port_2(tmp_path: Path) -> None:
    with new_domain(tmp_path) as (hypervisor, domain):
        built = build_domain(domain, hypervisor.store, hvm(elf(tmp_path / "k")))
        assert (built.ring.port, built.console_port) == (1, 2)
        home = f"/local/domain/{domain.domid}"
        assert hypervisor.store.read(f"{home}/store/port") == "1"
        assert hypervisor.store.read(f"{home}/console/ring-ref") == str(0xFEFFF)


def test_s10_a_pvh_guest_has_its_command_line_its_ramdisk_and_no_ioreq_pages(
    tmp_path: Path,
) -> None:
    layout = lay_out(SIZE, kind="pvh")
    kernel = elf(tmp_path / "k", bits=64, notes=note(0x100020))
    ramdisk = tmp_path / "ramdisk"
    ramdisk.write_bytes(b"disk")
    with new_domain(tmp_path, layout) as (hypervisor, domain):
        image = GuestImage(
            kind="pvh",
            kernel=kernel,
            layout=layout,
            cmdline="console=hvc0",
            modules=((ramdisk, None),),
        )
        built = build_domain(domain, hypervisor.store, image)
        info = built_info(domain, built)
        assert built.start.ip == 0x100020
        assert text_at(domain, info["cmdline_paddr"]) == "console=hvc0"
        module = HVM_MODLIST_ENTRY.parse(domain.memory.read(info["modlist_paddr"], 32))
        assert (module.size, module.cmdline_paddr) == (4, 0)
        assert domain.memory.read(module.paddr, 4) == b"disk"
        assert domain.memory.find(0xFEFF0000) is None
        assert domain.params.get(layouts.HVM_PARAM_IOREQ_SERVER_PFN) == 0
        assert domain.memory.read(HVM_INFO_PADDR, 8) == bytes(8)


@pytest.mark.parametrize(
    ("kind", "bits", "notes", "said"),
    [
        ("pvh", 64, b"", "lacks the note"),
        ("hvm", 64, b"", "32-bit ELF"),
        ("hvm", 32, b"", "beginning of a page"),
    ],
)
def test_a_kernel_of_the_wrong_kind_is_one_readable_line(
    tmp_path: Path, kind: str, bits: int, notes: bytes, said: str
) -> None:
    at = 0x100010 if "page" in said else 0x100000
    kernel = elf(tmp_path / "k", bits=bits, notes=notes, at=at)
    layout = lay_out(SIZE, kind="pvh" if kind == "pvh" else "hvm")
    with new_domain(tmp_path, layout) as (hypervisor, domain):
        image = GuestImage(kind=layout.kind, kernel=kernel, layout=layout)
        with pytest.raises(ToolstackError, match=said) as caught:
            build_domain(domain, hypervisor.store, image)
    assert "\n" not in str(caught.value)


def test_a_module_that_does_not_fit_is_one_readable_line(tmp_path: Path) -> None:
    bios = tmp_path / "bios"
    bios.write_bytes(bytes(SIZE))
    with new_domain(tmp_path) as (hypervisor, domain):
        image = hvm(elf(tmp_path / "k"), firmware=bios)
        with pytest.raises(ToolstackError, match="do not fit into the guest's RAM"):
            build_domain(domain, hypervisor.store, image)


def config(**settings: object) -> GuestConfig:
    return GuestConfig(name="g", type="hvm", **settings)  # type: ignore[arg-type]


def test_a_configuration_names_its_files(tmp_path: Path) -> None:
    kernel, bios = elf(tmp_path / "k"), tmp_path / "b"
    bios.write_bytes(b"bios")
    image = image_of(
        config(
            firmware_override=str(kernel),
            bios_path_override=str(bios),
            vcpus=2,
            maxvcpus=3,
            hpet=False,
            timer_mode="one_missed_tick_pending",
        ),
        LAYOUT,
    )
    assert (image.kernel, image.firmware) == (kernel, bios)
    assert (image.vcpus, image.online, image.hpet, image.timer_mode) == (3, 2, False, 3)
    assert ("device-model", "qemu_xen") in image.platform


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ToolstackError, match="no-such-file"):
        image_of(config(firmware_override=str(tmp_path / "no-such-file")), LAYOUT)
    with pytest.raises(ToolstackError, match="kernel= is missing"):
        image_of(GuestConfig(name="g", type="pvh"), LAYOUT)


def test_the_newest_xens_hvmloader_is_taken(tmp_path: Path) -> None:
    for version in ("4.9", "4.20", "4.17"):
        folder = tmp_path / "lib" / f"xen-{version}" / "boot"
        folder.mkdir(parents=True)
        (folder / "hvmloader").write_bytes(b"x")
    assert "xen-4.20" in str(find_hvmloader(tmp_path))
    with pytest.raises(ToolstackError, match="no hvmloader is installed"):
        find_hvmloader(tmp_path / "nowhere")


SPECIAL_PAGES = [
    (0xFEFF0, layouts.HVM_PARAM_IOREQ_SERVER_PFN),
    (0xFEFF8, layouts.HVM_PARAM_PAGING_RING_PFN),
    (0xFEFF9, layouts.HVM_PARAM_MONITOR_RING_PFN),
    (0xFEFFA, layouts.HVM_PARAM_SHARING_RING_PFN),
    (0xFEFFB, layouts.HVM_PARAM_BUFIOREQ_PFN),
    (0xFEFFC, layouts.HVM_PARAM_STORE_PFN),
    (0xFEFFD, layouts.HVM_PARAM_IOREQ_PFN),
    (0xFEFFF, layouts.HVM_PARAM_CONSOLE_PFN),
]


def test_s10_2_each_special_page_is_ram_and_its_parameter_says_where(tmp_path: Path) -> None:
    with new_domain(tmp_path) as (hypervisor, domain):
        build_domain(domain, hypervisor.store, hvm(elf(tmp_path / "k")))
        for gfn, index in SPECIAL_PAGES:
            assert domain.params.get(index) == gfn
            assert domain.memory.read(gfn << 12, PAGE) == bytes(PAGE)
        assert domain.params.get(layouts.HVM_PARAM_NR_IOREQ_SERVER_PAGES) == 8
        assert domain.params.get(layouts.HVM_PARAM_IDENT_PT) == 0xFEFFE000
        directory = struct.unpack("<1024I", domain.memory.read(0xFEFFE000, PAGE))
        assert directory == tuple(n << 22 | 0xE7 for n in range(1024))


def test_s10_the_vga_window_is_no_ram_and_what_follows_is(tmp_path: Path) -> None:
    with new_domain(tmp_path) as (_, domain):
        assert domain.memory.find(0x9FFFF) is not None
        assert domain.memory.find(0xA0000) is None
        assert domain.memory.find(0xBFFFF) is None
        assert domain.memory.find(0xC0000) is not None


def test_s10_4_hvmloader_finds_its_nodes_by_the_ring(tmp_path: Path) -> None:
    with new_domain(tmp_path) as (hypervisor, domain):
        image = hvm(elf(tmp_path / "k"), platform=(("acpi", "1"), ("device-model", "qemu_xen")))
        build_domain(domain, hypervisor.store, image)
        home = f"/local/domain/{domain.domid}"
        found = {
            name: hypervisor.store.read(f"{home}/{name}")
            for name in ("hvmloader/bios", "hvmloader/allow-memory-relocate", "platform/acpi")
        }
        found["model"] = hypervisor.store.read(f"{home}/platform/device-model")
    assert list(found.values()) == ["seabios", "0", "1", "qemu_xen"]


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_kernel_is_one_readable_line_or_none(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    kernel = elf(tmp_path / "k", notes=note(0x100010))
    data = bytearray(kernel.read_bytes())
    for _ in range(chance.randint(1, 6)):
        data[chance.randrange(len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
    kernel.write_bytes(data[: chance.choice((len(data), chance.randrange(len(data))))])
    with new_domain(tmp_path) as (hypervisor, domain):
        try:
            build_domain(domain, hypervisor.store, hvm(kernel))
        except ToolstackError as error:
            said = str(error)
            assert said.startswith(str(kernel)), said
            assert "\n" not in said
