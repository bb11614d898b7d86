"""A second emulator beside the guest's own: it brings devices and claims only their ranges.

Its ioreq server gets the requests to those ranges, and IOREQ_TYPE_INVALIDATE, which every server
must answer. Everything else stays with the device model that the toolstack started.
"""

from __future__ import annotations

from dm.errors import ConfigError
from dm.machine.machine import Machine
from dm.machine.survivor import Survivor, layout_checksum, seal_over
from dm.server.polling import PollWindow
from dm.server.server import IoreqServer
from dm.server.service import Service

from .devices import make_device

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dm.hypervisor.interface import Hypervisor
    from dm.server.loop import Loop

__all__ = ["Attachment"]

LOOK_INTERVAL = 1_000_000_000
"""Nanoseconds between two looks at whether the domain is still there."""


class Attachment:
    """Devices attached to a running domain, until `quit` or the domain's end.

    ``devices``: (driver, options) as `-device` takes them.
    """

    def __init__(
        self,
        loop: Loop,
        hypervisor: Hypervisor,
        devices: list[tuple[str, dict[str, str]]],
    ) -> None:
        self._loop = loop
        self._hypervisor = hypervisor
        self.machine = Machine("attachment", hypervisor, hypervisor.memory, loop.now)
        for number, (driver, options) in enumerate(devices):
            device = make_device(driver, options, number)
            if device is None:
                raise ConfigError(f"--device {driver}: there is no such device")
            self.machine.add(device)
        self._store = hypervisor.store()
        self.server = IoreqServer(hypervisor, self.machine, attached=True)
        window = PollWindow(hypervisor.cpu_count())
        self.service = Service(loop, hypervisor, self.machine, self.server, window)
        self._survivor: Survivor | None = None
        self.ended = False

    def open(self) -> None:
        """Take the server and claim the devices' ranges; requests are served from now on."""
        self.server.open()
        path = self._hypervisor.run_file(f"devices{layout_checksum(self.machine):08x}")
        self._survivor = seal_over(
            path,
            self.machine,
            inherit=self.server.adopted,
            under_way=self.server.under_way(),
        )
        self.machine.start()
        self.server.settle_predecessors()
        self._look()

    def _look(self) -> None:
        """End with the domain: nothing else tells an emulator that it is gone.

        The hypervisor keeps a dying domain while its pages are mapped here, so xenstore is asked.
        """
        if self._store.read(f"/local/domain/{self._hypervisor.domid}") is None:
            self.ended = True
            return
        self._loop.call_at(self._loop.now() + LOOK_INTERVAL, self._look)

    def quit(self) -> None:
        """End after the current turn."""
        self.ended = True

    def run(self) -> None:
        """Serve until something ends it."""
        while not self.ended:
            self.service.turn()

    def close(self) -> None:
        """Drop the interrupt lines, answer everything, destroy the server."""
        self.machine.lower_lines()
        self.server.close()
        if self._survivor is not None:
            self._survivor.remove()
        self._store.close()
        self._hypervisor.close()
