"""What QEMU's firmware configuration device knows: named items that firmware reads.

Items follow from the configuration alone, so only the selected key and the position are state.

Sources: QEMU docs/specs/fw_cfg.rst and hw/nvram/fw_cfg.c (sizes that are answered, DMA, order of
the directory); SeaBIOS src/fw/paravirt.c: qemu_cfg_init for what it reads. A two-byte write to the
selector port selects, a byte read of either port gives data, nothing else does anything.
Not modelled: writable items; the item ``etc/e820`` and key 0x8003, which SeaBIOS would prefer to
the map that Xen gives it.
What a hostile guest can do: have items copied into its own RAM. A DMA past an item's end is
bounded by `LONGEST_FILL`.
"""

from __future__ import annotations

from dm import (
    KEPT,
    RO,
    WO,
    Bank,
    ConfigError,
    Device,
    GuestError,
    Option,
    PortWindow,
    Register,
    Transient,
    Word,
)

__all__ = ["FwCfg"]

SIGNATURE = b"QEMU"
DMA_SIGNATURE = b"QEMU CFG"
KEY_SIGNATURE = 0x00
KEY_ID = 0x01
KEY_RAM_SIZE = 0x03
KEY_CPUS = 0x05
KEY_DIRECTORY = 0x19
KEY_FIRST_FILE = 0x20
WRITE_CHANNEL = 0x4000
FEATURES = 0x3
"""Traditional interface and DMA interface."""

FILE_SLOTS = 0x20
NAME_LENGTH = 56
LONGEST_FILL = 1 << 20
"""Bytes of zeros that one DMA may ask for beyond an item's end; QEMU sets no limit."""

DMA_ERROR = 0x01
DMA_READ = 0x02
DMA_SKIP = 0x04
DMA_SELECT = 0x08
DMA_WRITE = 0x10
DESCRIPTOR_LENGTH = 16


class Ports(Bank, size=2, width=8, gap=0):
    """Selector and data, which share a port."""

    selector = Register.at(0, width=16, access=WO, exact=True)
    data_at_selector = Register.at(0, access=RO, exact=True)
    data = Register.at(1, access=RO, exact=True)


class DmaPorts(Bank, size=8, gap=0):
    """The big-endian address of a DMA descriptor; writing the low half starts it."""

    address_high = Register.at(0, access=KEPT, exact=True)
    address_low = Register.at(4, access=WO, exact=True)
    signature = Register.at(0, width=64, access=RO, reset=int.from_bytes(DMA_SIGNATURE, "little"))


class FwCfg(Device):
    """Firmware configuration items by key, and files by name."""

    summary = "QEMU's firmware configuration interface"

    cpus = Option(int, 1, "number of vCPUs")
    memory_mib = Option(int, 0, "RAM of the guest, in MiB")
    sercon = Option(
        int, 0x3F8, "first port of the UART that SeaBIOS mirrors the screen to; 0: none"
    )
    boot_menu = Option(bool, False, "whether SeaBIOS offers its boot menu, which costs it 2.5 s")
    boot_menu_wait = Option(int, -1, "how long it does, in milliseconds; -1 leaves it to SeaBIOS")
    bootorder = Option(str, "", "Open Firmware paths of the boot devices, one a line")

    ports = PortWindow(Ports, at=0x510)
    dma = PortWindow(DmaPorts, at=0x514)

    key = Word(16)
    position = Word(32)
    files = Transient()
    items = Transient()

    def add_file(self, name: str, data: bytes) -> None:
        """Add a file that firmware finds in the directory, before the machine is sealed.

        ConfigError when that was before, the name is taken or longer than 55 bytes, or the
        directory is full.
        """
        encoded = name.encode()
        files: dict[bytes, bytes] = self.files or {}
        if self.items is not None:
            raise ConfigError(f"{self.name}: {name!r} is added too late")
        if not 0 < len(encoded) < NAME_LENGTH:
            raise ConfigError(f"{self.name}: a file's name has 1 to 55 bytes: {name!r}")
        if encoded in files:
            raise ConfigError(f"{self.name}: there are two files {name!r}")
        if len(files) >= FILE_SLOTS:
            raise ConfigError(f"{self.name}: more than {FILE_SLOTS} files")
        self.files = {**files, encoded: bytes(data)}

    def on_reset(self) -> None:
        """Gather the items, the first time."""
        if self.items is None:
            self._add_configured_files()
            self.items = self._number_items()

    def _checked(self, name: str, value: int, size: int) -> bytes:
        """Option ``name`` as a little-endian item of ``size`` bytes."""
        if not 0 <= value < 1 << 8 * size:
            raise ConfigError(f"{self.name}: {name}={value} does not fit into {size} bytes")
        return value.to_bytes(size, "little")

    def _add_configured_files(self) -> None:
        if self.sercon:
            self.add_file("etc/sercon-port", self._checked("sercon", self.sercon, 2))
        self.add_file("etc/show-boot-menu", self._checked("boot_menu", self.boot_menu, 2))
        if self.boot_menu_wait != -1:
            wait = self._checked("boot_menu_wait", self.boot_menu_wait, 2)
            self.add_file("etc/boot-menu-wait", wait)
        if self.bootorder:
            self.add_file("bootorder", self.bootorder.encode() + b"\0")

    def _number_items(self) -> dict[int, bytes]:
        """Every item by key; files have theirs in the order of their names."""
        names = sorted(self.files)
        directory = len(names).to_bytes(4, "big")
        items = {
            KEY_SIGNATURE: SIGNATURE,
            KEY_ID: FEATURES.to_bytes(4, "little"),
            KEY_RAM_SIZE: self._checked("memory_mib", self.memory_mib << 20, 8),
            KEY_CPUS: self._checked("cpus", self.cpus, 2),
        }
        for key, name in enumerate(names, KEY_FIRST_FILE):
            data = self.files[name]
            items[key] = data
            directory += len(data).to_bytes(4, "big") + key.to_bytes(2, "big") + bytes(2)
            directory += name.ljust(NAME_LENGTH, b"\0")
        items[KEY_DIRECTORY] = directory
        return items

    @Ports.selector.on_write
    def _select(self, new: int, old: int) -> None:
        self.key = new & ~WRITE_CHANNEL
        self.position = 0

    @Ports.data.on_read
    @Ports.data_at_selector.on_read
    def _read_byte(self) -> int:
        data = self._take(1)
        return data[0] if data else 0

    @Ports.data.on_read_block
    def _read_block(self, size: int, count: int) -> bytes:
        return self._take(size * count).ljust(size * count, b"\0")

    def _take(self, length: int) -> bytes:
        """The next ``length`` bytes of the selected item, or what is left of it."""
        data: bytes = self.items.get(self.key, b"")[self.position : self.position + length]
        self.position += len(data)
        return data

    @DmaPorts.address_low.on_write
    def _start_dma(self, new: int, old: int) -> None:
        high, low = self.dma.address_high.value, new
        self.dma.address_high.value = 0
        at = int.from_bytes(high.to_bytes(4, "little") + low.to_bytes(4, "little"), "big")
        try:
            descriptor = self.memory.read(at, DESCRIPTOR_LENGTH)
            status = self._run_dma(descriptor)
            self.memory.write(at, status.to_bytes(4, "big"))
        except GuestError as error:
            self.warn("DMA descriptor at %#x: %s", at, error)

    def _run_dma(self, descriptor: bytes) -> int:
        """Do what ``descriptor`` asks for; gives the control word that says how it went."""
        control = int.from_bytes(descriptor[0:4], "big")
        length = int.from_bytes(descriptor[4:8], "big")
        address = int.from_bytes(descriptor[8:16], "big")
        if control & DMA_SELECT:
            self._select(control >> 16, 0)
        if control & DMA_READ and length:
            return self._copy_out(address, length)
        if control & (DMA_WRITE | DMA_SKIP):
            # A refused write moves the position too, as in QEMU.
            self._take(length)
        return DMA_ERROR if control & DMA_WRITE and length else 0

    def _copy_out(self, address: int, length: int) -> int:
        data = self._take(length)
        if length - len(data) > LONGEST_FILL:
            self.warn("DMA of %d bytes, %d past the item's end", length, length - len(data))
            return DMA_ERROR
        try:
            self.memory.write(address, data.ljust(length, b"\0"))
        except GuestError:
            return DMA_ERROR
        return 0
