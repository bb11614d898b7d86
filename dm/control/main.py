"""The command `ioreqd-dm`: what a toolstack starts in QEMU's place, with QEMU's argument vector.

Exit status: 0 after a signal or `quit`; 2 and one line for the user's mistakes; 1 for the host's.
"""

from __future__ import annotations

import sys

from dm.errors import ConfigError, HostError

from .argv import DOMID_FIRST_RESERVED, Options, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from dm.hypervisor.interface import Hypervisor
    from dm.server.loop import Loop

__all__ = ["main"]


def main(started: Callable[[], object] | None = None) -> int:
    """Run the device model until it is told to end; gives the exit status.

    ``started`` is called when the guest runs, before anything is served.
    """
    try:
        options = parse(sys.argv[1:])
        if options.action:
            return _print(options.action)
        return _probe(options) if options.probe else _serve(options, started)
    except ConfigError as error:
        return _fail(error, 2)
    except HostError as error:
        return _fail(error, 1)


def _fail(error: Exception, status: int) -> int:
    sys.stderr.write(f"ioreqd-dm: {error}\n")
    return status


def _print(action: str) -> int:
    from .argv_help import help_text, version_text

    sys.stdout.write(help_text() if action == "help" else version_text())
    return 0


def _serve(options: Options, started: Callable[[], object] | None) -> int:
    from .process import DeviceModel
    from .signals import end_on_signals

    hypervisor, loop = _local(options) if options.accel[0] == "local" else _xen(options)
    model = DeviceModel(options, loop, hypervisor)
    end_on_signals(loop, model.quit)
    try:
        model.open()
        if started is not None:
            started()
        model.run()
    finally:
        model.close()
    return 0


def _xen(options: Options) -> tuple[Hypervisor, Loop]:
    from dm.hypervisor.xen.hypervisor import XenHypervisor
    from dm.server.loop import Loop

    if options.domid is None:
        raise ConfigError("-xen-domid is missing")
    return XenHypervisor(options.domid), Loop()


def _local(options: Options) -> tuple[Hypervisor, Loop]:
    """`-accel local,path=SOCKET[,domid=N][,reboot=end|reset]`: the stand-alone hypervisor."""
    from dm.hypervisor.local.hypervisor import LocalHypervisor
    from dm.server.loop import Loop
    from dm.server.virtual import VirtualLoop

    from .argv_values import as_number

    values = dict(options.accel[1])
    path = values.pop("path", "")
    if not path:
        raise ConfigError("-accel local: parameter 'path' is missing")
    domid = options.domid
    if "domid" in values:
        domid = as_number("-accel local,domid", values.pop("domid"), 0, DOMID_FIRST_RESERVED - 1)
    make = LocalHypervisor
    if (reboot := values.pop("reboot", "end")) == "reset":
        from dm.hypervisor.local.resetting import ResettingHypervisor

        make = ResettingHypervisor
    elif reboot != "end":
        raise ConfigError(f"-accel local,reboot={reboot}: end or reset is possible")
    for key, value in values.items():
        raise ConfigError(f"-accel local,{key}={value}: there is no such parameter")
    hypervisor = make(path, domid)
    clock = hypervisor.clock
    return hypervisor, Loop() if clock is None else VirtualLoop(clock)


def _probe(options: Options) -> int:
    """Answer a toolstack that only asks what this program can do; no hypervisor is touched."""
    from dm.server.loop import Loop

    from .probe import ProbeMonitor
    from .qmp_listener import Qmp
    from .signals import end_on_signals

    if not options.qmp:
        raise ConfigError("-xen-domid is missing, and no monitor is there to ask anything")
    loop = Loop()
    monitor = ProbeMonitor()
    qmp = Qmp(loop, monitor)
    end_on_signals(loop, monitor.quit)
    for spec in options.chardevs:
        if spec.label in options.qmp:
            qmp.open(spec)
    try:
        while not monitor.ended:
            loop.run_once(loop.timeout())
    finally:
        qmp.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
