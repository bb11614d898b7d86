/* Makes an I/O request of every shape against devices/shape_device.py and devices/card.py, and
 * checks every value. Facts: which instruction gives which request is Xen's
 * arch/x86/hvm/emulate.c; the layouts are the devices'. */
#include "card.h"
#include "guest.h"
#include "shape_device.h"

#define UNCLAIMED_PORT 0x5000
#define UNCLAIMED_GPA 0xd0000000
#define PAGE 4096
#define FEW 9

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

static void (*const ins[2][3])(u32, void *) = {{insb, insw, insl},
                                              {insb_down, insw_down, insl_down}};
static void (*const outs[2][3])(u32, const void *) = {{outsb, outsw, outsl},
                                                      {outsb_down, outsw_down, outsl_down}};
static void (*const movs[2][3])(u32, const volatile void *, volatile void *) = {
    {movsb, movsw, movsl}, {movsb_down, movsw_down, movsl_down}};
static void (*const stos[2][3])(u32, u32, volatile void *) = {{stosb, stosw, stosl},
                                                              {stosb_down, stosw_down, stosl_down}};

static u8 filled(u32 seed, u32 i) { return seed + i * 7 + (i >> 8) * 13; }

static void fill(u8 *at, u32 length, u32 seed)
{
    for (u32 i = 0; i < length; i++)
        at[i] = filled(seed, i);
}

/* How many of ``length`` bytes differ; with ``reversed_width``, the second lies with its elements,
 * of that many bytes each, in reverse. */
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

    out32(LEVEL, 0);
    fill(from, length, 3 + shift + count);
    fill(target, sizeof target, 99);
    outs[out_down][shift](count, from + (out_down ? last : 0));
    expect("rep outs: bytes in the queue", in32(LEVEL), length);
    ins[in_down][shift](count, to + (in_down ? last : 0));
    expect("rep ins: bytes left", in32(LEVEL), 0);
    expect("rep outs, rep ins: differences",
          differences(from, to, length, out_down != in_down ? width : 0), 0);
    expect("rep ins: the byte before", to[-1], filled(99, offset - 1));
    expect("rep ins: the byte behind", to[length], filled(99, offset + length));
}

static void port_strings(void)
{
    static const u32 counts[] = {1, 7, 256, 300, 1024};
    for (u32 shift = 0; shift < 3; shift++)
        for (u32 i = 0; i < sizeof counts / sizeof *counts; i++)
            for (u32 down = 0; down < 4; down++)
                queue_round_trip(shift, counts[i], i & 1 ? PAGE - 6 : 16, down & 1, down >> 1);
    out32(LEVEL, 0);
    insl(2, target);
    expect("rep ins from an empty queue", *(u32 *)target, 0xeeeeeeee);
}

/* ---- ports -------------------------------------------------------------------------------- */

static void ports(void)
{
    out32(PORTS, 0x44332211);
    expect("inl", in32(PORTS), 0x44332211);
    expect("inw, low half", in16(PORTS), 0x2211);
    expect("inw, misaligned", in16(PORTS + 1), 0x3322);
    expect("inb", in8(PORTS + 3), 0x44);
    out16(PORTS + 1, 0xbbaa);
    expect("outw, misaligned", in32(PORTS), 0x44bbaa11);
    out8(PORTS + 3, 0xcc);
    expect("outb", in32(PORTS), 0xccbbaa11);
    out32(PORTS + 6, 0x88776655);
    expect("outl over three registers: a half", in16(PORTS + 6), 0x6655);
    expect("outl over three registers: bytes", in16(PORTS + 8), 0x8877);
    expect("inl over three registers", in32(PORTS + 6), 0x88776655);
    expect("inl, half of it a gap", in32(PORTS + 0xa) >> 16, 0xffff);
    for (u32 i = 0; i < 16; i++)
        expect("oracle", in8(ORACLE + i), oracle(i));
    expect("an unclaimed port, 1", in8(UNCLAIMED_PORT), 0xff);
    expect("an unclaimed port, 2", in16(UNCLAIMED_PORT), 0xffff);
    expect("an unclaimed port, 4", in32(UNCLAIMED_PORT), 0xffffffff);
    expect("half before the device", in32(PORTS - 2), 0xffffffff);
    expect("half behind the device", in32(PORTS + 0x3e), 0xffffffff);
    out32(PORTS - 2, 0);
    expect("a write before the device reaches nothing", in32(PORTS), 0xccbbaa11);
}

/* ---- memory ------------------------------------------------------------------------------- */

static void mmio_registers(void)
{
    for (u32 i = 0; i < 4; i++)
        MMIO32(4 * i) = 0x11111111 * (i + 1);
    expect("mov l", MMIO32(4), 0x22222222);
    expect("mov w", MMIO16(6), 0x2222);
    expect("mov b", MMIO8(15), 0x44);
    MMIO32(1) = 0xddccbbaa;
    expect("mov l over two registers, low", MMIO32(0), 0xccbbaa11);
    expect("mov l over two registers, high", MMIO32(4), 0x222222dd);
    expect("mov l, misaligned", MMIO32(1), 0xddccbbaa);
    MMIO16(3) = 0x9988;
    expect("mov w over two registers", MMIO32(2), 0x229988bb);
    MMIO8(0x11) = 0x77;
    MMIO16(0x14) = 0x6655;
    expect("byte registers and halves", MMIO32(0x11), 0x55000077);
    MMIO32(0x12) = 0x04030201;
    expect("mov l over three registers", MMIO32(0x12), 0x04030201);
    expect("a gap", MMIO32(0x34), 0xffffffff);
    expect("a register and a gap", MMIO32(0x2e) >> 16, 0xffff);
    MMIO8(0x20) = 0x01;
    expect("write one to clear: the low bit", MMIO32(0x20), 0x80000000);
    MMIO8(0x23) = 0x80;
    expect("write one to clear: the high bit", MMIO32(0x20), 0);
    MMIO32(0x24) = 0;
    expect("a read-only register", MMIO32(0x24), 0x5a4e0001);
    u32 reads = MMIO32(0x28);
    expect("a straddling read reads once", MMIO32(0x26) >> 16, (reads + 1) & 0xffff);
    expect("and no more", MMIO32(0x28), reads + 2);
    MMIO32(0x30) = 1;
    MMIO16(0x30) = 1;
    MMIO32(0x2f) = 1;
    expect("each write is one write", MMIO32(0x2c), 3);
}

static void mmio_instructions(void)
{
    u32 value = 0x12345678;
    MMIO32(0) = 7;
    asm volatile("xchgl %0, (%1)" : "+r"(value) : "r"(MMIO) : "memory");
    expect("xchg gives the old value", value, 7);
    expect("xchg stores the new one", MMIO32(0), 0x12345678);
    asm volatile("lock; orl $0x80000001, (%0)" ::"r"(MMIO) : "memory", "cc");
    expect("or", MMIO32(0), 0x92345679);
    asm volatile("andb $0xf0, 1(%0)" ::"r"(MMIO) : "memory", "cc");
    expect("and b", MMIO32(0), 0x92345079);
    asm volatile("lock; addl %1, (%0)" ::"r"(MMIO), "r"(0x10000000) : "memory", "cc");
    expect("add", MMIO32(0), 0xa2345079);
    asm volatile("notw (%0)" ::"r"(MMIO) : "memory");
    expect("not w", MMIO32(0), 0xa234af86);
    asm volatile("lock; incl (%0)" ::"r"(MMIO) : "memory", "cc");
    expect("inc", MMIO32(0), 0xa234af87);
    asm volatile("lock; btsl $3, (%0)" ::"r"(MMIO) : "memory", "cc");
    expect("bts", MMIO32(0), 0xa234af8f);
    asm volatile("movzwl 2(%1), %0" : "=r"(value) : "r"(MMIO) : "memory");
    expect("movzx", value, 0xa234);
    asm volatile("movsbl 3(%1), %0" : "=r"(value) : "r"(MMIO) : "memory");
    expect("movsx", value, 0xffffffa2);
    value = 0;
    asm volatile("lock; cmpxchgl %2, (%1)" : "+a"(value) : "r"(MMIO), "r"(1) : "memory", "cc");
    expect("cmpxchg that does not match", value, 0xa234af8f);
    asm volatile("lock; cmpxchgl %2, (%1)" : "+a"(value) : "r"(MMIO), "r"(5) : "memory", "cc");
    expect("cmpxchg that matches", MMIO32(0), 5);
    asm volatile("pushl (%1)\n popl %0" : "=r"(value) : "r"(MMIO) : "memory");
    expect("push from MMIO", value, 5);
    asm volatile("pushl $9\n popl 4(%0)" ::"r"(MMIO) : "memory");
    expect("pop to MMIO", MMIO32(4), 9);
    const volatile u8 *from = MMIO;
    asm volatile("lodsl" : "=a"(value), "+S"(from)::"memory");
    expect("lods", value, 5);
}

/* Let MMX and SSE instructions run: CR0.EM and TS off, CR4.OSFXSR on. */
static void enable_sse(void)
{
    u32 value;

    asm volatile("movl %%cr0, %0\n andl $~0xc, %0\n movl %0, %%cr0" : "=&r"(value)::"cc");
    asm volatile("movl %%cr4, %0\n orl $0x200, %0\n movl %0, %%cr4" : "=&r"(value)::"cc");
}

static void mmio_eight_bytes(void)
{
    static u32 buffer[4] __attribute__((aligned(16))) = {0x01234567, 0x89abcdef, 0xdeadbeef, 7};
    u32 low, high;

    enable_sse();
    asm volatile("movq (%0), %%mm0\n movq %%mm0, (%1)" ::"r"(buffer), "r"(MMIO + 0x18) : "memory");
    expect("movq to MMIO, low", MMIO32(0x18), 0x01234567);
    expect("movq to MMIO, high", MMIO32(0x1c), 0x89abcdef);
    asm volatile("movq (%0), %%mm1\n movq %%mm1, (%1)\n emms" ::"r"(MMIO + 0x18), "r"(buffer + 2)
                 : "memory");
    expect("movq from MMIO, low", buffer[2], 0x01234567);
    expect("movq from MMIO, high", buffer[3], 0x89abcdef);
    asm volatile("movups (%0), %%xmm0\n movups %%xmm0, (%1)" ::"r"(buffer), "r"(MMIO + 0x804)
                 : "memory");
    expect("movups to MMIO", differences(MMIO + 0x804, (u8 *)buffer, 16, 0), 0);
    low = 0x01234567, high = 1;
    asm volatile("lock; cmpxchg8b (%2)"
                 : "+a"(low), "+d"(high)
                 : "r"(MMIO + 0x18), "b"(1), "c"(2)
                 : "memory", "cc");
    expect("cmpxchg8b that does not match, low", low, 0x01234567);
    expect("cmpxchg8b that does not match, high", high, 0x89abcdef);
    asm volatile("lock; cmpxchg8b (%2)"
                 : "+a"(low), "+d"(high)
                 : "r"(MMIO + 0x18), "b"(0x55667788), "c"(0x11223344)
                 : "memory", "cc");
    expect("cmpxchg8b that matches, low", MMIO32(0x18), 0x55667788);
    expect("cmpxchg8b that matches, high", MMIO32(0x1c), 0x11223344);
}

static void mmio_edges(void)
{
    MMIO32(0xffe) = 0x87654321;
    expect("mov l over a page border", MMIO32(0xffe), 0x87654321);
    expect("its first half", MMIO16(0xffe), 0x4321);
    expect("its second half", MMIO16(0x1000), 0x8765);
    MMIO16(0x27fe) = 0x1234;
    expect("memory and a gap", MMIO32(0x27fe), 0xffff1234);
    expect("a gap and nobody", MMIO32(0x2ffe), 0xffffffff);
    MMIO32(0) = 0x44332211;
    expect("nobody and a register", MMIO32(-2), 0x2211ffff);
    expect("nobody", *(volatile u32 *)UNCLAIMED_GPA, 0xffffffff);
    *(volatile u32 *)UNCLAIMED_GPA = 0;
}

/* RAM to MMIO and back, over page borders of both; few elements are read one by one between. */
static void mmio_move(u32 shift, u32 count, int to_down, int from_down)
{
    u32 width = 1u << shift, length = count << shift, last = length - width;
    volatile u8 *device = MMIO + 0x1000 - length / 2;
    u8 *from = source + PAGE - 10, *to = target + PAGE - 6;

    fill(from, length, 5 * count + shift);
    fill(target, sizeof target, 1);
    movs[to_down][shift](count, from + (to_down ? last : 0), device + (to_down ? last : 0));
    if (count <= FEW)
        expect("rep movs to MMIO: differences", differences(from, device, length, 0), 0);
    movs[from_down][shift](count, device + (from_down ? last : 0), to + (from_down ? last : 0));
    expect("rep movs from MMIO: differences", differences(from, to, length, 0), 0);
}

static void mmio_strings(void)
{
    static const u32 counts[] = {1, FEW, 256};
    for (u32 shift = 0; shift < 3; shift++)
        for (u32 i = 0; i < sizeof counts / sizeof *counts; i++)
            for (u32 down = 0; down < 4; down++)
                mmio_move(shift, counts[i], down & 1, down >> 1);
    for (u32 down = 0; down < 2; down++)
        for (u32 shift = 0; shift < 3; shift++) {
            u32 width = 1u << shift, length = 24 << shift;
            volatile u8 *device = MMIO + 0x2000 - 24;
            device[-1] = device[length] = 0x99;
            for (u32 i = 0; i < length; i++)
                source[i] = (0xa1b2c3d4 + down) >> 8 * (i % width);
            stos[down][shift](24, 0xa1b2c3d4 + down, device + (down ? length - width : 0));
            expect("rep stos: differences", differences(source, device, length, 0), 0);
            expect("rep stos: the byte before", device[-1], 0x99);
            expect("rep stos: the byte behind", device[length], 0x99);
        }
    fill(source, 64, 77);
    movsb(64, source, MMIO + 0x900);
    movsl(16, MMIO + 0x900, MMIO + 0xfe0);
    expect("rep movs from MMIO to MMIO", differences(source, MMIO + 0xfe0, 64, 0), 0);
    movsl(4, source, MMIO);
    expect("rep movs into registers", differences(source, MMIO, 16, 0), 0);
    stosl(5, 1, MMIO + 0x30 - 16);
    expect("rep stos over registers: one strobe", MMIO32(0x2c), 4);
}

/* ---- the buffered ring -------------------------------------------------------------------- */

static void set_clock(u32 year)
{
    out8(0x70, 0x09);
    out8(0x71, (u8)year);
}

static void buffered(void)
{
    u32 n = 0;

    out32(MARKS, 0);
    VGA32(MARK) = ++n;
    expect("a buffered write is seen by the next request", in32(LAST_MARK), n);
    for (u32 i = 0; i < 5; i++) {
        for (u32 j = 0; j <= i; j++)
            VGA32(MARK) = ++n;
        expect("buffered writes, then a read", in32(LAST_MARK), n);
    }
    while (n < 1500)
        VGA32(MARK) = ++n;
    expect("more than the ring holds: all came", in32(MARKS), n);
    expect("in order", in32(MISORDERED), 0);

    static const u32 wide[2] = {0x76543210, 0xfedcba98};
    asm volatile("movq (%0), %%mm0\n movq %%mm0, (%1)\n emms" ::"r"(wide), "r"(VGA + WIDE_MARK)
                 : "memory");
    VGA32(MARK) = ++n;
    expect("after 8 bytes: the next entry", in32(LAST_MARK), n);
    expect("8 bytes, low", VGA32(WIDE_MARK), wide[0]);
    expect("8 bytes, high", VGA32(WIDE_MARK + 4), wide[1]);

    for (u32 i = 0; i < 100; i++)
        VGA[i] = (u8)(i * 3);
    for (u32 i = 100; i < 200; i += 2)
        *(volatile u16 *)(VGA + i) = (u16)((i * 3 & 0xff) | ((i + 1) * 3 & 0xff) << 8);
    u32 wrong = 0;
    for (u32 i = 0; i < 200; i++)
        wrong += VGA[i] != (u8)(i * 3);
    expect("bytes and words through the ring: differences", wrong, 0);
    fill(source, PAGE, 40);
    movsl(PAGE / 4, source, VGA + 0x1000);
    movsl(PAGE / 4, VGA + 0x1000, target);
    expect("rep movs to and from the window", differences(source, target, PAGE, 0), 0);

    for (u32 i = 0; i < 4; i++) {
        VGA32(MARK) = ++n;
        set_clock(0x30 + i);
        VGA32(MARK) = ++n;
        expect("a clock change keeps the order", in32(LAST_MARK), n);
    }
    expect("in order to the end", in32(MISORDERED), 0);
}

/* ---- pages that come and go --------------------------------------------------------------- */

#define DECREASE_RESERVATION 1
#define POPULATE_PHYSMAP 6
#define DOMID_SELF 0x7ff0

/* Give the page at ``gpa`` back or ask for one there (public/memory.h, as a 32-bit guest has it);
 * gives how many pages were done. */
static u32 change_reservation(u32 operation, u32 gpa)
{
    u32 gfn = gpa / PAGE;
    struct {
        u32 extents, count, order, flags;
        u16 domid;
    } reservation = {(u32)&gfn, 1, 0, 0, DOMID_SELF};

    return hypercall(HYPERCALL_MEMORY_OP, operation, (u32)&reservation, 0);
}

static u32 dma(u32 command, u32 gpa, u32 length)
{
    MMIO32(0x40) = gpa;
    MMIO32(0x44) = 0;
    MMIO32(0x48) = length;
    MMIO32(0x4c) = command;
    return MMIO32(0x50);
}

/* How many bytes of what DMA brought into the device differ from ``memory``. */
static u32 brought(const u8 *memory, u32 length)
{
    movsl(length / 4, MMIO + 0x800, target);
    return differences(target, memory, length, 0);
}

static void ballooning(void)
{
    enum { VICTIM = 0x800000 };
    u8 *victim = (u8 *)VICTIM;

    for (u32 round = 0; round < 3; round++) {
        fill(victim, PAGE, 10 + round);
        expect("DMA from a page", dma(1, VICTIM, PAGE), PAGE);
        expect("DMA from a page: differences", brought(victim, PAGE), 0);
        expect("the page is given back", change_reservation(DECREASE_RESERVATION, VICTIM), 1);
        expect("DMA from a hole fails", dma(1, VICTIM, PAGE), 0xffffffff);
        expect("DMA to a hole fails", dma(2, VICTIM, 8), 0xffffffff);
        expect("DMA that begins in RAM and ends in a hole fails", dma(1, VICTIM - 8, 16),
              0xffffffff);
        out32(LEVEL, 0);
        out32(QUEUE, 0x44332211);
        insb(2, victim + 8);
        expect("rep ins into a hole takes from the queue", in32(LEVEL), 2);
        outsb(2, victim);
        expect("rep outs from a hole writes something", in32(LEVEL), 4);
        expect("the page comes back", change_reservation(POPULATE_PHYSMAP, VICTIM), 1);
        fill(victim, PAGE, 20 + round);
        expect("DMA from the new page", dma(1, VICTIM, PAGE), PAGE);
        expect("DMA from the new page: differences", brought(victim, PAGE), 0);
        expect("DMA to the new page", dma(2, VICTIM + 16, 32), 32);
        expect("DMA to the new page: differences", brought(victim + 16, 32), 0);
    }
    expect("DMA beyond all memory fails", dma(1, 0xf0000000, 4), 0xffffffff);
}

/* ---- configuration space ------------------------------------------------------------------ */


static void configuration(u32 card)
{
    u8 *bytes = source;

    pci_select(0, card, 0x40);
    expect("the latch reads back", in32(PCI_ADDRESS), 0x80000040 | card << 8);
    for (u32 reg = 0; reg < 0x80; reg++) {
        pci_select(0, card, reg);
        bytes[reg] = in8(PCI_DATA + (reg & 3));
    }
    expect("vendor and device", *(u32 *)bytes, CARD_ID);
    for (u32 reg = 0; reg < 0x7c; reg++) {
        pci_select(0, card, reg);
        expect("config word", in16(PCI_DATA + (reg & 3)), bytes[reg] | bytes[reg + 1] << 8);
        expect("config dword", in32(PCI_DATA + (reg & 3)), *(u32 *)(bytes + reg));
    }
    pci_select(0, card, 0x60);
    out32(PCI_DATA, 0x44332211);
    expect("outl", in32(PCI_DATA), 0x44332211);
    for (u32 offset = 0; offset < 4; offset++) {
        out8(PCI_DATA + offset, (u8)(0xa0 + offset));
        expect("outb", in8(PCI_DATA + offset), 0xa0 + offset);
    }
    out16(PCI_DATA + 2, 0x8765);
    expect("outw", in32(PCI_DATA), 0x8765a1a0);
    out16(PCI_DATA + 1, 0x1234);
    expect("outw, misaligned", in32(PCI_DATA), 0x871234a0);
    pci_select(0, card, 0x68);
    out32(PCI_DATA, 0);
    expect("a read-only register", in32(PCI_DATA), 0x89abcdef);
    expect("no such function", pci_read(DEVFN(0x1f, 7), 0, 4), 0xffffffff);
    out32(PCI_ADDRESS, 0);
    expect("the latch disabled", in32(PCI_DATA), 0xffffffff);
}

/* ---- interrupts --------------------------------------------------------------------------- */

static void quiet(u32 vector)
{
    (void)vector;
    out8(IRQ_REQUEST, 0);
}

static void isa_interrupt(void)
{
    u32 vector = PIC_VECTOR + SHAPE_IRQ;

    on_interrupt(vector, quiet);
    unmask_irq(SHAPE_IRQ, 0);
    for (u32 i = 1; i <= 5; i++) {
        out8(IRQ_REQUEST, 1);
        wait_interrupt(vector, i);
        expect("ISA interrupts", interrupts_taken[vector], i);
        expect("the line is low again", in8(IRQ_REQUEST), 0);
    }
}

#define SECTION(name, call) (say("section %s", name), (call))

static void guest_main(void)
{
    set_up_interrupts();
    SECTION("ports", ports());
    SECTION("port strings", port_strings());
    SECTION("MMIO registers", mmio_registers());
    SECTION("MMIO instructions", mmio_instructions());
    SECTION("MMIO of 8 bytes", mmio_eight_bytes());
    SECTION("MMIO edges", mmio_edges());
    SECTION("MMIO strings", mmio_strings());
    SECTION("buffered", buffered());
    SECTION("ballooning", ballooning());
    SECTION("configuration", configuration(card_find()));
    SECTION("ISA interrupt", isa_interrupt());
    SECTION("card", card_all());
    verdict();
    stay();
}
