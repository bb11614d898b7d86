"""An unchanged device replays as recorded; of a changed one the first difference is told."""

from __future__ import annotations

import argparse
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dm import ConfigError, Deferral, GuestError
from dm.control.devices import make_device
from dm.machine.container import load, save
from dm.machine.fakes import FakeCharacter
from dm.observe.output import Output
from dm.observe.record import Recorder
from protocol.recording import RECORDING_DEVICE, RECORDING_HEADER, RECORDING_RECORD
from tools.cli import replay
from tools.prototype.recording import Recording

from .specimens import BAR, ObservedBench

SOURCE = """
from dm import Bank, Bit, Character, GuestError, IsaLine, MmioBar, MsiCapability, Option
from dm import PciDevice, PciIdentity, Register, Timer, W1C

class Status(Register):
    busy = Bit(0)
    done = Bit(1, access=W1C)

class Registers(Bank, size=64):
    status = Status.at(0)
    source = Register.at(4)
    length = Register.at(8)
    go = Register.at(12)
    time = Register.at(16)
    port = Register.at(20)
    later = Register.at(24)

class Engine(PciDevice):
    identity = PciIdentity(vendor=0x1234, device=0x5678, class_code=0x088000, pin=1)
    capabilities = (MsiCapability(0x40),)
    delay = Option(int, 5000, "nanoseconds")
    registers = MmioBar(Registers, 0)
    transfer = Timer()
    console = Character()

    def irq_level(self) -> bool:
        return bool(self.registers.status.done)

    @Registers.go.on_write
    def _go(self, new: int, old: int) -> None:
        self.registers.status.busy = 1
        self.transfer.start_in(self.delay)

    @Registers.time.on_read
    def _time(self) -> int:
        return self.now() & 0xFFFFFFFF

    @Registers.port.on_write
    def _send(self, new: int, old: int) -> None:
        self.registers.port.value = self.console.write(bytes([new & 0xFF]) * 3)

    @console.received
    def _receive(self, data: bytes) -> None:
        self.registers.port.value = int.from_bytes(data, "little") & 0xFFFFFFFF

    @Registers.later.on_read
    def _later(self) -> int:
        raise self.defer()

    @transfer.expired
    def _finish(self) -> None:
        source, length = self.registers.source.value, self.registers.length.value & 0xFF
        try:
            data = self.memory.read(source, length)
            self.memory.write(source + length, bytes(byte ^ 0x5A for byte in data))
        except GuestError:
            self.registers.length.value = 0xBAD
        self.registers.status.busy = 0
        self.registers.status.done = 1
"""


class Real(FakeCharacter):
    accepts = 2


class Scene:
    """An engine from a file, driven by a guest, recorded; and its replay from other files."""

    def __init__(self, folder: Path, **options: str) -> None:
        self.folder = folder
        self.path = folder / "run.ioreq"
        self.file = folder / "my.py"
        self.file.write_text(SOURCE)
        self.driver = f"{self.file}:Engine"
        made = make_device(self.driver, {"id": "engine", "addr": "6", **options}, 0)
        other = make_device(self.driver, {"id": "other", "addr": "7"}, 0)
        assert made is not None
        assert other is not None
        recorder = Recorder(Output("record", str(self.path)), {"engine": self.driver})
        self.bench = ObservedBench(other, made, sinks=[recorder])
        self.ticking = False
        self.bench.machine.clock._host_now = self.now
        self.character = FakeCharacter()
        self.character.accepts = 2
        plug = made.character_plug()
        assert plug is not None
        plug.attach(self.character)
        self.bench.enable_card(0x30)
        self.bench.config_write(0x38, 0x10, BAR + 0x1000)
        self.bench.config_write(0x38, 4, 6, 2)

    def now(self) -> int:
        """A clock that goes on at each look when it is ticking, as a real one does."""
        self.bench.host_time += 7 * self.ticking
        return self.bench.host_time

    def play(self, seed: int = 0, steps: int = 300) -> None:
        random, bench = Random(seed), self.bench
        bench.memory.ram[: 1 << 16] = random.randbytes(1 << 16)
        for _ in range(steps):
            choice = random.randrange(10)
            if choice < 4:
                register = random.choice((0, 4, 8, 12, 16, 20, 1, 60))
                try:
                    bench.load(BAR + register, random.choice((1, 2, 4)))
                except (Deferral, GuestError):
                    continue
            elif choice < 8:
                register = random.choice((0, 4, 8, 12, 20))
                value = random.choice((0, 2, 16, 0x1000, 0xFFFF_0000, random.getrandbits(32)))
                bench.store(BAR + random.choice((0, 0x1000)) + register, value)
            elif choice == 8:
                bench.advance(random.randrange(10_000))
            else:
                self.character.feed(random.randbytes(3))

    def replay(
        self,
        capsys: pytest.CaptureFixture[str],
        *changes: tuple[str, str],
        options: str = "",
        words: tuple[str, ...] = (),
    ) -> tuple[int, str]:
        text = SOURCE
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        name = f"changed{len(list(self.folder.iterdir()))}.py"
        (self.folder / name).write_text(text)
        device = f"--device={self.folder / name}:Engine,id=engine{options}"
        status = command([str(self.path), device, *words])
        return status, capsys.readouterr().out


def command(words: list[str]) -> int:
    parser = argparse.ArgumentParser()
    replay.configure(parser)
    return replay.run(parser.parse_args(words))


@pytest.mark.parametrize("ticking", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_an_unchanged_device_does_all_as_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int, ticking: bool
) -> None:
    scene = Scene(tmp_path, delay="2000")
    scene.ticking = ticking
    scene.play(seed)
    status, out = scene.replay(capsys)
    assert (status, out.count("\n")) == (0, 1), out
    assert out.startswith("engine: ")
    assert out.endswith(" records, all as recorded\n")
    assert int(out.split()[1]) > 100


def test_the_device_that_was_named_while_recording_needs_no_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Scene(tmp_path)
    scene.play()
    assert command([str(scene.path)]) == 0
    assert command([str(scene.path), f"--device={scene.driver}"]) == 0
    assert "engine: " in capsys.readouterr().out


def test_the_first_answer_that_differs_is_told_with_fields_and_what_was_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Scene(tmp_path)
    bench = scene.bench
    bench.host_time = 1_000_000_000
    bench.store(BAR + 8, 16)
    bench.store(BAR + 4, 0x100)
    bench.store(BAR + 12, 1)
    bench.load(BAR + 0)
    bench.load(BAR + 4)
    status, out = scene.replay(capsys, ("busy = 1", "done = 0"), words=("--context=2",))
    assert status == 1
    assert out.splitlines() == [
        out.splitlines()[0],
        "  expected: engine registers.status read32 0x00000001 busy=1 done=0",
        "  got:      engine registers.status read32 0x00000000 busy=0 done=0",
        "  busy: 0x1 expected, 0x0 got",
        "before it:",
        out.splitlines()[5],
        out.splitlines()[6],
    ]
    assert out.splitlines()[0].endswith(", guest time 1.000000000: engine registers.status read32")
    assert "registers.source write32 0x00000100" in out.splitlines()[5]
    assert "registers.go write32 0x00000001" in out.splitlines()[6]


@pytest.mark.parametrize(
    ("change", "expected", "got"),
    [
        (("^ 0x5A", "^ 0x5B"), "DMA write 0x110 16 bytes", "DMA write 0x110 16 bytes"),
        (("source, length = self", "length, source = self"), "DMA read 0x100", "DMA read 0x10"),
        (("bool(self.registers.status.done)", "False"), "INTA of slot 6 level 1", "nothing"),
        (("* 3)", "* 4)"), "console sends 41 41 41", "console sends 41 41 41 41"),
        (("5000,", "9000,"), "it fires; here it is not due", ""),
    ],
)
def test_dma_interrupts_output_and_timers_are_compared(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: tuple[str, str],
    expected: str,
    got: str,
) -> None:
    scene = Scene(tmp_path)
    bench = scene.bench
    for register, value in ((4, 0x100), (8, 16), (12, 1), (20, 0x41)):
        bench.store(BAR + register, value)
    bench.advance(20_000)
    bench.load(BAR)
    options = ",delay=9000" if "5000" in change[0] else ""
    status, out = scene.replay(capsys, change, options=options)
    assert status == 1
    lines = [line.strip() for line in out.splitlines()]
    assert expected in next(line for line in lines if line.startswith("expected: "))
    assert got in next((line for line in lines if line.startswith("got: ")), "")


def test_a_timer_that_the_recording_does_not_have_fires_by_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Scene(tmp_path)
    scene.bench.store(BAR + 20, 1)
    scene.bench.advance(10**10)
    scene.bench.load(BAR + 0)
    status, out = scene.replay(
        capsys,
        (
            "self.registers.port.value = self",
            "self.transfer.start_in(9); self.registers.port.value = self",
        ),
    )
    assert status == 1
    assert "timer transfer fires, as it did not while recording" in out


def test_all_goes_on_behind_a_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Scene(tmp_path)
    for _ in range(3):
        scene.bench.load(BAR + 16)
    change = ("& 0xFFFFFFFF\n\n    @Registers.port", "+ 1 & 0xFFFFFFFF\n\n    @Registers.port")
    status, out = scene.replay(capsys, change, words=("--all",))
    assert status == 1
    assert out.count("expected:") == 3
    assert out.endswith(", 3 otherwise\n")


def test_late_answers_are_compared_by_their_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Scene(tmp_path)
    with pytest.raises(Deferral):
        scene.bench.load(BAR + 24)
    assert scene.replay(capsys)[0] == 0
    status, out = scene.replay(capsys, ("raise self.defer()", "return 5"))
    assert status == 1
    assert "expected: engine registers.later read32 is answered later" in out


def test_a_loaded_state_and_resets_are_replayed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Scene(tmp_path)
    scene.play(steps=100)
    machine = scene.bench.machine
    data = save(machine)
    scene.bench.store(BAR + 4, 0x77)
    machine.stop()
    load(machine, data)
    machine.start()
    scene.bench.load(BAR + 4)
    scene.play(seed=5, steps=50)
    machine.reset()
    scene.bench.enable_card(0x30)
    scene.play(seed=6, steps=50)
    status, out = scene.replay(capsys)
    assert status == 0, out


def test_options_are_the_recorded_ones_unless_overridden(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Scene(tmp_path, delay="2000")
    scene.bench.store(BAR + 12, 1)
    scene.bench.advance(2500)
    scene.bench.load(BAR)
    assert scene.replay(capsys)[0] == 0
    assert scene.replay(capsys, options=",delay=1000")[0] == 0
    assert scene.replay(capsys, options=",delay=3000")[0] == 1


def test_a_recording_that_was_cut_off_is_replayed_to_its_last_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Scene(tmp_path)
    scene.play()
    scene.path.write_bytes(scene.path.read_bytes()[:-5])
    status, out = scene.replay(capsys)
    assert status == 0
    assert "note: the recording ends within a record" in out


def test_the_reader_reads_what_the_declaration_reads(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.play(steps=50)
    data = scene.path.read_bytes()
    position = len(RECORDING_HEADER.build(RECORDING_HEADER.parse(data)))
    for recorded in Recording(scene.path).devices:
        parsed = RECORDING_DEVICE.parse(data[position:])
        assert (parsed.name, parsed.source) == (recorded.name.encode(), recorded.source.encode())
        position += len(RECORDING_DEVICE.build(parsed))
    total = 0
    while position < len(data):
        position += RECORDING_RECORD.parse(data[position:]).length
        total += 1
    assert total == sum(1 + len(e.inner) for _, e in Recording(scene.path).events())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gone.ioreq"], "gone.ioreq: No such file"),
        (["empty"], "empty: it is empty"),
        (["text"], "text: this is not a recording"),
        (["short"], "short: the recording's header is damaged"),
        (["new"], "new: it has format 9, known is 1"),
        (["run.ioreq", "--device=edu,id=nobody"], r"which recorded device\? .*: other, engine"),
        (["run.ioreq", "--device=nothing:Here,id=engine"], "nothing: ModuleNotFoundError"),
        (["run.ioreq", "--device=my.py:Engine,id=engine,speed=9"], "has no option 'speed'"),
    ],
)
def test_a_users_mistake_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Scene(tmp_path)
    Path("empty").touch()
    Path("text").write_text("hello, world, this is text")
    whole = Path("run.ioreq").read_bytes()
    Path("short").write_bytes(whole[:40])
    Path("new").write_bytes(whole[:8] + b"\x09" + whole[9:])
    with pytest.raises(ConfigError, match=message):
        command(words)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    scene = Scene(tmp_path_factory.mktemp("damaged"))
    scene.play(steps=20)
    return scene


@given(st.lists(st.tuples(st.floats(0, 0.9999), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_recording_is_read_or_refused_in_one_line(
    played: Scene, damage: list[tuple[float, int]]
) -> None:
    content = bytearray(played.path.read_bytes())
    for where, byte in damage:
        content[int(where * len(content))] = byte
    path = played.folder / "damaged.ioreq"
    path.write_bytes(content)
    refused = ""
    try:
        command([str(path), f"--device={played.driver},id=engine", "--all"])
    except ConfigError as error:
        refused = str(error)
    assert "\n" not in refused
