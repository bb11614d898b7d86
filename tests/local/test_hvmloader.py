"""Debian's own hvmloader, unchanged, on the stand-alone hypervisor: it hands over to SeaBIOS.

The guest is built as libxl builds it, the device model is the real `ioreqd-dm`. hvmloader finds
Xen by CPUID and makes its hypercalls, reads xenstore by its ring, sets up the PCI devices, writes
ACPI, SMBIOS and MP tables to RAM that it populates itself, and starts SeaBIOS, which takes all of
that from it. What hvmloader prints is, line by line, what it prints on a real Xen for the same
guest (seen in the laboratory, Xen 4.17).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.xen_firmware import require_firmware
from tools.hypervisor.domain import Domain
from tools.hypervisor.engines import Engine
from tools.hypervisor.engines.kvm.engine import KvmEngine
from tools.hypervisor.engines.unicorn import UnicornEngine
from tools.hypervisor.errors import EngineUnavailable
from tools.hypervisor.hypervisor import Hypervisor
from tools.hypervisor.memory import PAGE_SIZE, GuestMemory
from tools.hypervisor.ports import ConsolePort
from tools.toolstack.builder import Built, GuestImage, build_domain, ram_regions
from tools.toolstack.memory_layout import lay_out

from .processes import LIMIT, Model

MEMORY_MIB = 32
LONGEST = 60.0
PLATFORM = (("acpi", "1"), ("acpi_s3", "1"), ("acpi_s4", "1"), ("device-model", "qemu_xen"))
ENGINES: dict[str, type[KvmEngine] | type[UnicornEngine]] = {
    "unicorn": UnicornEngine,
    "kvm": KvmEngine,
}
EXPECTED = (
    r"HVM Loader",
    r"Detected Xen v4\.17\.\d+",
    r"Xenbus rings @0xfeffc000, event channel 1",
    r"System requested SeaBIOS",
    r"CPU speed is [1-9]\d* MHz",
    r"Relocating guest memory for lowmem MMIO space disabled",
    r"PCI-ISA link 0 routed to IRQ5",
    r"PCI-ISA link 1 routed to IRQ10",
    r"PCI-ISA link 2 routed to IRQ11",
    r"PCI-ISA link 3 routed to IRQ5",
    r"pci dev 01:3 INTA->IRQ10",
    r"pci dev 02:0 INTA->IRQ11",
    r"No RAM in high memory; setting high_mem resource base to 100000000",
    r"pci dev 02:0 bar 14 size 001000000: 0f0000008",
    r"pci dev 02:0 bar 10 size 000000100: 00000c001",
    r"Multiprocessor initialisation:",
    r" - CPU0 \.\.\. \d+-bit phys \.\.\. fixed MTRRs \.\.\. var MTRRs \[2/8\] \.\.\. done\.",
    r"Writing SMBIOS tables \.\.\.",
    r"Loading SeaBIOS \.\.\.",
    r"Creating MP tables \.\.\.",
    r"Loading ACPI \.\.\.",
    r"vm86 TSS at fc100[23][08]0",
    r" c0000-fffff: Main BIOS",
    r" \[00\]: 00000000:00000000 - 00000000:000a0000: RAM",
    r" \[01\]: 00000000:000c0000 - 00000000:00100000: RESERVED",
    r" \[02\]: 00000000:00100000 - 00000000:02000000: RAM",
    r" \[03\]: 00000000:fc000000 - 00000000:fc00b000: NVS",
    r" \[04\]: 00000000:fc00b000 - 00000001:00000000: RESERVED",
    r"Invoking SeaBIOS \.\.\.",
    r"Found Xen hypervisor signature at 40000000",
    r"xen: copy e820\.\.\.",
    r"Detected Xen v4\.17\.\d+",
    r"Copying ACPI RSDP from 0x000100c0 to 0x000f5[0-9a-f]{3}",
    r"Using pmtimer, ioport 0xb008",
)
"""Lines that come in this order, others among them."""


class Run:
    """A guest that runs, and what it has printed."""

    def __init__(self, domain: Domain, built: Built, engine: Engine, console: Path) -> None:
        self.domain, self.built, self.engine, self._console = domain, built, engine, console
        self.lines: list[str] = []

    @property
    def console(self) -> str:
        """What came out of the serial port."""
        return self._console.read_text("latin-1") if self._console.exists() else ""

    def wait_for(self, wanted: str) -> None:
        """Wait until ``wanted`` came out of the serial port, or the guest has ended."""
        pause = threading.Event()
        for _ in range(int(LONGEST / 0.05)):
            if wanted in self.console or self.engine.join(0):
                break
            pause.wait(0.05)
        assert self.engine.error is None, self.engine.error
        assert self.domain.crash_message is None, self.domain.crash_message
        assert wanted in self.console, "\n".join([*self.lines[-20:], self.console])


@contextmanager
def booted(folder: Path, engine: str, *, vcpus: int = 1, release: str = "4.17") -> Iterator[Run]:
    """hvmloader of a Xen ``release`` on ``engine``, from its first instruction."""
    hvmloader, seabios = require_firmware(release)
    layout = lay_out(MEMORY_MIB << 20)
    hypervisor = Hypervisor(str(folder / "xen"))
    domain = hypervisor.create_domain(vcpus=vcpus, ram=ram_regions(layout))
    image = GuestImage(
        kind="hvm",
        kernel=hvmloader,
        layout=layout,
        vcpus=vcpus,
        online=vcpus,
        firmware=seabios,
        platform=PLATFORM,
    )
    built = build_domain(domain, hypervisor.store, image)
    hypervisor.start()
    model = Model(arguments(hypervisor, domain, folder), folder / "errors")
    made: Engine | None = None
    try:
        state = f"/local/domain/0/device-model/{domain.domid}/state"
        assert hypervisor.store.wait(state, LIMIT) == "running", model.messages
        made = ENGINES[engine](domain, built.start)
        run = Run(domain, built, made, folder / "console")
        ConsolePort(domain, run.lines.append)
        made.start()
        yield run
    except EngineUnavailable as reason:
        pytest.skip(str(reason))
    finally:
        if made is not None:
            made.stop()
        model.kill()
        hypervisor.close()


def arguments(hypervisor: Hypervisor, domain: Domain, folder: Path) -> list[str]:
    return [
        *("-accel", f"local,path={hypervisor.path},domid={domain.domid}", "-machine", "xenfv"),
        *("-m", str(MEMORY_MIB), "-serial", f"file:{folder / 'console'}", "-boot", "menu=on"),
    ]


def assert_in_order(lines: Sequence[str], expected: Sequence[str]) -> None:
    rest = iter(lines)
    for pattern in expected:
        assert any(re.fullmatch(pattern, line) for line in rest), f"{pattern!r} in {lines}"


@pytest.mark.parametrize("engine", ENGINES)
def test_hvmloader_hands_over_to_seabios_as_on_xen(tmp_path: Path, engine: str) -> None:
    with booted(tmp_path, engine) as run:
        run.wait_for("No bootable device.")
        assert_in_order(run.lines, EXPECTED)
        assert run.built.ring.broken is None
    assert "SeaBIOS (version " in run.console
    assert "Press ESC for boot menu." in run.console


@pytest.mark.parametrize(
    ("engine", "release"),
    [("unicorn", "4.17"), ("unicorn", "4.20"), ("kvm", "4.17"), ("kvm", "4.20")],
)
def test_hvmloader_starts_and_stops_each_further_vcpu(
    tmp_path: Path, engine: str, release: str
) -> None:
    """By local APICs in 4.17, by hypercalls since 4.20."""
    with booted(tmp_path, engine, vcpus=3, release=release) as run:
        run.wait_for("Press ESC for boot menu")
        for number in range(3):
            cpu = rf" - CPU{number} \.\.\. .* done\."
            assert any(re.fullmatch(cpu, line) for line in run.lines), run.lines


@pytest.mark.parametrize("engine", ENGINES)
def test_hvmloader_without_memory_to_populate_moves_pages_of_its_own(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = partial(GuestMemory, spare=6 * PAGE_SIZE)
    monkeypatch.setattr("tools.hypervisor.domain.GuestMemory", few)
    with booted(tmp_path, engine) as run:
        run.wait_for("Press ESC for boot menu")
        ram = [line for line in run.lines if line.startswith(" [02]: ")]
        assert len(ram) == 1
        moved = re.fullmatch(r".* - 00000000:(01ff[0-9a-f]{4}): RAM", ram[0])
        assert moved is not None, ram
        assert int(moved[1], 16) < MEMORY_MIB << 20
