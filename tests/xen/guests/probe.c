/* Has a test's device (tests/xen/devices/prober.py) try something for each number, and tells how
 * each attempt ended; then waits. */
#include "guest.h"

#define PROBE_PORT 0x5550
#define COUNT_PORT 0x5551

static void guest_main(void)
{
    u32 count = in8(COUNT_PORT);
    say("GUEST start");
    for (u32 number = 0; number < count; number++) {
        out8(PROBE_PORT, number);
        say("PROBE %u errno %u", number, in8(PROBE_PORT));
    }
    say("GUEST waits");
    stay();
}
