/* Counts and surveys in a few rounds, to be saved during them; then resets itself softly. */
#include "survey.h"

#define ROUNDS 5

static void guest_main(void)
{
    say("GUEST start");
    survey_start();
    for (u32 round = 1; round <= ROUNDS; round++) {
        count_step();
        survey_again("now");
        say("ROUND %u count %u", round, counter);
    }
    check("shutdown hypercall", shutdown(SHUTDOWN_SOFT_RESET), 0);
    count_step();
    survey_again("reset");
    survey_end();
    verdict();
    say("GUEST waits");
    stay();
}
