"""protocol/kvm.py and kvm_chips.py against Linux's own headers, as a C compiler reads them."""

from __future__ import annotations

import ctypes as c
import shutil
import subprocess
from collections.abc import Iterator
from enum import IntEnum, IntFlag
from pathlib import Path

import pytest

from protocol import kvm, kvm_chips

PATTERNS = {
    "KvmCap": "KVM_CAP_{}",
    "KvmChipRequest": "KVM_{}",
    "KvmExit": "KVM_EXIT_{}",
    "KvmInternalError": "KVM_INTERNAL_ERROR_{}",
    "KvmRequest": "KVM_{}",
    "KvmRunState": "KVM_MP_STATE_{}",
    "KvmVcpuEventsFlag": "KVM_VCPUEVENT_VALID_{}",
}
CONSTANTS = {
    "KVM_API_VERSION": "KVM_API_VERSION",
    "KVM_MEM_READONLY": "KVM_MEM_READONLY",
    "KVM_MSR_EXIT_REASONS": "KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN",
    "KVM_PIT_SPEAKER_DUMMY": "KVM_PIT_SPEAKER_DUMMY",
    "KVM_RUN_DATA_OFFSET": "offsetof(struct kvm_run, mmio)",
}
STRUCTURES = {
    "KvmCpuid": "struct kvm_cpuid2",
    "KvmCpuidEntry": "struct kvm_cpuid_entry2",
    "KvmDescriptorTable": "struct kvm_dtable",
    "KvmEnableCap": "struct kvm_enable_cap",
    "KvmInternal": "typeof(((struct kvm_run *)0)->internal)",
    "KvmIo": "typeof(((struct kvm_run *)0)->io)",
    "KvmIoapicState": "struct kvm_irqchip",
    "KvmIrqLevel": "struct kvm_irq_level",
    "KvmIrqRouting": "struct kvm_irq_routing",
    "KvmIrqRoutingEntry": "struct kvm_irq_routing_entry",
    "KvmLapicState": "struct kvm_lapic_state",
    "KvmMemoryRegion": "struct kvm_userspace_memory_region",
    "KvmMmio": "typeof(((struct kvm_run *)0)->mmio)",
    "KvmMpState": "struct kvm_mp_state",
    "KvmMsi": "struct kvm_msi",
    "KvmMsr": "typeof(((struct kvm_run *)0)->msr)",
    "KvmPitConfig": "struct kvm_pit_config",
    "KvmRegs": "struct kvm_regs",
    "KvmRun": "struct kvm_run",
    "KvmSegment": "struct kvm_segment",
    "KvmSignalMask": "struct kvm_signal_mask",
    "KvmSregs": "struct kvm_sregs",
    "KvmVcpuEvents": "struct kvm_vcpu_events",
}
MEMBERS = {
    "KvmIoapicState.base_address": "chip.ioapic.base_address",
    "KvmIoapicState.select": "chip.ioapic.ioregsel",
    "KvmIoapicState.id": "chip.ioapic.id",
    "KvmIoapicState.requests": "chip.ioapic.irr",
    "KvmIoapicState.pad2": "chip.ioapic.pad",
    "KvmIoapicState.redirections": "chip.ioapic.redirtbl",
    "KvmIoapicState.rest": None,
    "KvmLapicState.registers": "regs",
    "KvmIrqRoutingEntry.irqchip": "u.irqchip.irqchip",
    "KvmIrqRoutingEntry.pin": "u.irqchip.pin",
    "KvmIrqRoutingEntry.rest": None,
    "KvmRun.exit": "hw",
    "KvmVcpuEvents.exception_has_payload": "exception_has_payload",
    "KvmVcpuEvents.exception_payload": "exception_payload",
    **{
        f"KvmVcpuEvents.{group}_{name}": f"{group}.{name}"
        for group, names in {
            "exception": ("injected", "nr", "has_error_code", "pending", "error_code"),
            "interrupt": ("injected", "nr", "soft", "shadow"),
            "triple_fault": ("pending",),
            "nmi": ("injected", "pending", "masked", "pad"),
        }.items()
        for name in names
    },
}
"""How C names a field that has another name there; None: not at all."""
OPEN_ENDED = {"KvmCpuid", "KvmIrqRouting", "KvmRun", "KvmSignalMask"}
"""Structures that end with an array of no size, or that have more members than are declared."""
OPEN_FIELDS = {"KvmCpuid.entries", "KvmIrqRouting.entries", "KvmRun.exit", "KvmSignalMask.sigset"}
NOT_IN_HEADERS = {
    "KVM_CPUID_ENTRIES": "a limit of the kernel's own (arch/x86/kvm/cpuid.h)",
    "KvmExitData": "the union inside struct kvm_run, compared member by member",
    "kvm_request": "compared by what it makes, the requests",
}

DECLARED = {name: getattr(module, name) for module in (kvm, kvm_chips) for name in module.__all__}

Fact = tuple[str, str, int]


def facts() -> Iterator[Fact]:
    """Label, C expression and declared value of all that the headers can confirm."""
    for name, value in DECLARED.items():
        if name in NOT_IN_HEADERS:
            continue
        if name in CONSTANTS:
            yield name, CONSTANTS[name], value
        elif issubclass(value, IntEnum | IntFlag):
            for member, item in value.__members__.items():
                yield f"{name}.{member}", PATTERNS[name].format(member), item.value
        else:
            yield from structure_facts(name, value)


def structure_facts(name: str, structure: type[c.Structure]) -> Iterator[Fact]:
    tag = STRUCTURES[name]
    if name not in OPEN_ENDED:
        yield f"sizeof {name}", f"sizeof({tag})", c.sizeof(structure)
    for field, *_ in structure._fields_:
        label = f"{name}.{field}"
        member = MEMBERS.get(label, field)
        if member is None:
            continue
        place = getattr(structure, field)
        yield f"offset of {label}", f"offsetof({tag}, {member})", place.offset
        if label not in OPEN_FIELDS:
            yield f"size of {label}", f"sizeof((({tag} *)0)->{member})", place.size


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc (Debian package gcc)")
    path = tmp_path_factory.mktemp("kvm")
    source = path / "probe.c"
    source.write_text("#include <linux/kvm.h>\nstruct kvm_sregs here;\n")
    probe = ["gcc", "-fsyntax-only", str(source)]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("no linux/kvm.h for x86 (Debian package linux-libc-dev)")
    return path


def evaluate(expressions: list[str], folder: Path) -> list[int]:
    """What a C program says that the expressions are."""
    source, program = folder / "facts.c", folder / "facts"
    lines = "".join(f'printf("%llu\\n", (unsigned long long)({one}));\n' for one in expressions)
    includes = "".join(f"#include <{name}.h>\n" for name in ("stdio", "stddef", "linux/kvm"))
    source.write_text(f"{includes}int main(void) {{\n{lines}return 0;\n}}\n")
    subprocess.run(["gcc", "-w", "-o", str(program), str(source)], check=True, timeout=60)
    done = subprocess.run([str(program)], check=True, timeout=60, capture_output=True, text=True)
    return [int(line) for line in done.stdout.split()]


def test_declarations_equal_the_headers(folder: Path) -> None:
    stated = list(facts())
    assert len(stated) > 250
    values = evaluate([expression for _, expression, _ in stated], folder)
    wrong = [
        f"{label}: declared {expected:#x}, {expression} is {value:#x}"
        for (label, expression, expected), value in zip(stated, values, strict=True)
        if value != expected
    ]
    assert wrong == []


def test_every_member_of_a_structure_is_declared() -> None:
    """Fields that follow each other without a gap leave nothing out."""
    for name in STRUCTURES.keys() - {"KvmRun"}:
        structure = DECLARED[name]
        end = 0
        for field, *_ in structure._fields_:
            place = getattr(structure, field)
            size = place.size
            alignment = 1 if structure.__dict__.get("_pack_") else min(size & -size, 8)
            assert end <= place.offset <= -(-end // alignment) * alignment, f"{name}.{field}"
            end = place.offset + size


def test_no_number_stands_twice_in_an_enumeration() -> None:
    """A second name for a number would hide behind the first."""
    for name in PATTERNS:
        enumeration = DECLARED[name]
        assert len(list(enumeration)) == len(enumeration.__members__), name


def test_every_declaration_is_compared_or_excused() -> None:
    tables = (PATTERNS, CONSTANTS, STRUCTURES, NOT_IN_HEADERS)
    assert sorted(name for table in tables for name in table) == sorted(DECLARED)
    fields = {f"{name}.{field}" for name in STRUCTURES for field, *_ in DECLARED[name]._fields_}
    assert MEMBERS.keys() | OPEN_FIELDS <= fields


def test_the_routing_and_the_leaves_have_room() -> None:
    """An ioctl reads and writes as many entries as it is told of."""
    for structure, first in ((kvm.KvmCpuid, "entries"), (kvm.KvmIrqRouting, "entries")):
        place = getattr(structure, first)
        assert c.sizeof(structure) == place.offset + place.size
    assert kvm.KvmRun.exit.offset == kvm.KVM_RUN_DATA_OFFSET
