"""Tap interfaces: the host's end of an emulated network card.

No card is modelled yet, but the toolstack's hot-plug script looks for the interface once the device
model has said that it runs, and the guest's creation fails when it is missing. So the interface is
made and held; what is sent to it is dropped.

Facts: linux/if_tun.h; libxl, libxl_linux.c: libxl__hotplug_nic.
"""

from __future__ import annotations

import os
from errno import EBUSY
from fcntl import ioctl
from struct import Struct
from time import monotonic, sleep

from dm.errors import HostError

__all__ = ["Tap"]

TUN_DEVICE = "/dev/net/tun"
TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
REQUEST = Struct("16sH22x")
"""struct ifreq: name, flags."""

BUSY_PATIENCE = 5.0
"""Seconds: after a soft reset the old process may still hold the interface."""
BUSY_PAUSE = 0.05


class Tap:
    """A tap interface of the given name, which lives as long as this object is open."""

    def __init__(self, interface: str) -> None:
        name = interface.encode()
        if not 0 < len(name) < 16:
            raise HostError(f"tap interface {interface!r}: a name has 1 to 15 bytes")
        self.interface = interface
        try:
            self.fd = os.open(TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise HostError(f"{TUN_DEVICE}: {error.strerror}", error.errno or 0) from None
        try:
            self._claim(REQUEST.pack(name, IFF_TAP | IFF_NO_PI))
        except OSError as error:
            os.close(self.fd)
            raise HostError(f"TUNSETIFF({interface}): {error.strerror}", error.errno or 0) from None

    def _claim(self, request: bytes) -> None:
        deadline = monotonic() + BUSY_PATIENCE
        while True:
            try:
                ioctl(self.fd, TUNSETIFF, request)
                return
            except OSError as error:
                if error.errno != EBUSY or monotonic() > deadline:
                    raise
            sleep(BUSY_PAUSE)

    def close(self) -> None:
        """Give the interface back; it vanishes."""
        os.close(self.fd)
