/* Makes requests for ever and counts them itself, so that it notices whatever a device model's
 * death does to it. The answers are right in any process that models devices/shape_device.py,
 * but for registers, which a process started anew has lost: GENERATION tells.
 * MAY_GO: from some moment on nobody may answer at all; reads are then ones. */
#include "shape_device.h"

#ifndef MAY_GO
#define MAY_GO 0
#endif

#define ONES 0xffffffff

static u32 rounds, gone;

/* A value that does not depend on registers. ``ones`` is what it is when nobody answers. */
static void right(const char *name, u32 got, u32 want, u32 ones)
{
    if (got == ones && !gone && MAY_GO) {
        gone = 1;
        say("gone at %u", rounds);
    }
    expect(name, got, gone ? ones : want);
}

static void look_at_registers(void)
{
    u32 stored, generation;

    MMIO32(0) = rounds;
    stored = MMIO32(0);
    generation = in32(GENERATION);
    if (generation == 0) {
        say("restart at %u", rounds);
        out32(GENERATION, 1);
    } else if (stored != ONES) {
        expect("a register", stored, rounds);
    }
}

static void one_round(void)
{
    u32 i = rounds % 16;

    right("a port", in8(ORACLE + i), oracle(i), 0xff);
    right("MMIO", MMIO32(0x24), SHAPE_IDENTITY, ONES);
    right("a configuration register", pci_read(DEVFN(0, 0), 0, 4), 0x12378086, ONES);
    out32(LEVEL, 0);
    if (!gone)
        look_at_registers();
}

static void guest_main(void)
{
    out32(GENERATION, 1);
    say("GUEST start");
    for (rounds = 1;; rounds++) {
        one_round();
        if (rounds % (gone ? 5000 : 20) == 0)
            say("%s %u", gone ? "alone" : "round", rounds);
    }
}
