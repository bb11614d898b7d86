"""The skeleton is Python for this kit, and its registers answer what was asked in vain."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from devices.edu import Edu
from dm import Deferral, Device, GuestError
from dm.device.platform import MEMORY, PCI, PORT
from dm.machine.fakes import TestBench
from dm.observe.output import Output
from dm.observe.suggest import PLACES_LIMIT, Suggestions

from .specimens import BAR, BASE, Card, Gadget, Kept, ObservedBench


def suggested(bench: ObservedBench, collected: Suggestions) -> tuple[str, dict[str, Any]]:
    text = collected.text()
    names: dict[str, Any] = {"__name__": "suggested"}
    exec(compile(text, "suggested", "exec"), names)
    return text, names


def collecting(folder: Path, *devices: Device) -> tuple[ObservedBench, Suggestions]:
    collected = Suggestions(Output("suggest", str(folder / "s.py")))
    return ObservedBench(*devices, sinks=[collected]), collected


def devices_of(names: dict[str, Any]) -> list[type[Device]]:
    return [
        one
        for one in names.values()
        if isinstance(one, type) and issubclass(one, Device) and one.__module__ == "suggested"
    ]


def test_undeclared_registers_of_a_window_get_declarations_and_handlers(tmp_path: Path) -> None:
    bench, collected = collecting(tmp_path, Gadget("gadget"))
    bench.read(BASE + 12)
    bench.write(BASE + 12, 0x42)
    bench.read(BASE + 12)
    bench.write(BASE + 13, 1)
    text, names = suggested(bench, collected)
    assert "unknown_0c = Register.at(0xc, width=8)  # read 2 x, written 1 x: 0x42" in text
    assert "unknown_0d = Register.at(0xd, width=8)  # written 1 x: 0x1" in text
    made = TestBench(names["GadgetPorts"]("new"))
    made.write(BASE + 12, 0x42)
    assert made.read(BASE + 12) == 0x42


def test_sizes_that_are_not_accepted_are_accepted(tmp_path: Path) -> None:
    bench, collected = collecting(tmp_path, Gadget("gadget"))
    bench.read(BASE, 4)
    bench.read(BASE + 12, 4)
    text, names = suggested(bench, collected)
    assert "sizes (1, 2) were accepted" in text
    assert "# at 0x0 with 4 bytes, over something else: read 1 x" in text
    assert names["GadgetPortsBank"].sizes == (1, 2, 4)


def test_a_register_that_wants_another_size_is_named(tmp_path: Path) -> None:
    bench, collected = collecting(tmp_path, Edu("edu", addr="3"))
    bench.config_write(0x18, 0x10, BAR)
    bench.config_write(0x18, 4, 6, 2)
    bench.load(BAR + 4, 8)
    assert "# at 0x4 with 8 bytes" in suggested(bench, collected)[0]


def test_unclaimed_addresses_become_devices(tmp_path: Path) -> None:
    bench, collected = collecting(tmp_path, Gadget("gadget"))
    bench.write(0x80, 1)
    bench.write(0x510, 0x19, 2)
    bench.read(0x511)
    bench.store(0xFEC0_0000, 1)
    bench.load(0xFEC0_0010)
    bench.config_read(0x28, 0)
    text, names = suggested(bench, collected)
    made = devices_of(names)
    assert sorted(one.__name__ for one in made) == ["Memoryfec00000", "Ports510", "Ports80"]
    assert "# PCI function 00:05.0 was looked for." in text
    again = TestBench(*[one(one.__name__) for one in made])
    again.store(0xFEC0_0010, 0x1234)
    again.write(0x510, 0xAAAA, 2)
    assert again.load(0xFEC0_0010) == 0x1234
    assert again.read(0x510, 2) == 0xAAAA
    assert not again.machine.bus.unclaimed


def test_configuration_space_gets_a_config_bank(tmp_path: Path) -> None:
    bench, collected = collecting(tmp_path, Card("card", addr="3"))
    bench.config_write(0x18, 0x60, 5)
    _, names = suggested(bench, collected)
    made = TestBench(names["CardConfig"]("new", addr="3"))
    made.config_write(0x18, 0x60, 7)
    assert made.config_read(0x18, 0x60) == 7


def test_nothing_in_vain_gives_a_comment(tmp_path: Path) -> None:
    bench, collected = collecting(tmp_path, Gadget("gadget"))
    bench.read(BASE)
    assert collected.text() == "# The guest asked no device for anything in vain.\n"


def test_the_skeleton_is_written_at_the_end(tmp_path: Path) -> None:
    bench, collected = collecting(tmp_path, Gadget("gadget"))
    bench.read(BASE + 12)
    collected.close()
    assert (tmp_path / "s.py").read_text() == collected.text()


def test_a_guest_that_asks_everywhere_costs_bounded_memory(tmp_path: Path) -> None:
    bench, collected = collecting(tmp_path, Gadget("gadget"))
    for address in range(PLACES_LIMIT + 10):
        bench.load(address << 12, 1)
    assert "# 10 more accesses, to other places, were not kept." in collected.text()


def test_every_skeleton_is_valid_and_answers_what_it_declares(tmp_path: Path) -> None:
    for seed in range(8):
        random = Random(seed)
        bench, collected = collecting(tmp_path, Gadget("gadget"), Card("card", addr="3"))
        bench.enable_card(0x18)
        for _ in range(300):
            space = random.choice((PORT, MEMORY, PCI))
            base = {PORT: random.choice((BASE, 0x80)), MEMORY: BAR, PCI: 0x18 << 32}[space]
            address = base + random.randrange(80)
            size = random.choice((1, 2, 4))
            try:
                if random.random() < 0.5:
                    bench.machine.bus.read(space, address, size)
                else:
                    bench.machine.bus.write(space, address, size, random.getrandbits(32))
            except (ZeroDivisionError, Deferral, GuestError):
                continue
        _, names = suggested(bench, collected)
        for one in devices_of(names):
            kept = Kept()
            again = ObservedBench(one("new"), sinks=[kept])
            window = again.machine.devices[0].windows[0]
            for _, slot, offset, _ in type(window.bank).registers():
                if window.base is not None and slot.name.startswith("unknown"):
                    again.machine.bus.read(window.space, window.base + offset, slot.size)
                    assert kept.accesses[-1].touched
