/* What `make run` shows: a guest that drives the edu device, resets itself softly and goes on. */
#define SAY_ON_SERIAL
#include "guest.h"

#define BAR 0xe0000000u
#define EDU(offset) (BAR + (offset))
#define IDENTIFICATION 0x00
#define LIVENESS 0x04
#define FACTORIAL 0x08
#define STATUS 0x20
#define INTERRUPT_STATUS 0x24
#define INTERRUPT_ACKNOWLEDGE 0x64
#define DMA_SOURCE 0x80
#define DMA_DESTINATION 0x88
#define DMA_COUNT 0x90
#define DMA_COMMAND 0x98
#define DMA_RUN 1
#define DMA_TO_MEMORY 2
#define DMA_INTERRUPT 4
#define INTERRUPT_WHEN_DONE 0x80
#define BUFFER 0x40000

#define PIIX3 DEVFN(1, 0)
#define LINK_ROUTES 0x60
#define IRQ 10
#define VECTOR (PIC_VECTOR + 8 + IRQ - 8)
#define LENGTH 512

#ifndef SOURCE_CHECKSUM
#define SOURCE_CHECKSUM 0
#endif
/* So that a built file says from what it was built. */
USED static const u32 source_checksum[2] = {0x3c5dc3a7, SOURCE_CHECKSUM};

static u8 sent[LENGTH], received[LENGTH];

static void on_edu(u32 vector)
{
    (void)vector;
    write32(EDU(INTERRUPT_ACKNOWLEDGE), read32(EDU(INTERRUPT_STATUS)));
}

static u32 taken(void) { return interrupts_taken[VECTOR]; }

/* Sleep until the device has interrupted once more. */
static void await(u32 before)
{
    while (taken() == before)
        idle();
}

static void find_edu(void)
{
    int devfn = pci_find(0x1234, 0x11e8);
    u32 slot = devfn >> 3;

    if (devfn < 0) {
        say("There is no edu device: run with --device edu.");
        out32(0xf4, 1);
        stay();
    }
    pci_write(devfn, 0x10, 4, BAR);
    pci_write(devfn, 4, 2, 6);
    pci_write(PIIX3, LINK_ROUTES + (slot & 3), 1, IRQ);
    set_up_interrupts();
    on_interrupt(VECTOR, on_edu);
    unmask_irq(IRQ, 1);
    say("edu is at 00:%2x.0, identification %8x", slot, read32(EDU(IDENTIFICATION)));
}

static void factorial(u32 number)
{
    u32 before = taken();

    write32(EDU(STATUS), INTERRUPT_WHEN_DONE);
    write32(EDU(FACTORIAL), number);
    await(before);
    say("factorial of %u is %u, said by an interrupt", number, read32(EDU(FACTORIAL)));
}

static void move(u32 source, u32 destination, u32 direction)
{
    u32 before = taken();

    write32(EDU(DMA_SOURCE), source);
    write32(EDU(DMA_DESTINATION), destination);
    write32(EDU(DMA_COUNT), LENGTH);
    write32(EDU(DMA_COMMAND), DMA_RUN | DMA_INTERRUPT | direction);
    await(before);
}

static int same(void)
{
    for (u32 i = 0; i < LENGTH; i++)
        if (sent[i] != received[i])
            return 0;
    return 1;
}

static void guest_main(void)
{
    say("A guest says hello.");
    find_edu();
    factorial(10);

    for (u32 i = 0; i < LENGTH; i++)
        sent[i] = i * 7 + 1;
    move((u32)sent, BUFFER, 0);
    say("DMA: %u bytes are in the device", LENGTH);
    write32(EDU(LIVENESS), 0x12345678);

    say("soft reset: the device model ends and another one follows");
    shutdown(SHUTDOWN_SOFT_RESET);

    say("back again; liveness register %8x", read32(EDU(LIVENESS)));
    move(BUFFER, (u32)received, DMA_TO_MEMORY);
    say("DMA: %u bytes came back, %s", LENGTH, same() ? "all equal" : "BUT DIFFERENT");
    if (!same() || read32(EDU(LIVENESS)) != ~0x12345678u)
        out32(0xf4, 1);
    say("Good bye.");
    shutdown(SHUTDOWN_POWEROFF);
    stay();
}
