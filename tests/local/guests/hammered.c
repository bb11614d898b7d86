/* Hammers the device of stress_device.py as vCPU 0: every answer is known beforehand, and goes into
 * a checksum. ROUNDS rounds, then the verdict by the exit port: status 1 for a pass, 3 for none. */
#include "guest.h"

#define BASE 0x5000
#define MIX BASE
#define DRAW (BASE + 4)
#define VALUE (BASE + 8)
#define SUM (BASE + 12)
#define EXIT 0xf4
#define WORDS 6

#ifndef ROUNDS
#define ROUNDS 20000
#endif

static u32 chance = 1, sum, drawn, checksum, words[WORDS];

static u32 any(void) { return chance = chance * 69069 + 1; }
static void mixed(u32 value) { sum = sum * 31 + value; }
static u32 next(void) { return drawn = drawn * 1664525 + 1013904223; }

static void seen(const char *name, u32 got, u32 want)
{
    checksum = checksum * 33 + got;
    expect(name, got, want);
}

static void mix_many(void)
{
    void *at = words;
    u32 count = WORDS;
    for (u32 i = 0; i < WORDS; i++)
        mixed(words[i] = any());
    asm volatile("rep outsl" : "+S"(at), "+c"(count) : "d"(MIX) : "memory");
}

static void draw_many(void)
{
    void *at = words;
    u32 count = WORDS;
    asm volatile("rep insl" : "+D"(at), "+c"(count) : "d"(DRAW) : "memory");
    for (u32 i = 0; i < WORDS; i++)
        seen("a string", words[i], next());
}

static void one_round(void)
{
    u32 value = any();

    out32(MIX, value);
    mixed(value);
    seen("draw", in32(DRAW), next());
    out32(VALUE, value);
    seen("value", in32(VALUE), value);
    seen("sum", in32(SUM), sum);
    if (value >> 28 == 0)
        mix_many();
    if (value >> 28 == 1)
        draw_many();
}

static void guest_main(void)
{
    say("start");
    for (u32 i = 0; i < ROUNDS; i++)
        one_round();
    say("checksum %8x", checksum);
    out32(EXIT, failures ? 1 : 0);
    stay();
}
