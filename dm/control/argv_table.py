"""Which options QEMU's command line has, how each is written, and what this project makes of it.

Source: the libxl argument vector (tools/libs/light/libxl_dm.c of Xen 4.17 to 4.23) and the option
list of QEMU 7.2 (qemu-options.hx). A test compares names and arguments with an installed QEMU.
"""

from __future__ import annotations

__all__ = [
    "FLAG",
    "KEYVAL",
    "MACHINE_PROPERTIES",
    "MACHINE_TYPES",
    "NUMBER",
    "OPTIONS",
    "RECORDS",
    "SPECIAL",
    "TEXT",
    "TEXTS",
]

# How an option is stored in Options; only FLAG takes no argument.
FLAG = "flag"  # True
TEXT = "text"  # a string, the last one counts
TEXTS = "texts"  # a list of strings
NUMBER = "number"  # a non-negative number
KEYVAL = "keyval"  # one dict, merged over repetitions
RECORDS = "records"  # a list of dicts
SPECIAL = "special"  # a function of argv.py, named by the field

_DISPLAY = "no display is served"
_DISK = "the guest starts without this drive"
_NET = "the guest starts without this network connection"
_USB = "the guest starts without USB"
_SOUND = "the guest starts without sound"
_FIRMWARE = "the firmware is the toolstack's business under Xen"
_CPU = "the virtual CPUs are the hypervisor's business under Xen"
_IGNORED = "it has no effect"

# name -> (how it is stored, field of Options or "", implied first key or None,
#          what happens instead when it is not modelled or "", values that ask for nothing)
OPTIONS: dict[str, tuple[str, str, str | None, str, tuple[str, ...]]] = {
    "help": (SPECIAL, "help", None, "", ()),
    "h": (SPECIAL, "help", None, "", ()),
    "version": (SPECIAL, "version", None, "", ()),
    # the domain and the machine
    "xen-domid": (NUMBER, "domid", None, "", ()),
    "xen-attach": (FLAG, "", None, "only HVM guests are served", ()),
    "xen-domid-restrict": (FLAG, "xen_domid_restrict", None, "", ()),
    "name": (SPECIAL, "name", "guest", "", ()),
    "uuid": (TEXT, "uuid", None, "", ()),
    "machine": (KEYVAL, "machine", "type", "", ()),
    "M": (KEYVAL, "machine", "type", "", ()),
    "accel": (SPECIAL, "accel", "accel", "", ()),
    "m": (SPECIAL, "memory", "size", "", ()),
    "smp": (SPECIAL, "smp", "cpus", "", ()),
    "boot": (KEYVAL, "boot", "order", "", ()),
    "kernel": (TEXT, "kernel", None, "the guest boots from its firmware", ()),
    "initrd": (TEXT, "initrd", None, "the guest boots from its firmware", ()),
    "append": (TEXT, "append", None, "the guest boots from its firmware", ()),
    "device": (SPECIAL, "device", "driver", "", ()),
    "global": (TEXTS, "globals", None, "", ()),
    "object": (RECORDS, "objects", "qom-type", "the guest starts without this object", ()),
    "no-acpi": (FLAG, "no_acpi", None, "", ()),
    "rtc": (KEYVAL, "rtc", "base", "", ()),
    # the process
    "observe": (RECORDS, "observe", None, "", ()),
    "S": (FLAG, "stopped", None, "", ()),
    "no-shutdown": (FLAG, "no_shutdown", None, "", ()),
    "no-reboot": (FLAG, "no_reboot", None, "", ()),
    "nodefaults": (FLAG, "nodefaults", None, "", ()),
    "no-user-config": (FLAG, "no_user_config", None, "", ()),
    "incoming": (SPECIAL, "incoming", None, "", ()),
    "chroot": (TEXT, "chroot", None, "", ()),
    "runas": (TEXT, "runas", None, "", ()),
    "run-with": (SPECIAL, "run_with", None, "", ()),
    "pidfile": (TEXT, "pidfile", None, "", ()),
    "D": (TEXT, "log_file", None, "", ()),
    "d": (TEXT, "log_items", None, "", ()),
    "trace": (RECORDS, "traces", "enable", "", ()),
    "msg": (KEYVAL, "message_format", "timestamp", "", ()),
    # connections to the host
    "chardev": (SPECIAL, "chardev", "backend", "", ()),
    "serial": (SPECIAL, "serial", None, "", ()),
    "parallel": (TEXTS, "parallels", None, "the guest starts without a parallel port", ("none",)),
    "debugcon": (TEXT, "debugcon", None, "the debug console stays in the log", ("none",)),
    "mon": (SPECIAL, "mon", "chardev", "", ()),
    "qmp": (SPECIAL, "qmp", None, "", ()),
    "qmp-pretty": (SPECIAL, "qmp", None, "", ()),
    "monitor": (TEXTS, "hmp_monitors", None, "only QMP monitors are served", ("none",)),
    "drive": (RECORDS, "drives", "file", _DISK, ()),
    "netdev": (RECORDS, "netdevs", "type", _NET, ()),
    "net": (RECORDS, "nets", "type", _NET, ("none",)),
    "nic": (RECORDS, "nets", "type", _NET, ("none",)),
    "vnc": (SPECIAL, "vnc", "vnc", _DISPLAY, ("none",)),
    "display": (RECORDS, "displays", "type", _DISPLAY, ("none",)),
    "nographic": (FLAG, "nographic", None, "", ()),
    "vga": (TEXT, "vga", None, "the guest starts without a display adapter", ("none",)),
    "spice": (KEYVAL, "spice", None, _DISPLAY, ()),
    "k": (TEXT, "keymap", None, "", ()),
    "usb": (FLAG, "usb", None, _USB, ()),
    "usbdevice": (TEXTS, "usbdevices", None, "the guest starts without this USB device", ()),
    # libxl emits none of what follows
    "cpu": (TEXT, "", None, _CPU, ()),
    "numa": (TEXT, "", None, _CPU, ()),
    "icount": (TEXT, "", None, _CPU, ()),
    "singlestep": (FLAG, "", None, _CPU, ()),
    "gdb": (TEXT, "", None, _CPU, ()),
    "s": (FLAG, "", None, _CPU, ()),
    "enable-kvm": (FLAG, "", None, _CPU, ()),
    "dfilter": (TEXT, "", None, _CPU, ()),
    "plugin": (TEXT, "", None, _CPU, ()),
    "bios": (TEXT, "", None, _FIRMWARE, ()),
    "pflash": (TEXT, "", None, _FIRMWARE, ()),
    "dtb": (TEXT, "", None, _FIRMWARE, ()),
    "option-rom": (TEXT, "", None, _FIRMWARE, ()),
    "acpitable": (TEXT, "", None, _FIRMWARE, ()),
    "smbios": (TEXT, "", None, _FIRMWARE, ()),
    "fw_cfg": (TEXT, "", None, _FIRMWARE, ()),
    "L": (TEXT, "", None, _FIRMWARE, ()),
    "no-fd-bootchk": (FLAG, "", None, _FIRMWARE, ()),
    "no-hpet": (FLAG, "", None, _CPU, ()),
    "fda": (TEXT, "", None, _DISK, ()),
    "fdb": (TEXT, "", None, _DISK, ()),
    "hda": (TEXT, "", None, _DISK, ()),
    "hdb": (TEXT, "", None, _DISK, ()),
    "hdc": (TEXT, "", None, _DISK, ()),
    "hdd": (TEXT, "", None, _DISK, ()),
    "cdrom": (TEXT, "", None, _DISK, ()),
    "blockdev": (TEXT, "", None, _DISK, ()),
    "mtdblock": (TEXT, "", None, _DISK, ()),
    "sd": (TEXT, "", None, _DISK, ()),
    "snapshot": (FLAG, "", None, _IGNORED, ()),
    "fsdev": (TEXT, "", None, "the guest starts without this file system", ()),
    "virtfs": (TEXT, "", None, "the guest starts without this file system", ()),
    "iscsi": (TEXT, "", None, _DISK, ()),
    "tpmdev": (TEXT, "", None, "the guest starts without a TPM", ()),
    "audio-help": (FLAG, "", None, _SOUND, ()),
    "audio": (TEXT, "", None, _SOUND, ("none",)),
    "audiodev": (TEXT, "", None, _SOUND, ("none",)),
    "portrait": (FLAG, "", None, _DISPLAY, ()),
    "rotate": (TEXT, "", None, _DISPLAY, ()),
    "full-screen": (FLAG, "", None, _DISPLAY, ()),
    "win2k-hack": (FLAG, "", None, _IGNORED, ()),
    "add-fd": (TEXT, "", None, _IGNORED, ()),
    "set": (TEXT, "", None, _IGNORED, ()),
    "mem-path": (TEXT, "", None, _IGNORED, ()),
    "mem-prealloc": (FLAG, "", None, _IGNORED, ()),
    "compat": (TEXT, "", None, _IGNORED, ()),
    "preconfig": (FLAG, "", None, _IGNORED, ()),
    "overcommit": (TEXT, "", None, _IGNORED, ()),
    "seed": (TEXT, "", None, _IGNORED, ()),
    "action": (KEYVAL, "actions", None, "", ()),
    "loadvm": (TEXT, "", None, "the state is read through -incoming", ()),
    "daemonize": (FLAG, "", None, "the process stays in the foreground", ()),
    "watchdog-action": (TEXT, "", None, _IGNORED, ()),
    "echr": (TEXT, "", None, _IGNORED, ()),
    "only-migratable": (FLAG, "", None, _IGNORED, ()),
    "sandbox": (TEXT, "", None, _IGNORED, ()),
    "readconfig": (TEXT, "", None, _IGNORED, ()),
    "async-teardown": (FLAG, "", None, _IGNORED, ()),
    "dump-vmstate": (TEXT, "", None, _IGNORED, ()),
    "enable-sync-profile": (FLAG, "", None, _IGNORED, ()),
    "qtest": (TEXT, "", None, _IGNORED, ()),
    "qtest-log": (TEXT, "", None, _IGNORED, ()),
}

# Prefixes of the machine types that are served; `none` is libxl's probe.
MACHINE_TYPES = ("xenfv", "pc", "none")

# Properties of -machine: what happens instead when one is not modelled, or "".
MACHINE_PROPERTIES: dict[str, str] = {
    "type": "",
    "accel": "",
    "strict": "",
    "suppress-vmdesc": "",
    "max-ram-below-4g": "",
    "poll-max-us": "",
    "acpi": "",
    "graphics": "",
    "usb": _USB,
    "igd-passthru": "no graphics adapter is passed through",
}
