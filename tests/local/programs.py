"""Small guests and devices that the tests of `ioreqd run` write into their folder."""

from __future__ import annotations

from pathlib import Path

__all__ = ["ANSWERS", "POLLS", "guest", "write"]

ANSWERS = """\
from dm import RO, Bank, Bit, Device, PortWindow, Register


class Answer(Register):
    ready = Bit(31)


class Ports(Bank, size=16, width=32):
    answer = Register.at(0, access=RO)
    count = Register.at(4)
    control = Answer.at(8)


class Answers(Device):
    ports = PortWindow(Ports, at=0x5000)

    @Ports.answer.on_read
    def reply(self):
        self.ports.count.value = self.ports.count.value + 1
        return 1
"""
"""A device whose port 0x5000 answers 1 and counts that in 0x5004."""

POLLS = """
u32 last = 0;
for (;;) {
    u32 answer = in32(0x5000);
    if (answer != last)
        say("answer %x count %s", last = answer, in32(0x5004) > 1 ? "goes on" : "begins");
    if (answer == 0x99) {
        out8(0xf4, 5);
        stay();
    }
}
"""
"""A guest that polls it for ever; the answer 0x99 ends it with status 11."""


def guest(body: str) -> str:
    """The C source of a guest whose `guest_main` has ``body``."""
    return f'#include "guest.h"\nstatic void guest_main(void)\n{{\n{body}\n}}\n'


def write(folder: Path, **files: str) -> None:
    """Write files: ``answers_py`` for answers.py."""
    for name, text in files.items():
        (folder / ".".join(name.rsplit("_", 1))).write_text(text)
