/* Counts for ever, in memory, in a register and in CMOS, each time comparing the three. */
#include "guest.h"

#define CMOS_AT 0x50

static volatile u32 in_memory;

static void guest_main(void)
{
    u32 own = 0;
    say("GUEST start");
    out8(0x70, CMOS_AT);
    out8(0x71, 0);
    for (;;) {
        out8(0x70, CMOS_AT);
        expect("CMOS", in8(0x71), own & 0xff);
        expect("memory", in_memory, own);
        own++;
        in_memory++;
        out8(0x70, CMOS_AT);
        out8(0x71, own);
        if (own % 500 == 0)
            say("COUNT %u", own);
    }
}
