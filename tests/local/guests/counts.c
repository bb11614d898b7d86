/* Counts for ever, in memory, in a register and in CMOS, each time comparing the three; with SECOND
 * set, a second vCPU counts beside it and must not stand still. */
#include "guest.h"

#define CMOS_AT 0x50

static volatile u32 in_memory, second, before;

static USED void count_beside(u32 vcpu)
{
    (void)vcpu;
    for (;;)
        second++;
}

static void guest_main(void)
{
    u32 own = 0;
    say("GUEST start");
#ifdef SECOND
    check("the second vCPU runs", start_vcpu(1, count_beside), 1);
#endif
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
        if (own % 500)
            continue;
        say("COUNT %u", own);
#ifdef SECOND
        expect("the second vCPU counts", second != before, 1);
#endif
        before = second;
    }
}
