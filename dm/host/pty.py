"""A pseudo-terminal as back end: readers come and go, and find the latest output waiting.

The process keeps the slave side open too. So the terminal stays raw, never reports a hang-up (which
epoll would repeat without end), and the oldest bytes in the kernel's queue can be taken back
when newer ones need the room: a console that is attached late sees the newest output, in order.
"""

from __future__ import annotations

import os
import termios

from dm.host.stream import StreamChardev

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dm.host.chardev import Loop

__all__ = ["PtyChardev", "make_raw"]

# More than Linux keeps of a terminal's bytes on their way to a reader (about 12 KiB).
_SLACK_BYTES = 16 << 10


def make_raw(fd: int, signals: bool = False) -> None:
    """No echo, no line editing, no translation of any byte; 8 bits (termios(3), cfmakeraw).

    :param signals: leaves the keys that raise signals, and output translation, in force.
    """
    mode = termios.tcgetattr(fd)
    mode[0] &= ~(
        termios.IGNBRK
        | termios.BRKINT
        | termios.PARMRK
        | termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
    )
    mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN)
    if not signals:
        mode[1] &= ~termios.OPOST
        mode[3] &= ~termios.ISIG
    mode[2] = (mode[2] & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
    mode[6][termios.VMIN] = 1
    mode[6][termios.VTIME] = 0
    termios.tcsetattr(fd, termios.TCSANOW, mode)


class PtyChardev(StreamChardev):
    """A new pseudo-terminal; ``filename`` says where, as ``pty:/dev/pts/N``."""

    kind = "pty"

    def __init__(self, label: str, loop: Loop) -> None:
        super().__init__(label, loop)
        self._master, self._slave = os.openpty()
        make_raw(self._slave)
        os.set_blocking(self._master, False)
        os.set_blocking(self._slave, False)
        self.path = os.ttyname(self._slave)
        self._attach(self._master, self._master)

    @property
    def filename(self) -> str:
        """``pty:`` and the path of the terminal that readers open."""
        return "pty:" + self.path

    def _make_room(self, excess: int) -> None:
        # What the kernel holds is older than the queue; a byte taken back there is a byte of room.
        try:
            taken = len(os.read(self._slave, excess))
        except OSError:
            taken = 0
        self.dropped += taken
        # The kernel moves bytes to where they can be taken back in its own time.
        over = excess - taken - _SLACK_BYTES
        if over > 0:
            super()._make_room(over)
        self._flush()

    def _lost(self) -> None:
        """A terminal whose slave side is open here cannot be lost; an error is passed over."""

    def close(self) -> None:
        """Removes the terminal; whoever has it open sees a hang-up."""
        super().close()
        for fd in (self._master, self._slave):
            if fd >= 0:
                os.close(fd)
        self._master = self._slave = -1
