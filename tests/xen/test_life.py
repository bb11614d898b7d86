"""A guest's life under a stock xl: create, look, pause, plug, reboot, power off, destroy."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from .support import GUESTS, IOREQD, Guest, Host, build_firmware

MakeGuest = Callable[..., Guest]

KEYBOARD_CONTROLLER, RESET_CONTROL, PORT_92, SLEEP, WAIT, ON_REQUEST = range(6)
"""HOW of guests/ends.c."""

COMMANDS = (
    ("list", "{name}"),
    ("list", "-l", "{name}"),
    ("vcpu-list", "{name}"),
    ("pause", "{name}"),
    ("unpause", "{name}"),
    ("qemu-monitor-command", "{name}", "info version"),
    ("qemu-monitor-command", "{name}", "info pci"),
    ("vcpu-set", "--ignore-host", "{name}", "2"),
    ("vcpu-set", "{name}", "2"),
    ("vcpu-set", "{name}", "1"),
    ("mem-set", "{name}", "32"),
    ("trigger", "{name}", "power"),
    ("trigger", "{name}", "reset"),
    ("shutdown", "{name}"),
    ("reboot", "{name}"),
    ("reboot", "-F", "{name}"),
    ("pci-list", "{name}"),
    ("network-list", "{name}"),
    ("rename", "{name}", "{name}x"),
    ("rename", "{name}x", "{name}"),
    ("destroy", "{name}"),
)
"""What an operator says to a guest without PV drivers, and QEMU's guest is told alike."""


def test_seabios_speaks_on_the_serial_console(host: Host, make_guest: MakeGuest) -> None:
    guest = make_guest("bios", memory=64)
    guest.create("-p")
    console = guest.serial()
    try:
        host.xl("unpause", guest.name)
        console.wait_for(r"SeaBIOS \(version ", 60)
        console.wait_for(r"No bootable device", 60)
    finally:
        console.kill()
    guest.destroy()


def test_list_shows_the_guest_as_it_is(host: Host, make_guest: MakeGuest) -> None:
    guest = make_guest("list", firmware=host.firmware("ends", HOW=WAIT), vcpus=2)
    guest.create()
    guest.wait_for("GUEST start")
    (shown,) = json.loads(host.xl("list", "-l", guest.name).stdout)
    assert shown["domid"] == guest.domid
    assert shown["config"]["c_info"]["name"] == guest.name
    assert shown["config"]["b_info"]["device_model"] == IOREQD
    assert host.run(["cat", f"/proc/{guest.pid}/cmdline"]).stdout.count("ioreqd-dm") == 1


def test_pause_stops_the_guest_and_unpause_lets_it_go_on(host: Host, make_guest: MakeGuest) -> None:
    guest = make_guest("pause", firmware=host.firmware("ticks"))
    guest.create()
    guest.wait_for("TICK 3$")
    host.xl("pause", guest.name)
    ticks = len(guest.lines())
    state = host.xl("list", guest.name).stdout.splitlines()[1].split()[4]
    assert "p" in state
    assert len(guest.lines()) <= ticks + 1
    host.xl("unpause", guest.name)
    guest.wait_for(f"TICK {ticks + 5}$")


@pytest.mark.parametrize("model", [IOREQD, None], ids=["ioreqd", "qemu"])
def test_vcpu_set_brings_a_vcpu_and_the_guest_is_told(
    host: Host, make_guest: MakeGuest, model: str | None
) -> None:
    firmware = host.firmware("vcpus")
    guest = make_guest("plug", firmware=firmware, model=model, extra={"maxvcpus": 2})
    guest.create()
    guest.wait_for("GUEST start")
    host.xl("vcpu-set", "--ignore-host", guest.name, "2")
    guest.wait_for("VCPU 1 runs")
    guest.wait_pass()


def test_commands_end_as_with_qemu(host: Host, make_guest: MakeGuest) -> None:
    def statuses(guest: Guest) -> dict[str, int]:
        guest.create()
        guest.wait_for("GUEST start")
        found = {}
        for words in COMMANDS:
            command = [word.format(name=guest.name) for word in words]
            found[" ".join(words)] = host.xl(*command, check=False).status
        return found

    settings = {"firmware": host.firmware("ends", HOW=WAIT), "extra": {"maxvcpus": 2}}
    ours = statuses(make_guest("ours", **settings))
    theirs = statuses(make_guest("qemu", model=None, **settings))
    assert ours == theirs


def test_the_monitor_tells_the_machine(host: Host, make_guest: MakeGuest) -> None:
    guest = make_guest("hmp", firmware=host.firmware("ends", HOW=WAIT))
    guest.create()
    assert "7.2.0" in host.xl("qemu-monitor-command", guest.name, "info version").output
    pci = host.xl("qemu-monitor-command", guest.name, "info pci").output
    assert "8086:1237" in pci
    assert "5853:0001" in pci


def reboot(host: Host, make_guest: MakeGuest, how: int, ready: str, *command: str) -> Guest:
    """Run a guest that ends as ``how`` says, after ``xl command`` if there is one.

    Gives the guest with the domain that has come in its place, which stays.
    """
    firmware = host.share / "reboot.elf"
    build_firmware(GUESTS / "ends.c", firmware, {"HOW": how})
    extra = {"on_reboot": "restart"}
    guest = make_guest("reboot", firmware=f"/share/{firmware.name}", extra=extra)
    guest.create("-p")
    first, pid = guest.domid, guest.pid
    # xl reads the file again for the domain that comes next.
    build_firmware(GUESTS / "ends.c", firmware, {"HOW": WAIT})
    host.xl("unpause", guest.name)
    guest.wait_for(ready)
    if command:
        host.xl(*command, guest.name)
    host.wait_domain(first + 1)
    assert guest.follow() == first + 1
    assert not [line for line in host.log.lines(first) if line.startswith("FAIL")]
    assert host.run(["test", "-e", f"/proc/{pid}"], check=False).status == 1
    return guest


@pytest.mark.parametrize("how", [KEYBOARD_CONTROLLER, RESET_CONTROL, PORT_92])
def test_a_guest_that_resets_itself_comes_back(host: Host, make_guest: MakeGuest, how: int) -> None:
    guest = reboot(host, make_guest, how, "GUEST start")
    guest.wait_for("GUEST start")


def test_xl_reboot_brings_the_guest_back(host: Host, make_guest: MakeGuest) -> None:
    guest = reboot(host, make_guest, ON_REQUEST, "GUEST waits", "reboot")
    guest.wait_for("GUEST start")
    assert host.log.lines(guest.domid - 1)[-1] == "ASKED reboot"


def test_xl_shutdown_ends_the_guest(host: Host, make_guest: MakeGuest) -> None:
    before = host.residue()
    guest = make_guest("off", firmware=host.firmware("ends", HOW=ON_REQUEST))
    guest.create()
    guest.wait_for("GUEST waits")
    host.xl("shutdown", "-w", guest.name)
    host.wait_residue(before)
    assert guest.lines()[-1] == "ASKED poweroff"


def test_sleep_type_5_powers_the_guest_off_and_leaves_nothing(
    host: Host, make_guest: MakeGuest
) -> None:
    before = host.residue()
    guest = make_guest("off", firmware=host.firmware("ends", HOW=SLEEP))
    guest.create("-p")
    host.xl("unpause", guest.name)
    guest.wait_gone()
    assert guest.lines() == ["GUEST start"]
    host.wait_residue(before)


def test_destroy_leaves_nothing(host: Host, make_guest: MakeGuest) -> None:
    before = host.residue()
    guest = make_guest("end", firmware=host.firmware("ends", HOW=WAIT))
    guest.create()
    guest.wait_for("GUEST start")
    assert host.servers(guest.domid) == [0]
    guest.destroy()
    host.wait_residue(before)


def test_xl_defaults_start_with_warnings(host: Host, make_guest: MakeGuest) -> None:
    host.run("/usr/sbin/xenlab-network")
    before = host.residue()
    guest = make_guest(
        "plain",
        firmware=host.firmware("ends", HOW=WAIT),
        extra={"vga": None, "vnc": None, "serial": None, "vif": ["bridge=xenbr0"]},
    )
    guest.create(timeout=90)
    guest.wait_for("GUEST start")
    log = guest.log()
    assert "vnc" in log
    assert "cirrus-vga" in log
    assert "rtl8139" in log
    guest.destroy()
    host.wait_residue(before)
