/* Lets the Summer device sum 4096 bytes, waits for its message signalled interrupt, and checks. */
#define SAY_ON_SERIAL
#include "guest.h"

#define BAR 0xe0000000u
#define VECTOR 0x51
#define MSI 0x40

static u8 data[4096];

static void guest_main(void)
{
    u32 expected = 0;
    int devfn = pci_find(0x1af4, 0x10f1);

    for (u32 i = 0; i < sizeof data; i++)
        expected += data[i] = i * 31 + 7;

    check("the device is there", devfn >= 0, 1);
    pci_write(devfn, 0x10, 4, BAR);
    pci_write(devfn, 4, 2, 6);                      /* memory, bus master */

    set_up_interrupts();
    pci_write(devfn, MSI + 4, 4, 0xfee00000);       /* address: the first vCPU's LAPIC */
    pci_write(devfn, MSI + 8, 4, 0);
    pci_write(devfn, MSI + 12, 2, VECTOR);
    pci_write(devfn, MSI + 2, 2, 1);                /* enable */

    write32(BAR + 0x00, (u32)data);
    write32(BAR + 0x04, 0);
    write32(BAR + 0x08, sizeof data);
    write32(BAR + 0x0c, 1);                         /* start */

    while (!interrupts_taken[VECTOR])
        idle();                                     /* asleep until an interrupt comes */
    check("it interrupts", interrupts_taken[VECTOR], 1);
    check("it is done", read32(BAR + 0x10), 1);
    check("the sum", read32(BAR + 0x14), expected);
    write32(BAR + 0x10, 1);
    guest_end();
}
