/* Ends itself in one of the ways that a PC has, or waits to be ended; HOW chooses. */
#include "xenstore.h"

enum { KEYBOARD_CONTROLLER, RESET_CONTROL, PORT_92, SLEEP, WAIT, ON_REQUEST };

#define REQUEST "control/shutdown"

/* As a guest with PV drivers: wait for the toolstack's word, acknowledge it, follow it. */
static void end_on_request(void)
{
    char word[32];
    xenstore_announce();
    say("GUEST waits");
    do {
        for (u32 i = 0; i < 100000; i++)
            pause_cpu();
        xenstore_call(XS_READ, REQUEST, sizeof REQUEST, word, sizeof word);
    } while (word[0] != 'p' && word[0] != 'r');
    say("ASKED %s", word);
    u32 reason = word[0] == 'p' ? SHUTDOWN_POWEROFF : SHUTDOWN_REBOOT;
    xenstore_call(XS_WRITE, REQUEST, sizeof REQUEST, word, sizeof word);
    shutdown(reason);
}

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
    case ON_REQUEST:
        end_on_request();
        break;
    case WAIT:
        stay();
    }
    for (u32 i = 0; i < 1000; i++)
        in8(0x61);
    say("FAIL the guest goes on");
    stay();
}
