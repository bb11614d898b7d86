"""The steps of a soft reset, on a guest that is only a record of what is done to it (§5.2)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from tools.hypervisor.store import Store
from tools.toolstack.errors import HostFailure
from tools.toolstack.life import soft_reset as module
from tools.toolstack.life.guest import Guest
from tools.toolstack.life.skeleton import close_backends, make_nodes, remove_nodes
from tools.toolstack.xlcfg import GuestConfig

CONFIG = GuestConfig(name="g", type="hvm")
UUID_ = UUID(int=5)
HOME = "/local/domain/7"
PHYSMAP = "/local/domain/0/device-model/7/physmap/f0000000"
BACKEND = "/local/domain/0/backend/vif/7/0"


class Record:
    """Stands for a `Guest`: does what it does to xenstore and files, and notes the rest."""

    def __init__(self, folder: Path) -> None:
        self.done: list[str] = []
        self.store = Store()
        self.domid, self.config, self.paused, self.ended = 7, CONFIG, False, False
        self.place = SimpleNamespace(file=lambda name: folder / name)
        self.domain = SimpleNamespace(soft_reset=lambda: self.done.append("hypercall"))
        self.emulator = SimpleNamespace(
            suspend=self._suspend,
            go_on=lambda: self.done.append("cont"),
            end=lambda: self.done.append("end model"),
            start=self._start,
        )
        self.seen: dict[str, Any] = {}
        make_nodes(self.store, 7, CONFIG, UUID_)
        self.store.write(f"{PHYSMAP}/start_addr", "f0000000")
        self.store.write(f"{HOME}/console/tty", "/dev/pts/9")
        self.store.write(f"{HOME}/device/vif/0/state", "4")
        self.store.write(f"{BACKEND}/state", "4")

    def _suspend(self, path: Path) -> None:
        self.done.append(f"suspend to {path.name}")
        path.write_text("state")

    def _start(self, config: GuestConfig, path: Path) -> None:
        self.done.append(f"start from {path.name}")
        self.seen = {
            "state": path.read_text(),
            "files": sorted(one.name for one in path.parent.iterdir()),
            "physmap": self.store.read(f"{PHYSMAP}/start_addr"),
            "tty": self.store.read(f"{HOME}/console/tty"),
            "name": self.store.read(f"{HOME}/name"),
            "vm": self.store.read(f"{HOME}/vm"),
            "frontend": self.store.read(f"{HOME}/device/vif/0/state"),
            "backend": self.store.read(f"{BACKEND}/state"),
        }

    def wait_parked(self) -> None:
        self.done.append("parked")

    def close_channels(self) -> None:
        self.done.append("release")

    def open_channels(self) -> None:
        self.done.append("introduce")

    def remove_nodes(self) -> None:
        self.done.append("remove nodes")
        close_backends(self.store, 7)
        remove_nodes(self.store, 7, UUID_)

    def make_nodes(self) -> None:
        self.done.append("make nodes")
        make_nodes(self.store, 7, CONFIG, UUID_)

    def pause(self) -> None:
        self.paused = True

    def unpause(self) -> None:
        self.paused = False
        self.done.append("unpause")

    def resume(self) -> None:
        self.done.append("resume")

    def destroy(self) -> None:
        self.ended = True
        self.done.append("destroy")


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path)


def reset(record: Record, *, asked: bool = False) -> list[str]:
    told: list[str] = []
    module.soft_reset(cast(Guest, record), asked=asked, progress=told.append)
    return told


def test_s5_2_the_steps_come_in_libxl_s_order(record: Record) -> None:
    reset(record)
    assert record.done == [
        "parked",
        "suspend to qemu-save",
        "release",
        "end model",
        "remove nodes",
        "hypercall",
        "make nodes",
        "introduce",
        "start from qemu-resume",
        "unpause",
    ]


def test_s5_2_8_the_toolstack_record_is_there_before_the_new_device_model(record: Record) -> None:
    reset(record)
    assert record.seen["physmap"] == "f0000000"


def test_s5_2_9_the_state_file_is_renamed_and_there_for_the_new_device_model(
    record: Record, tmp_path: Path
) -> None:
    reset(record)
    assert (record.seen["state"], record.seen["files"]) == ("state", ["qemu-resume"])
    assert list(tmp_path.iterdir()) == []


def test_s5_2_1_and_13_the_console_s_terminal_stays(record: Record) -> None:
    reset(record)
    assert record.seen["tty"] == "/dev/pts/9"


def test_s5_2_10_the_skeleton_is_made_again_with_name_and_uuid(record: Record) -> None:
    reset(record)
    assert (record.seen["name"], record.seen["vm"]) == ("g", f"/vm/{UUID_}")


def test_seed_002_backends_are_asked_to_disconnect_and_devices_are_gone(record: Record) -> None:
    states: list[str | None] = []
    record.store.watch(
        f"{BACKEND}/state", lambda path: states.append(record.store.read(f"{BACKEND}/state"))
    )
    reset(record)
    assert states == ["4", "5", None]
    assert (record.seen["frontend"], record.seen["backend"]) == (None, None)


def test_s5_2_7_one_pause_is_left_until_everything_is_there(record: Record) -> None:
    paused = []
    record.open_channels = lambda: paused.append(record.paused)  # type: ignore[method-assign]
    reset(record)
    assert (paused, record.paused) == ([True], False)


def test_a_domain_that_was_paused_stays_paused(record: Record) -> None:
    record.paused = True
    reset(record, asked=True)
    assert record.paused
    assert "unpause" not in record.done


def test_s5_1_only_hvm_guests_are_reset(record: Record) -> None:
    record.config = replace(CONFIG, type="pvh")
    with pytest.raises(HostFailure, match=r"not an HVM guest; domain 7 is destroyed"):
        reset(record)


def test_s5_2_3_a_device_model_that_cannot_be_suspended_fails_at_once_unlike_libxl(
    record: Record,
) -> None:
    def suspend(path: Path) -> None:
        raise HostFailure("no")

    record.emulator.suspend = suspend
    with pytest.raises(HostFailure, match="suspend the device model: no; domain 7 is destroyed"):
        reset(record)
    assert record.done == ["parked", "destroy"]


def test_long_operations_show_each_step(record: Record) -> None:
    told = reset(record)
    assert len(told) == len(module.STEPS)
    assert told[0] == f"soft reset 1/{len(told)}: {module.STEPS[0].name}"


def test_the_point_of_no_return_is_one(record: Record) -> None:
    undoable = [step.undo is not None for step in module.STEPS]
    assert undoable == sorted(undoable, reverse=True)
    assert undoable.count(True) == 2
