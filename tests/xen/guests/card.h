/* What devices/card.py is to a guest, and the checks of all of it. */
#ifndef CARD_H
#define CARD_H

#include "guest.h"

#define CARD_VENDOR 0x1af4
#define CARD_DEVICE 0xca4d
#define CARD_ID (CARD_DEVICE << 16 | CARD_VENDOR)
#define CARD_MEMORY 0xe0020000
#define CARD_PORTS 0x5800
#define CARD_IRQ 10
#define CARD_VECTOR 0x60
#define CARD_PIN_VECTOR 0x61
#define CARD_CAUSE 0x0c
#define CARD_ASK 0x10

#define IOAPIC 0xfec00000
#define PCI_COMMAND 0x04
#define PCI_STATUS 0x06
#define PCI_BAR0 0x10
#define PCI_BAR2 0x18
#define COMMAND_IO 1
#define COMMAND_MEMORY 2
#define COMMAND_MASTER 4
#define COMMAND_NO_INTX 0x400
#define STATUS_INTERRUPT 8
#define PIIX3_LINKS 0x60
#define MSI 0x40

static u32 card_memory;

static u32 card_find(void)
{
    int devfn = pci_find(CARD_VENDOR, CARD_DEVICE);

    expect("there is a card", devfn >= 0, 1);
    return devfn;
}

static void card_quiet(u32 vector)
{
    (void)vector;
    write32(card_memory + CARD_CAUSE, 1);
}

static void card_header(u32 card)
{
    expect("the class and revision", pci_read(card, 0x08, 4), 0x08800007);
    expect("the header's type", pci_read(card, 0x0e, 1), 0);
    expect("the interrupt pin", pci_read(card, 0x3d, 1), 1);
    expect("the capability pointer", pci_read(card, 0x34, 1), MSI);
    expect("the MSI capability", pci_read(card, MSI, 2), 0x0005);
}

/* BARs as the firmware has put them, or sized and put where nobody else is. */
static u16 card_map(u32 card)
{
    if (!(pci_read(card, PCI_BAR0, 4) & ~0xfu)) {
        say("BARs set by the guest");
        pci_write(card, PCI_BAR0, 4, ~0u);
        expect("the size of BAR 0", pci_read(card, PCI_BAR0, 4), 0xfffff000);
        pci_write(card, PCI_BAR2, 4, ~0u);
        expect("the size of BAR 2", pci_read(card, PCI_BAR2, 4), 0xfffffff1);
        pci_write(card, PCI_BAR0, 4, CARD_MEMORY);
        pci_write(card, PCI_BAR2, 4, CARD_PORTS);
    } else {
        say("BARs found");
    }
    card_memory = pci_read(card, PCI_BAR0, 4) & ~0xfu;
    pci_write(card, PCI_COMMAND, 2, COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER);
    return pci_read(card, PCI_BAR2, 4) & ~3u;
}

static void card_registers(u32 card, u16 ports)
{
    u32 memory = card_memory;

    expect("BAR 0: identity", read32(memory), 0xca4d0001);
    for (u32 i = 0; i < 50; i++) {
        write32(memory + 4, i * 0x01010101);
        expect("BAR 0: scratch", read32(memory + 4), i * 0x01010101);
        expect("BAR 0: inverse", read32(memory + 8), ~(i * 0x01010101));
        out32(ports + 4, ~i);
        expect("BAR 2: scratch", in32(ports + 4), ~i);
    }
    expect("BAR 2: identity", in32(ports), 0xca4d0002);
    expect("BAR 2: a byte of it", in8(ports + 1), 0x00);
    write8(memory + 0xfff, 0x5a);
    expect("BAR 0: its last byte", read8(memory + 0xfff), 0x5a);

    pci_write(card, PCI_COMMAND, 2, 0);
    expect("BAR 0 while it is off", read32(memory), 0xffffffff);
    expect("BAR 2 while it is off", in32(ports), 0xffffffff);
    pci_write(card, PCI_BAR0, 4, memory + 0x4000);
    pci_write(card, PCI_COMMAND, 2, COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER);
    expect("BAR 0 where it was", read32(memory), 0xffffffff);
    expect("BAR 0 where it is now", read32(memory + 0x4004), 49 * 0x01010101);
    pci_write(card, PCI_BAR0, 4, memory);
    expect("BAR 0 back again", read32(memory + 4), 49 * 0x01010101);
}

/* Take the card's interrupt five times by ``vector``, once while it is disabled, once after. */
static void card_interrupts(u32 card, u16 ports, u32 vector)
{
    on_interrupt(vector, card_quiet);
    for (u32 i = 1; i <= 5; i++) {
        if (i & 1)
            write32(card_memory + CARD_ASK, 1);
        else
            out32(ports + 8, 1);
        wait_interrupt(vector, i);
        expect("INTx taken", interrupts_taken[vector], i);
        expect("INTx: the cause is gone", read32(card_memory + CARD_CAUSE), 0);
        expect("INTx: no status", pci_read(card, PCI_STATUS, 2) & STATUS_INTERRUPT, 0);
    }
    pci_write(card, PCI_COMMAND, 2, COMMAND_IO | COMMAND_MEMORY | COMMAND_NO_INTX);
    write32(card_memory + CARD_ASK, 1);
    expect("INTx disabled: the status", pci_read(card, PCI_STATUS, 2) & STATUS_INTERRUPT,
           STATUS_INTERRUPT);
    interrupts_on();
    expect("INTx disabled: a cause", read32(card_memory + CARD_CAUSE), 1);
    interrupts_off();
    expect("INTx disabled: none is taken", interrupts_taken[vector], 5);
    pci_write(card, PCI_COMMAND, 2, COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER);
    wait_interrupt(vector, 6);
    expect("INTx enabled: it comes", interrupts_taken[vector], 6);
}

/* INTA at the I/O APIC: Xen gives each of a device's pins a line of its own from 16 on
 * (hvm_pci_intx_gsi); level-triggered, active low, masked again at the end. */
static void card_apic_pin(u32 card, u16 ports)
{
    u32 slot = card >> 3, line = ((slot * 4 + slot / 8) & 31) + 16, entry = 0x10 + 2 * line;

    write32(IOAPIC, entry + 1);
    write32(IOAPIC + 0x10, read32(LAPIC_ID));
    write32(IOAPIC, entry);
    write32(IOAPIC + 0x10, CARD_PIN_VECTOR | 1 << 15 | 1 << 13);
    card_interrupts(card, ports, CARD_PIN_VECTOR);
    write32(IOAPIC, entry);
    write32(IOAPIC + 0x10, 1 << 16);
}

/* INTA through a link of the PIIX3 and the PICs; the link is routed unless the firmware has. */
static void card_link_pin(u32 card, u16 ports)
{
    u32 link = PIIX3_LINKS + ((card >> 3) & 3), piix3 = DEVFN(1, 0), irq;

    if (pci_read(piix3, link, 1) & 0x80)
        pci_write(piix3, link, 1, CARD_IRQ);
    irq = pci_read(piix3, link, 1);
    unmask_irq(irq, 1);
    card_interrupts(card, ports, PIC_VECTOR + irq);
}

/* How often the card's pin has interrupted so far, by whichever way. */
static u32 card_pins(void)
{
    u32 sum = interrupts_taken[CARD_PIN_VECTOR];

    for (u32 irq = 0; irq < 16; irq++)
        sum += interrupts_taken[PIC_VECTOR + irq];
    return sum;
}

static void card_message(u32 card)
{
    u32 pins = card_pins();

    on_interrupt(CARD_VECTOR, card_quiet);
    pci_write(card, MSI + 4, 4, 0xfee00000 | read32(LAPIC_ID) >> 24 << 12);
    pci_write(card, MSI + 8, 4, 0);
    pci_write(card, MSI + 12, 2, CARD_VECTOR);
    pci_write(card, MSI + 2, 2, 1);
    expect("MSI is enabled", pci_read(card, MSI + 2, 2), 0x81);
    for (u32 i = 1; i <= 5; i++) {
        write32(card_memory + CARD_ASK, 1);
        wait_interrupt(CARD_VECTOR, i);
        expect("MSIs taken", interrupts_taken[CARD_VECTOR], i);
        expect("MSI: the cause is gone", read32(card_memory + CARD_CAUSE), 0);
    }
    expect("with MSI, no INTx", card_pins(), pins);
    pci_write(card, MSI + 2, 2, 0);
}

/* Everything; interrupts must have been set up. BESIDE: the PIIX3 is another device model's. */
#ifndef BESIDE
#define BESIDE 0
#endif

static void card_all(void)
{
    u32 card = card_find();
    u16 ports;

    card_header(card);
    ports = card_map(card);
    say("card at %x: memory %x, ports %x", card, card_memory, ports);
    card_registers(card, ports);
    card_apic_pin(card, ports);
    if (!BESIDE)
        card_link_pin(card, ports);
    card_message(card);
    say("card done");
}

#endif
