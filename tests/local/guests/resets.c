/* Resets itself softly RESETS times, each time in the midst of things: a DMA of edu's under way, its
 * interrupt line up, the hypervisor's timer armed, and writes waiting in the buffered ring. After
 * each reset all of them must come to their end as if nothing had been. */
#include "guest.h"

#ifndef RESETS
#define RESETS 10
#endif

#define EDU_BAR 0xe0000000u
#define EDU_BUFFER 0x40000
#define BYTES 256
#define EDU_RAISE (EDU_BAR + 0x60)
#define EDU_ACKNOWLEDGE (EDU_BAR + 0x64)
#define EDU_STATUS (EDU_BAR + 0x24)
#define EDU_COMMAND (EDU_BAR + 0x98)
#define TRANSFER_DONE 0x100
#define TIMER_VECTOR (PIC_VECTOR + 0)
#define EDU_IRQ 10
#define EDU_VECTOR (PIC_VECTOR + EDU_IRQ)
#define SINK 0xa0000u
#define SINK_COUNT 0x5000
#define SINK_SUM 0x5004
#define HALF 250

static u8 from[BYTES], back[BYTES];
static u32 written, sum, raised;

static void edu_interrupt(u32 vector)
{
    (void)vector;
    raised = read32(EDU_STATUS);
    write32(EDU_ACKNOWLEDGE, raised);
}

static void find_edu(void)
{
    int edu = pci_find(0x1234, 0x11e8);
    check("there is an edu device", edu >= 0, 1);
    pci_write(edu, 0x10, 4, EDU_BAR);
    pci_write(edu, 4, 2, 6);
    /* Its line, INTA of its slot, to an ISA interrupt by the south bridge. */
    u32 link = (edu >> 3) & 3;
    pci_write(DEVFN(1, 0), 0x60 + link, 1, EDU_IRQ);
    on_interrupt(EDU_VECTOR, edu_interrupt);
}

static void transfer(u32 source, u32 target, u32 command)
{
    write32(EDU_BAR + 0x80, source);
    write32(EDU_BAR + 0x88, target);
    write32(EDU_BAR + 0x90, BYTES);
    write32(EDU_COMMAND, command);
}

static u32 wait_transfer(void)
{
    u32 tries = 10000000;
    while (read32(EDU_COMMAND) & 1 && --tries)
        ;
    return tries != 0;
}

/* PIT channel 0, one shot, after `ticks` of 838 ns. */
static void arm_timer(u32 ticks)
{
    out8(0x43, 0x30);
    out8(0x40, ticks);
    out8(0x40, ticks >> 8);
}

static void fill_ring(u32 round)
{
    for (u32 i = 0; i < HALF; i++) {
        u32 value = round << 16 | i;
        write32(SINK + 4 * (i & 0x3ff), value);
        sum = sum * 31 + value;
        written++;
    }
}

static void one_reset(u32 round)
{
    u32 timers = interrupts_taken[TIMER_VECTOR], edus = interrupts_taken[EDU_VECTOR];
    for (u32 i = 0; i < BYTES; i++)
        from[i] = round * 7 + i;
    memset(back, 0, BYTES);
    write32(EDU_RAISE, round);
    out8(0xa1, 0xff);
    transfer((u32)from, EDU_BUFFER, 1);
    arm_timer(60000);
    fill_ring(round);

    expect("shutdown hypercall", shutdown(SHUTDOWN_SOFT_RESET), 0);

    expect("writes that were waiting", in32(SINK_COUNT), written);
    expect("their sum", in32(SINK_SUM), sum);
    expect("edu's status", read32(EDU_STATUS), round);
    unmask_irq(EDU_IRQ, 1);
    expect("the line that was up", wait_interrupt(EDU_VECTOR, edus + 1), 1);
    expect("what it was up for", raised, round);
    expect("the timer that was armed", wait_interrupt(TIMER_VECTOR, timers + 1), 1);
    expect("the transfer ends", wait_transfer(), 1);
    transfer(EDU_BUFFER, (u32)back, 3);
    expect("the transfer back ends", wait_transfer(), 1);
    for (u32 i = 0; i < BYTES; i++)
        expect("a byte", back[i], from[i]);
}

static void guest_main(void)
{
    say("GUEST start");
    set_up_interrupts();
    find_edu();
    unmask_irq(0, 0);
    for (u32 round = 1; round <= RESETS; round++) {
        one_reset(round);
        say("RESET %u", round);
    }
    guest_end();
}
