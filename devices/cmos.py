"""What the CMOS memory behind the RTC knows: the bytes that firmware and machine share.

Xen keeps indices 0x00 to 0x0d, the clock itself, and forwards only accesses to the rest
(xen/arch/x86/hvm/rtc.c: handle_rtc_io), so the clock's bytes are plain memory here that no guest
reaches.

Sources: MC146818 for the index and data ports; the meaning of the bytes as SeaBIOS (hw/rtc.h) and
hvmloader (cmos_write_memory_size) use them.
Not modelled: the clock, its alarm and its interrupts (Xen has them).
What a hostile guest can do: change its own 128 bytes.
"""

from __future__ import annotations

from dm import (
    WO,
    Bank,
    BankMemory,
    ConfigError,
    Device,
    Field,
    Option,
    PortWindow,
    PrivateWindow,
    Register,
)

__all__ = ["Cmos"]

BOOT_CODES = {"a": 1, "c": 2, "d": 3, "n": 4}
"""Boot order nibbles as SeaBIOS reads them from 0x3d and 0x38 (boot.c: boot_init)."""

RESUME = 0xFE
"""Shutdown status with which SeaBIOS takes the S3 resume path."""

EQUIPMENT_FPU = 0x02
EQUIPMENT_PS2_MOUSE = 0x04


class Index(Register, width=8):
    """Port 0x70: which byte port 0x71 reaches; bit 7, the NMI mask, selects nothing."""

    index = Field(6, 0)
    nmi_mask = Field(7, 7)


class Ports(Bank, size=2, width=8):
    """The index port, which reads as ones, and the data port."""

    index = Index.at(0)
    data = Register.at(1, access=WO)


class Nvram(Bank, size=128, width=8):
    """The bytes behind the index: those with a name, and plain memory."""

    diagnostic_status = Register.at(0x0E)
    shutdown_status = Register.at(0x0F)
    floppy_types = Register.at(0x10)
    disk_types = Register.at(0x12)
    equipment = Register.at(0x14)
    base_memory_kib = Register.at(0x15, width=16)
    extended_memory_kib = Register.at(0x17, width=16)
    extended_memory_kib_copy = Register.at(0x30, width=16)
    century = Register.at(0x32)
    memory_above_16m = Register.at(0x34, width=16)
    boot_flags = Register.at(0x38)
    boot_order = Register.at(0x3D)
    memory_above_4g_low = Register.at(0x5B, width=16)
    memory_above_4g_high = Register.at(0x5D)
    cpus_less_one = Register.at(0x5F)
    rest = BankMemory(0, 128)


class Cmos(Device):
    """Battery-backed memory at ports 0x70 and 0x71."""

    summary = "CMOS memory behind the RTC"

    memory_mib = Option(int, 0, "RAM below the MMIO hole, in MiB")
    high_memory_mib = Option(int, 0, "RAM above 4 GiB, in MiB")
    cpus = Option(int, 1, "number of vCPUs")
    boot = Option(str, "cda", "boot order, letters a, c, d and n as in QEMU's -boot order=")

    ports = PortWindow(Ports, at=0x70)
    nvram = PrivateWindow(Nvram)

    @Ports.index.computed
    def _read_index(self) -> int:
        return 0xFF

    @Ports.data.on_read
    def _read_data(self) -> int:
        return self.nvram.read(self.ports.index.index, 1)

    @Ports.data.on_write
    def _write_data(self, new: int, old: int) -> None:
        self.nvram.write(self.ports.index.index, 1, new)

    def on_reset(self) -> None:
        """What a PC's firmware finds before it has written anything."""
        nvram = self.nvram
        low_kib = self.memory_mib * 1024
        nvram.base_memory_kib.value = 640
        nvram.extended_memory_kib.value = min(max(low_kib - 1024, 0), 0xFFFF)
        nvram.extended_memory_kib_copy.value = nvram.extended_memory_kib.value
        nvram.memory_above_16m.value = min(max(low_kib - 16 * 1024, 0) // 64, 0xFFFF)
        high = self.high_memory_mib * 16
        nvram.memory_above_4g_low.value = high & 0xFFFF
        nvram.memory_above_4g_high.value = min(high >> 16, 0xFF)
        nvram.cpus_less_one.value = min(max(self.cpus - 1, 0), 0xFF)
        nvram.equipment.value = EQUIPMENT_FPU | EQUIPMENT_PS2_MOUSE
        nvram.century.value = 0x20
        self._set_boot_order()

    def on_wake(self) -> None:
        """Tell the firmware that this is no cold start (SeaBIOS, resume.c: handle_resume)."""
        self.nvram.shutdown_status.value = RESUME

    def _set_boot_order(self) -> None:
        unknown = [letter for letter in self.boot if letter not in BOOT_CODES]
        if unknown or len(self.boot) > 3:
            raise ConfigError(f"boot order {self.boot!r}: up to three of the letters a, c, d and n")
        codes = [BOOT_CODES[letter] for letter in self.boot] + [0, 0, 0]
        self.nvram.boot_order.value = codes[1] << 4 | codes[0]
        self.nvram.boot_flags.value = codes[2] << 4
