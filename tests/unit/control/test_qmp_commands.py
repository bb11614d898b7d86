"""Each command of libxl's catalogue: what it does to the machine and what it answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dm.control.qmp_commands import COMMANDS
from dm.errors import HostError
from tests.unit.control.fakes import Bench, Client, Refusing
from tests.unit.loop import MiniLoop

CATALOGUE = {
    "qmp_capabilities",
    "query-command-line-options",
    "quit",
    "query-status",
    "query-chardev",
    "query-vnc",
    "change-vnc-password",
    "cont",
    "stop",
    "add-fd",
    "xen-save-devices-state",
    "xen-load-devices-state",
    "xen-set-global-dirty-log",
    "query-cpus-fast",
    "query-hotpluggable-cpus",
    "device_add",
    "query-pci",
    "device_del",
    "query-version",
    "eject",
    "blockdev-change-medium",
    "query-fdsets",
    "remove-fd",
    "system_wakeup",
    "human-monitor-command",
    "nbd-server-start",
    "nbd-server-add",
    "nbd-server-stop",
    "xen-set-replication",
    "query-xen-replication-status",
    "xen-colo-do-checkpoint",
    "x-blockdev-change",
    "query-block",
    "query-blockstats",
    "set_password",
    "expire_password",
    "query-commands",
    "query-name",
    "query-kvm",
    "system_reset",
    "system_powerdown",
    "inject-nmi",
}


def test_every_command_of_the_catalogue_is_known(client: Client) -> None:
    names = {entry["name"] for entry in client.value("query-commands")}
    assert names == set(COMMANDS)
    assert names >= CATALOGUE


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_answered_by_a_machine_that_overrides_nothing(
    client: Client, name: str
) -> None:
    client.send({"execute": name, "id": 9})
    assert client.answer()["id"] == 9


def test_stop_and_cont_are_idempotent(bench: Bench, client: Client) -> None:
    assert client.value("query-status") == {
        "status": "prelaunch",
        "singlestep": False,
        "running": False,
    }
    for name, state in (
        ("cont", "running"),
        ("cont", "running"),
        ("stop", "paused"),
        ("stop", "paused"),
    ):
        assert client.value(name) == {}
        status = client.value("query-status")
        assert (status["status"], status["running"]) == (state, state == "running")


@pytest.mark.parametrize(
    ("command", "call"),
    [("system_reset", "reset"), ("system_powerdown", "power_down"), ("quit", "quit")],
)
def test_a_command_reaches_the_machine(
    bench: Bench, client: Client, command: str, call: str
) -> None:
    assert client.value(command) == {}
    assert bench.machine.calls == [call]


def test_the_dirty_log_is_switched(bench: Bench, client: Client) -> None:
    client.value("xen-set-global-dirty-log", enable=True)
    client.value("xen-set-global-dirty-log", enable=False)
    assert bench.machine.calls == ["dirty_log True", "dirty_log False"]


def test_libxls_save_leaves_nothing_of_an_earlier_longer_state(
    bench: Bench, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "qemu-save.7"
    path.write_bytes(b"much longer earlier state")
    client.value("cont")
    client.value("stop")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    number = client.value("add-fd", (fd,))["fdset-id"]
    os.close(fd)
    client.value("xen-save-devices-state", live=False, filename=f"/dev/fdset/{number}")
    assert path.read_bytes() == b"state"
    assert bench.machine.calls == ["cont", "stop", "save live=False in paused"]
    client.value("cont")
    assert bench.machine.state == "running"


def test_two_saves_through_one_descriptor_do_not_append(client: Client, tmp_path: Path) -> None:
    with open(tmp_path / "f", "wb") as file:
        client.value("add-fd", (file.fileno(),))
    for _ in range(2):
        client.value("xen-save-devices-state", filename="/dev/fdset/0")
    assert (tmp_path / "f").read_bytes() == b"state"


def test_a_running_machine_is_stopped_for_its_save_and_runs_again(
    bench: Bench, client: Client, tmp_path: Path
) -> None:
    client.value("cont")
    client.value("xen-save-devices-state", filename=f"{tmp_path}/s")
    assert bench.machine.calls == ["cont", "stop", "save live=True in paused", "cont"]
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    bench.machine.failure = HostError("write of the state: disk full", 28)
    assert client.refusal("stop") == ("GenericError", "write of the state: disk full")


def test_a_save_that_fails_lets_the_machine_run_again(
    bench: Bench, client: Client, tmp_path: Path
) -> None:
    client.value("cont")
    refusal = client.refusal("xen-save-devices-state", filename=f"{tmp_path}/no/such")
    assert refusal == (
        "GenericError",
        f"Unable to open {tmp_path}/no/such: No such file or directory",
    )
    assert bench.machine.state == "running"


def test_a_set_without_a_member_of_the_right_mode_is_refused(
    client: Client, tmp_path: Path
) -> None:
    (tmp_path / "f").write_bytes(b"")
    with open(tmp_path / "f", "rb") as file:
        client.value("add-fd", (file.fileno(),))
    _, text = client.refusal("xen-save-devices-state", filename="/dev/fdset/0")
    assert text == "Unable to open /dev/fdset/0: Permission denied"


def test_the_fitting_member_of_a_set_is_taken(client: Client, tmp_path: Path) -> None:
    (tmp_path / "r").write_bytes(b"")
    with open(tmp_path / "r", "rb") as reader, open(tmp_path / "w", "wb") as writer:
        client.value("add-fd", (reader.fileno(),), fdset_id=5)
        client.value("add-fd", (writer.fileno(),), fdset_id=5)
    client.value("xen-save-devices-state", filename="/dev/fdset/5")
    assert (tmp_path / "w").read_bytes() == b"state"


def test_load_reads_what_was_saved_but_not_into_a_running_machine(
    bench: Bench, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "s").write_bytes(b"saved")
    client.value("xen-load-devices-state", filename=f"{tmp_path}/s")
    assert bench.machine.loaded == b"saved"
    client.value("cont")
    _, text = client.refusal("xen-load-devices-state", filename=f"{tmp_path}/s")
    assert text == "Cannot update device state while vm is running"


def test_descriptors_are_closed_when_the_last_client_leaves(bench: Bench, tmp_path: Path) -> None:
    stays, goes = bench.client(), bench.client()
    with open(tmp_path / "f", "wb") as file:
        goes.value("add-fd", (file.fileno(),))
    goes.close()
    bench.loop.run_until(lambda: bench.entrance._clients == 1)
    assert len(stays.value("query-fdsets")) == 1
    stays.close()
    bench.loop.run_until(lambda: bench.entrance._clients == 0)
    assert bench.client().value("query-fdsets") == []


def test_vcpus_are_listed_and_plugged_as_libxl_does(bench: Bench, client: Client) -> None:
    assert [one["cpu-index"] for one in client.value("query-cpus-fast")] == [0]
    kinds = client.value("query-hotpluggable-cpus")
    assert len(kinds) == 3
    assert isinstance(kinds[0]["type"], str)
    place: dict[str, Any] = {"socket_id": 2, "core_id": 0, "thread_id": 0}
    assert client.value("device_add", id="cpu-2", driver=kinds[0]["type"], **place) == {}
    assert bench.machine.vcpus == [0, 2]
    assert [one["cpu-index"] for one in client.value("query-cpus-fast")] == [0, 2]
    _, text = client.refusal("device_add", id="cpu-2", driver=kinds[0]["type"], **place)
    assert text == "CPU[2] with APIC ID 2 exists"


def test_every_pci_function_has_a_qdev_id(client: Client) -> None:
    (bus,) = client.value("query-pci")
    assert bus["bus"] == 0
    assert [(one["slot"], one["function"], one["qdev_id"]) for one in bus["devices"]] == [
        (0, 0, ""),
        (4, 0, "edu0"),
    ]
    device = bus["devices"][1]
    assert (device["irq"], device["irq_pin"]) == (11, 1)
    assert device["regions"] == [
        {
            "bar": 0,
            "type": "memory",
            "address": 0xF0000000,
            "size": 0x1000,
            "prefetch": False,
            "mem_type_64": False,
        },
        {"bar": 4, "type": "io", "address": -1, "size": 16},
    ]


def test_a_medium_is_changed_as_xl_cd_insert_does(
    bench: Bench, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "iso").write_bytes(b"iso image")
    client.value("query-version")
    client.value("eject", id="ide-5632")
    with open(tmp_path / "iso", "rb") as file:
        fdset = client.value("add-fd", (file.fileno(),), opaque="raw:x.iso")["fdset-id"]
    client.value(
        "blockdev-change-medium", id="ide-5632", filename=f"/dev/fdset/{fdset}", format="raw"
    )
    assert bench.machine.calls == ["eject ide-5632 False", "insert ide-5632 raw True"]
    assert bench.machine.media["ide-5632"] == b"iso image"


def test_a_locked_tray_is_the_machines_to_refuse(loop: MiniLoop, tmp_path: Path) -> None:
    bench = Bench(loop, tmp_path / "q", Refusing())
    assert "is locked" in bench.client().refusal("eject", id="ide-5632")[1]
    bench.close()


def test_passwords_are_taken_where_vnc_was_asked_for_and_is_not_served(
    bench: Bench, client: Client
) -> None:
    assert client.refusal("change-vnc-password", password="p")[1] == "Could not set password"
    bench.machine.vnc_requested = True
    assert client.value("change-vnc-password", password="p") == {}
    assert client.value("set_password", protocol="vnc", password="p") == {}
    assert client.value("query-vnc") == {"enabled": False}


def test_the_probe_of_newer_libxl_finds_run_with(client: Client) -> None:
    options = client.value("query-command-line-options")
    assert all(isinstance(one["option"], str) for one in options)
    (run_with,) = (one for one in options if one["option"] == "run-with")
    assert {one["name"] for one in run_with["parameters"]} == {"chroot", "user"}


def test_chardevs_are_listed(client: Client) -> None:
    assert client.value("query-chardev") == [
        {"label": "serial0", "filename": "pty:/dev/pts/3", "frontend-open": True}
    ]


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("info version", "7.2.0\r\n"),
        ("info status", "VM status: paused (prelaunch)\r\n"),
        ("info chardev", "serial0: filename=pty:/dev/pts/3\r\n"),
        ("info name", ""),
        ("info ioreq", "12 requests\r\n"),
        ("frobnicate now", "unknown command: 'frobnicate'\r\n"),
        ("info frobnicate", "unknown command: 'info frobnicate'\r\n"),
        ("", ""),
        ("system_wakeup", "Error: wake-up from suspend is not supported by this guest\r\n"),
        ("cont", ""),
    ],
)
def test_a_line_for_people_is_answered_in_lines(client: Client, line: str, answer: str) -> None:
    assert client.value("human-monitor-command", command_line=line) == answer


def test_info_pci_lists_every_function(client: Client) -> None:
    text = client.value("human-monitor-command", command_line="info pci")
    assert "  Bus  0, device   4, function 0:\r\n" in text
    assert "BAR0: 32 bit memory at 0xf0000000 [0xf0000fff].\r\n" in text
    assert "IRQ 11, pin A\r\n" in text
