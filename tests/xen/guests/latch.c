/* Writes the configuration address once and reads the data port for ever: whatever happens to the
 * machine meanwhile, the function addressed is the same. */
#include "guest.h"

static void guest_main(void)
{
    pci_select(0, DEVFN(1, 0), 0);
    say("GUEST start");
    for (u32 round = 1;; round++) {
        for (u32 i = 0; i < 100; i++) {
            expect("the latch", in32(PCI_ADDRESS), 0x80000800);
            expect("the function it addresses", in32(PCI_DATA), 0x70008086);
            expect("its upper half", in16(PCI_DATA + 2), 0x7000);
        }
        say("ROUND %u count", round);
    }
}
