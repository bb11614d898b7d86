"""A register map becomes a device that answers as the map says, and says what is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dm import Device, PciDevice, RegisterSlot
from dm.errors import ConfigError
from dm.testing import ScriptedBus, rules_of
from tools.cli import main as command
from tools.prototype.import_map import PLACES, Imported, import_map

from .loading import load_class

MAPS = Path(__file__).parent / "maps"
ROOT = Path(__file__).parents[3]
BASE = 0xE0000000
UART, CHIP = MAPS / "uart.rdl", MAPS / "chip.svd"

CASES = [(UART, None), (UART, "channel"), (CHIP, "P"), (CHIP, "P2"), (CHIP, "OTHER")]


def device_of(made: Imported) -> type[Device]:
    return load_class(made.text, made.name)


def bank_of(made: Imported) -> Any:
    return device_of(made)._declared["registers"].bank


def bus_of(made: Imported) -> ScriptedBus:
    """The device with its registers at `BASE`."""
    cls = device_of(made)
    if not issubclass(cls, PciDevice):
        return ScriptedBus(cls(addr=BASE))
    bus = ScriptedBus(cls())
    device: Any = bus.device
    bus.map_bar(device, 0, BASE)
    return bus


def formatted(folder: Path, texts: list[str]) -> str:
    """What ruff would change, at its own width and at the project's."""
    for number, text in enumerate(texts):
        (folder / f"device_{number}.py").write_text(text)
    ruff = Path(sys.executable).parent / "ruff"
    told = ""
    for settings_ in (["--isolated"], ["--config", str(ROOT / "pyproject.toml")]):
        for what in (["format", "--diff"], ["check", "--ignore", "D100,RUF001,RUF002,RUF003"]):
            run = subprocess.run(
                [str(ruff), *what, *settings_, "."],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
            told += "" if run.returncode == 0 else run.stdout + run.stderr
    return told


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("path", "block"), CASES)
def test_an_imported_device_passes_the_generic_tests(
    path: Path, block: str | None, place: str
) -> None:
    made = import_map(path, peripheral=block, place=place)
    for rule in rules_of(device_of(made), seeds=(1,)).values():
        rule()


def test_what_is_written_is_formatted_and_linted(tmp_path: Path) -> None:
    texts = [
        import_map(path, peripheral=block, place=place).text
        for path, block in CASES
        for place in PLACES
    ]
    assert formatted(tmp_path, texts) == ""


def test_systemrdl_registers_answer_as_declared() -> None:
    bus = bus_of(import_map(UART))
    assert bus.read32(BASE) == 0x5
    bus.write32(BASE, 0xFFFFFFFF)
    assert bus.read32(BASE) == 0xD  # enable and mode are kept, go is a pulse
    status: Any = bus.device.__dict__["registers"].status
    status.done = status.seen = status.both = status.drop = 1
    assert bus.read32(BASE + 4) == 0x000A0701  # drop is write-only
    assert (status.count, status.seen, status.both, status.drop) == (0, 0, 0, 1)
    bus.write32(BASE + 4, 0x1 | 1 << 18)
    assert (status.done, status.drop) == (0, 0)
    assert bus.read8(BASE + 8) == 0x41
    bus.write8(BASE + 8, 0x55)
    assert bus.read8(BASE + 8) == 0x41
    assert bus.read64(BASE + 0x10) == 0x123456789
    assert bus.read32(BASE + 0x38) == 0x12345678
    assert bus.read32(BASE + 0x60) == 0x5
    bus.write32(BASE + 0x100, 1)
    assert bus.read32(BASE + 0x100) == 0


def test_systemrdl_names_texts_and_shapes_are_carried_over() -> None:
    made = import_map(UART)
    bank = bank_of(made)
    assert made.name == "UartCore"
    assert bank.slots["ctrl"].register.fields["mode"].names == {0: "idle", 1: "busy"}
    assert bank.slots["channel_control"].element.register is bank.slots["ctrl"].register
    assert (bank.slots["channel_control"].count, bank.slots["channel_control"].stride) == (3, 16)
    assert [name for name in bank.slots if name.startswith("channel_depth")] == [
        f"channel_depth_{index}" for index in range(3)
    ]
    assert "from_" in bank.slots["channel_depth_0"].element.register.fields
    assert '    """Switches it on."""' in made.text
    assert "One of everything, 'quotes' and a /path included." in made.text


@pytest.mark.parametrize(
    ("path", "warning"),
    [
        (UART, "wide at 0x200 is 128 bits wide: left out"),
        (UART, "ctrl.go: it is a single pulse: a write handler sees it, a read gives zero"),
        (UART, "status.armed: onwrite=woset is not modelled: sw=rw alone here"),
        (UART, "status.once: sw=rw1, written once, is not modelled: written any time here"),
        (UART, "status.event: it is an interrupt source, which the device's code must do"),
        (CHIP, "its interrupts, P_IRQ (7), are not connected"),
        (CHIP, "a.g: modifiedWriteValues=oneToSet is not modelled: read-write alone here"),
        (CHIP, "gate: writeOnce is not modelled: written any time here"),
        (CHIP, "gate: after reset the bits 0xffffff0f are undefined: zero here"),
        (CHIP, "GATE_ALIAS at 0x16 overlaps GATE: left out"),
        (CHIP, "key: its writeConstraint is not modelled: every value is taken here"),
    ],
)
def test_what_the_kit_cannot_say_is_a_warning_and_a_comment(path: Path, warning: str) -> None:
    made = import_map(path, peripheral="P" if path is CHIP else None)
    assert warning in made.warnings
    assert warning.rpartition(": ")[0].partition(": ")[2][:30] in " ".join(made.text.split())


def test_svd_registers_answer_as_declared() -> None:
    bus = bus_of(import_map(CHIP, peripheral="P", place="mmio"))
    registers = bus.device.__dict__["registers"]
    registers.a.value = 0xFFFFFFFF
    bus.write32(BASE, 0x2)
    assert registers.a.value == 0xFFFFFCFD  # one bit of F cleared, G written
    assert bus.read16(BASE + 0x54) == 0x5
    bus.write16(BASE + 0x54, 0)
    assert bus.read16(BASE + 0x54) == 0x5
    registers.dr.value = 7
    assert (bus.read32(BASE + 16), bus.read32(BASE + 16)) == (7, 0)
    bus.write32(BASE + 0xA4, 9)
    assert registers.ch_cnt[2].value == 9
    assert bus.read16(BASE + 0x18) == 0x5


def test_svd_derivation_and_inheritance_reach_everything() -> None:
    bank, derived = (bank_of(import_map(CHIP, peripheral=name)) for name in ("P", "P2"))
    assert [(n, s.size, o) for n, s, o, _ in bank.registers()] == [
        (n, s.size, o) for n, s, o, _ in derived.registers()
    ]
    assert bank.slots["b"].register.fields.keys() == {"f", "g"}
    assert bank.slots["c"].register.fields["busy"].mask == 8
    # What its origin has only from the cluster around it does not come along.
    assert (bank.slots["out_in_r"].width, bank.slots["again"].width) == (16, 32)
    assert bank.slots["a"].register.fields["g"].names == {0: "off", 2: "two"}
    elements = {name: o for name, _, o, _ in bank.registers() if name.startswith("ch_")}
    assert elements["ch_cnt[1]"] == 0x94
    assert elements["ch_d_2[1]"] == 0xA9


def rdl(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "map.rdl"
    path.write_text(text)
    return path


def svd(tmp_path: Path, registers: str, more: str = "") -> Path:
    path = tmp_path / "map.svd"
    path.write_text(
        f"<device><name>D</name><version>1</version><description>d</description>"
        f"<addressUnitBits>8</addressUnitBits><width>32</width>{more}<peripherals><peripheral>"
        f"<name>P</name><baseAddress>0</baseAddress><registers>{registers}</registers>"
        f"</peripheral></peripherals></device>"
    )
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("addrmap a {", r"map\.rdl:1: .*"),
        ("", r"map\.rdl.*"),
        ("addrmap a { reg { field {} x[3:0]; } one[0x1000000] @0; };", "16777216 elements"),
        ("addrmap a { reg { field {} x[3:0]; } one[100][100][100] @0; };", "1000000 elements"),
        ("addrmap a { regfile { reg { field {} x; } one[1000]; } two[1000] @0; };", "elements"),
        ("addrmap a { <% while (1) {} %> };", "embedded Perl"),
        ('`include "map.rdl"\naddrmap a {};', r"map\.rdl.*"),
        ('addrmap a { `include "/nowhere.rdl"\n };', r"map\.rdl.*"),
        ("addrmap a { reg { regwidth = 128; field {} x; } one @0; };", "no registers"),
    ],
)
def test_bad_systemrdl_is_told_in_a_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        import_map(rdl(tmp_path, text))
    assert "\n" not in str(caught.value)


REGISTER = "<register><name>R</name><addressOffset>0</addressOffset>{}</register>"


@pytest.mark.parametrize(
    ("registers", "message"),
    [
        ("", "no registers"),
        ("<register>", "mismatch"),
        (REGISTER.format("<size>wide</size>"), r"map\.svd:1: size: 'wide' is no number"),
        (REGISTER.format("<access>sometimes</access>"), r"'sometimes' is no access"),
        (REGISTER.format("<readAction>explode</readAction>"), "does not understand"),
        (REGISTER.format("<dim>99999999</dim><dimIncrement>4</dimIncrement>"), "99999999 elements"),
        ("<register derivedFrom='Q'><name>R</name></register>", "no register Q to derive from"),
        (
            "<register derivedFrom='B'><name>A</name></register>"
            "<register derivedFrom='A'><name>B</name></register>",
            "derived from itself",
        ),
        ("<register><name>R</name></register>", "does not understand"),
        ("<register><addressOffset>0</addressOffset></register>", "does not understand"),
        (REGISTER.format("<fields><field><name>F</name></field></fields>"), "does not understand"),
    ],
)
def test_bad_svd_is_told_in_a_line(tmp_path: Path, registers: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        import_map(svd(tmp_path, registers))
    assert "\n" not in str(caught.value)


def test_a_small_svd_that_asks_for_very_much_is_refused(tmp_path: Path) -> None:
    levels = [
        f"<cluster><name>C{n}</name><addressOffset>0</addressOffset>"
        f"<cluster derivedFrom='C{n + 1}'><name>X</name></cluster>"
        f"<cluster derivedFrom='C{n + 1}'><name>Y</name></cluster></cluster>"
        for n in range(40)
    ]
    last = "<cluster><name>C40</name><addressOffset>0</addressOffset></cluster>"
    with pytest.raises(ConfigError, match="more than 200000 elements"):
        import_map(svd(tmp_path, "".join(levels) + last))


def test_an_svd_reads_no_other_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hidden words")
    path = svd(tmp_path, REGISTER.format("<description>&x;</description>"))
    entity = f'<!DOCTYPE device [<!ENTITY x SYSTEM "{secret.as_uri()}">]>'
    path.write_text(entity + path.read_text())
    assert "hidden words" not in import_map(path).text


@pytest.mark.parametrize(
    ("path", "block", "message"),
    [
        (CHIP, None, r"which --peripheral\? \(there is: OTHER, P, P2\)"),
        (CHIP, "Q", r"there is no peripheral Q \(there is: OTHER, P, P2\)"),
        (UART, "nothing", r"there is no block nothing \(there is: uart_core, channel\)"),
        (MAPS / "no.svd", None, "No such file"),
        (MAPS / "no.txt", None, "No such file"),
        (Path(__file__), None, r"neither a \.rdl nor a \.svd"),
        (MAPS, None, r"neither a \.rdl nor a \.svd"),
    ],
)
def test_what_is_not_there_is_told_in_a_line(path: Path, block: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        import_map(path, peripheral=block)


@pytest.mark.parametrize(("path", "library"), [(UART, "systemrdl"), (CHIP, "cmsis_svd")])
def test_a_missing_library_is_told_with_its_remedy(
    path: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(f"{library}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"{library}: pip install 'ioreqd\[maps\]'$") as caught:
        import_map(path, peripheral="P")
    assert "\n" not in str(caught.value)


def test_the_command_writes_warns_and_does_not_overwrite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(command.COMMANDS, "import", "tools.cli.import_map")
    output = tmp_path / "my_uart.py"
    words = ["import", str(UART), "-o", str(output), "--mmio"]
    assert command.main(words) == 0
    told = capsys.readouterr()
    assert f"{output} has the class MyUart" in told.out
    assert f"ioreqd: {UART}: status.armed: onwrite=woset is not modelled" in told.err
    assert load_class(output.read_text(), "MyUart").__name__ == "MyUart"
    assert command.main(words) == 2
    assert "left as it is" in capsys.readouterr().err
    assert command.main(["import", str(CHIP), "--peripheral", "OTHER"]) == 0
    assert "class Other(PciDevice):" in capsys.readouterr().out


ACCESSES = [
    ("sw = rw;", (True, True, False, False)),
    ("sw = r;", (True, False, False, False)),
    ("sw = rw; onwrite = woclr;", (True, False, True, False)),
    ("sw = r; onread = rclr;", (True, False, False, True)),
    ("sw = rw; onread = rclr;", (True, True, False, True)),
]
"""A field's properties, and what follows: readable, stores, clears, read_clears."""


@st.composite
def registers(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Registers one behind the other, each with some fields from the low end up."""
    made, offset = [], 0
    for number in range(draw(st.integers(1, 6))):
        width = draw(st.sampled_from([8, 16, 32, 64]))
        count = draw(st.sampled_from([0, 0, 1, 2, 5]))
        offset = -(-offset // (width // 8)) * (width // 8) + draw(st.sampled_from([0, 0, width]))
        fields: list[tuple[int, int, Any, int]] = []
        at = 0
        while at < width and len(fields) < 5:
            at += draw(st.integers(0, 3)) if fields else 0
            bits = draw(st.integers(1, 9 if fields else 8))
            if at + bits > width:
                break
            reset = draw(st.integers(0, (1 << bits) - 1))
            fields.append((at, bits, draw(st.sampled_from(ACCESSES)), reset))
            at += bits
        made.append(
            {"name": f"Reg{number}", "width": width, "offset": offset, "count": count, "f": fields}
        )
        offset += width // 8 * max(count, 1)
    return made


def source_of(drawn: list[dict[str, Any]]) -> str:
    parts = []
    for one in drawn:
        fields = "".join(
            f"field {{ {access} }} f{at}[{at + bits - 1}:{at}] = {reset};"
            for at, bits, (access, _), reset in one["f"]
        )
        array = f"[{one['count']}]" if one["count"] else ""
        parts.append(
            f"reg {{ regwidth = {one['width']}; {fields} }} {one['name']}{array} @ {one['offset']};"
        )
    return f"addrmap drawn {{ {' '.join(parts)} }};"


@settings(max_examples=15)
@given(drawn=registers(), place=st.sampled_from(PLACES))
def test_any_systemrdl_map_is_declared_as_it_says(
    drawn: list[dict[str, Any]], place: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("drawn")
    made = import_map(rdl(folder, source_of(drawn)), place=place)
    assert made.warnings == []
    bank = bank_of(made)
    for one in drawn:
        slot = bank.slots[f"reg{one['name'][3:]}"]
        single = slot if isinstance(slot, RegisterSlot) else slot.element
        assert (single.offset, single.width) == (one["offset"], one["width"])
        assert (slot.count if slot is not single else 1) == max(one["count"], 1)
        fields = list(single.register.fields.values())
        for field, (at, bits, (_, kind), reset) in zip(fields, one["f"], strict=True):
            assert (field.low, field.high, field.of(single.reset)) == (at, at + bits - 1, reset)
            access = field.access or single.access
            got = (access.readable, access.stores, access.clears, access.read_clears)
            assert got == kind
    for rule in rules_of(device_of(made), seeds=(1,)).values():
        rule()
    (folder / "ruff").mkdir()
    assert formatted(folder / "ruff", [made.text]) == ""
