/* Ends with the shutdown reason REASON at once; if it goes on after that, it says so. */
#include "guest.h"

#ifndef REASON
#define REASON 0
#endif

static void guest_main(void)
{
    say("GUEST ends with %u", REASON);
    shutdown(REASON);
    say("GUEST goes on");
    stay();
}
