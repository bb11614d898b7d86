"""A running guest: its hypervisor with one domain, its engine, its device model, its nodes.

Facts: contract §2.4, §5, §6 (libxl_domain_unpause, libxl__destroy_domid).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from protocol import layouts
from tools.hypervisor.clock import RealClock
from tools.hypervisor.engines.choose import make_engine
from tools.hypervisor.errors import EngineUnavailable
from tools.hypervisor.hypercalls import Hypercalls
from tools.hypervisor.hypervisor import Hypervisor
from tools.hypervisor.ports import ConsolePort
from tools.hypervisor.store_ring import StoreRing
from tools.toolstack.builder import build_domain, image_of, ram_regions
from tools.toolstack.builder.special_pages import CONSOLE_GFN
from tools.toolstack.children import ChildProcesses, Loop
from tools.toolstack.errors import HostFailure, ToolstackError
from tools.toolstack.memory_layout import MemoryLayout, layout_of
from tools.toolstack.xlcfg import GuestConfig

from .console_log import ConsoleLog
from .console_ring import ConsoleRing
from .device_model import Emulator
from .places import Place
from .skeleton import close_backends, introduce, make_nodes, remove_nodes

if TYPE_CHECKING:
    from tools.hypervisor.domain import Domain
    from tools.hypervisor.engines import Engine
    from tools.hypervisor.images.cpu_start import CpuStart

    from .saved import Saved

__all__ = ["Guest", "Surroundings"]

CONTROL_DOMAIN = 0
RESUMED = "qemu-resume"
"""libxl's name of the state that a new device model is given."""
PARKED_WITHIN = 20.0
"""Seconds in which every vCPU comes to rest; an engine runs guest code for milliseconds."""


@dataclass(frozen=True)
class Surroundings:
    """What a guest has of its keeper. ``note`` takes lines for the log, ``changed`` is called, from
    any thread, when the domain has ended; ``logs`` is the folder of log files, ``text`` that of the
    configuration."""

    loop: Loop
    children: ChildProcesses
    logs: Path
    text: str
    engine: str
    note: Callable[[str], object]
    changed: Callable[[], object]


class Guest:
    """One domain. `make` builds it, `destroy` ends it; it may be destroyed whatever `make` did."""

    def __init__(self, around: Surroundings, place: Place, config: GuestConfig, uuid: UUID) -> None:
        self.around, self.place, self.config, self.uuid = around, place, config, uuid
        self.text = around.text
        self.paused = True
        self.ended = False
        self.domain: Domain
        self.engine: Engine | None = None
        self.hypervisor = Hypervisor(str(place.file("xen")))
        self.store = self.hypervisor.store
        self.console = ConsoleLog(place.file("console.log"))
        self._store_ring: StoreRing | None = None
        self._console_ring: ConsoleRing | None = None
        log = around.logs / f"{config.name}-dm.log"
        self.emulator = Emulator(
            around.loop, around.children, self.hypervisor, place, log, self._emulator_died
        )

    @property
    def domid(self) -> int:
        """The domain's id."""
        return self.place.domid

    def make(self, saved: Saved | None = None) -> None:
        """Build the domain, paused, and start its device model.

        ``saved``: what a saved guest's memory, processors and devices are, instead of what its
        images say. ToolstackError, HostFailure: `destroy` must follow.
        """
        layout = layout_of(self.config)
        for line in layout.warnings:
            self.around.note(line)
        self._make_domain(layout, saved)
        start = self._fill(layout, saved)
        self.hypervisor.start()
        self.emulator.begin(self.config, None if saved is None else saved.device_state)
        # The engine, whose library takes as long to load, comes meanwhile.
        try:
            self.engine = make_engine(self.around.engine, self.domain, start)
        except EngineUnavailable as error:
            raise ToolstackError(str(error)) from None
        if saved is not None:
            saved.apply_processors(self.domain, self.engine)
        self.emulator.wait()
        self.place.file(RESUMED).unlink(missing_ok=True)
        self.domain.on_shutdown.append(self._over)
        self.engine.start()

    def _make_domain(self, layout: MemoryLayout, saved: Saved | None) -> None:
        try:
            self.domain = self.hypervisor.create_domain(
                vcpus=self.config.vcpus,
                max_vcpus=self.config.maxvcpus,
                ram=ram_regions(layout) if saved is None else saved.regions,
                clock=RealClock(0 if saved is None else saved.now),
                domid=self.domid,
            )
        except (OSError, OverflowError, MemoryError, ValueError) as error:
            # ValueError: mmap's words for more than there are addresses, or too many vCPUs.
            raise HostFailure(f"{self.config.maxmem} MiB of memory: {error}") from None
        self.domain.pause()
        ConsolePort(self.domain, self.console.write)
        self.make_nodes()

    def _fill(self, layout: MemoryLayout, saved: Saved | None) -> CpuStart:
        """What is in the domain's memory, and the guest's channels."""
        domain = self.domain
        if saved is not None:
            calls = domain.hypercalls = Hypercalls(domain, self.uuid.bytes)
            entries = layout.memory_map()
            calls.memory.memory_map = [(e.start, e.size, e.type.value) for e in entries]
            saved.fill(domain, self.place.file(RESUMED))
            self.open_channels()
            return saved.start
        self._console_ring = ConsoleRing(domain, CONSOLE_GFN, self.console.write)
        image = image_of(self.config, layout)
        serve = self._console_ring.serve
        built = build_domain(domain, self.store, image, self.uuid.bytes, serve)
        self._store_ring, self._console_ring.port = built.ring, built.console_port
        introduce(self.store, domain)
        return built.start

    def open_channels(self) -> None:
        """Give the guest its channels to xenstore and the console, and introduce it.

        In this order, so that each has the port that it had before a soft reset.
        """
        domain = self.domain
        assert domain.hypercalls is not None
        events, params = domain.hypercalls.events, domain.params
        store_gfn = params.peek(layouts.HVM_PARAM_STORE_PFN)
        console_gfn = params.peek(layouts.HVM_PARAM_CONSOLE_PFN)
        self._store_ring = StoreRing(domain, events, self.store, store_gfn)
        self._console_ring = ConsoleRing(domain, console_gfn, self.console.write)
        self._console_ring.port = events.open(CONTROL_DOMAIN, self._console_ring.serve)
        params.set(layouts.HVM_PARAM_STORE_EVTCHN, self._store_ring.port)
        params.set(layouts.HVM_PARAM_CONSOLE_EVTCHN, self._console_ring.port)
        introduce(self.store, domain)

    def close_channels(self) -> None:
        """xenstored and the console forget the domain."""
        if self._store_ring is not None:
            self._store_ring.close()
            self._store_ring = None
        if self._console_ring is not None:
            self._console_ring.close()
            self._console_ring = None

    def make_nodes(self) -> None:
        """The domain's nodes in xenstore, as at its creation."""
        make_nodes(self.store, self.domid, self.config, self.uuid)

    def remove_nodes(self) -> None:
        """The domain's nodes go, those of its backends last having seen that they must close."""
        close_backends(self.store, self.domid)
        remove_nodes(self.store, self.domid, self.uuid)

    def pause(self) -> None:
        """Hold the vCPUs. libxl tells the device model nothing. Twice is as once."""
        if not self.paused:
            self.domain.pause()
            self.paused = True

    def unpause(self) -> None:
        """QMP `cont`, then the vCPUs go on. HostFailure: the device model does not."""
        self.emulator.go_on()
        if self.paused:
            self.domain.unpause()
            self.paused = False

    def resume(self) -> None:
        """A domain that was suspended, or shut down for a soft reset, goes on as before.

        HostFailure: its device model does not. HypercallError: it is not in such a state.
        """
        self.emulator.go_on()
        self.domain.resume()

    def wait_state(self, state: str) -> None:
        """Wait until a shutdown is complete. HostFailure: a vCPU does not come to rest."""
        domain = self.domain
        with domain.changed:
            if not domain.changed.wait_for(lambda: domain.state == state, PARKED_WITHIN):
                raise HostFailure(f"domain {self.domid} does not come to rest: {domain.state}")

    def wait_parked(self) -> None:
        """Wait until no vCPU touches the guest any more. HostFailure: one does not come to rest."""
        if not self.domain.wait_parked(PARKED_WITHIN):
            raise HostFailure(f"a vCPU of domain {self.domid} does not come to rest")

    def rename(self, name: str) -> None:
        """Another name and uuid, for a domain that is kept aside (libxl_domain_preserve)."""
        self.remove_nodes()
        self.config = replace(self.config, name=name)
        self.uuid = uuid4()
        self.make_nodes()

    def destroy(self) -> None:
        """End all that there is of it, whatever state it is in. Twice is as once."""
        if self.ended:
            return
        self.ended = True
        self.close_channels()
        self.emulator.end()
        if self.engine is not None:
            self.engine.stop()
        self.hypervisor.close()
        self.console.close()

    def state(self) -> str:
        """The letters of `xl list`: running, blocked, paused, shut down, crashed, dying."""
        domain = self.domain
        crashed = domain.shutdown_reason == layouts.SHUTDOWN_REASON_CRASH
        over = domain.state in ("shutdown", "crashed")
        flags = (
            ("r", not self.paused and not over),
            ("b", False),
            ("p", self.paused),
            ("s", over),
            ("c", over and crashed),
            ("d", self.ended),
        )
        return "".join(letter if given else "-" for letter, given in flags)

    def _over(self, domain: Domain) -> None:
        self.around.changed()

    def _emulator_died(self, status: int) -> None:
        from tools.toolstack.children.status import describe_end

        # A guest that waits for an answer that never comes would hang for ever.
        self.domain.crash(f"its device model {describe_end(status)}")
