"""What the i8042 keyboard controller knows: its commands, its output buffer, and two interrupts.

The output buffer holds one byte's source until the guest reads port 0x60: the controller itself,
the keyboard or the mouse. With each read the interrupt ends; a byte that waits behind it raises a
new one, for ISA interrupts are edges. A disabled keyboard also silences the controller's answers,
decided when the buffer fills: SeaBIOS polls for them with interrupts on.

Sources: IBM PS/2 Hardware Interface Technical Reference, Keyboard and Auxiliary Device Controller;
QEMU hw/input/pckbd.c for the priority of sources and for what disabling a port does; SeaBIOS
src/hw/ps2port.c and Linux drivers/input/serio/i8042.c for what is probed.
Not modelled: the A20 gate (a guest's address lines are Xen's; the bit is only kept), the keyboard
lock, the input buffer (a write is done when it returns, so status bit 1 is never set).
What a hostile guest can do: reboot itself.
"""

from __future__ import annotations

from dm import RO, WO, Bank, Bit, Device, IsaLine, PortWindow, PrivateWindow, Register, Word

from .ps2 import Keyboard, Mouse

__all__ = ["I8042"]

NOTHING = 0
CONTROLLER = 1
CONTROLLER_AS_MOUSE = 2
KEYBOARD = 3
MOUSE = 4
BY_PRIORITY = (CONTROLLER, CONTROLLER_AS_MOUSE, KEYBOARD, MOUSE)
FROM_KEYBOARD = (CONTROLLER, KEYBOARD)
FROM_MOUSE = (CONTROLLER_AS_MOUSE, MOUSE)

READ_MODE = 0x20
WRITE_MODE = 0x60
DISABLE_MOUSE = 0xA7
ENABLE_MOUSE = 0xA8
TEST_MOUSE = 0xA9
SELF_TEST = 0xAA
TEST_KEYBOARD = 0xAB
DISABLE_KEYBOARD = 0xAD
ENABLE_KEYBOARD = 0xAE
READ_INPUT_PORT = 0xC0
READ_OUTPUT_PORT = 0xD0
WRITE_OUTPUT_PORT = 0xD1
WRITE_KEYBOARD_BUFFER = 0xD2
WRITE_MOUSE_BUFFER = 0xD3
WRITE_MOUSE = 0xD4
CLOSE_A20 = 0xDD
OPEN_A20 = 0xDF
PULSE = 0xF0

WITH_ARGUMENT = (
    WRITE_MODE,
    WRITE_OUTPUT_PORT,
    WRITE_KEYBOARD_BUFFER,
    WRITE_MOUSE_BUFFER,
    WRITE_MOUSE,
)
FIXED_REPLIES = {SELF_TEST: 0x55, TEST_KEYBOARD: 0x00, TEST_MOUSE: 0x00, READ_INPUT_PORT: 0x80}


class Mode(Register, reset=0x03):
    """The controller command byte, which commands 0x20 and 0x60 read and write."""

    keyboard_interrupt = Bit(0)
    mouse_interrupt = Bit(1)
    system = Bit(2)
    ignore_lock = Bit(3)
    keyboard_disabled = Bit(4)
    mouse_disabled = Bit(5)
    translate = Bit(6)
    reserved = Bit(7)


class OutputPort(Register, reset=0xCF):
    """What commands 0xd0 and 0xd1 read and write."""

    run = Bit(0)
    a20 = Bit(1)
    output_full = Bit(4)
    mouse_output_full = Bit(5)


class StatusByte(Register, access=RO, reset=0x18):
    """Port 0x64; bits 3 (command written) and 4 (not locked) are always set, as in QEMU."""

    output_full = Bit(0)
    input_full = Bit(1)
    self_test_passed = Bit(2)
    command_written = Bit(3)
    unlocked = Bit(4)
    mouse_output_full = Bit(5)


class DataPort(Bank, size=1, width=8):
    """Port 0x60; ``output`` keeps the byte that was read last."""

    output = Register.at(0, access=RO)
    input = Register.at(0, access=WO)


OUTPUT_FULL = StatusByte.output_full.mask
MOUSE_FULL = StatusByte.mouse_output_full.mask


class CommandPort(Bank, size=1, width=8):
    """Port 0x64."""

    status = StatusByte.at(0)
    command = Register.at(0, access=WO)


class Inside(Bank, size=2, width=8):
    """Registers that only the controller's commands reach."""

    mode = Mode.at(0)
    output_port = OutputPort.at(1)


class I8042(Device, Keyboard, Mouse):
    """The controller of ports 0x60 and 0x64 with a keyboard and a mouse plugged in."""

    summary = "keyboard controller with keyboard and mouse"

    data_port = PortWindow(DataPort, at=0x60)
    command_port = PortWindow(CommandPort, at=0x64)
    keyboard_line = IsaLine(1)
    mouse_line = IsaLine(12)

    inside = PrivateWindow(Inside)
    command = Word(8)
    source = Word(3)
    reply = Word(8)
    reply_source = Word(2)
    keyboard_masked = Word(1)

    @keyboard_line.level
    def _keyboard_interrupts(self) -> bool:
        enabled = self.inside.mode.keyboard_interrupt and not self.keyboard_masked
        return bool(self.source in FROM_KEYBOARD and enabled)

    @mouse_line.level
    def _mouse_interrupts(self) -> bool:
        return bool(self.source in FROM_MOUSE and self.inside.mode.mouse_interrupt)

    def key(self, scan_code: int, down: bool) -> bool:
        """Press or release a key, as `Keyboard.keyboard_press` takes it; False when it is lost."""
        taken = self.keyboard_press(scan_code, down, bool(self.inside.mode.translate))
        self._refill()
        self.settle()
        return taken

    def mouse_move(self, dx: int, dy: int, buttons: int = 0, dz: int = 0) -> None:
        """Move the mouse and set its buttons, as `Mouse.mouse_moved` takes it."""
        self.mouse_moved(dx, dy, dz, buttons)
        self._refill()
        self.settle()

    def _has(self, source: int) -> bool:
        """Whether ``source`` has a byte that the controller may fetch."""
        if source == KEYBOARD:
            return self.keyboard_pending() and not self.inside.mode.keyboard_disabled
        if source == MOUSE:
            return self.mouse_pending() and not self.inside.mode.mouse_disabled
        return self.reply_source == source

    def _refill(self, after: int = NOTHING) -> None:
        """Let a waiting source have the empty output buffer; ``after``, the last, comes last."""
        if self.source == NOTHING:
            waiting = [source for source in BY_PRIORITY if self._has(source)]
            waiting.sort(key=lambda source: source == after)
            if waiting:
                self._hold(waiting[0])
                self.keyboard_masked = self.inside.mode.keyboard_disabled

    def _answer(self, byte: int, source: int = CONTROLLER) -> None:
        self.reply = byte
        self.reply_source = source

    def _hold(self, source: int) -> None:
        """Let the output buffer hold ``source``'s byte, or NOTHING, and the status byte say so."""
        self.source = source
        status = self.command_port.status
        kept = status.value & ~(OUTPUT_FULL | MOUSE_FULL)
        status.value = kept | self._buffer_bits(OUTPUT_FULL, MOUSE_FULL)

    def restored(self) -> None:
        """Saved state has the source; what the status byte says of it follows."""
        self._hold(self.source)

    def _buffer_bits(self, full: int, from_mouse: int) -> int:
        """``full`` while the output buffer is, and ``from_mouse`` when it holds the mouse's."""
        if self.source in FROM_MOUSE:
            return full | from_mouse
        return full if self.source != NOTHING else 0

    @DataPort.output.on_read
    def _read_data(self) -> int:
        source = self.source
        if source == NOTHING:
            return self.data_port.output.value
        self._hold(NOTHING)
        self.settle()
        if source == KEYBOARD:
            byte = self.keyboard_read()
        elif source == MOUSE:
            byte = self.mouse_queue.pop()
        else:
            byte = self.reply
            self.reply_source = NOTHING
        self._refill(after=source)
        self.data_port.output.value = byte
        return byte

    @CommandPort.command.on_write
    def _write_command(self, new: int, old: int) -> None:
        inside = self.inside
        if new in WITH_ARGUMENT:
            self.command = new
        elif new in FIXED_REPLIES:
            self.command_port.status.self_test_passed |= new == SELF_TEST
            self._answer(FIXED_REPLIES[new])
        elif new == READ_MODE:
            self._answer(inside.mode.value)
        elif new == READ_OUTPUT_PORT:
            self._answer(self._output_port())
        elif new in (DISABLE_KEYBOARD, ENABLE_KEYBOARD):
            inside.mode.keyboard_disabled = new == DISABLE_KEYBOARD
        elif new in (DISABLE_MOUSE, ENABLE_MOUSE):
            inside.mode.mouse_disabled = new == DISABLE_MOUSE
        elif new in (CLOSE_A20, OPEN_A20):
            inside.output_port.a20 = new == OPEN_A20
        elif new & PULSE == PULSE and not new & OutputPort.run.mask:
            self.platform.shutdown("reboot")
        self._refill()

    def _output_port(self) -> int:
        """What was written to the output port, its buffer bits as they are now."""
        full, from_mouse = OutputPort.output_full.mask, OutputPort.mouse_output_full.mask
        written = self.inside.output_port.value & ~(full | from_mouse)
        return written | self._buffer_bits(full, from_mouse)

    @DataPort.input.on_write
    def _write_data(self, new: int, old: int) -> None:
        command, self.command = self.command, 0
        mode = self.inside.mode
        if command == WRITE_MODE:
            mode.value = new
            self.keyboard_masked = mode.keyboard_disabled
        elif command == WRITE_OUTPUT_PORT:
            self.inside.output_port.value = new
            if not new & OutputPort.run.mask:
                self.platform.shutdown("reboot")
        elif command == WRITE_KEYBOARD_BUFFER:
            self._answer(new)
        elif command == WRITE_MOUSE_BUFFER:
            self._answer(new, CONTROLLER_AS_MOUSE)
        elif command == WRITE_MOUSE:
            self.mouse_write(new)
            mode.mouse_disabled = 0
        else:
            self.keyboard_write(new, bool(mode.translate))
            mode.keyboard_disabled = 0
        self._refill()
