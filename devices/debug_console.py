"""What a Bochs-style debug console knows: bytes written to its port go out on a chardev.

A guest finds it by reading the port, which gives 0xe9 (SeaBIOS, src/hw/serialio.c:
qemu_debug_preinit).

Sources: QEMU's hw/char/debugcon.c, option names included.
Not modelled: flow control; a byte that the chardev does not take is lost, as the guest cannot wait.
What is not exactly once: when the process is killed while it writes, its successor writes again;
the bytes of that one request can leave twice, none is lost.
What a hostile guest can do: fill whatever the chardev's other end keeps.
"""

from __future__ import annotations

from dm import WO, Bank, Character, Device, Option, PortWindow, Register

__all__ = ["DebugConsole"]


class ConsolePort(Bank, size=1, width=8):
    """The one port."""

    data = Register.at(0, access=WO)


class DebugConsole(Device):
    """A write-only console at one port."""

    summary = "debug console (isa-debugcon)"

    iobase = Option(int, 0x402, "port number")
    readback = Option(int, 0xE9, "what reading the port gives")

    port = PortWindow(ConsolePort, at=iobase)
    output = Character()

    @ConsolePort.data.computed
    def _read(self) -> int:
        return self.readback

    @ConsolePort.data.on_write
    def _write(self, new: int, old: int) -> None:
        self.output.write(bytes((new,)))

    @ConsolePort.data.on_write_block
    def _write_block(self, size: int, data: bytes) -> None:
        self.output.write(data)
