"""Handlers of QMP commands that act on single devices: vCPUs, PCI functions, drives.

Source: QEMU 7.2, softmmu/qdev-monitor.c, hw/i386/x86.c, qapi/pci.json. The machine `xenfv` counts
every vCPU as a socket of its own, which is how libxl numbers the ones it plugs.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from dm.control.qmp_error import QmpError

if TYPE_CHECKING:
    from dm.control.monitor import PciFunctionInfo, PciRegionInfo
    from dm.control.qmp_commands import Arguments, Context

__all__ = [
    "CPU_TYPES",
    "change_medium",
    "device_add",
    "device_del",
    "eject",
    "query_block",
    "query_blockstats",
    "query_cpus_fast",
    "query_hotpluggable_cpus",
    "query_pci",
]

# The vCPUs are Xen's; the first name is announced, the others are taken too.
CPU_TYPES = (
    "qemu32-i386-cpu",
    "qemu64-x86_64-cpu",
    "qemu32-x86_64-cpu",
    "qemu64-i386-cpu",
)
_PLACE = ("socket-id", "core-id", "thread-id")
# QEMU's limits of an identifier (util/id.c).
_ID_OTHERS = "-._"


def _place(number: int) -> dict[str, int]:
    return {"socket-id": number, "core-id": 0, "thread-id": 0}


def query_cpus_fast(context: Context, arguments: Arguments) -> Any:
    """The vCPUs that are online; libxl stores them with every save, reboot and soft reset."""
    return [
        {
            "cpu-index": number,
            "qom-path": f"/machine/unattached/device[{number}]",
            "thread-id": os.getpid(),
            "props": _place(number),
            "target": "i386",
        }
        for number in context.monitor.online_vcpus()
    ]


def query_hotpluggable_cpus(context: Context, arguments: Arguments) -> Any:
    """Every vCPU there may be; those that are online have a qom-path."""
    online = set(context.monitor.online_vcpus())
    result: list[dict[str, Any]] = []
    for number in reversed(range(context.monitor.maxcpus)):
        entry: dict[str, Any] = {"props": _place(number), "vcpus-count": 1, "type": CPU_TYPES[0]}
        if number in online:
            entry["qom-path"] = f"/machine/unattached/device[{number}]"
        result.append(entry)
    return result


def device_add(context: Context, arguments: Arguments) -> Any:
    """Plugs a vCPU or a device."""
    driver = arguments.get("driver")
    if driver is None or isinstance(driver, (dict, list)):
        raise QmpError("Parameter 'driver' is missing")
    name = driver if isinstance(driver, str) else _shown(driver)
    identifier = arguments.get("id")
    if isinstance(identifier, str) and not _is_identifier(identifier):
        raise QmpError("Parameter 'id' expects an identifier")
    if name in CPU_TYPES:
        context.monitor.plug_vcpu(_vcpu_number(context, name, arguments))
    else:
        options = {key: value for key, value in arguments.items() if key != "driver"}
        context.monitor.add_device(name, options)
    return {}


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _is_identifier(text: str) -> bool:
    return bool(text) and text[0].isalpha() and all(c.isalnum() or c in _ID_OTHERS for c in text)


def _vcpu_number(context: Context, driver: str, arguments: Arguments) -> int:
    """The vCPU at the socket that the arguments name; raises QmpError when it cannot be plugged."""
    for key in arguments:
        if key not in (*_PLACE, "driver", "id"):
            raise QmpError(f"Property '{driver}.{key}' not found")
    place: dict[str, int] = {}
    for key in _PLACE:
        if key in arguments:
            place[key] = _integer(key, arguments[key])
    for key in _PLACE:
        if key not in place:
            raise QmpError(f"CPU {key} is not set")
    limits = {"socket-id": context.monitor.maxcpus - 1, "core-id": 0, "thread-id": 0}
    for key, limit in limits.items():
        if not 0 <= place[key] <= limit:
            raise QmpError(f"Invalid CPU {key}: {place[key]} must be in range 0:{limit}")
    number = place["socket-id"]
    if number in context.monitor.online_vcpus():
        raise QmpError(f"CPU[{number}] with APIC ID {number} exists")
    return number


def _integer(key: str, value: Any) -> int:
    try:
        if isinstance(value, (int, str)) and not isinstance(value, bool):
            return int(value)
    except ValueError:
        pass
    raise QmpError(f"Parameter '{key}' expects integer")


def device_del(context: Context, arguments: Arguments) -> Any:
    """Unplugs a device."""
    context.monitor.remove_device(arguments["id"])
    return {}


def query_pci(context: Context, arguments: Arguments) -> Any:
    """The PCI functions by bus; libxl demands a ``qdev_id`` of each."""
    buses: dict[int, list[dict[str, Any]]] = {}
    for function in context.monitor.pci_functions():
        buses.setdefault(function.bus, []).append(_pci_function(function))
    return [{"bus": bus, "devices": devices} for bus, devices in buses.items()]


def _pci_function(info: PciFunctionInfo) -> dict[str, Any]:
    subsystem_vendor, subsystem = info.subsystem
    entry: dict[str, Any] = {
        "bus": info.bus,
        "slot": info.slot,
        "function": info.function,
        "class_info": {"class": info.class_code >> 8, "desc": info.description},
        "id": {
            "vendor": info.vendor,
            "device": info.device,
            "subsystem-vendor": subsystem_vendor,
            "subsystem": subsystem,
        },
        "irq_pin": info.pin,
        "qdev_id": info.qdev_id,
        "regions": [_pci_region(region) for region in info.regions],
    }
    if info.pin:
        entry["irq"] = info.irq
    return entry


def _pci_region(region: PciRegionInfo) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "bar": region.bar,
        "type": "io" if region.io else "memory",
        "address": region.address,
        "size": region.size,
    }
    if not region.io:
        entry["prefetch"] = region.prefetch
        entry["mem_type_64"] = region.memory_64
    return entry


def query_block(context: Context, arguments: Arguments) -> Any:
    """The drives and their media."""
    return context.monitor.block_devices()


def query_blockstats(context: Context, arguments: Arguments) -> Any:
    """Counters of the drives, which xentop shows."""
    return context.monitor.block_statistics()


def _drive(context: Context, arguments: Arguments) -> str:
    """The drive that a command names; raises QmpError when there is no such one."""
    device, identifier = arguments.get("device"), arguments.get("id")
    if (device is None) == (identifier is None):
        raise QmpError("Need exactly one of 'device' and 'id'")
    name = str(device if identifier is None else identifier)
    if name not in context.monitor.drives():
        raise QmpError(f"Device '{name}' not found", "DeviceNotFound")
    return name


def eject(context: Context, arguments: Arguments) -> Any:
    """Takes a medium out."""
    context.monitor.eject(_drive(context, arguments), arguments.get("force", False))
    return {}


def change_medium(context: Context, arguments: Arguments) -> Any:
    """Puts a medium in; libxl passes its descriptor through add-fd before."""
    drive = _drive(context, arguments)
    read_only = arguments.get("read-only-mode", "retain") != "read-write"
    access = os.O_RDONLY if read_only else os.O_RDWR
    fd = context.fdsets.open(arguments["filename"], access)
    context.monitor.insert(drive, fd, arguments.get("format", "raw"), read_only)
    return {}
