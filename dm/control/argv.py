"""Reads the argument vector that a toolstack gives to QEMU, into one plain object.

The names of the options and their kinds are data (argv_table.py); this file knows how each kind is
stored and the few options whose argument has a form of its own. It is on the start-up path.
"""

from __future__ import annotations

from dm.control.argv_chardev import from_chardev, from_short
from dm.control.argv_table import FLAG, KEYVAL, NUMBER, OPTIONS, RECORDS, SPECIAL, TEXT
from dm.control.argv_values import as_number, as_size, as_switch, keyval, record
from dm.errors import ConfigError
from dm.host.chardev import ChardevSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["DOMID_FIRST_RESERVED", "Options", "parse"]

# Xen, xen/include/public/xen.h: DOMID_FIRST_RESERVED; domains have smaller identifiers.
DOMID_FIRST_RESERVED = 0x7FF0
_MIB = 1 << 20


class Options:
    """What an argument vector asks for. Absent texts and numbers are None, absent lists empty.

    - ``action``: "" to run, "help" or "version" to print and exit; ``actions``: of ``-action``
    - ``domid``: Xen's domain identifier; ``name``, ``uuid``; ``probe``: serve QMP, touch no Xen
    - ``machine``: properties incl. ``type``; ``strict``; ``accel``: ("xen", {}) or ("local", {…})
    - ``memory_mb``: MiB without video memory; ``cpus`` online at first, ``maxcpus`` at most
    - ``chardevs``, ``serials`` (by port number; None: no port), ``qmp`` (chardev label per monitor)
    - ``devices``: (driver, its options) in order; ``drives``, ``netdevs``, ``nets``, ``displays``
    - ``observe``: what is to be seen of the machine (`dm.control.observation`)
    - ``incoming_fd``: a descriptor to read saved state from
    - ``chroot``, ``runas``: from either spelling; ``given``: every option as it stood, in order
    - ``warnings``: one line for each thing that parsing found and that has no effect
    """

    __slots__ = (
        "accel",
        "action",
        "actions",
        "append",
        "boot",
        "chardevs",
        "chroot",
        "cpus",
        "debugcon",
        "devices",
        "displays",
        "domid",
        "drives",
        "given",
        "globals",
        "hmp_monitors",
        "incoming_fd",
        "initrd",
        "kernel",
        "keymap",
        "log_file",
        "log_items",
        "machine",
        "maxcpus",
        "memory_mb",
        "message_format",
        "name",
        "netdevs",
        "nets",
        "no_acpi",
        "no_reboot",
        "no_shutdown",
        "no_user_config",
        "nodefaults",
        "nographic",
        "objects",
        "observe",
        "parallels",
        "pidfile",
        "qmp",
        "rtc",
        "runas",
        "serials",
        "spice",
        "stopped",
        "traces",
        "usb",
        "usbdevices",
        "uuid",
        "vga",
        "vnc",
        "warnings",
        "xen_domid_restrict",
    )

    def __init__(self) -> None:
        self.action: str = ""
        self.actions: dict[str, str] = {}
        self.domid: int | None = None
        self.name: str | None = None
        self.uuid: str | None = None
        self.machine: dict[str, str] = {}
        self.accel: tuple[str, dict[str, str]] = ("xen", {})
        self.memory_mb: int = 128
        self.cpus: int = 1
        self.maxcpus: int = 1
        self.boot: dict[str, str] = {}
        self.kernel: str | None = None
        self.initrd: str | None = None
        self.append: str | None = None
        self.devices: list[tuple[str, dict[str, str]]] = []
        self.globals: list[str] = []
        self.objects: list[dict[str, str]] = []
        self.observe: list[dict[str, str]] = []
        self.rtc: dict[str, str] = {}
        self.no_acpi: bool = False
        self.xen_domid_restrict: bool = False
        self.stopped: bool = False
        self.no_shutdown: bool = False
        self.no_reboot: bool = False
        self.nodefaults: bool = False
        self.no_user_config: bool = False
        self.nographic: bool = False
        self.incoming_fd: int | None = None
        self.chroot: str | None = None
        self.runas: str | None = None
        self.pidfile: str | None = None
        self.log_file: str | None = None
        self.log_items: str | None = None
        self.message_format: dict[str, str] = {}
        self.traces: list[dict[str, str]] = []
        self.chardevs: list[ChardevSpec] = []
        self.serials: list[ChardevSpec | None] = []
        self.parallels: list[str] = []
        self.debugcon: str | None = None
        self.qmp: list[str] = []
        self.hmp_monitors: list[str] = []
        self.drives: list[dict[str, str]] = []
        self.netdevs: list[dict[str, str]] = []
        self.nets: list[dict[str, str]] = []
        self.displays: list[dict[str, str]] = []
        self.vnc: dict[str, str] | None = None
        self.vga: str | None = None
        self.spice: dict[str, str] = {}
        self.keymap: str | None = None
        self.usb: bool = False
        self.usbdevices: list[str] = []
        self.given: list[tuple[str, str | None]] = []
        self.warnings: list[str] = []

    @property
    def probe(self) -> bool:
        """True for libxl's throw-away run, which asks over QMP what the binary can do.

        That is, under Xen, ``-machine none`` or no domain to serve (libxl of Xen 4.20 and later).
        """
        if self.accel[0] != "xen":
            return False
        return self.domid is None or self.machine.get("type") == "none"

    @property
    def strict(self) -> bool:
        """True when ``-machine …,strict=on`` turns what is not modelled into an error."""
        return as_switch("-machine", "strict", self.machine.get("strict", "off"))


def parse(arguments: Sequence[str]) -> Options:
    """Reads the argument vector without its first element; raises ConfigError."""
    options = Options()
    position, end = 0, len(arguments)
    while position < end:
        word = arguments[position]
        position += 1
        row = None
        name = word[2:] if word.startswith("--") else word[1:]
        if word.startswith("-"):
            row = OPTIONS.get(name)
        if row is None:
            position += _stray(options, arguments, position)
            continue
        argument: str | None = None
        if _takes_argument(row[0], name):
            if position >= end:
                raise ConfigError(f"-{name}: requires an argument")
            argument = arguments[position]
            position += 1
        options.given.append((name, argument))
        _store(options, name, row[0], row[1], row[2], argument)
    _finish(options)
    return options


def _takes_argument(kind: str, name: str) -> bool:
    return kind != FLAG and name not in ("help", "h", "version")


def _stray(options: Options, arguments: Sequence[str], position: int) -> int:
    """Notes the unknown word before ``position``; returns how many words it takes with it."""
    word = arguments[position - 1]
    if not word.startswith("-"):
        options.warnings.append(f"{word}: not an option; the guest starts without it")
        return 0
    argument = ""
    if position < len(arguments) and not arguments[position].startswith("-"):
        argument = " " + arguments[position]
    options.warnings.append(f"{word}{argument}: unknown option; it has no effect")
    return 1 if argument else 0


def _store(
    options: Options, name: str, kind: str, field: str, implied: str | None, argument: str | None
) -> None:
    """Puts one option where its kind says."""
    if kind == SPECIAL:
        _SPECIALS[field](options, name, argument or "")
    elif not field:
        pass
    elif kind == FLAG:
        setattr(options, field, True)
    elif kind == TEXT:
        setattr(options, field, argument)
    elif kind == NUMBER:
        setattr(options, field, as_number(f"-{name}", argument or ""))
    elif kind == KEYVAL:
        getattr(options, field).update(keyval(argument or "", implied))
    elif kind == RECORDS:
        getattr(options, field).append(record(name, argument or "", implied))
    else:
        getattr(options, field).append(argument)


def _finish(options: Options) -> None:
    """What only the whole vector tells: defaults, contradictions, references."""
    if "accel" in options.machine and not any(name == "accel" for name, _ in options.given):
        options.accel = (options.machine["accel"], {})
    if options.accel[0] not in ("xen", "local"):
        options.warnings.append(f"-accel {options.accel[0]}: not modelled; xen is used instead")
        options.accel = ("xen", {})
    if options.domid is not None and options.domid >= DOMID_FIRST_RESERVED:
        raise ConfigError(f"-xen-domid {options.domid}: not the identifier of a domain")
    _ = options.strict
    labels = [spec.label for spec in options.chardevs]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"-chardev: duplicate id '{label}'")
    for label in options.qmp:
        if label not in labels:
            raise ConfigError(f'-mon chardev={label}: chardev "{label}" not found')


def _help(options: Options, name: str, argument: str) -> None:
    options.action = options.action or "help"


def _version(options: Options, name: str, argument: str) -> None:
    options.action = options.action or "version"


def _name(options: Options, name: str, argument: str) -> None:
    # libxl does not double the commas of a guest's name, so only a plain one is split.
    values = keyval(argument, "guest")
    known = ("guest", "process", "debug-threads")
    options.name = values.get("guest") if all(key in known for key in values) else argument


def _accel(options: Options, name: str, argument: str) -> None:
    values = keyval(argument, "accel")
    options.accel = (values.pop("accel", ""), values)


def _memory(options: Options, name: str, argument: str) -> None:
    size = keyval(argument, "size").get("size")
    if size:
        options.memory_mb = as_size(f"-m {argument}", size, _MIB) // _MIB


def _smp(options: Options, name: str, argument: str) -> None:
    values = {
        key: as_number(f"-smp {argument}: {key}", value, 1, 1 << 16)
        for key, value in keyval(argument, "cpus").items()
    }
    shape = 1
    for key in ("sockets", "dies", "clusters", "cores", "threads"):
        shape *= values.get(key, 1)
    options.cpus = values.get("cpus", values.get("maxcpus", shape))
    options.maxcpus = values.get("maxcpus", max(options.cpus, shape))
    if options.cpus > options.maxcpus:
        raise ConfigError(f"-smp {argument}: more CPUs online than maxcpus={options.maxcpus}")


def _device(options: Options, name: str, argument: str) -> None:
    values = record(name, argument, "driver")
    driver = values.pop("driver", "")
    if not driver:
        raise ConfigError(f"-device {argument}: parameter 'driver' is missing")
    options.devices.append((driver, values))


def _incoming(options: Options, name: str, argument: str) -> None:
    kind, _, rest = argument.partition(":")
    if kind != "fd":
        raise ConfigError(f"-incoming {argument}: only fd:N is served")
    options.incoming_fd = as_number(f"-incoming {argument}", rest, 0, 2**31 - 1)


def _run_with(options: Options, name: str, argument: str) -> None:
    values = keyval(argument)
    options.chroot = values.pop("chroot", options.chroot)
    options.runas = values.pop("user", options.runas)
    for key in values:
        options.warnings.append(f"-run-with {key}={values[key]}: not modelled; it has no effect")


def _chardev(options: Options, name: str, argument: str) -> None:
    options.chardevs.append(from_chardev(argument, options.warnings))


def _serial(options: Options, name: str, argument: str) -> None:
    label = f"serial{len(options.serials)}"
    options.serials.append(from_short("-serial", label, argument, options.warnings))


def _mon(options: Options, name: str, argument: str) -> None:
    values = keyval(argument, "chardev")
    mode = values.get("mode", "readline")
    if mode not in ("control", "readline"):
        raise ConfigError(f"-mon {argument}: parameter 'mode' does not accept value '{mode}'")
    if mode == "readline":
        options.warnings.append(f"-mon {argument}: only mode=control is modelled")
        return
    options.qmp.append(values.get("chardev", ""))


def _qmp(options: Options, name: str, argument: str) -> None:
    label = f"compat_monitor{len(options.qmp)}"
    spec = from_short(f"-{name}", label, argument, options.warnings)
    if spec is None:
        return
    if spec.backend == "chardev":
        label = spec.values["id"]
    else:
        options.chardevs.append(spec)
    options.qmp.append(label)


def _vnc(options: Options, name: str, argument: str) -> None:
    options.vnc = None if argument == "none" else keyval(argument, "vnc")


_SPECIALS: dict[str, Callable[[Options, str, str], None]] = {
    "help": _help,
    "version": _version,
    "name": _name,
    "accel": _accel,
    "memory": _memory,
    "smp": _smp,
    "device": _device,
    "incoming": _incoming,
    "run_with": _run_with,
    "chardev": _chardev,
    "serial": _serial,
    "mon": _mon,
    "qmp": _qmp,
    "vnc": _vnc,
}
