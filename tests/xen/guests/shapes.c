/* Makes an I/O request of every shape against devices/shape_device.py and devices/card.py, and
 * checks every value. Facts: which instruction gives which request is Xen's
 * arch/x86/hvm/emulate.c; the layouts are the devices'. */
#include "card.h"
#include "guest.h"
#include "shape_device.h"

#define UNCLAIMED_PORT 0x5000
#define UNCLAIMED_GPA 0xd0000000
#define PAGE 4096

static u8 source[4 * PAGE] __attribute__((aligned(PAGE)));
static u8 target[4 * PAGE] __attribute__((aligned(PAGE)));

/* ---- string instructions ------------------------------------------------------------------ */

#define STRING_IN(name, op, flag)                                                                  \
    static void name(u32 count, void *to)                                                          \
    {                                                                                              \
        asm volatile(flag "\n rep " op "\n cld"                                                    \
                     : "+D"(to), "+c"(count)                                                       \
                     : "d"(QUEUE)                                                                  \
                     : "memory", "cc");                                                            \
    }
#define STRING_OUT(name, op, flag)                                                                 \
    static void name(u32 count, const void *from)                                                  \
    {                                                                                              \
        asm volatile(flag "\n rep " op "\n cld"                                                    \
                     : "+S"(from), "+c"(count)                                                     \
                     : "d"(QUEUE)                                                                  \
                     : "memory", "cc");                                                            \
    }
#define STRING_MOVE(name, op, flag)                                                                \
    static void name(u32 count, const volatile void *from, volatile void *to)                      \
    {                                                                                              \
        asm volatile(flag "\n rep " op "\n cld"                                                    \
                     : "+S"(from), "+D"(to), "+c"(count)                                           \
                     :                                                                             \
                     : "memory", "cc");                                                            \
    }
#define STRING_STORE(name, op, flag)                                                               \
    static void name(u32 count, u32 value, volatile void *to)                                      \
    {                                                                                              \
        asm volatile(flag "\n rep " op "\n cld"                                                    \
                     : "+D"(to), "+c"(count)                                                       \
                     : "a"(value)                                                                  \
                     : "memory", "cc");                                                            \
    }
#define EACH(kind, prefix, op)                                                                     \
    kind(prefix##b, op "b", "cld") kind(prefix##w, op "w", "cld") kind(prefix##l, op "l", "cld")   \
        kind(prefix##b_down, op "b", "std") kind(prefix##w_down, op "w", "std")                    \
            kind(prefix##l_down, op "l", "std")

EACH(STRING_IN, ins, "ins")
EACH(STRING_OUT, outs, "outs")
EACH(STRING_MOVE, movs, "movs")
EACH(STRING_STORE, stos, "stos")

static void (*const ins[2][3])(u32, void *) = {{insb, insw, insl}, {insb_down, insw_down, insl_down}};
static void (*const outs[2][3])(u32, const void *) = {{outsb, outsw, outsl},
                                                      {outsb_down, outsw_down, outsl_down}};
static void (*const movs[2][3])(u32, const volatile void *, volatile void *) = {
    {movsb, movsw, movsl}, {movsb_down, movsw_down, movsl_down}};
static void (*const stos[2][3])(u32, u32, volatile void *) = {{stosb, stosw, stosl},
                                                              {stosb_down, stosw_down, stosl_down}};

static void fill(u8 *at, u32 length, u32 seed)
{
    for (u32 i = 0; i < length; i++)
        at[i] = (u8)(seed + i * 7 + (i >> 8) * 13);
}

/* How many of ``length`` bytes differ; with ``width``, the second lies with its elements reversed. */
static u32 differences(const volatile u8 *a, const volatile u8 *b, u32 length, u32 reversed_width)
{
    u32 wrong = 0;
    for (u32 i = 0; i < length; i++) {
        u32 j = i;
        if (reversed_width)
            j = length - reversed_width - i / reversed_width * reversed_width + i % reversed_width;
        wrong += a[i] != b[j];
    }
    return wrong;
}

/* Out and in again through the queue, ``count`` elements of ``1 << shift`` bytes. */
static void queue_round_trip(u32 shift, u32 count, u32 offset, int out_down, int in_down)
{
    u32 width = 1u << shift, length = count << shift, last = length - width;
    u8 *from = source + offset, *to = target + offset;

    outl(LEVEL, 0);
    fill(from, length, 3 + shift + count);
    fill(target, sizeof target, 99);
    outs[out_down][shift](count, from + (out_down ? last : 0));
    check("rep outs: bytes in the queue", inl(LEVEL), length);
    ins[in_down][shift](count, to + (in_down ? last : 0));
    check("rep ins: bytes left", inl(LEVEL), 0);
    check("rep outs, rep ins: differences",
          differences(from, to, length, out_down != in_down ? width : 0), 0);
    check("rep ins: the byte before", to[-1], (u8)(99 + (offset + PAGE - PAGE - 1) * 7 +
                                                   ((offset - 1) >> 8) * 13));
}

static void port_strings(void)
{
    static const u32 counts[] = {1, 7, 256, 300, 1024};
    for (u32 shift = 0; shift < 3; shift++)
        for (u32 i = 0; i < sizeof counts / sizeof *counts; i++)
            for (u32 down = 0; down < 4; down++)
                queue_round_trip(shift, counts[i], i & 1 ? PAGE - 6 : 16, down & 1, down >> 1);
    outl(LEVEL, 0);
    insl(2, target);
    check("rep ins from an empty queue", *(u32 *)target, 0xeeeeeeee);
}

/* ---- ports -------------------------------------------------------------------------------- */

static void ports(void)
{
    outl(PORTS, 0x44332211);
    check("inl", inl(PORTS), 0x44332211);
    check("inw, low half", inw(PORTS), 0x2211);
    check("inw, misaligned", inw(PORTS + 1), 0x3322);
    check("inb", inb(PORTS + 3), 0x44);
    outw(PORTS + 1, 0xbbaa);
    check("outw, misaligned", inl(PORTS), 0x44bbaa11);
    outb(PORTS + 3, 0xcc);
    check("outb", inl(PORTS), 0xccbbaa11);
    outl(PORTS + 6, 0x88776655);
    check("outl over three registers: a half", inw(PORTS + 6), 0x6655);
    check("outl over three registers: bytes", inw(PORTS + 8), 0x8877);
    check("inl over three registers", inl(PORTS + 6), 0x88776655);
    check("inl, half of it a gap", inl(PORTS + 0xa) >> 16, 0xffff);
    for (u32 i = 0; i < 16; i++)
        check("oracle", inb(ORACLE + i), oracle(i));
    check("an unclaimed port, 1", inb(UNCLAIMED_PORT), 0xff);
    check("an unclaimed port, 2", inw(UNCLAIMED_PORT), 0xffff);
    check("an unclaimed port, 4", inl(UNCLAIMED_PORT), 0xffffffff);
    check("half before the device", inl(PORTS - 2), 0xffffffff);
    check("half behind the device", inl(PORTS + 0x3e), 0xffffffff);
    outl(PORTS - 2, 0);
    check("a write before the device reaches nothing", inl(PORTS), 0xccbbaa11);
}

/* ---- memory ------------------------------------------------------------------------------- */

static void mmio_registers(void)
{
    for (u32 i = 0; i < 4; i++)
        MMIO32(4 * i) = 0x11111111 * (i + 1);
    check("mov l", MMIO32(4), 0x22222222);
    check("mov w", MMIO16(6), 0x2222);
    check("mov b", MMIO8(15), 0x44);
    MMIO32(1) = 0xddccbbaa;
    check("mov l over two registers, low", MMIO32(0), 0xccbbaa11);
    check("mov l over two registers, high", MMIO32(4), 0x222222dd);
    check("mov l, misaligned", MMIO32(1), 0xddccbbaa);
    MMIO16(3) = 0x9988;
    check("mov w over two registers", MMIO32(2), 0x229988bb);
    MMIO8(0x11) = 0x77;
    MMIO16(0x14) = 0x6655;
    check("byte registers and halves", MMIO32(0x11), 0x55000077);
    MMIO32(0x12) = 0x04030201;
    check("mov l over three registers", MMIO32(0x12), 0x04030201);
    check("a gap", MMIO32(0x34), 0xffffffff);
    check("a register and a gap", MMIO32(0x2e) >> 16, 0xffff);
    MMIO8(0x20) = 0x01;
    check("write one to clear: the low bit", MMIO32(0x20), 0x80000000);
    MMIO8(0x23) = 0x80;
    check("write one to clear: the high bit", MMIO32(0x20), 0);
    MMIO32(0x24) = 0;
    check("a read-only register", MMIO32(0x24), 0x5a4e0001);
    u32 reads = MMIO32(0x28);
    check("a straddling read reads once", MMIO32(0x26) >> 16, (reads + 1) & 0xffff);
    check("and no more", MMIO32(0x28), reads + 2);
    MMIO32(0x30) = 1;
    MMIO16(0x30) = 1;
    MMIO32(0x2f) = 1;
    check("each write is one write", MMIO32(0x2c), 3);
}

static void mmio_instructions(void)
{
    u32 value = 0x12345678;
    MMIO32(0) = 7;
    asm volatile("xchgl %0, (%1)" : "+r"(value) : "r"(MMIO) : "memory");
    check("xchg gives the old value", value, 7);
    check("xchg stores the new one", MMIO32(0), 0x12345678);
    asm volatile("lock; orl $0x80000001, (%0)" ::"r"(MMIO) : "memory", "cc");
    check("or", MMIO32(0), 0x92345679);
    asm volatile("andb $0xf0, 1(%0)" ::"r"(MMIO) : "memory", "cc");
    check("and b", MMIO32(0), 0x92345079);
    asm volatile("lock; addl %1, (%0)" ::"r"(MMIO), "r"(0x10000000) : "memory", "cc");
    check("add", MMIO32(0), 0xa2345079);
    asm volatile("notw (%0)" ::"r"(MMIO) : "memory");
    check("not w", MMIO32(0), 0xa234af86);
    asm volatile("lock; incl (%0)" ::"r"(MMIO) : "memory", "cc");
    check("inc", MMIO32(0), 0xa234af87);
    asm volatile("lock; btsl $3, (%0)" ::"r"(MMIO) : "memory", "cc");
    check("bts", MMIO32(0), 0xa234af8f);
    asm volatile("movzwl 2(%1), %0" : "=r"(value) : "r"(MMIO) : "memory");
    check("movzx", value, 0xa234);
    asm volatile("movsbl 3(%1), %0" : "=r"(value) : "r"(MMIO) : "memory");
    check("movsx", value, 0xffffffa2);
    value = 0;
    asm volatile("lock; cmpxchgl %2, (%1)" : "+a"(value) : "r"(MMIO), "r"(1) : "memory", "cc");
    check("cmpxchg that does not match", value, 0xa234af8f);
    asm volatile("lock; cmpxchgl %2, (%1)" : "+a"(value) : "r"(MMIO), "r"(5) : "memory", "cc");
    check("cmpxchg that matches", MMIO32(0), 5);
    asm volatile("pushl (%1)\n popl %0" : "=r"(value) : "r"(MMIO) : "memory");
    check("push from MMIO", value, 5);
    asm volatile("pushl $9\n popl 4(%0)" ::"r"(MMIO) : "memory");
    check("pop to MMIO", MMIO32(4), 9);
    const volatile u8 *from = MMIO;
    asm volatile("lodsl" : "=a"(value), "+S"(from)::"memory");
    check("lods", value, 5);
}

static void mmio_eight_bytes(void)
{
    static u32 buffer[4] __attribute__((aligned(16))) = {0x01234567, 0x89abcdef, 0xdeadbeef, 7};
    u32 low, high;

    enable_sse();
    asm volatile("movq (%0), %%mm0\n movq %%mm0, (%1)" ::"r"(buffer), "r"(MMIO + 0x18) : "memory");
    check("movq to MMIO, low", MMIO32(0x18), 0x01234567);
    check("movq to MMIO, high", MMIO32(0x1c), 0x89abcdef);
    asm volatile("movq (%0), %%mm1\n movq %%mm1, (%1)\n emms" ::"r"(MMIO + 0x18), "r"(buffer + 2)
                 : "memory");
    check("movq from MMIO, low", buffer[2], 0x01234567);
    check("movq from MMIO, high", buffer[3], 0x89abcdef);
    asm volatile("movups (%0), %%xmm0\n movups %%xmm0, (%1)" ::"r"(buffer), "r"(MMIO + 0x804)
                 : "memory");
    check("movups to MMIO", differences(MMIO + 0x804, (u8 *)buffer, 16, 0), 0);
    low = 0x01234567, high = 1;
    asm volatile("lock; cmpxchg8b (%2)"
                 : "+a"(low), "+d"(high)
                 : "r"(MMIO + 0x18), "b"(1), "c"(2)
                 : "memory", "cc");
    check("cmpxchg8b that does not match, low", low, 0x01234567);
    check("cmpxchg8b that does not match, high", high, 0x89abcdef);
    asm volatile("lock; cmpxchg8b (%2)"
                 : "+a"(low), "+d"(high)
                 : "r"(MMIO + 0x18), "b"(0x55667788), "c"(0x11223344)
                 : "memory", "cc");
    check("cmpxchg8b that matches, low", MMIO32(0x18), 0x55667788);
    check("cmpxchg8b that matches, high", MMIO32(0x1c), 0x11223344);
}

static void mmio_edges(void)
{
    MMIO32(0xffe) = 0x87654321;
    check("mov l over a page border", MMIO32(0xffe), 0x87654321);
    check("its first half", MMIO16(0xffe), 0x4321);
    check("its second half", MMIO16(0x1000), 0x8765);
    MMIO16(0x27fe) = 0x1234;
    check("memory and a gap", MMIO32(0x27fe), 0xffff1234);
    check("a gap and nobody", MMIO32(0x2ffe), 0xffffffff);
    MMIO32(0) = 0x44332211;
    check("nobody and a register", MMIO32(-2), 0x2211ffff);
    check("nobody", *(volatile u32 *)UNCLAIMED_GPA, 0xffffffff);
    *(volatile u32 *)UNCLAIMED_GPA = 0;
}

/* RAM to MMIO and back, over page borders of both. */
static void mmio_move(u32 shift, u32 count, int to_down, int from_down)
{
    u32 width = 1u << shift, length = count << shift, last = length - width;
    volatile u8 *device = MMIO + 0x1000 - length / 2;
    u8 *from = source + PAGE - 10, *to = target + PAGE - 6;

    fill(from, length, 5 * count + shift);
    fill(target, sizeof target, 1);
    movs[to_down][shift](count, from + (to_down ? last : 0), device + (to_down ? last : 0));
    check("rep movs to MMIO: differences", differences(from, device, length, 0), 0);
    movs[from_down][shift](count, device + (from_down ? last : 0), to + (from_down ? last : 0));
    check("rep movs from MMIO: differences", differences(from, to, length, 0), 0);
}

static void mmio_strings(void)
{
    static const u32 counts[] = {1, 9, 256};
    for (u32 shift = 0; shift < 3; shift++)
        for (u32 i = 0; i < sizeof counts / sizeof *counts; i++)
            for (u32 down = 0; down < 4; down++)
                mmio_move(shift, counts[i], down & 1, down >> 1);
    for (u32 down = 0; down < 2; down++)
        for (u32 shift = 0; shift < 3; shift++) {
            u32 width = 1u << shift, length = 100 << shift;
            volatile u8 *device = MMIO + 0x2000 - 80;
            device[-1] = device[length] = 0x99;
            for (u32 i = 0; i < length; i++)
                source[i] = (u8)(0xa1b2c3d4 + down >> 8 * (i % width));
            stos[down][shift](100, 0xa1b2c3d4 + down, device + (down ? length - width : 0));
            check("rep stos: differences", differences(source, device, length, 0), 0);
            check("rep stos: the byte before", device[-1], 0x99);
            check("rep stos: the byte behind", device[length], 0x99);
        }
    fill(source, 64, 77);
    movsb(64, source, MMIO + 0x900);
    movsl(16, MMIO + 0x900, MMIO + 0xfe0);
    check("rep movs from MMIO to MMIO", differences(source, MMIO + 0xfe0, 64, 0), 0);
    movsl(4, source, MMIO);
    check("rep movs into registers", differences(source, MMIO, 16, 0), 0);
    stosl(5, 1, MMIO + 0x30 - 16);
    check("rep stos over registers: one strobe", MMIO32(0x2c), 4);
}

/* ---- the buffered ring -------------------------------------------------------------------- */

static void set_clock(u32 year)
{
    outb(0x70, 0x09);
    outb(0x71, (u8)year);
}

static void buffered(void)
{
    u32 n = 0;
    outl(MARKS, 0);
    VGA32(MARK) = ++n;
    check("a buffered write is seen by the next request", inl(LAST_MARK), n);
    for (u32 i = 0; i < 5; i++) {
        for (u32 j = 0; j <= i; j++)
            VGA32(MARK) = ++n;
        check("buffered writes, then a read", inl(LAST_MARK), n);
    }
    while (n < 1500)
        VGA32(MARK) = ++n;
    check("more than the ring holds: all came", inl(MARKS), n);
    check("in order", inl(MISORDERED), 0);

    static const u32 wide[2] = {0x76543210, 0xfedcba98};
    asm volatile("movq (%0), %%mm0\n movq %%mm0, (%1)\n emms" ::"r"(wide), "r"(VGA + WIDE_MARK)
                 : "memory");
    VGA32(MARK) = ++n;
    check("after 8 bytes: the next entry", inl(LAST_MARK), n);
    check("8 bytes, low", VGA32(WIDE_MARK), wide[0]);
    check("8 bytes, high", VGA32(WIDE_MARK + 4), wide[1]);

    for (u32 i = 0; i < 300; i++)
        VGA[i] = (u8)(i * 3);
    for (u32 i = 300; i < 600; i += 2)
        *(volatile u16 *)(VGA + i) = (u16)((i * 3 & 0xff) | ((i + 1) * 3 & 0xff) << 8);
    u32 wrong = 0;
    for (u32 i = 0; i < 600; i++)
        wrong += VGA[i] != (u8)(i * 3);
    check("bytes and words through the ring: differences", wrong, 0);
    fill(source, PAGE, 40);
    movsl(PAGE / 4, source, VGA + 0x1000);
    movsl(PAGE / 4, VGA + 0x1000, target);
    check("rep movs to and from the window", differences(source, target, PAGE, 0), 0);

    for (u32 i = 0; i < 4; i++) {
        VGA32(MARK) = ++n;
        set_clock(0x30 + i);
        VGA32(MARK) = ++n;
        check("a clock change keeps the order", inl(LAST_MARK), n);
    }
    check("in order to the end", inl(MISORDERED), 0);
}

/* ---- pages that come and go --------------------------------------------------------------- */

static u32 dma(u32 command, u32 gpa, u32 length)
{
    MMIO32(0x40) = gpa;
    MMIO32(0x44) = 0;
    MMIO32(0x48) = length;
    MMIO32(0x4c) = command;
    return MMIO32(0x50);
}

static void ballooning(void)
{
    enum { VICTIM = 0x800000 };
    u8 *victim = (u8 *)VICTIM;

    for (u32 round = 0; round < 3; round++) {
        fill(victim, PAGE, 10 + round);
        check("DMA from a page", dma(1, VICTIM, PAGE), PAGE);
        check("DMA from a page: differences", differences(MMIO + 0x800, victim, PAGE, 0), 0);
        check("the page is given back", change_reservation(MEMOP_DECREASE, VICTIM / PAGE), 1);
        check("DMA from a hole fails", dma(1, VICTIM, PAGE), 0xffffffff);
        check("DMA to a hole fails", dma(2, VICTIM, 8), 0xffffffff);
        check("DMA that begins in RAM and ends in a hole fails", dma(1, VICTIM - 8, 16),
              0xffffffff);
        outl(LEVEL, 0);
        outl(QUEUE, 0x44332211);
        insb(2, victim + 8);
        check("rep ins into a hole takes from the queue", inl(LEVEL), 2);
        outsb(2, victim);
        check("rep outs from a hole writes something", inl(LEVEL), 4);
        check("the page comes back", change_reservation(MEMOP_POPULATE, VICTIM / PAGE), 1);
        fill(victim, PAGE, 20 + round);
        check("DMA from the new page", dma(1, VICTIM, PAGE), PAGE);
        check("DMA from the new page: differences", differences(MMIO + 0x800, victim, PAGE, 0), 0);
        check("DMA to the new page", dma(2, VICTIM + 16, 32), 32);
        check("DMA to the new page: differences", differences(MMIO + 0x800, victim + 16, 32, 0), 0);
    }
    check("DMA beyond all memory fails", dma(1, 0xf0000000, 4), 0xffffffff);
}

/* ---- configuration space ------------------------------------------------------------------ */

static u32 latch(u32 function, u32 reg)
{
    u32 address = 0x80000000 | function << 8 | (reg & 0xfc);
    outl(0xcf8, address);
    return address;
}

static void configuration(u32 card)
{
    u8 *bytes = source;

    check("the latch reads back", inl(0xcf8), latch(card, 0x40));
    for (u32 reg = 0; reg < 0x80; reg++) {
        latch(card, reg);
        bytes[reg] = inb(0xcfc + (reg & 3));
    }
    check("vendor and device", *(u32 *)bytes, CARD_ID);
    for (u32 reg = 0; reg < 0x7c; reg++) {
        latch(card, reg);
        check("config word", inw(0xcfc + (reg & 3)), bytes[reg] | bytes[reg + 1] << 8);
        check("config dword", inl(0xcfc + (reg & 3)), *(u32 *)(bytes + reg));
    }
    latch(card, 0x60);
    outl(0xcfc, 0x44332211);
    check("outl", inl(0xcfc), 0x44332211);
    for (u32 offset = 0; offset < 4; offset++) {
        outb(0xcfc + offset, (u8)(0xa0 + offset));
        check("outb", inb(0xcfc + offset), 0xa0 + offset);
    }
    outw(0xcfe, 0x8765);
    check("outw", inl(0xcfc), 0x8765a1a0);
    outw(0xcfd, 0x1234);
    check("outw, misaligned", inl(0xcfc), 0x871234a0);
    latch(card, 0x68);
    outl(0xcfc, 0);
    check("a read-only register", inl(0xcfc), 0x89abcdef);
    check("no such function", pci_read32(0x1f << 3, 0), 0xffffffff);
    outl(0xcf8, 0);
    check("the latch disabled", inl(0xcfc), 0xffffffff);
}

/* ---- interrupts --------------------------------------------------------------------------- */

static volatile u32 isa_interrupts;

static void isa_handler(void)
{
    isa_interrupts++;
    outb(IRQ_REQUEST, 0);
}

static void isa_interrupt(void)
{
    install_irq(SHAPE_IRQ, isa_handler);
    for (u32 i = 1; i <= 5; i++) {
        outb(IRQ_REQUEST, 1);
        wait_until(isa_interrupts >= i);
        check("ISA interrupts", isa_interrupts, i);
        check("the line is low again", inb(IRQ_REQUEST), 0);
    }
}

void guest_main(void)
{
    start_interrupts();
    section("ports", ports());
    section("port strings", port_strings());
    section("MMIO registers", mmio_registers());
    section("MMIO instructions", mmio_instructions());
    section("MMIO of 8 bytes", mmio_eight_bytes());
    section("MMIO edges", mmio_edges());
    section("MMIO strings", mmio_strings());
    section("buffered", buffered());
    section("ballooning", ballooning());
    u32 card = find_card();
    section("configuration", configuration(card));
    section("card", card_all(card));
    section("ISA interrupt", isa_interrupt());
}
