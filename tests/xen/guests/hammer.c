/* Makes requests for ever and counts them itself, so that it notices whatever a device model's
 * death does to it: GENERATION of devices/shape_device.py is 0 in a process that knows nothing of
 * its predecessor, and a write that was under way when the process died may be lost, once.
 * With two vCPUs the second makes requests of its own all the time.
 * MAY_GO: from some moment on nobody may answer at all; reads are then ones. */
#include "shape_device.h"

#ifndef MAY_GO
#define MAY_GO 0
#endif

#define ONES 0xffffffff
#define STRING 24

#define OTHER_WORD 4

static u32 rounds, gone;
static volatile u32 other_rounds;
static u8 out[STRING], in[STRING];

/* ``ones`` is what a value is when nobody answers. */
static void right(const char *name, u32 got, u32 want, u32 ones)
{
    if (got == ones && !gone && MAY_GO) {
        gone = 1;
        say("gone at %u", rounds);
    }
    expect(name, got, gone ? ones : want);
}

static void look_at_registers(void)
{
    u32 stored;

    right("what was written once", in32(GENERATION), 1, ONES);
    MMIO32(0) = rounds;
    stored = MMIO32(0);
    if (stored == rounds - 1)
        say("lost at %u", rounds);
    else
        right("what was written last", stored, rounds, ONES);
}

/* The queue is empty in between, so that a write that is lost leaves no trace in the next round. */
static void look_at_strings(void)
{
    void *at = out;
    u32 count = STRING / 4, wrong = 0;

    for (u32 i = 0; i < STRING; i++)
        out[i] = rounds + i;
    asm volatile("rep outsl" : "+S"(at), "+c"(count) : "d"(QUEUE) : "memory");
    at = in, count = STRING / 4;
    asm volatile("rep insl" : "+D"(at), "+c"(count) : "d"(QUEUE) : "memory");
    for (u32 i = 0; i < STRING; i++)
        wrong += in[i] != out[i];
    if (wrong && in[0] == 0xee)
        say("lost at %u", rounds);
    else
        right("a string", wrong ? in[0] : 0, 0, 0xff);
    out32(LEVEL, 0);
}

static void one_round(void)
{
    u32 i = rounds % 16;

    right("a port", in8(ORACLE + i), oracle(i), 0xff);
    right("MMIO", MMIO32(0x24), SHAPE_IDENTITY, ONES);
    right("a configuration register", pci_read(DEVFN(0, 0), 0, 4), 0x12378086, ONES);
    if (!gone)
        look_at_registers();
    if (!gone)
        look_at_strings();
}

static void other_vcpu(u32 vcpu)
{
    for (u32 i = 1;; i++) {
        u32 stored;

        expect("the other's port", in8(ORACLE + (i + vcpu) % 16), oracle((i + vcpu) % 16));
        MMIO32(OTHER_WORD) = i;
        stored = MMIO32(OTHER_WORD);
        if (stored == i - 1)
            say("lost at %u of vCPU %u", i, vcpu);
        else
            expect("the other's register", stored, i);
        other_rounds = i;
    }
}

static void guest_main(void)
{
    u32 before = 0;

    out32(GENERATION, 1);
    if (!MAY_GO)
        expect("a second vCPU starts", start_vcpu(1, other_vcpu), 1);
    say("GUEST start");
    for (rounds = 1;; rounds++) {
        one_round();
        if (rounds % (gone ? 5000 : 20))
            continue;
        say("%s %u", gone ? "alone" : "round", rounds);
        if (!MAY_GO)
            expect("the other vCPU goes on", other_rounds != before, 1);
        before = other_rounds;
    }
}
