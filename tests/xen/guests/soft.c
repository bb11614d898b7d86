/* Resets itself softly RESETS times: every register must be as before each time. */
#include "survey.h"

#ifndef RESETS
#define RESETS 1
#endif

static void guest_main(void)
{
    say("GUEST start");
    survey_start();
    for (u32 reset = 1; reset <= RESETS; reset++) {
        u64 before = tsc();
        for (u32 step = 0; step < 5; step++)
            count_step();
        check("shutdown hypercall", shutdown(SHUTDOWN_SOFT_RESET), 0);
        check("time goes on", tsc() > before, 1);
        survey_again("reset");
        say("RESET %u count %u", reset, counter);
    }
    count_step();
    survey_end();
    verdict();
    say("GUEST waits");
    stay();
}
