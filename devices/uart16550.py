"""What a 16550A UART knows: its eight registers, two FIFOs, and when it interrupts.

Bytes leave at once, whatever the baud rate; the rate only sets the time of the receive timeout and
of retries. A chardev that takes nothing leaves THRE low; after a few retries the byte is dropped,
and until the chardev takes one again nothing waits: a guest never hangs on a reader that is away.

Sources: National Semiconductor PC16550D data sheet, 8.1-8.9 (registers, FIFO operation, loopback);
QEMU hw/char/serial.c for what the data sheet leaves open (THRE interrupt when IER bit 1 rises, the
room that is advertised below the trigger level); Linux drivers/tty/serial/8250/8250_port.c:
autoconfig for what it probes.
Not modelled: modem lines that change (DCD, DSR and CTS are on), break, parity and framing errors,
DMA mode, the gating of the interrupt by OUT2 (as in QEMU).
What is not exactly once: when the process is killed while it sends, its successor sends again; the
bytes of that one request can leave twice. Bytes that had come in and were not read by the guest are
kept; those that the chardev was handing over at that moment are lost.
What a hostile guest can do: send garbage to its own chardev, and lose its own bytes.
"""

from __future__ import annotations

from dm import (
    KEPT,
    RO,
    WO,
    Bank,
    Bit,
    Character,
    Device,
    Field,
    Fifo,
    IsaLine,
    Option,
    PortWindow,
    Register,
    Timer,
    Word,
)

__all__ = ["Uart16550"]

FIFO_DEPTH = 16
TRIGGER_LEVELS = (1, 4, 8, 14)
BASE_BAUD = 115200
RESET_DIVISOR = 12
TIMEOUT_CHARACTERS = 4
NANOSECONDS = 1_000_000_000

RETRIES = 6
LONGEST_RETRY = 50_000_000

NO_INTERRUPT = 0x01
MODEM_STATUS = 0x00
TRANSMITTER_EMPTY = 0x02
DATA_AVAILABLE = 0x04
LINE_STATUS = 0x06
CHARACTER_TIMEOUT = 0x0C
FIFOS_ENABLED = 0xC0


class InterruptEnable(Register):
    """IER (8.7)."""

    data_available = Bit(0)
    transmitter_empty = Bit(1)
    line_status = Bit(2)
    modem_status = Bit(3)


class FifoControl(Register, access=KEPT):
    """FCR (8.5)."""

    enable = Bit(0)
    clear_receiver = Bit(1, access=WO)
    clear_transmitter = Bit(2, access=WO)
    dma_mode = Bit(3)
    trigger = Field(7, 6)


class LineControl(Register):
    """LCR (8.1)."""

    word_length = Field(1, 0)
    two_stop_bits = Bit(2)
    parity_enable = Bit(3)
    even_parity = Bit(4)
    stick_parity = Bit(5)
    set_break = Bit(6)
    dlab = Bit(7)


class ModemControl(Register, reset=0x08):
    """MCR (8.8); OUT2 is set after reset, as QEMU and PC firmware have it."""

    dtr = Bit(0)
    rts = Bit(1)
    out1 = Bit(2)
    out2 = Bit(3)
    loopback = Bit(4)


class LineStatus(Register, access=RO, reset=0x60):
    """LSR (8.4)."""

    data_ready = Bit(0)
    overrun = Bit(1)
    parity_error = Bit(2)
    framing_error = Bit(3)
    break_interrupt = Bit(4)
    thr_empty = Bit(5)
    transmitter_empty = Bit(6)


class ModemStatus(Register, access=RO, reset=0xB0):
    """MSR (8.9)."""

    delta = Field(3, 0)
    cts = Bit(4)
    dsr = Bit(5)
    ri = Bit(6)
    dcd = Bit(7)


LINE_ERRORS = 0x1E
DATA_READY = LineStatus.data_ready.mask
SENT = LineStatus.thr_empty.mask | LineStatus.transmitter_empty.mask
CLEARED_BY_LSR = LineStatus.overrun.mask | LineStatus.break_interrupt.mask
CLEARED_BY_RBR = LineStatus.data_ready.mask | LineStatus.break_interrupt.mask


class Ports(Bank, size=8, width=8):
    """The eight ports; the divisor latch covers the first two while DLAB is set."""

    lcr = LineControl.at(3)
    divisor_low = Register.at(0, reset=RESET_DIVISOR, when=lcr.has(LineControl.dlab))
    divisor_high = Register.at(1, when=lcr.has(LineControl.dlab))
    rbr = Register.at(0, access=RO)
    thr = Register.at(0, access=WO)
    ier = InterruptEnable.at(1)
    iir = Register.at(2, access=RO)
    fcr = FifoControl.at(2)
    mcr = ModemControl.at(4)
    lsr = LineStatus.at(5)
    msr = ModemStatus.at(6)
    scr = Register.at(7)


class Uart16550(Device):
    """A serial port of a PC."""

    summary = "16550A serial port"

    base = Option(int, 0x3F8, "first of its eight ports")
    irq = Option(int, 4, "ISA interrupt")

    ports = PortWindow(Ports, at=base)
    line = IsaLine(irq)
    serial = Character()

    received = Fifo(FIFO_DEPTH)
    unsent = Fifo(FIFO_DEPTH)
    tries = Word(8)
    thr_interrupt = Word(1)
    filling = Word(1)
    timeout_interrupt = Word(1)
    receive_timeout = Timer()
    retry = Timer()

    @line.level
    def _interrupts(self) -> bool:
        return self.ports.ier.value != 0 and self._interrupt() != NO_INTERRUPT

    def _interrupt(self) -> int:
        """The identification of the pending interrupt of highest priority (8.6, table IV)."""
        ports = self.ports
        enabled, status = ports.ier, ports.lsr.value
        if enabled.line_status and status & LINE_ERRORS:
            return LINE_STATUS
        if enabled.data_available:
            if self.timeout_interrupt:
                return CHARACTER_TIMEOUT
            if status & DATA_READY and (
                not ports.fcr.enable or len(self.received) >= self._trigger_level()
            ):
                return DATA_AVAILABLE
        if enabled.transmitter_empty and self.thr_interrupt:
            return TRANSMITTER_EMPTY
        if enabled.modem_status and ports.msr.delta:
            return MODEM_STATUS
        return NO_INTERRUPT

    def _trigger_level(self) -> int:
        return TRIGGER_LEVELS[self.ports.fcr.trigger]

    def _character_time(self) -> int:
        """Nanoseconds that one character takes on the line."""
        ports = self.ports
        control = ports.lcr
        bits = 1 + 5 + control.word_length + control.parity_enable + 1 + control.two_stop_bits
        divisor = ports.divisor_low.value | ports.divisor_high.value << 8
        return bits * (divisor or RESET_DIVISOR) * NANOSECONDS // BASE_BAUD

    @Ports.thr.on_write
    def _transmit(self, new: int, old: int) -> None:
        self._send(bytes((new,)))

    @Ports.thr.on_write_block
    def _transmit_block(self, size: int, data: bytes) -> None:
        if size == 1:
            self._send(data)
            return
        for position in range(0, len(data), size):
            element = int.from_bytes(data[position : position + size], "little")
            self.ports.write(Ports.thr.offset, size, element)

    def _send(self, data: bytes) -> None:
        """Send ``data``; keep what the chardev does not take, losing the oldest on an overrun."""
        if self.ports.ier.transmitter_empty:
            self._end_request()
        if self.ports.mcr.loopback:
            self._receive(data)
        elif len(self.unsent):
            self._keep(data)
            return
        else:
            taken = self.serial.write(data)
            if taken == len(data):
                self.tries = 0
            elif self.tries < RETRIES:
                self._keep(data[taken:])
                self._retry_later()
                return
        self._sent()

    def _end_request(self) -> None:
        """Let the interrupt fall, so that the next request is an edge, which is all that counts.

        Bytes that fill the FIFO one after the other, with no look at LSR between them, would have
        made one request of a real chip; they get one edge instead of sixteen.
        """
        if self.thr_interrupt and not (self.filling and self.ports.fcr.enable):
            self.thr_interrupt = 0
            self.settle()
        self.filling = 1

    def _keep(self, data: bytes) -> None:
        for byte in data[-FIFO_DEPTH:]:
            if not self.unsent.room:
                self.unsent.pop()
            self.unsent.push(byte)
        self.ports.lsr.value &= ~SENT
        self.thr_interrupt = 0

    def _sent(self) -> None:
        self.ports.lsr.value |= SENT
        self.thr_interrupt = 1

    def _retry_later(self) -> None:
        self.retry.start_in(min(self._character_time() << 2 * self.tries, LONGEST_RETRY))
        self.tries += 1

    @retry.expired
    def _transmit_again(self) -> None:
        while len(self.unsent) and self.serial.write(bytes((self.unsent.peek(),))):
            self.unsent.pop()
            self.tries = 0
        if len(self.unsent) and self.tries < RETRIES:
            self._retry_later()
            return
        self.unsent.clear()
        self._sent()

    @serial.room
    def _room(self) -> int:
        """As many bytes as the trigger level lacks, so that the guest sees its own level work."""
        ports = self.ports
        if ports.mcr.loopback:
            return 0
        if not ports.fcr.enable:
            return 1 - ports.lsr.data_ready
        lacking = self._trigger_level() - len(self.received)
        return lacking if lacking >= 0 else min(self.received.room, 1)

    @serial.received
    def _receive(self, data: bytes) -> None:
        status = self.ports.lsr
        for byte in data:
            if not self.ports.fcr.enable:
                status.overrun |= status.data_ready
                self.ports.rbr.value = byte
            elif not self.received.push(byte):
                status.overrun = 1
            status.data_ready = 1
        if self.ports.fcr.enable:
            self._await_more()

    def _await_more(self) -> None:
        self.receive_timeout.start_in(TIMEOUT_CHARACTERS * self._character_time())

    @receive_timeout.expired
    def _nothing_more(self) -> None:
        self.timeout_interrupt = 1 if len(self.received) else 0

    @Ports.rbr.on_read
    def _read_byte(self) -> int:
        ports = self.ports
        makes_room = ports.lsr.data_ready
        if not ports.fcr.enable:
            byte = ports.rbr.value
            ports.lsr.value &= ~CLEARED_BY_RBR
        else:
            byte = self.received.pop() if len(self.received) else 0
            self.timeout_interrupt = 0
            if len(self.received):
                self._await_more()
            else:
                ports.lsr.value &= ~CLEARED_BY_RBR
        if makes_room:
            self.serial.accept_input()
        return byte

    @Ports.ier.on_write
    def _interrupts_enabled(self, new: int, old: int) -> None:
        if (new ^ old) & InterruptEnable.transmitter_empty.mask:
            # Rising, it requests at once while THR is empty, even if IIR had been read before.
            self.thr_interrupt = self.ports.ier.transmitter_empty & self.ports.lsr.thr_empty

    @Ports.iir.on_read
    def _read_identification(self) -> int:
        pending = self._interrupt()
        if pending == TRANSMITTER_EMPTY:
            self.thr_interrupt = 0
        return pending | (FIFOS_ENABLED if self.ports.fcr.enable else 0)

    @Ports.fcr.on_write
    def _control_fifos(self, new: int, old: int) -> None:
        switched = (new ^ old) & FifoControl.enable.mask
        if switched or FifoControl.clear_receiver.of(new):
            self.received.clear()
            self.receive_timeout.stop()
            self.timeout_interrupt = 0
            self.ports.lsr.value &= ~CLEARED_BY_RBR
        if switched or FifoControl.clear_transmitter.of(new):
            self.unsent.clear()
            self.retry.stop()
            self._sent()
        self.serial.accept_input()

    @Ports.mcr.on_write
    def _control_modem(self, new: int, old: int) -> None:
        if not ModemControl.loopback.of(new):
            self.serial.accept_input()

    @Ports.lsr.on_read
    def _read_line_status(self) -> int:
        status = self.ports.lsr.value
        if self.filling:
            self.filling = 0
        if status & CLEARED_BY_LSR:
            self.ports.lsr.value = status & ~CLEARED_BY_LSR
        return status

    @Ports.msr.on_read
    def _read_modem_status(self) -> int:
        """The modem's lines, or in loopback the outputs that take their place (8.8)."""
        control = self.ports.mcr
        if control.loopback:
            return control.out2 << 7 | control.out1 << 6 | control.dtr << 5 | control.rts << 4
        status = self.ports.msr.value
        self.ports.msr.delta = 0
        return status
