/* Counts through devices and surveys all of them, round after round, until it is destroyed. The
 * queued bytes are read, and the verdict is given, at round LAST. */
#include "survey.h"

#ifndef LAST
#define LAST 1000000
#endif

static void guest_main(void)
{
    say("GUEST start");
    survey_start();
    for (u32 round = 1; round <= LAST; round++) {
        for (u32 step = 0; step < 10; step++)
            count_step();
        survey_again("now");
        say("ROUND %u count %u", round, counter);
    }
    survey_end();
    guest_end();
}
