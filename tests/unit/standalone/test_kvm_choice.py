"""Which engine a run gets, and what is said where one cannot be had."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools.hypervisor.engines import Engine
from tools.hypervisor.engines.choose import ENGINES, make_engine
from tools.hypervisor.engines.kvm import machine, probe
from tools.hypervisor.engines.kvm.engine import KvmEngine
from tools.hypervisor.engines.kvm.probe import unusable
from tools.hypervisor.errors import EngineUnavailable
from tools.hypervisor.images import CpuStart

from .core_emulator import Host, Running

REAL = CpuStart("real", ip=0x8000)
LONG = CpuStart("long", ip=0x8000, page_table=0x1000)


@pytest.fixture
def make(host: Host) -> Iterator[Callable[[str, CpuStart], Engine]]:
    made: list[Engine] = []

    def one(name: str, start: CpuStart = REAL) -> Engine:
        made.append(make_engine(name, host.domain(), start))
        return made[-1]

    yield one
    for engine in made:
        engine.stop()


@pytest.fixture
def fresh_probe() -> Iterator[None]:
    """What was found out about this machine is forgotten before and after."""
    probe.unusable.cache_clear()
    yield
    probe.unusable.cache_clear()


@pytest.mark.usefixtures("fresh_probe")
class TestWithoutKvm:
    @pytest.fixture(autouse=True)
    def _no_device(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(machine, "DEVICE", str(tmp_path / "kvm"))

    def test_auto_is_silently_unicorn(
        self, make: Callable[[str], Engine], capfd: pytest.CaptureFixture[str]
    ) -> None:
        pytest.importorskip("unicorn")
        assert make("auto").name == "unicorn"
        assert capfd.readouterr() == ("", "")

    def test_kvm_says_why_not(self, make: Callable[[str], Engine], tmp_path: Path) -> None:
        with pytest.raises(EngineUnavailable) as caught:
            make("kvm")
        assert str(caught.value) == f"{tmp_path}/kvm: No such file or directory"

    def test_what_is_not_kvm_is_told_from_it(self, tmp_path: Path) -> None:
        (tmp_path / "kvm").write_bytes(b"")
        reason = unusable("real")
        assert reason is not None
        assert "Inappropriate ioctl" in reason
        assert "\n" not in reason

    def test_without_unicorn_either_both_are_named(
        self, make: Callable[[str], Engine], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from tools.hypervisor.engines.unicorn import library

        library.load.cache_clear()
        monkeypatch.setattr(library, "_find", lambda: None)
        try:
            with pytest.raises(EngineUnavailable) as caught:
                make("auto")
        finally:
            library.load.cache_clear()
        assert "unicorn" in str(caught.value)
        assert "kvm: No such file" in str(caught.value)


class TestPartlyUsableKvm:
    """One that runs real and long mode, but not all of protected mode."""

    @pytest.fixture(autouse=True)
    def _lame(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if unusable("real") is not None or unusable("long") is not None:
            pytest.skip("KVM runs neither")

        def said(mode: probe.Mode) -> str | None:
            return "KVM limps" if mode == "protected" else None

        monkeypatch.setattr(probe, "unusable", said)

    def test_auto_leaves_it_to_guests_that_begin_behind_the_gap(
        self, make: Callable[[str, CpuStart], Engine]
    ) -> None:
        pytest.importorskip("unicorn")
        assert make("auto", REAL).name == "unicorn"
        assert make("auto", LONG).name == "kvm"

    def test_explicitly_the_mode_of_the_beginning_counts(
        self, make: Callable[[str, CpuStart], Engine]
    ) -> None:
        assert make("kvm", REAL).name == "kvm"
        with pytest.raises(EngineUnavailable, match="KVM limps"):
            make("kvm", CpuStart("protected", ip=0x8000))


def test_an_unknown_engine_is_one_line(make: Callable[[str], Engine]) -> None:
    with pytest.raises(EngineUnavailable, match=r"'qemu'.*auto, kvm, unicorn"):
        make("qemu")
    assert ENGINES == ("auto", "kvm", "unicorn")


@pytest.mark.usefixtures("fresh_probe")
class TestProbe:
    def test_a_machine_that_hangs_is_unusable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if unusable("real") is not None:
            pytest.skip(str(unusable("real")))
        unusable.cache_clear()
        monkeypatch.setattr(probe, "SAY", b"\xeb\xfe")
        monkeypatch.setattr(probe, "PATIENCE", 0.05)
        assert "takes longer" in str(unusable("real"))

    def test_any_thread_may_ask_and_is_told_the_same(self) -> None:
        elsewhere = Running(lambda: unusable("real")).result()
        unusable.cache_clear()
        assert unusable("real") == elsewhere

    @pytest.mark.parametrize("mode", ["real", "protected", "long"])
    def test_it_leaves_no_descriptor(self, mode: probe.Mode) -> None:
        gc.collect()
        before = os.listdir("/proc/self/fd")
        unusable(mode)
        assert os.listdir("/proc/self/fd") == before


def test_a_guest_that_kvm_refuses_leaves_nothing(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    if unusable("real") is not None:
        pytest.skip(str(unusable("real")))
    domain = host.domain()

    def refuse(*_: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(machine.KvmMachine, "show_memory", refuse)
    gc.collect()
    before = os.listdir("/proc/self/fd")
    with pytest.raises(EngineUnavailable, match="KVM refuses this guest: Invalid argument"):
        KvmEngine(domain, REAL)
    assert os.listdir("/proc/self/fd") == before
