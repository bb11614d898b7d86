"""The life of real guests by the real commands: ends and actions, save and restore, leftovers."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from tests.xen_firmware import require_firmware

from .life_host import LifeHost

POWEROFF, REBOOT, CRASH, WATCHDOG, SOFT_RESET = 0, 1, 3, 4, 5


@pytest.fixture
def host(tmp_path: Path) -> Iterator[LifeHost]:
    host = LifeHost(tmp_path)
    yield host
    host.close()


def test_a_guest_that_powers_itself_off_is_gone_with_all_that_it_had(host: LifeHost) -> None:
    domid = host.create(host.config("off", host.guest("ends", REASON=POWEROFF)))
    host.wait_gone(domid)
    assert "reason 0 (poweroff)\n" in host.journal("off")
    host.wait_nothing_left()


def test_s5_1_a_guest_that_resets_itself_softly_goes_on_by_default(host: LifeHost) -> None:
    domid = host.create(host.config("soft", host.guest("ends", REASON=SOFT_RESET)))
    lines = host.wait_line(domid, "GUEST goes on")
    assert lines == ["GUEST ends with 5", "GUEST goes on"]


def test_before_seed_002_the_default_was_a_restart_which_is_a_new_domain(host: LifeHost) -> None:
    kernel = host.guest("ends", REASON=SOFT_RESET)
    domid = host.create(host.config("old", kernel, on_soft_reset="restart"))
    host.wait("no new domain", lambda: host.info("old")["domid"] > domid)


@pytest.mark.parametrize(
    ("reason", "key"),
    [(REBOOT, "on_reboot"), (CRASH, "on_crash"), (WATCHDOG, "on_watchdog")],
)
def test_a_restart_makes_the_guest_anew_under_its_name(
    host: LifeHost, reason: int, key: str
) -> None:
    config = host.config("anew", host.guest("ends", REASON=reason), **{key: "restart"})
    domid = host.create(config)
    rows = [host.wait("no new domain", partial(host.info, str(domid + n))) for n in range(1, 3)]
    assert [row["name"] for row in rows] == ["anew", "anew"]
    assert rows[0]["uuid"] == rows[1]["uuid"]
    host.wait_gone(domid)


def test_preserve_keeps_the_dead_domain_until_it_is_destroyed(host: LifeHost) -> None:
    kernel = host.guest("ends", REASON=CRASH)
    domid = host.create(host.config("kept", kernel, on_crash="preserve"))
    host.wait("it runs on", lambda: host.info("kept")["state"] == "---sc-")
    assert host.lines(domid) == ["GUEST ends with 3"]
    host.ioreqd("destroy", "kept")
    host.wait_nothing_left()


def test_rename_restart_keeps_the_dead_domain_aside_and_starts_another(host: LifeHost) -> None:
    kernel = host.guest("ends", REASON=CRASH)
    domid = host.create(host.config("twin", kernel, on_crash="rename-restart"))
    first = host.wait("it is not renamed", lambda: renamed(host, domid))
    assert first["name"].startswith("twin-20")
    second = host.wait("no second one", lambda: host.info(str(domid + 1)))
    assert second["uuid"] != first["uuid"]
    host.ioreqd("destroy", "twin", status=None)
    for place in host.places.all():
        host.ioreqd("destroy", str(place.domid), status=None)


def renamed(host: LifeHost, domid: int) -> object:
    row = host.info(str(domid))
    return row if row["name"] != "twin" else None


def test_coredump_destroy_writes_a_core_that_elf_tools_read(host: LifeHost) -> None:
    kernel = host.guest("ends", REASON=CRASH)
    domid = host.create(host.config("dumps", kernel, on_crash="coredump-destroy"))
    host.wait_gone(domid)
    (core,) = (host.folder / "ioreqd" / "dump").glob("*")
    data = core.read_bytes()
    elf = ELFFile(io.BytesIO(data))
    assert (elf.header.e_type, elf.header.e_machine) == ("ET_CORE", "EM_X86_64")
    parts: list[Any] = list(elf.iter_segments())
    notes, *memory = parts
    own, status = list(notes.iter_notes())
    told = json.loads(own["n_desc"])
    assert (told["name"], told["reason"]) == ("dumps", CRASH)
    assert status["n_type"] == "NT_PRSTATUS"
    assert memory[0].header.p_paddr == 0
    image: Any = ELFFile(io.BytesIO(kernel.read_bytes())).get_section_by_name(".rodata")
    at = image["sh_addr"] - memory[1].header.p_paddr
    assert memory[1].data()[at : at + image["sh_size"]] == image.data()
    assert told["engine"]["processors"][0]["rip"] > 0x100000


def test_coredump_restart_writes_a_core_and_starts_another(host: LifeHost) -> None:
    kernel = host.guest("ends", REASON=CRASH)
    domid = host.create(host.config("again", kernel, on_crash="coredump-restart"))
    host.wait("no second one", lambda: host.info("again")["domid"] > domid)
    assert list((host.folder / "ioreqd" / "dump").glob("again-*-1.core"))


def test_a_core_that_cannot_be_written_does_not_hold_up_the_end(host: LifeHost) -> None:
    kernel = host.guest("ends", REASON=CRASH)
    (host.folder / "ioreqd" / "dump").write_text("no folder")
    domid = host.create(
        host.config("nocore", kernel, on_crash="coredump-destroy"),
        "--dump-dir",
        str(host.folder / "ioreqd" / "dump"),
    )
    host.wait_gone(domid)
    assert "no core: write " in host.journal("nocore")


def test_pause_and_unpause_hold_the_guest_and_let_it_go_on(host: LifeHost) -> None:
    domid = host.create(host.config("held", host.guest("counts")), "-p")
    assert host.info("held")["state"] == "--p---"
    assert host.lines(domid) == []
    host.ioreqd("unpause", "held")
    host.wait_line(domid, "COUNT 500")
    host.ioreqd("pause", "held")
    host.ioreqd("pause", "held")
    said = host.lines(domid)
    host.ioreqd("list")
    assert host.lines(domid) == said
    host.ioreqd("unpause", str(domid))
    host.wait("it stands still", lambda: len(host.lines(domid)) > len(said) + 1)


def test_shutdown_and_reboot_ask_first_and_force_when_told_to(host: LifeHost) -> None:
    domid = host.create(host.config("power", host.guest("counts")))
    done = host.ioreqd("shutdown", "power", status=1)
    assert done.stderr.count("\n") == 1
    assert "no paravirtual drivers" in done.stderr
    host.ioreqd("reboot", "-F", "power")
    host.wait("no new domain", lambda: host.info("power")["domid"] > domid)
    host.ioreqd("shutdown", "-F", "-w", "power")
    host.wait_nothing_left()


@pytest.mark.parametrize("vcpus", [1, 2])
def test_a_saved_guest_goes_on_where_it_was(host: LifeHost, vcpus: int) -> None:
    kernel = host.guest("counts", SECOND=1) if vcpus == 2 else host.guest("counts")
    domid = host.create(host.config("saved", kernel, vcpus=vcpus))
    host.wait_line(domid, "COUNT 500")
    host.ioreqd("save", "saved", host.folder / "file")
    host.wait_nothing_left()
    done = host.ioreqd("restore", host.folder / "file", "--engine", "unicorn")
    again = int(done.stdout.split(",")[0].removeprefix("domain "))
    assert again != domid
    host.wait("it stands still", lambda: len(host.lines(again)) > 2)
    assert not [line for line in host.lines(again) if not line.startswith("COUNT")]
    assert int(host.lines(again)[0].split()[1]) > 500


def test_a_checkpoint_lets_the_guest_run_on(host: LifeHost) -> None:
    domid = host.create(host.config("check", host.guest("counts")))
    host.wait_line(domid, "COUNT 500")
    for _ in range(2):
        host.ioreqd("save", "-c", "check", host.folder / "file")
    said = len(host.lines(domid))
    host.wait("it stands still", lambda: len(host.lines(domid)) > said + 1)
    assert host.info("check")["state"] == "r-----"
    assert not [line for line in host.lines(domid) if "FAIL" in line]


def test_a_save_that_fails_lets_the_guest_run_on(host: LifeHost) -> None:
    domid = host.create(host.config("fails", host.guest("counts")))
    host.wait_line(domid, "COUNT 500")
    done = host.ioreqd("save", "fails", host.folder / "no" / "file", status=1)
    assert done.stderr.startswith("ioreqd: save: open ")
    said = len(host.lines(domid))
    host.wait("it stands still", lambda: len(host.lines(domid)) > said + 1)


def test_a_cut_or_changed_file_is_refused_and_no_domain_is_left(host: LifeHost) -> None:
    host.create(host.config("cut", host.guest("counts")), "-p")
    host.ioreqd("save", "cut", host.folder / "file")
    data = (host.folder / "file").read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    for wrong in (data[: len(data) // 2], data[:-1], bytes(flipped), data + b"x", b"", b"x" * 99):
        (host.folder / "wrong").write_bytes(wrong)
        done = host.ioreqd("restore", host.folder / "wrong", status=2)
        assert done.stderr.count("\n") == 1
    assert len(host.ioreqd("list").stdout.splitlines()) == 1
    host.wait_nothing_left()


def test_what_a_dead_keeper_left_is_recognised_and_removed(host: LifeHost) -> None:
    domid = host.create(host.config("dead", host.guest("counts")))
    row = host.info("dead")
    os.kill(row["pid"], signal.SIGKILL)
    host.wait("its device model stays", lambda: row["device_model"] not in host.processes())
    assert (host.run_dir / str(domid)).exists()
    assert len(host.ioreqd("list").stdout.splitlines()) == 1
    host.wait_nothing_left()
    assert host.create(host.config("dead", host.guest("counts"))) == domid + 1


def test_a_keeper_that_is_told_to_end_destroys_its_guest(host: LifeHost) -> None:
    host.create(host.config("told", host.guest("counts")))
    os.kill(host.info("told")["pid"], signal.SIGTERM)
    host.wait_nothing_left()


def test_the_foreground_stays_until_the_guest_is_gone(host: LifeHost) -> None:
    config = host.config("fore", host.guest("ends", REASON=POWEROFF))
    done = host.ioreqd("create", "-F", "--engine", "unicorn", config)
    assert done.stdout == "domain 1, fore\n"
    host.wait_nothing_left()


def test_the_console_shows_what_a_guest_without_a_serial_port_says(host: LifeHost) -> None:
    domid = host.create(host.config("talks", host.guest("ends"), on_poweroff="preserve"))
    host.wait("it goes on", lambda: host.info("talks")["reason"])
    shown = host.folder / "shown"
    viewer = host.start("-m", "tools.cli.main", "console", "talks", output=shown)
    host.wait("nothing is shown", lambda: shown.read_text() == "GUEST ends with 0\n")
    host.ioreqd("destroy", str(domid))
    assert viewer.wait(60) == 0


def test_the_console_is_the_serial_port_s_terminal_if_there_is_one(host: LifeHost) -> None:
    config = host.config("types", host.guest("ends"), on_poweroff="preserve", serial="pty")
    host.create(config)
    tty = host.ask("types", "console")["tty"]
    assert Path(tty).is_char_device()
    shown = host.folder / "shown"
    viewer = host.start("-m", "tools.cli.main", "console", "types", output=shown)
    host.ioreqd("destroy", "types")
    assert viewer.wait(60) in (0, 1)


def test_a_keeper_that_hangs_is_ended_by_destroy(host: LifeHost) -> None:
    host.create(host.config("hangs", host.guest("counts")))
    row = host.info("hangs")
    os.kill(row["pid"], signal.SIGSTOP)
    host.ioreqd("destroy", "--timeout", "1", "hangs")
    host.wait_nothing_left()


def test_config_tells_what_was_understood_of_the_file(host: LifeHost) -> None:
    host.create(host.config("tells", host.guest("counts"), vcpus=2), "-p")
    told = json.loads(host.ioreqd("config", "tells").stdout)
    assert (told["name"], told["vcpus"], told["on_soft_reset"]) == ("tells", 2, "soft-reset")
    assert len(told["uuid"]) == 36


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"firmware_override": "/nowhere"}, "there is no such file"),
        ({"firmware_override": "/etc/passwd"}, "not an ELF file"),
        (
            {"device_model_override": "/nowhere", "device_model_version": "qemu-xen"},
            "not executable",
        ),
        ({"device_model_args_hvm": ["-device", "/nowhere.py:Class"]}, "/nowhere.py"),
        ({"memory": 1}, "less than 2 MiB"),
        ({"name": "a/b"}, "name"),
        ({"type": "pv"}, "a pv guest needs one"),
        ({"on_crash": "explode"}, "on_crash"),
    ],
)
def test_a_mistake_is_one_readable_line_and_no_domain_is_left(
    host: LifeHost, settings: dict[str, object], words: str
) -> None:
    config = host.config("wrong", host.guest("counts"))
    values = {"firmware_override": str(host.guest("counts")), **settings}
    extra = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    done = host.ioreqd("create", config, *extra, status=None)
    started = "did not start" in done.stderr
    assert done.returncode == (1 if started else 2), done.stderr
    assert words in done.stderr
    assert started or done.stderr.count("\n") == 1
    host.wait_nothing_left()


def test_a_name_is_given_once(host: LifeHost) -> None:
    config = host.config("once", host.guest("counts"))
    host.create(config, "-p")
    done = host.ioreqd("create", config, status=2)
    assert done.stderr == "ioreqd: there is a domain named once already\n"
    assert (
        host.ioreqd("destroy", "twice", status=2).stderr == "ioreqd: there is no domain 'twice'\n"
    )


def test_a_run_directory_that_is_open_to_others_is_refused(host: LifeHost) -> None:
    host.run_dir.chmod(0o755)
    done = host.ioreqd("list", status=2)
    assert "mode 0700" in done.stderr


def test_hvmloader_and_seabios_run_are_saved_restored_and_rebooted(host: LifeHost) -> None:
    hvmloader, seabios = require_firmware()
    settings = {"memory": 32, "bios_path_override": str(seabios)}
    domid = host.create(host.config("bios", hvmloader, **settings))
    last = "No bootable device.  Retrying in 60 seconds."
    assert "HVM Loader" in host.wait_line(domid, last)[0]
    host.ioreqd("soft-reset", "bios")
    host.ioreqd("save", "bios", host.folder / "file")
    host.ioreqd("restore", host.folder / "file", "--engine", "unicorn")
    host.ioreqd("reboot", "-F", "bios")
    host.wait("no new domain", lambda: host.info("bios")["domid"] == domid + 2)
    host.wait_line(domid + 2, last)


DAMAGES: dict[str, Callable[[bytearray], object]] = {
    "cut in its header": lambda elf: elf.__delitem__(slice(40, None)),
    "cut in its segments": lambda elf: elf.__delitem__(slice(100, None)),
    "empty": lambda elf: elf.clear(),
    "of 64 bits": lambda elf: elf.__setitem__(4, 2),
    "big-endian": lambda elf: elf.__setitem__(5, 2),
    "for another machine": lambda elf: elf.__setitem__(18, 8),
    "an object file": lambda elf: elf.__setitem__(16, 1),
    "entered nowhere": lambda elf: elf.__setitem__(slice(24, 28), b"\xff" * 4),
    "with headers beyond its end": lambda elf: elf.__setitem__(slice(28, 32), b"\xff" * 4),
    "without headers": lambda elf: elf.__setitem__(slice(44, 46), b"\0\0"),
    "with many headers": lambda elf: elf.__setitem__(slice(44, 46), b"\xff\xff"),
    "loaded beyond memory": lambda elf: elf.__setitem__(slice(64, 68), b"\0\0\0\xe0"),
    "with a huge segment": lambda elf: elf.__setitem__(slice(72, 76), b"\0\0\0\x70"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_malformed_elf_file_is_one_readable_line_and_no_domain(
    host: LifeHost, damage: str
) -> None:
    elf = bytearray(host.guest("counts").read_bytes())
    DAMAGES[damage](elf)
    (host.folder / "bad.elf").write_bytes(elf)
    done = host.ioreqd("create", host.config("bad", host.folder / "bad.elf"), status=2)
    assert done.stderr.count("\n") == 1
    assert "bad.elf" in done.stderr
    host.wait_nothing_left()
