"""The argument vector of libxl (Xen 4.17 to 4.23) row by row, and what is made of all else."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dm.control.argv import Options, parse
from dm.control.argv_help import help_text, version_text
from dm.control.argv_report import check, unmodelled, user_device
from dm.control.argv_table import FLAG, OPTIONS
from dm.errors import ConfigError
from tests.unit.control.oracle import NO_QEMU, QEMU

RUN = "/var/run/xen"
# (condition in the contract's table, arguments, fields of Options that they must give)
ROWS: list[tuple[str, list[str], dict[str, Any]]] = [
    ("1 domain", ["-xen-domid", "7"], {"domid": 7, "probe": False}),
    ("2 shutdown", ["-no-shutdown"], {"no_shutdown": True}),
    ("3b restrict", ["-S"], {"stopped": True}),
    ("7 defaults", ["-nodefaults", "-no-user-config"], {"nodefaults": True}),
    ("8 name", ["-name", "guest--incoming"], {"name": "guest--incoming"}),
    ("8 name with a comma", ["-name", "a,b"], {"name": "a,b"}),
    ("8 name with switches", ["-name", "a,process=b"], {"name": "a"}),
    (
        "9 vnc",
        ["-vnc", "127.0.0.1:0,password=on,to=99"],
        {"vnc": {"vnc": "127.0.0.1:0", "password": "on", "to": "99"}},
    ),
    ("9' vnc none", ["-vnc", "none"], {"vnc": None}),
    ("10 display", ["-display", "none"], {"displays": [{"type": "none"}]}),
    (
        "11 sdl",
        ["-display", "none", "-display", "sdl"],
        {"displays": [{"type": "none"}, {"type": "sdl"}]},
    ),
    ("12 keymap", ["-k", "de"], {"keymap": "de"}),
    (
        "13 direct boot",
        ["-kernel", "/k,1", "-initrd", "/r", "-append", "root=/dev/xvda ro quiet"],
        {"kernel": "/k,1", "initrd": "/r", "append": "root=/dev/xvda ro quiet"},
    ),
    ("14 scsi", ["-device", "lsi53c895a"], {"devices": [("lsi53c895a", {})]}),
    ("16 nographic", ["-nographic"], {"nographic": True}),
    (
        "17 spice",
        ["-spice", "port=5900,tls-port=0,addr=::1,disable-ticketing=on,agent-mouse=off"],
        {
            "spice": {
                "port": "5900",
                "tls-port": "0",
                "addr": "::1",
                "disable-ticketing": "on",
                "agent-mouse": "off",
            }
        },
    ),
    ("18 vga", ["-device", "VGA,vgamem_mb=16"], {"devices": [("VGA", {"vgamem_mb": "16"})]}),
    ("19 boot", ["-boot", "order=dca"], {"boot": {"order": "dca"}}),
    ("20a usb", ["-usb", "-usbdevice", "tablet"], {"usb": True, "usbdevices": ["tablet"]}),
    (
        "20b usb 2",
        ["-device", "ich9-usb-ehci1,id=usb,addr=0x1d.0x7,multifunction=on"],
        {"devices": [("ich9-usb-ehci1", {"id": "usb", "addr": "0x1d.0x7", "multifunction": "on"})]},
    ),
    ("22 acpi", ["-no-acpi"], {"no_acpi": True}),
    ("23 smp", ["-smp", "2,maxcpus=4"], {"cpus": 2, "maxcpus": 4}),
    ("23 smp alone", ["-smp", "4"], {"cpus": 4, "maxcpus": 4}),
    (
        "24 nic",
        ["-netdev", "type=tap,id=net0,ifname=vif7.0-emu,br=xenbr0,script=no,downscript=no"],
        {
            "netdevs": [
                {
                    "type": "tap",
                    "id": "net0",
                    "ifname": "vif7.0-emu",
                    "br": "xenbr0",
                    "script": "no",
                    "downscript": "no",
                }
            ]
        },
    ),
    ("25 no nic", ["-net", "none"], {"nets": [{"type": "none"}]}),
    (
        "26 restrict",
        ["-xen-domid-restrict", "-chroot", f"{RUN}/qemu-root-7"],
        {"xen_domid_restrict": True, "chroot": f"{RUN}/qemu-root-7"},
    ),
    ("26 run-with", ["-run-with", "chroot=/c,user=u"], {"chroot": "/c", "runas": "u"}),
    ("27 incoming", ["-incoming", "fd:33"], {"incoming_fd": 33}),
    (
        "29 machine",
        ["-machine", "xenfv,suppress-vmdesc=on,max-ram-below-4g=4026531840"],
        {
            "machine": {
                "type": "xenfv",
                "suppress-vmdesc": "on",
                "max-ram-below-4g": "4026531840",
            }
        },
    ),
    (
        "29 machine without platform device",
        ["-machine", "pc,accel=xen,suppress-vmdesc=on"],
        {"accel": ("xen", {})},
    ),
    ("31 memory", ["-m", "1016"], {"memory_mb": 1016}),
    ("31 memory with unit", ["-m", "size=2G"], {"memory_mb": 2048}),
    (
        "33 cdrom",
        ["-drive", "if=none,readonly=on,id=ide-5632,file=/a,,b.iso,format=raw"],
        {
            "drives": [
                {
                    "if": "none",
                    "readonly": "on",
                    "id": "ide-5632",
                    "file": "/a,b.iso",
                    "format": "raw",
                }
            ]
        },
    ),
    (
        "33 cdrom device",
        ["-device", "ide-cd,id=ide-5632,drive=ide-5632,bus=ide.1,unit=0"],
        {
            "devices": [
                ("ide-cd", {"id": "ide-5632", "drive": "ide-5632", "bus": "ide.1", "unit": "0"})
            ]
        },
    ),
    (
        "34 pv device",
        ["-device", "xen-pvdevice,device-id=0xc000"],
        {"devices": [("xen-pvdevice", {"device-id": "0xc000"})]},
    ),
    ("35 user", ["-runas", "1000:1000"], {"runas": "1000:1000"}),
    (
        "local engine",
        ["-accel", "local,path=/s"],
        {"accel": ("local", {"path": "/s"}), "probe": False},
    ),
    ("log", ["-D", "/l", "-d", "guest_errors"], {"log_file": "/l", "log_items": "guest_errors"}),
    ("global", ["-global", "a.b=c"], {"globals": ["a.b=c"]}),
    ("trace", ["-trace", "enable=x*,file=/t"], {"traces": [{"enable": "x*", "file": "/t"}]}),
    ("object", ["-object", "iothread,id=i"], {"objects": [{"qom-type": "iothread", "id": "i"}]}),
    ("two dashes", ["--xen-domid", "9"], {"domid": 9}),
    (
        "JSON device",
        ["-device", '{"driver":"edu","id":"e","dma_mask":255,"x":true}'],
        {"devices": [("edu", {"id": "e", "dma_mask": "255", "x": "on"})]},
    ),
]


DEVICES = {
    "17' spice agent": "virtio-serial",
    "17' spice agent's port": "virtserialport,chardev=vdagent,name=com.redhat.spice.0",
    "18 cirrus": "cirrus-vga,vgamem_mb=8",
    "18 qxl": "qxl-vga,vram_size_mb=64,ram_size_mb=64",
    "20b usb 1": "piix3-usb-uhci,id=usb",
    "20b usb 2, companion": "ich9-usb-uhci1,masterbus=usb.0,firstport=0,addr=0x1d.0",
    "20b usb 3": "nec-usb-xhci,id=usb",
    "20c usb redirection": "usb-redir,chardev=usbrc1,id=usbrc1",
    "21 sound": "ac97",
    "21 sound hda": "intel-hda",
    "21 sound hda codec": "hda-duplex",
    "24 card": "rtl8139,id=nic0,netdev=net0,mac=00:16:3e:00:00:01",
    "32 ahci": "ahci,id=ahci0",
    "33 scsi disk": "scsi-hd,drive=scsi0-hd1,scsi-id=1",
    "33 ahci disk": "ide-hd,bus=ahci0.1,unit=0,drive=ahcidisk-1",
}
"""What libxl's `-device` rows ask for and nobody models yet."""

DRIVES = {
    "33 ide": "file=/d,if=ide,index=0,media=disk,format=raw,cache=writeback",
    "33 scsi": "file=/d,id=scsi0-hd1,format=qcow2,if=none,readonly=off,cache=writeback",
    "33 ahci": "file=/d,if=none,id=ahcidisk-1,format=raw,cache=writeback",
    "33 empty cdrom": "if=none,readonly=on,id=ide-5632",
}

CHARDEVS = {
    "3a monitor": f"socket,id=libxl-cmd,path={RUN}/qmp-libxl-7,server=on,wait=off",
    "3b monitor": "socket,id=libxl-cmd,fd=12,server=on,wait=off",
    "6 channel": "pty,id=libxl-channel0",
    "6 channel on a socket": "socket,id=libxl-channel1,path=/c,server=on,wait=off",
    "17' spice agent": "spicevmc,id=vdagent,name=vdagent",
    "20c usb redirection": "spicevmc,name=usbredir,id=usbrc1",
}


def _values(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(",") if "=" in part)


@pytest.mark.parametrize("row", DEVICES)
def test_every_device_row_is_one_device_and_one_warning(row: str) -> None:
    text = DEVICES[row]
    options = parse(["-device", text])
    assert options.devices == [(text.split(",")[0], _values(text))]
    assert unmodelled(options, ()) == [
        f"-device {text}: this device is not modelled; the guest starts without it"
    ]


@pytest.mark.parametrize("row", DRIVES)
def test_every_disk_row_is_one_drive_and_one_warning(row: str) -> None:
    options = parse(["-drive", DRIVES[row]])
    assert options.drives == [_values(DRIVES[row])]
    (line,) = unmodelled(options, ())
    assert line.startswith(f"-drive {DRIVES[row]}: ")


@pytest.mark.parametrize("row", CHARDEVS)
def test_every_chardev_row_is_one_back_end(row: str) -> None:
    text = CHARDEVS[row]
    (spec,) = parse(["-chardev", text]).chardevs
    expected = _values(text)
    assert (spec.backend, spec.label) == (text.split(",")[0], expected.pop("id"))
    assert {key: spec.values[key] for key in expected} == expected


@pytest.mark.parametrize(("row", "arguments", "fields"), ROWS, ids=[row[0] for row in ROWS])
def test_every_row_of_the_table_gives_its_fields(
    row: str, arguments: list[str], fields: dict[str, Any]
) -> None:
    options = parse(arguments)
    assert {name: getattr(options, name) for name in fields} == fields
    assert options.warnings == []


def test_a_whole_vector_of_libxl_is_read_without_a_word() -> None:
    options = parse(
        f"-xen-domid 3 -no-shutdown -chardev socket,id=libxl-cmd,path={RUN}/qmp-libxl-3,server=on,"
        "wait=off -mon chardev=libxl-cmd,mode=control -chardev socket,id=libxenstat-cmd,"
        f"path={RUN}/qmp-libxenstat-3,server=on,wait=off -mon chardev=libxenstat-cmd,mode=control "
        "-nodefaults -no-user-config -name g -vnc none -display none -serial pty -serial null "
        "-boot order=cda -smp 1,maxcpus=2 -net none -machine xenfv,suppress-vmdesc=on -m 64".split()
    )
    assert [(one.backend, one.label) for one in options.chardevs] == [
        ("socket", "libxl-cmd"),
        ("socket", "libxenstat-cmd"),
    ]
    assert options.qmp == ["libxl-cmd", "libxenstat-cmd"]
    assert [one and (one.backend, one.label) for one in options.serials] == [
        ("pty", "serial0"),
        ("null", "serial1"),
    ]
    assert unmodelled(options, ()) == []
    assert not options.probe


@pytest.mark.parametrize(
    "text",
    [
        "-S -no-user-config -nodefaults -nographic -machine none,accel=xen -chardev socket,"
        "id=libxl-cmd,fd=11,server=on,wait=off -mon chardev=libxl-cmd,mode=control",
        "-nodefaults",
        "-machine none -xen-domid 5",
    ],
)
def test_the_probe_run_is_recognised(text: str) -> None:
    options = parse(text.split())
    assert options.probe
    assert unmodelled(options, ()) == []


SERIALS: list[tuple[str, str, dict[str, str]]] = [
    ("pty", "pty", {}),
    ("null", "null", {}),
    ("stdio", "stdio", {}),
    ("file:/a,b", "file", {"path": "/a,b"}),
    ("unix:/s,server=on,wait=off", "socket", {"path": "/s", "server": "on", "wait": "off"}),
    ("unix:/s,server,nowait", "socket", {"path": "/s", "server": "on", "wait": "off"}),
    ("tcp:host:80", "socket", {"host": "host", "port": "80"}),
    ("tcp::80,server=on,wait=off", "socket", {"host": "", "port": "80", "server": "on"}),
    ("tcp:[::1]:80", "socket", {"host": "::1", "port": "80"}),
    ("chardev:x", "chardev", {"id": "x"}),
]


@pytest.mark.parametrize(("text", "backend", "values"), SERIALS)
def test_short_forms_of_a_serial_port(text: str, backend: str, values: dict[str, str]) -> None:
    options = parse(["-serial", "none", "-serial", text])
    assert options.serials[0] is None
    spec = options.serials[1]
    assert spec is not None
    assert (spec.backend, spec.label) == (backend, "serial1")
    assert {key: spec.values[key] for key in values} == values
    assert options.warnings == []


WARNED = [
    ("-serial unix:/s,server=on", "wait=on"),
    ("-chardev spicevmc,id=vdagent,name=vdagent", "not modelled"),
    ("-frobnicate now", "-frobnicate now: unknown option"),
    ("disk.img", "not an option"),
    ("-device rtl8139,id=nic0", "the guest starts without it"),
    ("-netdev tap,id=n", "without this network connection"),
    ("-vnc 127.0.0.1:0", "no display"),
    ("-machine q35", "type=q35 is not modelled"),
    ("-machine xenfv,igd-passthru=on", "igd-passthru=on is not modelled"),
    ("-machine xenfv,bogus=1", "bogus=1 is not modelled"),
    ("-kernel /k", "firmware"),
    ("-usbdevice tablet", "USB"),
    ("-mon chardev=x", "mode=control"),
    ("-accel tcg", "-accel tcg"),
    ("-cpu host", "-cpu host"),
    ("-serial mon:pty", "mux"),
    ("-display sdl", "-display sdl"),
]


@pytest.mark.parametrize(("text", "part"), WARNED)
def test_what_is_not_modelled_is_one_line_that_names_it_or_an_error_if_strict(
    text: str, part: str
) -> None:
    arguments = ["-xen-domid", "1", *text.split()]
    (line,) = check(parse(arguments), ())
    assert part in line
    assert "\n" not in line
    assert text.rpartition(" ")[2] in line
    with pytest.raises(ConfigError) as caught:
        check(parse([*arguments, "-machine", "xenfv,strict=on"]), ())
    assert line in str(caught.value)


def test_what_the_caller_models_is_not_reported() -> None:
    options = parse(
        ["-device", "rtl8139", "-drive", "file=x", "-device", "a.py:B", "-xen-domid", "1"]
    )
    assert unmodelled(options, {"rtl8139", "-drive"}) == []


REFUSED = [
    (["-xen-domid"], "-xen-domid: requires an argument"),
    (["-xen-domid", "x"], "-xen-domid: expected a number, not 'x'"),
    (["-xen-domid", "-1"], "outside"),
    (["-xen-domid", "32752"], "not the identifier of a domain"),
    (["-incoming", "fd:-1"], "-incoming fd:-1"),
    (["-incoming", "tcp:0:1"], "only fd:N"),
    (["-m", "lots"], "-m lots"),
    (["-smp", "0"], "-smp 0"),
    (["-smp", "4,maxcpus=2"], "maxcpus=2"),
    (["-chardev", "pty"], "no id"),
    (["-chardev", "foo,id=x"], "'foo' is not a valid char driver"),
    (["-chardev", "null,id=x,bogus=1"], "invalid parameter 'bogus'"),
    (["-chardev", "null,id=x", "-chardev", "null,id=x"], "duplicate id 'x'"),
    (["-chardev", "socket,id=x"], "exactly one of"),
    (["-chardev", "socket,id=x,path=/a,server=maybe"], "'server' expects 'on' or 'off'"),
    (["-chardev", "file,id=x"], "no file name"),
    (["-serial", "foo"], "'foo' is not a valid char driver"),
    (["-serial", "pty,foo=bar"], "not a valid char driver"),
    (["-serial", "tcp:1"], "HOST:PORT"),
    (["-mon", "chardev=nope,mode=control"], 'chardev "nope" not found'),
    (["-mon", "chardev=x,mode=foo"], "does not accept value 'foo'"),
    (["-device", ""], "'driver' is missing"),
    (["-device", "{"], "not a JSON object"),
    (["-device", "{" * 5000], "not a JSON object"),
    (["-machine", "xenfv,strict=perhaps"], "'strict' expects"),
]


@pytest.mark.parametrize(("arguments", "part"), REFUSED)
def test_what_cannot_be_meant_is_one_line_that_names_the_option(
    arguments: list[str], part: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(arguments)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        ("my.py:Ticker", ("my.py", "Ticker")),
        ("/a b/dev.py:Ticker", ("/a b/dev.py", "Ticker")),
        ("pkg.mod:Ticker", ("pkg.mod", "Ticker")),
        ("rtl8139", None),
        ("my.py:", None),
        ("my.py:not a name", None),
        (":X", None),
    ],
)
def test_a_users_own_device_is_recognised(driver: str, expected: tuple[str, str] | None) -> None:
    assert user_device(driver) == expected


def test_help_and_version_ask_for_an_action() -> None:
    assert parse(["-help"]).action == "help"
    assert parse(["--version"]).action == "version"
    assert version_text().startswith("ioreqd-dm version ")
    assert version_text().endswith("(QEMU command line and QMP 7.2.0)\n")
    assert all(f"-{name}" in help_text() for name in OPTIONS)


def test_every_field_of_the_table_exists() -> None:
    options = Options()
    for kind, field, *_ in OPTIONS.values():
        assert kind == "special" or not field or hasattr(options, field)


@given(st.lists(st.text(max_size=12) | st.sampled_from([f"-{name}" for name in OPTIONS])))
def test_any_vector_is_read_or_refused_in_one_line(arguments: list[str]) -> None:
    try:
        options = parse(arguments)
        lines = unmodelled(options, ())
    except ConfigError:
        return
    assert len(lines) >= len(options.warnings)


@pytest.mark.skipif(QEMU is None, reason=NO_QEMU)
def test_the_names_and_arguments_of_all_options_are_qemus() -> None:
    assert QEMU is not None
    text = subprocess.run([QEMU, "-help"], capture_output=True, text=True, check=True).stdout
    for line in text.splitlines():
        if not line.startswith("-"):
            continue
        words = line.split()
        if words[1:2] == ["or"]:
            continue
        for name in words[0].strip("-").split("/-"):
            assert name in OPTIONS, line
            # A usage line has its argument after one blank, an explanation after more.
            gap = line[len(words[0]) :]
            has_argument = gap.startswith(" ") and not gap.startswith("  ") and len(words) > 1
            if has_argument and words[0] not in EXPLAINED:
                assert OPTIONS[name][0] != FLAG, line
            if not has_argument and words[0] not in SPACED:
                assert OPTIONS[name][0] == FLAG or name in ("version", "help", "h"), line


# Options whose argument follows after more than one blank.
SPACED = ("-dtb",)
# Flags whose explanation follows after a single blank.
EXPLAINED = ("-async-teardown", "-no-fd-bootchk", "-xen-domid-restrict", "-enable-sync-profile")


def test_the_command_line_is_read_without_slow_imports() -> None:
    program = (
        "import sys; before = set(sys.modules);"
        "import dm.control.argv, dm.control.argv_report, dm.control.qmp_listener;"
        "import dm.control.monitor, dm.host.pty, dm.host.files;"
        "print(*sorted(set(sys.modules) - before))"
    )
    output = subprocess.run(
        [sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True, cwd="."
    ).stdout
    slow = (
        "construct typing dataclasses enum logging json argparse re collections contextlib pathlib "
        "inspect asyncio subprocess socket functools"
    )
    assert not set(output.split()) & set(slow.split())
