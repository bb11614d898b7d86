"""`ioreqd run`: each mistake of the user is one readable line and exit status 2."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.prototype.guest_build import build_guest

from .programs import ANSWERS, guest, write
from .running import Running

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")
pytest.importorskip("unicorn")

Launch = Callable[..., Running]

GUEST = ("--kernel", "guest.elf")
NOTE = (
    '#include "guest.h"\n'
    'asm(".pushsection .note.xen,\\"a\\",@note\\n.long 4, {size}, 18\\n.asciz \\"Xen\\"\\n"\n'
    '    ".long {entry}\\n.popsection");\n'
    "static void guest_main(void) {{ guest_end(); }}\n"
)
PORTS = """\
from dm import Bank, Device, MmioWindow, PortWindow, Register


class Ports(Bank, size=4, width=32):
    value = Register.at(0)


class One(Device):
    ports = PortWindow(Ports, at=0x5000)


class Two(Device):
    ports = PortWindow(Ports, at=0x5002)


class Board(Device):
    ports = PortWindow(Ports, at=0x70)


class Raises(Device):
    def __init__(self, name, **options):
        raise KeyError("speed")


class Nothing:
    pass
"""
BROKEN = "from dm import Device\n\n\nclass Broken(Device:\n    pass\n"
UNKNOWN = "from dm import Device\n\nvalue = nowhere\n"

DEVICES = {
    "syntax error": ("broken.py:Broken", ("SyntaxError", "broken.py, line 4")),
    "error while loading": ("unknown.py:Unknown", ("NameError", "unknown.py:3")),
    "error while making": ("ports.py:Raises", ("KeyError", "speed", "ports.py:22")),
    "missing file": ("missing.py:Missing", ("missing.py", "No such file")),
    "missing class": ("ports.py:Three", ("ports.py", "Three")),
    "no device class": ("ports.py:Nothing", ("ports.py:Nothing", "not a subclass")),
    "no class named": ("ports.py", ("ports.py", "FILE.py:CLASS")),
    "a directory": (".:One", (".:One", "FILE.py:CLASS")),
    "missing module": ("no.such.module:One", ("no.such.module:One", "No module named")),
    "unknown device": ("frobnicator", ("frobnicator", "edu")),
    "unknown option": ("ports.py:One,speed=11", ("One", "speed")),
    "wrong value": ("edu,addr=fast", ("addr", "fast")),
    "clash with the board": ("ports.py:Board", ("0x70", "board", "cmos")),
    "slot of the board": ("edu,addr=1", ("edu", "piix3")),
}
WORDS = {
    "no guest": ((), "--kernel"),
    "two guests": ((*GUEST, "--script", "x.py"), "not allowed with"),
    "unknown option": ((*GUEST, "--frobnicate"), "--frobnicate"),
    "unknown engine": ((*GUEST, "--engine", "bochs"), "bochs"),
    "missing kernel": (("--kernel", "none"), "none: there is no such file"),
    "kernel is a directory": (("--kernel", "."), ".: it is not a file"),
    "missing firmware": (("--bios", "none"), "none: there is no such file"),
    "missing script": (("--script", "none"), "none: there is no such file"),
    "no memory": ((*GUEST, "--memory", "0"), "--memory 0"),
    "memory in words": ((*GUEST, "--memory", "much"), "much"),
    "no vCPU": ((*GUEST, "--vcpus", "0"), "--vcpus 0"),
    "no such chardev": ((*GUEST, "--serial", "morse"), "morse"),
    "trace to nowhere": ((*GUEST, "--trace", "none/trace"), "none/trace"),
    "recording to nowhere": ((*GUEST, "--record", "none/run"), "none/run"),
    "filter without trace": ((*GUEST, "--trace-device", "edu0"), "--trace"),
    "direction": ((*GUEST, "--trace", "--trace-direction", "up"), "up"),
    "script in one process": (("--script", "script.py", "--in-process"), "--in-process"),
    "KVM in one process": ((*GUEST, "--engine", "kvm", "--in-process"), "--in-process"),
}


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    """Devices and a guest that passes."""
    write(
        tmp_path,
        guest_c=guest("guest_end();"),
        script_py="pass\n",
        answers_py=ANSWERS,
        ports_py=PORTS,
        broken_py=BROKEN,
        unknown_py=UNKNOWN,
    )
    build_guest(tmp_path / "guest.c", tmp_path / "guest.elf")


def mistake(launch: Launch, *words: str) -> str:
    """The one line that ``ioreqd run`` has for these words."""
    running = launch("run", *words)
    assert running.wait() == 2, running.stderr
    assert running.stdout == ""
    assert len(running.stderr.splitlines()) == 1, running.stderr
    assert running.stderr.startswith("ioreqd")
    return running.stderr


@pytest.mark.parametrize(
    ("what", "where"),
    [
        *((what, ()) for what in DEVICES),
        *((what, ("--in-process",)) for what in ("syntax error", "clash with the board")),
    ],
)
def test_a_wrong_device(launch: Launch, what: str, where: tuple[str, ...]) -> None:
    device, wanted = DEVICES[what]
    line = mistake(launch, *GUEST, "--device", device, *where)
    assert [word for word in wanted if word not in line] == [], line


def test_a_clash_of_two_devices(launch: Launch) -> None:
    line = mistake(launch, *GUEST, "--device", "ports.py:One", "--device", "ports.py:Two")
    assert "one0" in line
    assert "two1" in line
    assert "0x5002" in line


@pytest.mark.parametrize("what", WORDS)
def test_wrong_words(launch: Launch, what: str) -> None:
    words, wanted = WORDS[what]
    assert wanted in mistake(launch, *words)


class TestGuest:
    def elf(self, tmp_path: Path) -> bytearray:
        return bytearray((tmp_path / "guest.elf").read_bytes())

    def refused(self, launch: Launch, tmp_path: Path, data: bytes | bytearray, *words: str) -> str:
        (tmp_path / "wrong").write_bytes(data)
        line = mistake(launch, "--kernel", "wrong", *words)
        assert line.startswith("ioreqd: wrong: ")
        return line

    def test_an_empty_file(self, launch: Launch, tmp_path: Path) -> None:
        assert "empty" in self.refused(launch, tmp_path, b"")

    def test_a_damaged_elf_file(self, launch: Launch, tmp_path: Path) -> None:
        assert "ELF" in self.refused(launch, tmp_path, b"\x7fELFgarbage")

    def test_a_truncated_elf_file(self, launch: Launch, tmp_path: Path) -> None:
        data = self.elf(tmp_path)
        (start,) = struct.unpack_from("<I", data, 28)
        self.refused(launch, tmp_path, bytes(data[: start + 32 + 40]))

    def test_another_processors_elf_file(self, launch: Launch, tmp_path: Path) -> None:
        data = self.elf(tmp_path)
        struct.pack_into("<H", data, 18, 40)
        assert "EM_ARM" in self.refused(launch, tmp_path, data)

    def test_an_object_file(self, launch: Launch, tmp_path: Path) -> None:
        data = self.elf(tmp_path)
        struct.pack_into("<H", data, 16, 1)
        assert "ET_REL" in self.refused(launch, tmp_path, data)

    def test_a_program_of_this_system(self, launch: Launch, tmp_path: Path) -> None:
        write(tmp_path, main_c="int main(void) { return 0; }\n")
        subprocess.run(["gcc", "-o", "main", "main.c"], cwd=tmp_path, check=True)
        data = (tmp_path / "main").read_bytes()
        assert "operating system" in self.refused(launch, tmp_path, data)

    def test_a_segment_larger_than_the_memory(self, launch: Launch, tmp_path: Path) -> None:
        data = self.elf(tmp_path)
        (start,) = struct.unpack_from("<I", data, 28)
        struct.pack_into("<I", data, start + 20, 0x40000000)
        self.refused(launch, tmp_path, data)

    def test_a_flat_image_larger_than_the_memory(self, launch: Launch, tmp_path: Path) -> None:
        line = self.refused(launch, tmp_path, bytes(3 << 20), "--memory", "2")
        assert "do not fit" in line

    @pytest.mark.parametrize("entry", [0, 0x7FFFFFFF])
    def test_a_note_with_a_wrong_entry(self, launch: Launch, tmp_path: Path, entry: int) -> None:
        write(tmp_path, note_c=NOTE.format(size=4, entry=entry))
        build_guest(tmp_path / "note.c", tmp_path / "note")
        line = self.refused(launch, tmp_path, (tmp_path / "note").read_bytes())
        assert f"{entry:#x}" in line

    def test_a_note_of_a_wrong_size(self, launch: Launch, tmp_path: Path) -> None:
        write(tmp_path, note_c=NOTE.format(size=3, entry=0x100000))
        build_guest(tmp_path / "note.c", tmp_path / "note")
        assert "note" in self.refused(launch, tmp_path, (tmp_path / "note").read_bytes())

    def test_source_that_cannot_be_compiled_shows_what_the_compiler_says(
        self, launch: Launch, tmp_path: Path
    ) -> None:
        write(tmp_path, wrong_c=guest("nonsense;"))
        running = launch("run", "--kernel", "wrong.c")
        assert running.wait() == 2
        assert running.stderr.startswith("ioreqd: wrong.c: gcc cannot compile it:\n")
        assert "nonsense" in running.stderr
        assert "Traceback" not in running.stderr

    @pytest.mark.parametrize("size", [0, 100, 17 << 20])
    def test_firmware_of_an_impossible_size(
        self, launch: Launch, tmp_path: Path, size: int
    ) -> None:
        (tmp_path / "wrong").write_bytes(bytes(size))
        mistake(launch, "--bios", "wrong")

    def test_a_script_with_a_syntax_error(self, launch: Launch, tmp_path: Path) -> None:
        write(tmp_path, wrong_py="pass\nprint(\n")
        line = mistake(launch, "--script", "wrong.py")
        assert "wrong.py, line 2" in line
