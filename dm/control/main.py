"""The command `ioreqd-dm`: what a toolstack starts in QEMU's place, with QEMU's argument vector.

Exit status: 0 after a signal or `quit`; 2 and one line for the user's mistakes; 1 for the host's.
"""

from __future__ import annotations

import sys

from dm.errors import ConfigError, HostError

from .argv import Options, parse

__all__ = ["main"]


def main() -> int:
    """Run the device model until it is told to end; gives the exit status."""
    try:
        options = parse(sys.argv[1:])
        if options.action:
            return _print(options.action)
        return _probe(options) if options.probe else _serve(options)
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


def _serve(options: Options) -> int:
    from dm.hypervisor.xen.hypervisor import XenHypervisor
    from dm.server.loop import Loop

    from .process import DeviceModel
    from .signals import end_on_signals

    if options.domid is None:
        raise ConfigError("-xen-domid is missing")
    loop = Loop()
    model = DeviceModel(options, loop, XenHypervisor(options.domid))
    end_on_signals(loop, model.quit)
    try:
        model.open()
        model.run()
    finally:
        model.close()
    return 0


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
