"""Live reload: a saved file's class goes on with the state; a failing one changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dm import Device, HostError
from dm.control.devices import make_device
from dm.control.reloading import Reloader
from dm.machine.fakes import FakeCharacter, TestBench
from dm.machine.machine import Machine
from dm.machine.survivor import Survivor, seal_over
from dm.server.loop import Loop
from dm.server.server import IoreqServer
from tests.unit.server.fake_xen import READ, Domain, FakeXen

from .specimens import Kept, ObservedBench

SLACK = 1 << 16

PLAIN = """
from dm import Bank, Character, Device, Fifo, IsaLine, Option, PortWindow, Register, Timer
from dm import Transient, Word

class Ports(Bank, size=8, width=8):
    control = Register.at(0)
    value = Register.at(1, reset=5)
    later = Register.at(2)
    # more registers

class Mine(Device):
    base = Option(int, 0x300, "first port")
    factor = Option(int, 2, "by which `value` is read")
    ports = PortWindow(Ports, at=base)
    count = Word(16)
    queue = Fifo(8)
    alarm = Timer()
    irq = IsaLine(5)
    console = Character()
    waiting = Transient()

    @Ports.value.on_read
    def _value(self) -> int:
        return self.ports.value.value * self.factor

    @Ports.control.on_write
    def _control(self, new: int, old: int) -> None:
        self.alarm.start_in(1000)
        self.queue.push(new)
        self.console.write(bytes([new]))

    @console.received
    def _received(self, data: bytes) -> None:
        self.count = data[0]

    @Ports.later.on_read
    def _later(self) -> int:
        self.waiting = self.defer()
        raise self.waiting

    @alarm.expired
    def _fire(self) -> None:
        self.count += 1

    @irq.level
    def _level(self) -> bool:
        return self.ports.control.value == 0x80
"""

FUNCTION = """
from dm import Bank, Device, MmioBar, PciDevice, PciIdentity, Register

class Registers(Bank, size=0x1000):
    status = Register.at(0)

class Function(PciDevice):
    identity = PciIdentity(vendor=0x1234, device=0x5678, class_code=0x088000, pin=1)
    registers = MmioBar(Registers, 0)

    def irq_level(self) -> bool:
        return bool(self.registers.status.value & 1)
"""


class Bench:
    """A device from a file on a scripted bus, and what was said when the file changed."""

    def __init__(self, folder: Path, text: str = PLAIN, name: str = "Mine", **options: str) -> None:
        self.path = folder / "my.py"
        self.path.write_text(text)
        self.text = text
        made = make_device(f"{self.path}:{name}", {"id": "mine", **options}, 0)
        assert made is not None
        self.kept = Kept()
        self.bench = ObservedBench(made, sinks=[self.kept], slack=SLACK)
        self.said: list[str] = []
        self.replaced: list[Device] = []
        self.reloader = Reloader(self.bench.machine, self.replaced.append, self.said.append)
        self.reloader.add(made, str(self.path), dict(options))

    @property
    def device(self) -> Any:
        return self.bench.machine.devices[0]

    def edit(self, *changes: tuple[str, str]) -> list[str]:
        """Change the file's text and say that it changed; what is said then."""
        for old, new in changes:
            assert old in self.text
            self.text = self.text.replace(old, new)
        self.path.write_text(self.text)
        self.said.clear()
        self.reloader.changed(str(self.path))
        return [line.removeprefix(str(self.path)) for line in self.said]


def test_the_new_code_answers_and_the_state_goes_on(tmp_path: Path) -> None:
    it = Bench(tmp_path)
    it.bench.write(0x301, 7)
    it.device.count = 0x1234
    it.device.queue.push(9)
    assert it.bench.read(0x301) == 14
    assert it.edit(("* self.factor", "* self.factor + 1")) == [": mine goes on as the new Mine"]
    assert it.bench.read(0x301) == 15
    assert it.device.count == 0x1234
    assert it.device.queue.pop() == 9


def test_options_stay_as_they_were_given_and_new_defaults_count(tmp_path: Path) -> None:
    it = Bench(tmp_path, factor="3")
    assert it.bench.read(0x301) == 15
    it.edit(('Option(int, 2, "by', 'Option(int, 10, "by'))
    assert it.bench.read(0x301) == 15
    (tmp_path / "other").mkdir()
    other = Bench(tmp_path / "other")
    other.edit(('Option(int, 2, "by', 'Option(int, 10, "by'))
    assert other.bench.read(0x301) == 50


def test_an_option_that_vanished_is_named(tmp_path: Path) -> None:
    it = Bench(tmp_path, factor="3")
    said = it.edit(
        ('    factor = Option(int, 2, "by which `value` is read")\n', ""), ("* self.factor", "")
    )
    assert ": mine: it has no option factor any more" in said


def test_new_vanished_and_resized_state_is_named_each_in_a_line(tmp_path: Path) -> None:
    it = Bench(tmp_path)
    it.bench.write(0x300, 3)
    it.device.count = 300
    said = it.edit(
        ("    # more registers", "    more = Register.at(3, reset=0x44)"),
        ("count = Word(16)", "count = Word(32)"),
        ("Fifo(8)", "Fifo(9)"),
        ("waiting = Transient()", "waiting = Transient()\n    other = Word(8)"),
    )
    assert sorted(said[1:]) == [
        ": mine: count has another size, it is at its reset value",
        ": mine: other is new, at its reset value",
        ": mine: ports.more is new, at its reset value",
        ": mine: queue.bytes has another size, it is at its reset value",
    ]
    assert it.bench.read(0x303) == 0x44
    assert (it.device.count, len(it.device.queue)) == (0, 0)
    assert it.bench.read(0x300) == 3
    said = it.edit(("    more = Register.at(3, reset=0x44)", ""))
    assert said[1:] == [": mine: ports.more is gone, its value is dropped"]


def test_a_value_that_no_longer_fits_is_named(tmp_path: Path) -> None:
    it = Bench(tmp_path)
    it.device.count = 0x1234
    said = it.edit(("Word(16)", "Word(10)"))
    assert said[1:] == [": mine: count cannot hold 0x1234, it is at its reset value"]


def test_timers_go_on_and_fire_once(tmp_path: Path) -> None:
    it = Bench(tmp_path)
    it.bench.write(0x300, 1)
    it.bench.advance(400)
    it.edit(("self.count += 1", "self.count += 10"))
    it.bench.advance(599)
    assert it.device.count == 0
    it.bench.advance(1)
    assert it.device.count == 10
    it.bench.advance(10**9)
    assert it.device.count == 10


def test_a_line_keeps_its_level_and_one_that_moved_is_lowered(tmp_path: Path) -> None:
    it = Bench(tmp_path)
    it.bench.write(0x300, 0x80)
    it.edit(("self.count += 1", "self.count += 2"))
    assert it.bench.platform.isa == {5: 1}
    levels = [e.numbers for event in it.kept.events for e in event.inner if e.numbers[:1] == (5,)]
    assert (5, 0) not in levels[2:]
    it.edit(("IsaLine(5)", "IsaLine(7)"))
    assert it.bench.platform.isa == {5: 0, 7: 1}


def test_a_level_that_the_new_code_derives_otherwise_is_driven(tmp_path: Path) -> None:
    it = Bench(tmp_path)
    it.bench.write(0x300, 0x80)
    it.edit(("== 0x80", "== 0x81"))
    assert it.bench.platform.isa == {5: 0}


def test_a_window_that_moved_is_claimed_where_it_is(tmp_path: Path) -> None:
    it = Bench(tmp_path)
    it.edit(("Option(int, 0x300", "Option(int, 0x400"), ("size=8", "size=16"))
    assert it.bench.platform.claimed[0] == [(0x400, 0x40F)]
    assert it.bench.read(0x401) == 10
    assert it.bench.read(0x301) == 0xFF


def test_a_chardev_is_plugged_into_the_new_device(tmp_path: Path) -> None:
    it = Bench(tmp_path)
    character = FakeCharacter()
    it.device.console.attach(character)
    it.edit(("bytes([new])", "bytes([new + 1])"))
    it.bench.write(0x300, 0x41)
    character.feed(b"\x09")
    assert character.sent == b"B"
    assert it.device.count == 9


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            [("class Mine(Device):", "class Mine(Device:")],
            ":<Device:>: mine is as before: SyntaxError: ",
        ),
        ([("count = Word(16)", "count = Wrod(16)")], ":<Wrod>: mine is as before: NameError: "),
        (
            [("queue = Fifo(8)", "irq2 = IsaLine(16)")],
            ":<irq2>: mine is as before: DeclarationError: ",
        ),
        ([("class Mine(Device)", "class Other(Device)")], ": mine is as before: it has no device"),
        (
            [
                (
                    "waiting = Transient()",
                    "waiting = Transient()\n    big = __import__('dm').Memory(70000)",
                )
            ],
            ": mine is as before: its state of",
        ),
        (
            [
                (
                    "    @Ports.value.on_read",
                    "    def on_reset(self) -> None:\n        raise OSError('x')\n\n"
                    "    @Ports.value.on_read",
                )
            ],
            ":<OSError>: mine is as before: OSError: x",
        ),
        ([("== 0x80", "== 1 // 0")], ":<1 // 0>: mine is as before: ZeroDivisionError: "),
        (
            [("from dm import Bank", "raise SystemExit(3)\nfrom dm import Bank")],
            ":<SystemExit>: mine is as",
        ),
    ],
)
def test_what_cannot_be_loaded_changes_nothing_and_says_where(
    tmp_path: Path, changes: list[tuple[str, str]], expected: str
) -> None:
    it = Bench(tmp_path)
    it.bench.write(0x300, 0x80)
    it.bench.write(0x301, 7)
    before, device = bytes(it.bench.machine.buffer), it.device
    said = it.edit(*changes)
    assert len(said) == 1
    where, _, why = expected.partition(">")
    if why:
        lines = it.text.splitlines()
        expected = f":{next(n for n, t in enumerate(lines, 1) if where[2:] in t)}{why}"
    assert said[0].startswith(expected), said
    assert it.device is device
    assert it.bench.machine.buffer == before
    assert it.bench.platform.isa == {5: 1}
    assert it.bench.read(0x301) == 14
    it.bench.advance(1000)
    assert it.device.count == 1
    assert not it.replaced


def test_two_saves_in_one_second_of_the_same_length_are_two_classes(tmp_path: Path) -> None:
    it = Bench(tmp_path)
    for factor in "345":
        it.edit((it.text, PLAIN.replace("* self.factor", "*" + factor.rjust(12))))
        assert it.bench.read(0x301) == 5 * int(factor)


def test_a_bar_of_another_size_is_claimed_and_reads_back_as_such(tmp_path: Path) -> None:
    it = Bench(tmp_path, FUNCTION, "Function", addr="4")
    it.bench.config_write(0x20, 0x10, 0xFE00_1000)
    it.bench.config_write(0x20, 4, 6, 2)
    it.bench.store(0xFE00_1000, 1)
    assert it.bench.platform.claimed[1] == [(0xFE00_1000, 0xFE00_1FFF)]
    said = it.edit(
        ("size=0x1000", "size=0x4000"), ("status = ", "extra = Register.at(4)\n    status = ")
    )
    assert said[1:] == [": mine: registers.extra is new, at its reset value"]
    assert it.bench.config_read(0x20, 0x10) == 0xFE00_0000
    assert it.bench.platform.claimed[1] == [(0xFE00_0000, 0xFE00_3FFF)]
    assert it.bench.load(0xFE00_0000) == 1
    assert it.bench.platform.intx == {(4, 0): 1}


def test_a_new_capability_is_found_and_the_rest_of_the_configuration_stays(tmp_path: Path) -> None:
    it = Bench(tmp_path, FUNCTION, "Function", addr="4")
    it.bench.config_write(0x20, 4, 6, 2)
    it.bench.config_write(0x20, 0x3C, 11, 1)
    it.edit(
        ("PciIdentity, Register", "PciIdentity, Register, MsiCapability"),
        ("    registers = ", "    capabilities = (MsiCapability(0x40),)\n    registers = "),
    )
    assert it.bench.config_read(0x20, 4) == 0x0010_0006
    assert it.bench.config_read(0x20, 0x34, 1) == 0x40
    assert it.bench.config_read(0x20, 0x40, 1) == 5
    assert it.bench.config_read(0x20, 0x3C, 1) == 11


def test_an_interrupt_that_vanished_is_lowered(tmp_path: Path) -> None:
    it = Bench(tmp_path, FUNCTION, "Function", addr="4")
    it.bench.config_write(0x20, 0x10, 0xFE00_1000)
    it.bench.config_write(0x20, 4, 6, 2)
    it.bench.store(0xFE00_1000, 1)
    it.edit(("def irq_level", "def irq_lever"))
    assert it.bench.platform.intx == {(4, 0): 0}


def test_another_pci_identity_is_refused(tmp_path: Path) -> None:
    it = Bench(tmp_path, FUNCTION, "Function", addr="4")
    said = it.edit(("device=0x5678", "device=0x5679"))
    assert said == [": mine is as before: the PCI identity changed: device_id 0x5678→0x5679"]
    assert it.bench.config_read(0x20, 0) == 0x5678_1234


def test_a_window_over_another_devices_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "my.py"
    path.write_text(PLAIN)
    made = [
        make_device(f"{path}:Mine", {"id": n, "base": b}, 0)
        for n, b in (("a", "0x300"), ("b", "0x310"))
    ]
    bench = TestBench(*[one for one in made if one is not None])
    said: list[str] = []
    reloader = Reloader(bench.machine, lambda device: None, said.append)
    for device in bench.machine.devices:
        reloader.add(device, str(path), {"base": ""})
    bench.machine.slack = SLACK
    path.write_text(PLAIN.replace("size=8", "size=24"))
    reloader.changed(str(path))
    assert said[0].removeprefix(str(path)).startswith(": a is as before: a and b")


def test_a_catalogued_device_is_reloaded_from_its_module(tmp_path: Path) -> None:
    from devices.pvpanic import Pvpanic

    bench = ObservedBench(Pvpanic("p"), sinks=[], slack=SLACK)
    said: list[str] = []
    reloader = Reloader(bench.machine, lambda device: None, said.append)
    reloader.add_catalogued({})
    import devices.pvpanic

    reloader.changed(devices.pvpanic.__file__)
    assert len(said) == 1
    assert said[0].endswith("p goes on as the new Pvpanic")
    assert type(bench.machine.devices[0]) is not Pvpanic
    assert type(bench.machine.devices[0]).__module__ == "devices.pvpanic"


def test_the_memory_file_is_a_successors_that_has_the_new_class(tmp_path: Path) -> None:
    it = Bench(tmp_path)
    state = str(tmp_path / "state")

    def machine(text: str) -> Machine:
        it.path.write_text(text)
        made = make_device(f"{it.path}:Mine", {"id": "mine"}, 0)
        assert made is not None
        bench = TestBench()
        new = Machine("bench", bench.platform, bench.memory, lambda: 0)
        new.slack = SLACK
        new.add(made)
        return new

    first = machine(PLAIN)
    seal_over(state, first, inherit=False)
    first.start()
    first.bus.write(0, 0x301, 1, 0x42)
    reloader = Reloader(first, lambda device: None, it.said.append)
    reloader.add(first.devices[0], str(it.path), {})
    wider = PLAIN.replace("    # more registers", "    more = Register.at(3, reset=0x44)")
    it.path.write_text(wider)
    reloader.changed(str(it.path))
    assert it.said[0].endswith("goes on as the new Mine")
    first.bus.write(0, 0x303, 1, 0x99)
    second = machine(wider)
    inherited = Survivor(state, second).inherited()
    assert inherited is not None
    second.seal()
    second.inherit(*inherited)
    assert second.bus.read(0, 0x301, 1) == 0x84
    assert second.bus.read(0, 0x303, 1) == 0x99
    assert Survivor(state, machine(PLAIN)).inherited() is None


class Served:
    """The device of the file behind an ioreq server, plainly and not observed."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "my.py"
        self.path.write_text(PLAIN)
        made = make_device(f"{self.path}:Mine", {"id": "mine"}, 0)
        assert made is not None
        self.domain = Domain()
        self.xen = FakeXen(self.domain)
        self.machine = Machine("test", self.xen, self.xen.memory, lambda: 0)
        self.machine.slack = SLACK
        self.machine.add(made)
        self.machine.seal()
        self.server = IoreqServer(self.xen, self.machine, lambda seconds: None)
        self.server.open()
        self.machine.connect()
        self.machine.start()
        self.said: list[str] = []
        self.reloader = Reloader(self.machine, self.server.abandon, self.said.append)
        self.reloader.add(made, str(self.path), {})

    def send(self, vcpu: int, address: int, flags: int = READ) -> int | None:
        owner = self.domain.servers[self.server.id]
        assert self.domain.send(owner, vcpu, address=address, flags=flags)
        self.server.serve(vcpu)
        return self.domain.answer(owner, vcpu)


def test_the_fast_way_leads_to_the_new_code(tmp_path: Path) -> None:
    it = Served(tmp_path)
    assert it.send(0, 0x301) == 10
    it.path.write_text(PLAIN.replace("* self.factor", "* 4"))
    it.reloader.changed(str(it.path))
    assert it.send(0, 0x301) == 20


def test_a_request_that_the_old_code_had_yet_to_answer_is_answered_by_the_new(
    tmp_path: Path,
) -> None:
    it = Served(tmp_path)
    assert it.send(1, 0x302) is None
    it.path.write_text(
        PLAIN.replace("        self.waiting = self.defer()\n", "").replace(
            "raise self.waiting", "return 0x77"
        )
    )
    it.reloader.changed(str(it.path))
    assert it.domain.answer(it.domain.servers[it.server.id], 1) == 0x77
    assert not it.domain.punishments


def test_a_saved_file_is_noticed_however_an_editor_writes_it(tmp_path: Path) -> None:
    it = Bench(tmp_path)
    loop = Loop()
    it.reloader.watch(loop)
    it.path.write_text(PLAIN.replace("* self.factor", "* 3"))
    loop.run_once(10)
    assert it.bench.read(0x301) == 15
    (tmp_path / "fresh").write_text(PLAIN.replace("* self.factor", "* 4"))
    (tmp_path / "fresh").rename(it.path)
    loop.run_once(10)
    assert it.bench.read(0x301) == 20
    (tmp_path / "unrelated.py").write_text("")
    it.said.clear()
    loop.run_once(10)
    assert not it.said
    it.reloader.close()
    loop.close()


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_file_behind_a_symbolic_link_is_watched_too(tmp_path: Path, what: str) -> None:
    real, other = tmp_path / "real", tmp_path / "other"
    for folder in (real, other):
        folder.mkdir()
    it = Bench(real)
    link = other / "link"
    link.symlink_to(real if what == "folder" else it.path)
    named = str(link / "my.py" if what == "folder" else link)
    it.reloader.add(it.device, named)
    loop = Loop()
    it.reloader.watch(loop)
    it.path.write_text(PLAIN.replace("* self.factor", "* 3"))
    loop.run_once(10)
    assert it.said == [f"{named}: mine goes on as the new Mine"]
    (other / "fresh").write_text(PLAIN.replace("* self.factor", "* 4"))
    (other / "fresh").rename(named)
    loop.run_once(10)
    assert it.bench.read(0x301) == 20
    it.reloader.close()
    loop.close()


def test_a_folder_that_cannot_be_watched_is_the_hosts_failure(tmp_path: Path) -> None:
    it = Bench(tmp_path)
    it.reloader.add(it.device, str(tmp_path / "gone" / "my.py"))
    loop = Loop()
    with pytest.raises(HostError, match=r"inotify_add_watch .*gone: No such file"):
        it.reloader.watch(loop)
    it.reloader.close()
    loop.close()
