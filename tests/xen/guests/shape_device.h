/* Where devices/shape_device.py puts what. */
#ifndef SHAPE_DEVICE_H
#define SHAPE_DEVICE_H

#include "guest.h"

#define PORTS 0x5600
#define QUEUE (PORTS + 0x10)
#define LEVEL (PORTS + 0x14)
#define IRQ_REQUEST (PORTS + 0x18)
#define MARKS (PORTS + 0x1c)
#define LAST_MARK (PORTS + 0x20)
#define MISORDERED (PORTS + 0x24)
#define GENERATION (PORTS + 0x28)
#define ORACLE (PORTS + 0x30)
#define SHAPE_IRQ 5

#define MMIO ((volatile u8 *)0xe0001000)
#define MMIO8(offset) (*(MMIO + (offset)))
#define MMIO16(offset) (*(volatile u16 *)(MMIO + (offset)))
#define MMIO32(offset) (*(volatile u32 *)(MMIO + (offset)))
#define SHAPE_IDENTITY 0x5a4e0001

#define VGA ((volatile u8 *)0xa0000)
#define VGA32(offset) (*(volatile u32 *)(VGA + (offset)))
#define MARK 0x8000
#define WIDE_MARK 0x8008

/* What port ORACLE + i reads as. */
static inline u8 oracle(u32 i) { return i * 0x1d + 0x35; }

#endif
