"""What a guest would do, by hand: `bus` makes the accesses."""
# ruff: noqa: F821, T201

BAR = 0xE0000000
function = bus.find(0x1AF4, 0x10F1)
bus.config_write32(function, 0x10, BAR)
bus.config_write16(function, 0x04, 6)
bus.memory.write(0x1000, b"\1\2\3")
bus.write64(BAR, 0x1000)
bus.write32(BAR + 0x08, 3)
bus.write32(BAR + 0x0C, 1)
bus.advance(us=1)
print("status", bus.read32(BAR + 0x10), "sum", bus.read32(BAR + 0x14))
print("INTA", bus.intx(function))
