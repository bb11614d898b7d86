/* Sleeps nearly all the time, and says ten times a second that it is there. */
#include "guest.h"

static void guest_main(void)
{
    set_up_interrupts();
    unmask_irq(0, 0);
    for (u32 count = 1;; count++) {
        say("GUEST %u", count);
        for (u32 ticks = interrupts_taken[PIC_VECTOR]; interrupts_taken[PIC_VECTOR] < ticks + 2;) {
            out8(0x43, 0x30);
            out8(0x40, 0xff);
            out8(0x40, 0xff);
            idle();
        }
    }
}
