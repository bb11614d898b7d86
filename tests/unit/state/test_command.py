from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dm import Bank, Bit, Device, Field, PortWindow, Register
from dm.machine.container import save
from dm.machine.fakes import TestBench
from protocol.state import StateRecordType
from tests.unit.machine.specimens import Gadget, bench, build, records_of
from tools.cli.main import main

from .savefile import save_file

TRUST = ("--trust", "tests.unit.machine.specimens")


def write(path: Path, change: Callable[[TestBench, Gadget], object] | None = None) -> str:
    """A container of the specimen machine after ``change``."""
    made = bench()
    gadget = made.machine.devices[0]
    assert isinstance(gadget, Gadget)
    if change is not None:
        change(made, gadget)
    path.write_bytes(save(made.machine))
    return str(path)


def rewrite(path: Path, record: int, **changes: object) -> None:
    """Change the body of one record of a container."""
    records = records_of(path.read_bytes())
    for name, value in changes.items():
        setattr(records[record][1], name, value)
    path.write_bytes(build(records))


def set_control(made: TestBench, gadget: Gadget) -> None:
    gadget.ports.control.value = 0x131
    gadget.large[5] = 0xAA
    made.machine.clock.set(1_500_000_000)


def test_show_prints_every_register_with_its_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "a", set_control)
    assert main(["state", "show", path, *TRUST]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("machine specimen, 2 devices, ")
    assert lines[1] == "guest time 1.500000000 s"
    assert "gadget.0: tests.unit.machine.specimens.Gadget, version 3" in lines
    shown = {words[0]: words[1:] for line in lines if (words := line.split())}
    assert shown["ports.control"] == ["0x0131", "enable=1", "mode=3", "(turbo)", "pending=1"]
    assert shown["ports.table[3]"] == ["0x00"]
    assert shown["odd"] == ["0x0000"]
    assert shown["wide"] == ["0x" + "0" * 16]
    assert shown["ports.scratch"] == ["00"] * 6
    assert shown["large"][:3] == ["257", "bytes,", "crc32"]
    assert shown["config.vendor_id"] == ["0x1234"]


def test_show_prints_values_without_names_for_a_class_that_it_may_not_import(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["state", "show", write(tmp_path / "a", set_control)]) == 0
    out = capsys.readouterr().out
    assert "Gadget, version 3 (class not found, so bits have no names)" in out
    assert "ports.control  " in out
    assert "0x131" in out
    assert "enable" not in out


def test_show_knows_the_devices_of_the_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from devices.uart16550 import Uart16550

    made = TestBench(Uart16550("com1"))
    made.machine.stop()
    (tmp_path / "a").write_bytes(save(made.machine))
    assert main(["state", "show", str(tmp_path / "a")]) == 0
    out = capsys.readouterr().out
    assert "com1: devices.uart16550.Uart16550, version 1\n" in out
    assert "dlab=0" in out


def test_show_gives_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a", set_control)
    assert main(["state", "show", path, "--json", *TRUST]) == 0
    read = json.loads(capsys.readouterr().out)
    assert (read["machine"], read["guest_time_ns"]) == ("specimen", 1_500_000_000)
    assert read["size"] == Path(path).stat().st_size
    gadget = read["devices"]["gadget.0"]
    assert (gadget["class"], gadget["version"], gadget["known"]) == (
        "tests.unit.machine.specimens.Gadget",
        3,
        True,
    )
    assert gadget["fields"]["ports.control"] == {
        "value": 0x131,
        "hex": "0x0131",
        "bits": {"enable": 1, "mode": 3, "pending": 1},
    }
    assert bytes.fromhex(gadget["fields"]["large"]["bytes"])[5] == 0xAA


def test_the_same_states_differ_in_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = write(tmp_path / "a"), write(tmp_path / "b")
    inside = tmp_path / "c"
    inside.write_bytes(save_file(Path(two).read_bytes()))
    assert main(["state", "diff", one, two]) == 0
    assert main(["state", "diff", one, str(inside)]) == 0
    assert capsys.readouterr().out == ""


def test_what_differs_is_printed_with_its_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = write(tmp_path / "a"), write(tmp_path / "b", set_control)
    assert main(["state", "diff", one, two, *TRUST]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "guest time: 0 -> 1500000000 ns",
        "gadget.0.ports.control: 0x0000 -> 0x0131 (enable 0x0 -> 0x1, mode 0x0 -> 0x3,"
        " pending 0x0 -> 0x1)",
        "gadget.0.large: 1 of 257 bytes differ, the first at 0x5: 0x00 -> 0xaa",
    ]


def test_other_shapes_differ_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = tmp_path / "a", tmp_path / "b"
    write(one)
    write(two)
    rewrite(two, 0, name=b"other")
    fields = records_of(two.read_bytes())[1][1].fields
    rewrite(two, 1, version=2, class_name=b"x.Y", fields=fields[1:])
    rewrite(two, 2, data=b"short")
    rewrite(two, 3, name=b"twig")
    assert main(["state", "diff", str(one), str(two)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "machine: specimen -> other",
        "gadget.0: class tests.unit.machine.specimens.Gadget -> x.Y",
        "gadget.0: version 3 -> 2",
        "gadget.0.ports.control: only in the first",
        "gadget.0.large: 257 -> 5 bytes",
        "device leaf: only in the first",
        "device twig: only in the second",
    ]


def test_trouble_is_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = write(tmp_path / "a"), tmp_path / "b"
    bad.write_bytes(Path(good).read_bytes()[:-9])
    for arguments in (["diff", good, str(bad)], ["show", str(bad)], ["show", str(tmp_path)]):
        assert main(["state", *arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert captured.err.startswith(f"ioreqd: {tmp_path}")


def test_a_files_names_do_not_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "a", tmp_path / "b"
    for path, name in ((one, b"\x1b[2Ja\n"), (two, b"\x1b[2Jb\n")):
        write(path)
        rewrite(path, 3, name=name, class_name=name)
        fields = records_of(path.read_bytes())[3][1].fields
        fields[0].name = name
        rewrite(path, 3, fields=fields)
        rewrite(path, 0, name=name)
    main(["state", "show", str(one)])
    main(["state", "diff", str(one), str(two)])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\\x1b[2Ja\\n" in out


def test_a_file_cannot_have_code_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "imported"
    (tmp_path / "evil_module.py").write_text(
        f"open({str(marker)!r}, 'w').close()\nraise ValueError"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "a"
    write(path)
    for name in (b"evil_module.X", b"evil_module", b"devices..X", b"devices.X", b".", b""):
        rewrite(path, 1, class_name=name)
        assert main(["state", "show", str(path)]) == 0
    assert not marker.exists()
    rewrite(path, 1, class_name=b"evil_module.X")
    assert main(["state", "show", str(path), "--trust", "evil_module"]) == 2
    assert marker.exists()
    assert "module evil_module cannot be imported" in capsys.readouterr().err


def test_a_class_that_names_something_else_is_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a"
    write(path)
    for name in (b"tests.unit.machine.specimens.GadgetPorts", b"devices.cmos.BOOT_CODES"):
        rewrite(path, 1, class_name=name)
        assert main(["state", "show", str(path), *TRUST]) == 0
        assert "class not found" in capsys.readouterr().out
    assert main(["state", "show", str(path), *TRUST]) == 0


def test_state_of_another_version_of_the_class_is_shown_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a"
    write(path)
    records = records_of(path.read_bytes())
    fields = records[1][1].fields
    fields[0].value = (1 << 63 | 1).to_bytes(8, "little")
    fields[1].name = b"gone"
    records.append((StateRecordType.DEVICE, dict(records[1][1]) | {"name": b"again", "version": 9}))
    path.write_bytes(build(records))
    assert main(["state", "show", str(path), *TRUST]) == 0
    out = capsys.readouterr().out
    assert "gone" in out
    assert "0x8000000000000001  enable=1" in out


def test_wide_fields_are_printed_in_hexadecimal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = TestBench(Counter("counter"))
    made.machine.stop()
    made.write(0x80, 0x1F1, 2)
    (tmp_path / "a").write_bytes(save(made.machine))
    main(["state", "show", str(tmp_path / "a"), "--trust", __name__])
    assert "0x01f1  low=1 rest=0xf8" in capsys.readouterr().out


class Count(Register, width=16):
    low = Bit(0)
    rest = Field(15, 1)


class CounterPorts(Bank, size=2):
    count = Count.at(0)


class Counter(Device):
    ports = PortWindow(CounterPorts, at=0x80)
