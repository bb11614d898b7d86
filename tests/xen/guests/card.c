/* Finds a user's devices (devices/card.py, mmio_only.py, port_only.py) and uses all of each; looks
 * after each step whether the guest's own machine still answers, whoever models it.
 * STAY: the guest then goes on reading a port, which may be there or not, and says so. */
#include "card.h"
#include "guest.h"

#ifndef STAY
#define STAY 0
#endif

#define ONLY_MMIO 0xe0010000
#define ONLY_PORTS 0x5700
#define CMOS_SCRATCH 0x50

static void machine(u32 seed)
{
    for (u32 i = 0; i < 8; i++) {
        out8(0x70, CMOS_SCRATCH + i);
        out8(0x71, seed + i);
    }
    for (u32 i = 0; i < 8; i++) {
        out8(0x70, CMOS_SCRATCH + i);
        expect("CMOS", in8(0x71), (u8)(seed + i));
    }
    expect("the host bridge", pci_read(DEVFN(0, 0), 0, 4), 0x12378086);
    expect("the ISA bridge", pci_read(DEVFN(1, 0), 0, 4), 0x70008086);
}

static void mmio_only(void)
{
    expect("MMIO only: identity", read32(ONLY_MMIO), 0x33101001);
    for (u32 i = 0; i < 50; i++) {
        write32(ONLY_MMIO + 4, i * 77);
        expect("MMIO only: inverse", read32(ONLY_MMIO + 8), ~(i * 77));
    }
}

static void port_only(void)
{
    expect("ports only: identity", in16(ONLY_PORTS), 0x9017);
    for (u32 i = 0; i < 50; i++) {
        out8(ONLY_PORTS + 2, i);
        expect("ports only: inverse", in8(ONLY_PORTS + 3), (u8)~i);
    }
}

static void guest_main(void)
{
    say("GUEST start");
    set_up_interrupts();
    machine(1);
    card_all();
    machine(2);
    mmio_only();
    machine(3);
    port_only();
    machine(4);
    if (!STAY)
        guest_end();
    verdict();
    for (u32 i = 1;; i++) {
        u8 identity = in8(ONLY_PORTS);

        if (identity != 0xff)
            expect("ports only: still", identity, 0x17);
        if (i % 500)
            continue;
        machine(i);
        say("alive %u", i / 500);
    }
}
