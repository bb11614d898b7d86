"""One guest program as data: accesses to devices/traced.py, for every engine in its own language.

A step is (verb, place, size in bytes, value); reads have no value. Places of verbs: ``config`` is a
register of the function, ``memory`` a GPA, ``port`` a port.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

__all__ = [
    "DEVICE",
    "NAME",
    "c_source",
    "device_words",
    "long_mode_source",
    "observe_words",
    "script_source",
    "steps",
]

DEVICE = Path(__file__).parent / "xen" / "devices" / "traced.py"
NAME = "traced"
SLOT = 0x10
DEVFN = SLOT << 3
BAR, PORTS, RAM = 0xE0000000, 0x5800, 0x300000
RANDOM_STEPS = 150
SEED = 0x10BE

Step = tuple[str, int, int, int | None]


def device_words(path: str) -> list[str]:
    """The device as ioreqd-dm's arguments; ``path``: where its file is."""
    return ["-device", f"{path}:Traced,id={NAME},addr={SLOT:x}"]


def observe_words(path: str) -> list[str]:
    """The trace to compare, as ioreqd-dm's arguments."""
    return ["-observe", f"trace={path},format=plain,device={NAME}"]


def _set_up() -> Iterator[Step]:
    yield "config", 0x00, 4, None
    yield "config", 0x10, 4, BAR
    yield "config", 0x10, 4, None
    yield "config", 0x14, 4, PORTS
    yield "config", 0x04, 2, 7
    yield "config", 0x04, 2, None
    yield "memory", BAR, 4, 0x12345611
    yield "memory", BAR, 2, None
    yield "port", PORTS + 8, 4, None


def _interrupts(value: int) -> Iterator[Step]:
    yield "memory", BAR + 0x18, 4, value
    yield "memory", BAR + 0x04, 4, None
    yield "memory", BAR + 0x04, 4, 1


def _transfers() -> Iterator[Step]:
    for index in range(4):
        yield "memory", RAM + 4 * index, 4, 0x01020304 * (index + 1)
    for source, target, length in ((RAM, RAM + 0x100, 16), (0xF8000000, RAM, 4)):
        yield "memory", BAR + 0x20, 4, source
        yield "memory", BAR + 0x24, 4, target
        yield "memory", BAR + 0x28, 4, length
        yield "memory", BAR + 0x04, 4, None
        yield "memory", BAR + 0x04, 1, 2


def _at_random() -> Iterator[Step]:
    random = Random(SEED)
    # The end of the bank is a gap; `copy` would read memory that nobody has written.
    places = [*range(0, 0x18, 2), 0x30, 0x32, *range(0x40, 0x70)]
    for _ in range(RANDOM_STEPS):
        size = random.choice((1, 2, 4))
        value = random.choice((None, random.getrandbits(8 * size)))
        if random.randrange(3):
            place = random.choice(places)
            yield "memory", BAR + (place & -size), size, value
        else:
            yield "port", PORTS + (random.randrange(16) & -size), size, value


def steps() -> list[Step]:
    """The program."""
    found = [*_set_up(), *_interrupts(1), *_interrupts(0), *_transfers(), *_at_random()]
    # From here by message.
    found += [
        ("config", 0x44, 4, 0xFEE00000),
        ("config", 0x4C, 2, 0x41),
        ("config", 0x42, 2, 1),
    ]
    return [*found, *_interrupts(1), *_transfers(), ("memory", BAR + 0x08, 4, None)]


LONG_MODE = """\
asm(".globl _start; _start: mov $0x90000, %esp; call guest_main; 1: hlt; jmp 1b");
#define IN(bits, kind, suffix) static inline kind in##bits(unsigned short at) { \\
    kind v; asm volatile("in" suffix " %1, %0" : "=a"(v) : "Nd"(at)); return v; }
#define OUT(bits, kind, suffix) static inline void out##bits(unsigned short at, kind v) { \\
    asm volatile("out" suffix " %0, %1" :: "a"(v), "Nd"(at)); }
#define READ(bits, kind, suffix) static inline kind read##bits(unsigned long at) { \\
    kind v; asm volatile("mov" suffix " (%1), %0" : "=r"(v) : "r"(at)); return v; }
#define WRITE(bits, kind, suffix) static inline void write##bits(unsigned long at, kind v) { \\
    asm volatile("mov" suffix " %0, (%1)" :: "r"(v), "r"(at)); }
#define ALL(bits, kind, suffix) IN(bits, kind, suffix) OUT(bits, kind, suffix) \\
    READ(bits, kind, suffix) WRITE(bits, kind, suffix)
ALL(8, unsigned char, "b")
ALL(16, unsigned short, "w")
ALL(32, unsigned int, "l")
static inline void pci_select(int devfn, int reg)
{
    out32(0xcf8, 0x80000000u | devfn << 8 | (reg & 0xfc));
}
static inline void pci_read(int devfn, int reg, int size)
{
    pci_select(devfn, reg);
    if (size == 2) in16(0xcfc + (reg & 3)); else in32(0xcfc);
}
static inline void pci_write(int devfn, int reg, int size, unsigned v)
{
    pci_select(devfn, reg);
    if (size == 2) out16(0xcfc + (reg & 3), v); else out32(0xcfc, v);
}
static inline void guest_end(void) { out8(0xf4, 0); }
__attribute__((used))
"""
"""What guest.h is for 32 bits, as far as the program needs it; nothing takes interrupts."""


def long_mode_source() -> str:
    """It as a guest in C for long mode, without guest.h; it ends with status 1."""
    return c_source().replace('#include "guest.h"\n', LONG_MODE)


def c_source() -> str:
    """It as a guest in C."""
    lines = []
    for verb, place, size, value in steps():
        bits = 8 * size
        if verb == "config":
            end = f"{size}" if value is None else f"{size}, {value:#x}"
            name = "pci_read" if value is None else "pci_write"
            lines.append(f"{name}({DEVFN:#x}, {place:#x}, {end});")
        else:
            way = ("in", "out") if verb == "port" else ("read", "write")
            at = f"{place:#x}u"
            call = f"{way[0]}{bits}({at})" if value is None else f"{way[1]}{bits}({at}, {value:#x})"
            lines.append(f"{call};")
    body = "\n    ".join(lines)
    head = '#include "guest.h"\n\nstatic void guest_main(void)\n'
    return f"{head}{{\n    {body}\n    guest_end();\n}}\n"


def script_source() -> str:
    """It as a script for `ioreqd run --script`."""
    lines = []
    for verb, place, size, value in steps():
        bits, end = 8 * size, "" if value is None else f", {value:#x}"
        if verb == "config":
            name, start = f"config_{'read' if value is None else 'write'}", f"{DEVFN:#x}, "
        elif verb == "port":
            name, start = "in" if value is None else "out", ""
        else:
            name, start = "read" if value is None else "write", ""
        lines.append(f"bus.{name}{bits}({start}{place:#x}{end})\n")
    return "".join(lines)
