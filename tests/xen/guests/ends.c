/* Ends itself in one of the ways that a PC has, or waits to be ended; HOW chooses. */
#include "guest.h"

enum { KEYBOARD_CONTROLLER, RESET_CONTROL, PORT_92, SLEEP, WAIT };

static void guest_main(void)
{
    say("GUEST start");
    switch (HOW) {
    case KEYBOARD_CONTROLLER:
        out8(0x64, 0xfe);
        break;
    case RESET_CONTROL:
        out8(0xcf9, 0x02);
        out8(0xcf9, 0x06);
        break;
    case PORT_92:
        out8(0x92, in8(0x92) | 1);
        break;
    case SLEEP:
        pci_write(DEVFN(1, 3), 0x40, 4, 0xb001);
        pci_write(DEVFN(1, 3), 0x80, 1, 1);
        out16(0xb004, 0x2000);
        break;
    case WAIT:
        stay();
    }
    for (u32 i = 0; i < 1000; i++)
        in8(0x61);
    say("FAIL the guest goes on");
    stay();
}
