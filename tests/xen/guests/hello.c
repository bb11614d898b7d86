/* Tells how the machine looks at its start, answers nothing, and powers itself off. */
#include "guest.h"

static void guest_main(void)
{
    say("GUEST start");
    check("host bridge", pci_read(DEVFN(0, 0), 0, 4), 0x12378086);
    check("ISA bridge", pci_read(DEVFN(1, 0), 0, 4), 0x70008086);
    check("CMOS equipment", (out8(0x70, 0x14), in8(0x71)), 0x06);
    guest_end();
}
