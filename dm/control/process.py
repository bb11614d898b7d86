"""The device model of one guest: what is opened, in which order, and what ends it.

The order of start-up is QEMU's where a toolstack can tell the difference: QMP listens and the
ioreq server is enabled before `running` is written; privileges go after everything was opened.
"""

from __future__ import annotations

from zlib import crc32

from dm.errors import ConfigError, HostError
from dm.host.chardev import ChardevSet, ChardevSpec
from dm.machine.configuration import Configuration
from dm.machine.machine import Machine
from dm.machine.survivor import Survivor, seal_over
from dm.observe.log import Log
from dm.server.loop import Loop
from dm.server.polling import PollWindow
from dm.server.server import IoreqServer
from dm.server.service import Service

from . import privileges
from .argv_report import check
from .devices import board, known_drivers, make_device
from .machine_monitor import MachineMonitor, read_all
from .qmp_listener import Qmp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dm.device.character import LiveCharacter
    from dm.device.device import Device
    from dm.host.tap import Tap
    from dm.hypervisor.interface import Hypervisor, Store

    from .argv import Options
    from .observation import Observation

__all__ = ["DeviceModel"]

HOLE_END = 1 << 32


class DeviceModel:
    """One guest's device model, from its options to its end."""

    def __init__(self, options: Options, loop: Loop, hypervisor: Hypervisor) -> None:
        self.options = options
        self.loop = loop
        self.hypervisor = hypervisor
        self.run_state = "prelaunch" if options.incoming_fd is None else "inmigrate"
        self.ended = False
        self._resetting = False
        self.chardevs = ChardevSet(loop)
        self.qmp = Qmp(loop, MachineMonitor(self))
        self._log = Log("process")
        self._store: Store | None = None
        self._taps: list[Tap] = []
        self._survivor: Survivor | None = None
        kind = options.machine.get("type", "xenfv")
        self.observation = _observation(options)
        make = Machine if self.observation is None else self.observation.machine
        self.machine = make(kind, hypervisor, hypervisor.memory, loop.now)
        # A machine of only its own devices stands beside others, each known by what it was given.
        self._role = f"{crc32(repr(options.devices).encode()):08x}" if kind == "none" else ""
        self.server = IoreqServer(
            hypervisor, self.machine, attached=kind == "none", role=self._role
        )
        window = PollWindow(hypervisor.cpu_count(), _poll_limit(options))
        self.service = Service(loop, hypervisor, self.machine, self.server, window)
        hypervisor.attend(loop, self.quit)
        hypervisor.on_reset = self.reset

    def open(self) -> None:
        """Become ready to serve: build, listen, take the ioreq server, load what comes in."""
        options = self.options
        for line in check(options, known_drivers()):
            self._log.warning("%s", line)
        plugs = self._build()
        self.server.open()
        inherit = options.incoming_fd is None and self.server.adopted
        self._survivor = seal_over(
            self._state_file(),
            self.machine,
            inherit=inherit,
            now=self.loop.now,
            under_way=self.server.under_way(),
        )
        if self.observation is not None:
            self.observation.watch(self.machine, self.loop, self.server)
        self._open_host_side(plugs)
        self._store = self.hypervisor.store()
        if options.incoming_fd is not None:
            self._apply(read_all(options.incoming_fd))
            self.run_state = "paused"
        self.server.settle_predecessors()
        self._drop_privileges()
        if options.stopped:
            self.server.paused = True
        else:
            self.cont()

    def _state_file(self) -> str | None:
        """Where the state lives, so that it outlives the process.

        A predecessor's counts only where its server was still there: a domain that has none never
        had a device model of this kind, whatever its number was before. A restricted process could
        not remove its file, so it has none.
        """
        if self.options.xen_domid_restrict or self.options.chroot is not None:
            return None
        return self.hypervisor.run_file(f"devices{self._role}" if self._role else "state")

    def _build(self) -> list[tuple[Device, str]]:
        """Add all devices; gives those of the command line that name a chardev."""
        options = self.options
        kind = options.machine.get("type", "xenfv")
        configuration = Configuration(
            memory_mib=options.memory_mb,
            hole=_hole(options),
            cpus=options.cpus,
            maximum_cpus=options.maxcpus,
            boot=options.boot.get("order", "cda"),
            boot_menu=options.boot.get("menu", "on") != "off",
            serials=tuple(spec is not None for spec in options.serials),
            platform_device=not kind.startswith("pc"),
        )
        for device in () if kind == "none" else board(kind, configuration):
            self.machine.add(device)
        plugs = []
        for number, (driver, values) in enumerate(options.devices):
            extra = make_device(driver, values, number)
            if extra is not None:
                self.machine.add(extra)
                if self.observation is not None:
                    self.observation.name(extra, driver, values)
                if driver == "pvpanic":
                    from .panic import watch_panics

                    watch_panics(self, extra)
                if "chardev" in values:
                    plugs.append((extra, values["chardev"]))
        return plugs

    def _open_host_side(self, plugs: list[tuple[Device, str]]) -> None:
        """Open monitors and chardevs, and plug the chardevs into their devices."""
        options = self.options
        monitors = set(options.qmp)
        for spec in options.chardevs:
            if spec.label in monitors:
                self.chardevs.add(self.qmp.open(spec))
            else:
                self.chardevs.open(spec)
        self._open_taps()
        by_name = {device.name: device for device in self.machine.devices}
        for number, serial in enumerate(options.serials):
            device = by_name.get(f"serial{number}")
            if serial is not None and device is not None:
                _character(device).attach(self.chardevs.open(serial))
        for device, label in plugs:
            spec = ChardevSpec("chardev", label, {"id": label}, f"-device …,chardev={label}")
            _character(device).attach(self.chardevs.open(spec))

    def _open_taps(self) -> None:
        """Make the interfaces that the toolstack's hot-plug scripts look for."""
        for netdev in self.options.netdevs:
            if netdev.get("type") == "tap" and "ifname" in netdev:
                from dm.host.tap import Tap

                try:
                    self._taps.append(Tap(netdev["ifname"]))
                except HostError as error:
                    self._log.warning("%s", error)

    def _apply(self, data: bytes) -> None:
        from dm.machine.container import load

        load(self.machine, data)

    def _drop_privileges(self) -> None:
        options = self.options
        user = None if options.runas is None else privileges.parse_user(options.runas)
        if options.xen_domid_restrict or options.chroot is not None or user is not None:
            privileges.load_everything()
        if options.xen_domid_restrict:
            if self._store is not None:
                self._store.close()
                self._store = None
            self.hypervisor.restrict()
        if options.chroot is not None:
            privileges.change_root(options.chroot)
        if user is not None:
            privileges.change_user(*user)

    def cont(self) -> None:
        """Run, or go on after `stop`; nothing happens when it runs already."""
        if self.run_state == "running":
            return
        self.run_state = "running"
        self.machine.start()
        self.server.paused = False
        if self._store is not None:
            self._store.write(f"device-model/{self.hypervisor.domid}/state", "running")
        self.service.resume()
        self.qmp.emit("RESUME")

    def stop(self) -> None:
        """Quiesce: no request is served, no timer fires, no guest memory is written."""
        if self.run_state != "running":
            return
        self.server.drain()
        self.run_state = "paused"
        self.machine.stop()
        self.server.paused = True
        self.qmp.emit("STOP")

    def save(self) -> bytes:
        """The state of all devices, as one container; HostError while answers are outstanding."""
        from dm.machine.container import save

        running = self.run_state == "running"
        if running:
            self.stop()
        if self.server.slots.waiting:
            raise HostError("a device has not yet answered a request of the guest")
        return save(self.machine)

    def load(self, data: bytes) -> None:
        """Replace the state of all devices; only while the machine is stopped."""
        if self.run_state == "running":
            raise HostError("the machine is running")
        self._apply(data)

    def set_dirty_log(self, *, enabled: bool) -> None:
        """Report to Xen which pages devices write, or stop to."""
        self.hypervisor.set_dirty_log(enabled=enabled)

    def platform_shutdown(self, reason: str) -> None:
        """End the guest from outside; the toolstack decides what follows."""
        self._resetting = True
        self.hypervisor.shutdown(reason)
        self._resetting = False

    def reset(self) -> None:
        """The platform was reset in place: so are the devices."""
        self.machine.reset()
        guest = not self._resetting
        reason = "guest-reset" if guest else "host-qmp-system-reset"
        data = {"guest": guest, "reason": reason}
        # A monitor that asked for it is answered first.
        self.loop.call_at(self.loop.now(), lambda: self.qmp.emit("RESET", data))

    def wake_up(self) -> None:
        """Wake a guest that sleeps in S3: its platform was off, so the devices are reset."""
        if not self.hypervisor.suspended:
            raise HostError("Unable to wake up: guest is not in suspended state")
        self.machine.reset()
        for device in self.machine.devices:
            device.on_wake()
        self.hypervisor.wake()

    def online_vcpus(self) -> list[int]:
        """The vCPUs that are online, as the machine's hot-plug registers have them."""
        for device in self.machine.devices:
            online = getattr(device, "online", None)
            if online is not None:
                return list(online)
        return list(range(self.options.cpus))

    def plug_vcpu(self, number: int) -> None:
        """Bring a vCPU online and tell the guest."""
        for device in self.machine.devices:
            plug = getattr(device, "plug_vcpu", None)
            if plug is not None:
                plug(number)
                device.settle()
                return
        raise ConfigError("this machine has no CPU hot-plug")

    def statistics(self) -> str:
        """Counters of requests and errors, for people."""
        server, window = self.server, self.service.window
        ring = server.ring
        lines = [
            f"requests {self.service.answers}",
            f"refused {server.slots.refused}",
            f"unknown {server.executor.unknown}",
            f"clock changes {server.executor.time_offsets}",
            f"invalidations {server.executor.invalidations}",
            f"device errors {self.machine.errors}",
            f"unclaimed {self.machine.bus.unclaimed}",
            f"buffered {ring.entries if ring else 0}",
            f"ring corrupt {ring.corrupt if ring else 0}",
            f"watched {window.hits + window.misses} times, {window.hits} in time,"
            f" {window.spent // 1_000_000} ms",
        ]
        return "\r\n".join(lines) + "\r\n"

    def quit(self) -> None:
        """End after the current turn."""
        self.ended = True

    def run(self) -> None:
        """Serve until something ends the process."""
        turn = self.service.turn
        while not self.ended:
            turn()

    def close(self) -> None:
        """Answer everything, destroy the server, give back what is this process's own."""
        self.server.close()
        self.qmp.close()
        self.chardevs.close()
        for tap in self._taps:
            tap.close()
        if self._survivor is not None:
            self._survivor.remove()
        if self.observation is not None:
            self.observation.close()
        self.hypervisor.close()


def _character(device: Device) -> LiveCharacter:
    """The one character plug of a device; ConfigError when it has none."""
    found: LiveCharacter | None = device.character_plug()
    if found is None:
        raise ConfigError(f"{device.name} takes no chardev")
    return found


def _observation(options: Options) -> Observation | None:
    if not options.observe:
        return None
    from .observation import Observation

    return Observation(options.observe)


def _hole(options: Options) -> int:
    """Where RAM below 4 GiB ends at most: `max-ram-below-4g`, else Xen's default."""
    text = options.machine.get("max-ram-below-4g")
    try:
        return min(int(text, 0), HOLE_END) if text else 0xF0000000
    except ValueError:
        raise ConfigError(f"-machine max-ram-below-4g={text} is not a number of bytes") from None


def _poll_limit(options: Options) -> int | None:
    text = options.machine.get("poll-max-us")
    if text is None:
        return None
    if not text.isdecimal():
        raise ConfigError(f"-machine poll-max-us={text} is not a number of microseconds")
    return int(text) * 1000
