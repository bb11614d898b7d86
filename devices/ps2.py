"""What a PS/2 keyboard and a PS/2 mouse know, whatever controller they are plugged into.

Each is a part that a controller's device class inherits: it declares the state and answers the
bytes that the controller sends. Nothing here knows about ports or interrupts.

Sources: IBM PS/2 Hardware Interface Technical Reference, Keyboard and Mouse; QEMU hw/input/ps2.c
for the order of replies and scan codes, queue lengths and the IntelliMouse knock; SeaBIOS
src/hw/ps2port.c and Linux drivers/input/keyboard/atkbd.c, mouse/psmouse-base.c for what is used.
Not modelled: typematic repeat, LEDs, resolution and scaling of movement, scan code set 3 (its keys
are sent as set 2), the Pause and Print Screen sequences.
What a hostile guest can do: fill queues of fixed length with its own replies.
"""

from __future__ import annotations

from dm import Fifo, Word

__all__ = ["Keyboard", "Mouse"]

ACK = 0xFA
RESEND = 0xFE
SELF_TEST_PASSED = 0xAA
QUEUE_LENGTH = 16

SET_LEDS = 0xED
ECHO = 0xEE
SCAN_CODE_SET = 0xF0
IDENTIFY = 0xF2
SET_RATE = 0xF3
ENABLE = 0xF4
DISABLE = 0xF5
SET_DEFAULTS = 0xF6
SET_ALL_TYPEMATIC = 0xFA
SET_MAKE_BREAK = 0xFC
RESET = 0xFF
WITH_ARGUMENT = (SET_LEDS, SCAN_CODE_SET, SET_RATE, SET_MAKE_BREAK)

SIMPLE_REPLIES = {
    0x00: ACK,
    0x05: RESEND,
    ECHO: ECHO,
    SET_LEDS: ACK,
    SCAN_CODE_SET: ACK,
    SET_RATE: ACK,
    SET_MAKE_BREAK: ACK,
    SET_ALL_TYPEMATIC: ACK,
    ENABLE: ACK,
    DISABLE: ACK,
    SET_DEFAULTS: ACK,
}
"""The first byte of a keyboard's answer to a command; others are asked for again."""

TRANSLATED_SETS = {1: 0x43, 2: 0x41, 3: 0x3F}
"""How a controller that translates shows the numbers of the scan code sets."""

SET_2_CODES = bytes.fromhex(
    "00 76 16 1e 26 25 2e 36 3d 3e 46 45 4e 55 66 0d"
    "15 1d 24 2d 2c 35 3c 43 44 4d 54 5b 5a 14 1c 1b"
    "23 2b 34 33 3b 42 4b 4c 52 0e 12 5d 1a 22 21 2a"
    "32 31 3a 41 49 4a 59 7c 11 29 58 05 06 04 0c 03"
    "0b 83 0a 01 09 77 7e 6c 75 7d 7b 6b 73 74 79 69"
    "72 7a 70 71 84 00 61 78 07 00 00 1f 27 2f"
)
"""Make codes of scan code set 2, indexed by those of set 1; zero where there is no key."""

EXTENDED = 0xE0
BREAK_SET_1 = 0x80
BREAK_SET_2 = 0xF0


class Keyboard:
    """A 101-key keyboard. Replies go out before scan codes; a new command drops old replies."""

    keyboard_queue = Fifo(QUEUE_LENGTH)
    keyboard_replies = Fifo(4)
    keyboard_command = Word(8)
    keyboard_scanning = Word(1, reset=1)
    keyboard_set = Word(2, reset=2)

    def keyboard_pending(self) -> bool:
        """Whether it has a byte for the controller."""
        return len(self.keyboard_replies) + len(self.keyboard_queue) != 0

    def keyboard_read(self) -> int:
        """Take its next byte; there must be one."""
        return (self.keyboard_replies if len(self.keyboard_replies) else self.keyboard_queue).pop()

    def keyboard_write(self, byte: int, translated: bool) -> None:
        """Take a command or its argument; ``translated``: the controller translates to set 1."""
        command = self.keyboard_command
        self.keyboard_replies.clear()
        if command:
            self.keyboard_command = 0
            replies = self._argument(command, byte, translated)
        else:
            replies = self._command(byte, translated)
        for reply in replies:
            self.keyboard_replies.push(reply)

    def _command(self, byte: int, translated: bool) -> tuple[int, ...]:
        if byte == IDENTIFY:
            return ACK, 0xAB, 0x41 if translated else 0x83
        if byte in WITH_ARGUMENT:
            self.keyboard_command = byte
        if byte in (DISABLE, SET_DEFAULTS, RESET):
            self.keyboard_queue.clear()
            self.keyboard_set = 2
        if byte in (ENABLE, DISABLE, SET_DEFAULTS, RESET):
            self.keyboard_scanning = byte != DISABLE
        if byte == RESET:
            return ACK, SELF_TEST_PASSED
        return (SIMPLE_REPLIES.get(byte, RESEND),)

    def _argument(self, command: int, byte: int, translated: bool) -> tuple[int, ...]:
        if command != SCAN_CODE_SET:
            return (ACK,)
        if byte == 0:
            number = self.keyboard_set
            return ACK, TRANSLATED_SETS.get(number, number) if translated else number
        if byte > 3:
            return (RESEND,)
        self.keyboard_set = byte
        return (ACK,)

    def keyboard_press(self, scan_code: int, down: bool, translated: bool) -> bool:
        """Press or release a key; False when the key is lost (no scanning, no room, no such key).

        ``scan_code``: its make code in set 1, 0x01 to 0x7f, or 0xe001 to 0xe07f for extended keys.
        """
        code = scan_code & 0x7F
        prefix = (EXTENDED,) if scan_code >> 8 == EXTENDED else ()
        if translated or self.keyboard_set == 1:
            sequence = (*prefix, code if down else code | BREAK_SET_1)
        else:
            code = SET_2_CODES[code] if code < len(SET_2_CODES) else 0
            sequence = (*prefix, code) if down else (*prefix, BREAK_SET_2, code)
        if not self.keyboard_scanning or not code or self.keyboard_queue.room < len(sequence):
            return False
        for byte in sequence:
            self.keyboard_queue.push(byte)
        return True


MOUSE_SCALING_1_1 = 0xE6
MOUSE_SCALING_2_1 = 0xE7
MOUSE_RESOLUTION = 0xE8
MOUSE_STATUS = 0xE9
MOUSE_STREAM = 0xEA
MOUSE_POLL = 0xEB
MOUSE_END_WRAP = 0xEC
MOUSE_WRAP = 0xEE
MOUSE_REMOTE = 0xF0

STATUS_SCALING = 0x10
STATUS_ENABLED = 0x20
STATUS_REMOTE = 0x40

STATUS_CHANGES = {
    MOUSE_SCALING_1_1: (STATUS_SCALING, 0),
    MOUSE_SCALING_2_1: (STATUS_SCALING, STATUS_SCALING),
    MOUSE_STREAM: (STATUS_REMOTE, 0),
    MOUSE_REMOTE: (STATUS_REMOTE, STATUS_REMOTE),
    ENABLE: (STATUS_ENABLED, STATUS_ENABLED),
    DISABLE: (STATUS_ENABLED, 0),
    SET_DEFAULTS: (0xFF, 0),
    RESET: (0xFF, 0),
}
"""Mouse command to (bits of the status byte that change, what they become)."""

KNOCK = {(0, 200): 1, (1, 100): 2, (1, 200): 3}
KNOCK_OPENS = {(2, 80): 3, (3, 80): 4}
"""Sample rates 200, 100, 80 turn it into a wheel mouse (3); 200, 200, 80 into one of five buttons
(4)."""

LONGEST_STEP = 127
LONGEST_WHEEL_STEP = 7


class Mouse:
    """A mouse of two or three buttons that becomes an IntelliMouse when the driver knocks."""

    mouse_queue = Fifo(QUEUE_LENGTH)
    mouse_command = Word(8)
    mouse_status = Word(8)
    mouse_resolution = Word(8)
    mouse_rate = Word(8)
    mouse_wrap = Word(1)
    mouse_type = Word(8)
    mouse_knock = Word(2)
    mouse_buttons = Word(5)
    mouse_dx = Word(16)
    mouse_dy = Word(16)
    mouse_dz = Word(16)

    def mouse_pending(self) -> bool:
        """Whether it has a byte for the controller."""
        return len(self.mouse_queue) != 0

    def mouse_write(self, byte: int) -> None:
        """Take a command or its argument."""
        if self.mouse_command:
            self._mouse_argument(self.mouse_command, byte)
            self.mouse_command = 0
        elif self.mouse_wrap and byte not in (MOUSE_END_WRAP, RESET):
            self._mouse_send(byte)
        else:
            self._mouse_command(byte)

    def _mouse_argument(self, command: int, byte: int) -> None:
        if command == MOUSE_RESOLUTION:
            self.mouse_resolution = byte
        else:
            self.mouse_rate = byte
            self.mouse_type = KNOCK_OPENS.get((self.mouse_knock, byte), self.mouse_type)
            self.mouse_knock = KNOCK.get((self.mouse_knock, byte), 0)
        self._mouse_send(ACK)

    def _mouse_command(self, byte: int) -> None:
        changed, bits = STATUS_CHANGES.get(byte, (0, 0))
        self.mouse_status = self.mouse_status & ~changed | bits
        if byte in (SET_DEFAULTS, RESET):
            self.mouse_rate = 100
            self.mouse_resolution = 2
        if byte == RESET:
            self.mouse_type = self.mouse_wrap = 0
            self.mouse_queue.clear()
            self._mouse_send(ACK, SELF_TEST_PASSED, 0)
        elif byte == IDENTIFY:
            self._mouse_send(ACK, self.mouse_type)
        elif byte == MOUSE_STATUS:
            self._mouse_send(ACK, self.mouse_status, self.mouse_resolution, self.mouse_rate)
        elif byte == MOUSE_POLL:
            self._mouse_send(ACK)
            self._mouse_packet()
        elif byte in (MOUSE_RESOLUTION, SET_RATE):
            self.mouse_command = byte
            self._mouse_send(ACK)
        elif byte in (MOUSE_WRAP, MOUSE_END_WRAP):
            if byte == MOUSE_WRAP or self.mouse_wrap:
                self._mouse_send(ACK)
            self.mouse_wrap = byte == MOUSE_WRAP
        elif changed:
            self._mouse_send(ACK)

    def _mouse_send(self, *data: int) -> bool:
        """Queue all of ``data`` or, when there is no room for all, nothing."""
        if self.mouse_queue.room < len(data):
            return False
        for byte in data:
            self.mouse_queue.push(byte)
        return True

    def mouse_moved(self, dx: int, dy: int, dz: int, buttons: int) -> None:
        """Move it right, up and its wheel towards the user by so many counts.

        ``buttons``: bit 0 left, 1 right, 2 middle, 3 and 4 the others. What finds no room in the
        queue is kept for the next packet.
        """
        if not self.mouse_status & STATUS_ENABLED:
            return
        self.mouse_buttons = buttons & 0x1F
        self.mouse_dx = _add(self.mouse_dx, dx)
        self.mouse_dy = _add(self.mouse_dy, dy)
        self.mouse_dz = _add(self.mouse_dz, dz)
        if not self.mouse_status & STATUS_REMOTE:
            while self._mouse_packet() and self.mouse_dx | self.mouse_dy | self.mouse_dz:
                pass

    def _mouse_packet(self) -> bool:
        """Queue one packet with as much movement as it holds; False when it finds no room."""
        dx = _clamp(_signed(self.mouse_dx), LONGEST_STEP)
        dy = _clamp(_signed(self.mouse_dy), LONGEST_STEP)
        wheel = _signed(self.mouse_dz)
        dz = _clamp(wheel, LONGEST_WHEEL_STEP if self.mouse_type == 4 else LONGEST_STEP)
        first = 0x08 | (dx < 0) << 4 | (dy < 0) << 5 | self.mouse_buttons & 0x07
        extra: tuple[int, ...] = ()
        if self.mouse_type == 3:
            extra = (dz & 0xFF,)
        elif self.mouse_type == 4:
            extra = (dz & 0x0F | (self.mouse_buttons & 0x18) << 1,)
        if not self._mouse_send(first, dx & 0xFF, dy & 0xFF, *extra):
            return False
        self.mouse_dx = _add(self.mouse_dx, -dx)
        self.mouse_dy = _add(self.mouse_dy, -dy)
        self.mouse_dz = _add(self.mouse_dz, -dz) if extra else 0
        return True


def _signed(word: int) -> int:
    return word - 0x10000 if word & 0x8000 else word


def _clamp(value: int, limit: int) -> int:
    return max(-limit, min(limit, value))


def _add(word: int, step: int) -> int:
    """A 16-bit two's complement sum that stops at its ends."""
    return _clamp(_signed(word) + step, 0x7FFF) & 0xFFFF
