"""A user's devices from files, in a guest of their own and beside a stock QEMU (guests/card.c)."""

from __future__ import annotations

import signal
from collections.abc import Callable

from tools.xenlab import Command

from .bios import build_bios
from .support import COMMON, Guest, Host

DEVICES = (("card", "Card,addr=10"), ("mmio_only", "MmioOnly"), ("port_only", "PortOnly"))
ATTACH = "/usr/local/bin/ioreqd"


def specifications(host: Host) -> list[str]:
    """The devices, as -device and --device take them."""
    provide = host.provide
    return [f"{provide(COMMON / 'devices' / f'{name}.py')}:{rest}" for name, rest in DEVICES]


def arguments(host: Host) -> list[str]:
    """The devices as ioreqd-dm's arguments."""
    return [word for text in specifications(host) for word in ("-device", text)]


def attach(host: Host, guest: Guest, devices: list[str]) -> Command:
    """Attach devices to a guest; they are there when this returns."""
    words = [f"--device {text}" for text in devices]
    command = host.lab.start(f"exec {ATTACH} attach {guest.domid} {' '.join(words)}")
    command.wait_for("ready", 30.0)
    return command


def beside_qemu(host: Host, make_guest: Callable[..., Guest], **defines: int) -> Guest:
    """A guest of the stock QEMU, paused before its first instruction.

    It takes the card's INTx from the I/O APIC only: newer QEMUs (10.0) do not pass the routes of
    the PIIX3's links on to Xen as a guest sets them.
    """
    guest = make_guest("beside", firmware=host.firmware("card", BESIDE=1, **defines), model=None)
    guest.create("-p")
    assert host.servers(guest.domid) == [0]
    return guest


def go_on(guest: Guest) -> None:
    """Wait until a guest with STAY has done something since this was called."""
    told = sum(line.startswith("alive ") for line in guest.lines())
    guest.wait_for(rf"^alive {told + 2}$", 60.0)


def test_devices_given_to_xl_create_reach_the_guest(
    host: Host, make_guest: Callable[..., Guest]
) -> None:
    guest = make_guest(
        "user",
        firmware=host.firmware("card"),
        extra={"device_model_args_hvm": arguments(host)},
    )
    guest.create()
    guest.wait_for("^BARs set by the guest$")
    guest.wait_pass()
    guest.wait_gone()


def test_hvmloader_finds_a_users_card_and_sets_its_bars_and_interrupt(
    host: Host, make_guest: Callable[..., Guest]
) -> None:
    guest = make_guest(
        "user",
        extra={
            "bios_path_override": build_bios(host, "card_bios"),
            "device_model_args_hvm": arguments(host),
        },
    )
    guest.create()
    guest.wait_for("^BARs found$")
    guest.wait_pass()
    guest.wait_gone()


def test_devices_attached_beside_qemu_reach_the_guest_until_it_ends(
    host: Host, make_guest: Callable[..., Guest]
) -> None:
    guest = beside_qemu(host, make_guest)
    command = attach(host, guest, specifications(host))
    assert host.servers(guest.domid) == [0, 1]
    host.xl("unpause", guest.name)
    guest.wait_pass()
    guest.wait_gone()
    result = command.wait(30.0)
    assert result.status == 0, result.output


def test_an_attachment_ends_by_a_signal_and_leaves_the_guest_to_qemu(
    host: Host, make_guest: Callable[..., Guest]
) -> None:
    guest = beside_qemu(host, make_guest, STAY=1)
    devices = specifications(host)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        command = attach(host, guest, devices)
        if number == signal.SIGTERM:
            host.xl("unpause", guest.name)
            guest.wait_pass()
        command.kill(number)
        result = command.wait(30.0)
        assert result.status == 0, result.output
        assert host.servers(guest.domid) == [0]
    host.xl("qemu-monitor-command", guest.name, "info status")
    go_on(guest)


def test_an_attachment_that_was_killed_is_succeeded_by_the_next(
    host: Host, make_guest: Callable[..., Guest]
) -> None:
    before = host.residue()
    guest = beside_qemu(host, make_guest, STAY=1)
    command = attach(host, guest, specifications(host))
    host.xl("unpause", guest.name)
    guest.wait_pass()
    command.kill(signal.SIGKILL)
    command.wait(30.0)
    assert host.servers(guest.domid) == [0, 1]
    command = attach(host, guest, specifications(host))
    go_on(guest)
    assert len(host.servers(guest.domid)) == 2
    command.kill(signal.SIGTERM)
    assert command.wait(30.0).status == 0
    assert host.servers(guest.domid) == [0]
    go_on(guest)
    guest.destroy()
    host.wait_residue(before)
