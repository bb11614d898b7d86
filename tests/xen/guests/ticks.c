/* Says at a steady pace that it runs, by way of the device model each time. */
#include "guest.h"

static void guest_main(void)
{
    for (u32 tick = 1;; tick++) {
        for (u32 i = 0; i < 100; i++) {
            out8(0x70, 0x50);
            out8(0x71, tick + i);
            expect("CMOS", in8(0x71), (tick + i) & 0xff);
        }
        say("TICK %u", tick);
    }
}
