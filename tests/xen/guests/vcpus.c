/* Waits until a second vCPU is plugged in: GPE 2 raises the SCI, the bitmap shows the vCPU, and it
 * can be started. */
#include "guest.h"

#define GPE_STATUS 0xafe0
#define GPE_ENABLE 0xafe2
#define GPE_CPU 4
#define CPU_BITMAP 0xaf00
#define SCI (PIC_VECTOR + 9)

static volatile u32 status_seen, bitmap_seen;

static void on_sci(u32 vector)
{
    (void)vector;
    status_seen = in8(GPE_STATUS);
    bitmap_seen = in8(CPU_BITMAP);
    out8(GPE_STATUS, status_seen);
}

static void second(u32 vcpu) { say("VCPU %u runs", vcpu); }

static void guest_main(void)
{
    set_up_interrupts();
    check("bitmap at the start", in8(CPU_BITMAP), 1);
    check("GPE at the start", in8(GPE_STATUS), 0);
    on_interrupt(SCI, on_sci);
    unmask_irq(9, 1);
    out8(GPE_ENABLE, GPE_CPU);
    say("GUEST start");
    while (!interrupts_taken[SCI])
        idle();
    check("GPE", status_seen, GPE_CPU);
    check("bitmap", bitmap_seen, 3);
    check("GPE after it was cleared", in8(GPE_STATUS), 0);
    check("the vCPU starts", start_vcpu(1, second), 1);
    verdict();
    say("GUEST waits");
    stay();
}
