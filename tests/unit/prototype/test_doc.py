"""The register map says all that a class declares, for every device there is."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

import devices
from dm import Device
from dm.device.state import Option, Timer
from dm.device.window import Window
from dm.errors import ConfigError
from tests.unit.machine.specimens import Gadget, Leaf
from tools.cli import main as command
from tools.prototype.device_class import find_device_class
from tools.prototype.doc_html import html
from tools.prototype.doc_markdown import markdown
from tools.prototype.doc_model import describe
from tools.prototype.new import KINDS, new_device

ROOT = Path(__file__).parents[3]
SOURCE = '''
"""A module about one device."""

from dm import *


class Mode(Register, reset=0x85):
    """What | it does."""

    run = Bit(0)  # starts <it>
    kind = Field(7, 4, access=RO, names={0: "idle", 8: "turbo"})
    """Which of the kinds."""
    seen = Field(3, 2, access=W1C)


class Ports(Bank, size=16, width=8, sizes=(1,), gap=0):
    """The ports."""

    mode = Mode.at(0)
    divisor = Register.at(1, width=16, when=mode.has(Mode.run))
    table = Register.array(4, 3, stride=2, access=RO)
    """Behind the mode."""
    ram = BankMemory(10, 6, writable=False)  # of the chip's


class Thing(Device):
    """A thing."""

    summary = "a thing & more"
    base = Option(int, 0x300, "first port")
    ports = PortWindow(Ports, at=base)
    word = Word(5, reset=3)  # counts
    line = IsaLine(5)
    alarm = Timer()
    serial = Character()
    """The console."""

    @Ports.mode.on_write
    def _moded(self, new, old):
        """Starts it."""

    @Ports.table.on_read
    def _table(self, index):
        return index

    @line.level
    def _level(self):
        """High while it runs."""
        return False

    @alarm.expired
    def _fired(self):
        """It is late."""
'''


@pytest.fixture
def thing(tmp_path: Path) -> str:
    file = tmp_path / "thing.py"
    file.write_text(SOURCE)
    return f"{file}:Thing"


def classes() -> Iterator[type[Device]]:
    for found in pkgutil.iter_modules(devices.__path__):
        module = importlib.import_module(f"devices.{found.name}")
        for value in vars(module).values():
            if (
                isinstance(value, type)
                and issubclass(value, Device)
                and value.__module__ == module.__name__
            ):
                yield value


class Balance(HTMLParser):
    """Fails when tags do not nest; keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def text_of(page: str) -> str:
    parser = Balance()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return " ".join(parser.text)


@pytest.mark.parametrize("cls", [*classes(), Gadget, Leaf])
def test_every_name_is_on_the_page(cls: type[Device]) -> None:
    doc = describe(cls)
    page, shown = markdown(doc), text_of(html(doc))
    names = [name for name, one in cls._declared.items() if isinstance(one, Option | Timer)]
    for name, window in cls._declared.items():
        if isinstance(window, Window):
            names += [name, *window.bank.slots, *window.bank.memories]
            for _, slot, _, _ in window.bank.registers():
                names += list(slot.register.fields)
    for name in names:
        assert re.search(rf"\b{name}\b", page), name
        assert re.search(rf"\b{name}\b", shown), name


def rows(page: str) -> list[list[str]]:
    return [line[2:-2].split(" | ") for line in page.splitlines() if line.startswith("| ")]


def test_a_row_says_what_the_declaration_says(thing: str) -> None:
    found = rows(markdown(describe(find_device_class(thing))))
    mode = [
        "0x0",
        "`mode`",
        "8",
        "RW, RO, W1C",
        "0x85",
        "What \\| it does; acts on writes: Starts it",
    ]
    assert mode in found
    assert ["7:4", "`kind`", "RO", "0x8", "Which of the kinds.; 0x0 = idle, 0x8 = turbo"] in found
    assert ["3:2", "`seen`", "W1C", "0x1", ""] in found
    assert ["0", "`run`", "RW", "0x1", "starts <it>"] in found
    divisor = ["0x1", "`divisor`", "16", "RW", "0x0000", "there while mode.run is 0x1"]
    assert divisor in found
    table = ["0x4 + 0x2·n", "`table[0..2]`", "8", "RO", "0x00", "Behind the mode; acts on reads"]
    assert table in found
    assert ["0xa", "`ram`", "6 bytes", "RO", "0", "of the chip's"] in found
    assert ["base", "int", "768 (0x300)", "first port"] in found
    assert ["word", "5 bits, 0x3 after reset", "counts"] in found
    assert ["line", "ISA interrupt 5", "High while it runs."] in found
    assert ["alarm", "It is late."] in found
    assert ["serial", "The console."] in found


def test_a_window_says_its_place_and_rules(thing: str) -> None:
    page = markdown(describe(find_device_class(thing)))
    assert "# Thing: a thing & more\n\nA thing.\n\nA module about one device.\n" in page
    assert "## Window `ports`: I/O ports from option `base` (default 0x300), 16 bytes" in page
    assert "Only accesses of 1 bytes are answered. What is not listed reads as 0x00" in page


def test_every_table_has_as_many_cells_as_columns(thing: str) -> None:
    for cls in (*classes(), find_device_class(thing)):
        width = 0
        for line in markdown(describe(cls)).splitlines():
            cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
            assert not cells or not width or cells == width, line
            width = cells


def test_the_html_page_escapes_and_needs_nothing_else(thing: str) -> None:
    page = html(describe(find_device_class(thing)))
    assert "a thing &amp; more" in page
    assert "starts &lt;it&gt;" in page
    assert "prefers-color-scheme: dark" in page
    assert not re.search(r"https?:|<script|@import|url\(", page)


def test_a_picture_covers_every_bit_once(thing: str) -> None:
    for cls in (*classes(), find_device_class(thing)):
        doc = describe(cls)
        pictures = re.findall(r'<table class="bits"><tr>(.*?)</tr><tr>(.*?)</tr>', html(doc))
        drawn = [len(re.findall("<th>", numbers)) for numbers, _ in pictures]
        spans = [sum(map(int, re.findall(r'colspan="(\d+)"', cells))) for _, cells in pictures]
        assert drawn == spans
        widths = [r.width for window in doc.windows for r in window.registers if r.fields]
        assert sum(drawn) == sum(widths)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_device_has_a_page(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"led_{kind}.py"
    new_device(file, kind)
    code = (
        "from tools.prototype.device_class import find_device_class as find;"
        "from tools.prototype.doc_markdown import markdown;"
        "from tools.prototype.doc_model import describe;"
        f"print(markdown(describe(find({str(file)!r}))))"
    )
    page = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "0x0 = once, 0x1 = again" in page
    assert "Microseconds" in page


@pytest.mark.parametrize(
    ("name", "cls"),
    [("edu", "Edu"), ("devices.cmos:Cmos", "Cmos"), ("isa-serial", "Uart16550")],
)
def test_a_device_is_found_by_its_name(name: str, cls: str) -> None:
    assert find_device_class(name).__name__ == cls


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(:\n", r"mine\.py:1: SyntaxError: "),
        ("\n1/0\n", r"mine\.py:2: ZeroDivisionError: division by zero$"),
        ("import nowhere\n", r"mine\.py:1: ModuleNotFoundError: No module named 'nowhere'$"),
        ("raise SystemExit(3)\n", r"mine\.py:1: SystemExit: 3$"),
        ("Mine = 3\n", r"mine\.py has no device Mine \(it has: none\)$"),
        ("from dm import Device\nclass M(Device): pass\n", r"no device Mine \(it has: M\)$"),
        (b"\0", r"mine\.py(:\w+)?: \w+Error: "),
        (None, r"mine\.py: No such file or directory$"),
    ],
)
def test_a_file_that_will_not_do_is_told_in_a_line(
    tmp_path: Path, source: str | bytes | None, message: str
) -> None:
    file = tmp_path / "mine.py"
    if source is not None:
        file.write_bytes(source if isinstance(source, bytes) else source.encode())
    with pytest.raises(ConfigError, match=message) as caught:
        find_device_class(f"{file}:Mine")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", "nothing", "no where:X", "nowhere.at.all:X", "devices.cmos:X"]
)
def test_a_name_that_is_nothing_is_told_in_a_line(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_device_class(name)
    assert "\n" not in str(caught.value)


def test_of_several_devices_one_must_be_named(tmp_path: Path) -> None:
    file = tmp_path / "two.py"
    file.write_text("from dm import Device\nclass A(Device): pass\nclass B(Device): pass\n")
    with pytest.raises(ConfigError, match=r"which one\? It has .*two\.py:A, .*two\.py:B$"):
        find_device_class(str(file))


def test_the_command_prints_or_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(command.COMMANDS, "doc", "tools.cli.doc")
    assert command.main(["doc", "edu"]) == 0
    assert capsys.readouterr().out.startswith("# Edu: educational PCI device\n")
    assert command.main(["doc", "edu", "--html", "-o", str(tmp_path / "edu.html")]) == 0
    assert (tmp_path / "edu.html").read_text().startswith("<!DOCTYPE html>")
    assert command.main(["doc", "edu", "-o", str(tmp_path / "no" / "edu.md")]) == 2
    assert command.main(["doc", str(tmp_path / "no.py")]) == 2
    assert "No such file or directory" in capsys.readouterr().err
