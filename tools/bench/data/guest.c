/* The bench's guest: times each shape of access with the TSC and prints what it found.
 *
 * It stands in hvmloader's place (xl.cfg: firmware_override) and starts at _start with flat 32-bit
 * segments and no paging; nobody has placed a BAR yet. Lines go to port 0xe9, which Xen prints. Each
 * sample is a line "BENCH name operations ticks", both numbers hexadecimal. Where an echo (echo.c)
 * answers at its port, that is all there is to time.
 */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifndef ROUNDS
#define ROUNDS 5
#endif
#ifndef REQUESTS
#define REQUESTS 100
#endif

#define CONSOLE 0xe9
#define KEYBOARD_STATUS 0x64
#define UART_SCRATCH 0x3ff
#define UNCLAIMED 0x5000
#define INSIDE_XEN 0x61
#define PCI_ADDRESS 0xcf8
#define PCI_DATA 0xcfc
#define IDE_DATA 0x1f0
#define ECHO 0x5100
#define ECHOED 0x5a
#define VGA_WINDOW 0xa0000
#define EDU 0x11e81234
#define FREE 0xe0000000 /* neither RAM nor anything that Xen claims */
#define PAGE 4096
#define BURST 256 /* fewer than the buffered ring's 511 entries */
#define QUIET (1ULL << 33) /* ticks before the first sample */

static u32 stack[4096] __attribute__((used));
static u8 page[PAGE] __attribute__((aligned(PAGE)));
static volatile u32 sum;

static inline u8 in8(u32 port) { u8 v; asm volatile("inb %%dx, %0" : "=a"(v) : "d"(port)); return v; }
static inline u32 in32(u32 port) { u32 v; asm volatile("inl %%dx, %0" : "=a"(v) : "d"(port)); return v; }
static inline void out8(u32 port, u8 v) { asm volatile("outb %0, %%dx" :: "a"(v), "d"(port)); }
static inline void out32(u32 port, u32 v) { asm volatile("outl %0, %%dx" :: "a"(v), "d"(port)); }
static inline u64 ticks(void) { u64 t; asm volatile("rdtsc" : "=A"(t)); return t; }

static void text(const char *s) { while (*s) out8(CONSOLE, *s++); }

static void number(u64 v)
{
    int shift = 60;
    while (shift && !(v >> shift))
        shift -= 4;
    for (; shift >= 0; shift -= 4)
        out8(CONSOLE, "0123456789abcdef"[(u32)(v >> shift) & 15]);
}

static void sample(const char *name, u32 operations, u64 spent)
{
    text("BENCH "); text(name); text(" "); number(operations); text(" "); number(spent); text("\n");
}

#define TIME(name, count, action) do {             \
        u32 i;                                     \
        u64 start = ticks();                       \
        for (i = 0; i < (count); i++) { action; }  \
        sample(name, count, ticks() - start);      \
    } while (0)

static u32 config(u32 devfn, u32 offset)
{
    out32(PCI_ADDRESS, 0x80000000 | devfn << 8 | offset);
    return in32(PCI_DATA);
}

/* Place BAR 0 of the edu device at FREE and switch its memory decoding on; 0 without one. */
static u32 place_edu(void)
{
    u32 devfn;
    for (devfn = 0; devfn < 256; devfn += 8)
        if (config(devfn, 0) == EDU) {
            u32 command = config(devfn, 4);
            config(devfn, 0x10);
            out32(PCI_DATA, FREE);
            config(devfn, 4);
            out32(PCI_DATA, (command & 0xffff) | 2);
            return FREE;
        }
    return 0;
}

static void rep_insl(void)
{
    void *to = page;
    u32 count = PAGE / 4;
    asm volatile("rep insl" : "+D"(to), "+c"(count) : "d"(IDE_DATA) : "memory");
}

/* Buffered writes do not wait; the synchronous read behind them waits until all were served. */
static void vga_burst(void)
{
    volatile u8 *window = (volatile u8 *)VGA_WINDOW;
    u64 start = ticks(), issued;
    u32 i;
    for (i = 0; i < BURST; i++)
        window[i] = i;
    issued = ticks() - start;
    sum += in8(KEYBOARD_STATUS);
    sample("vga-issue", BURST, issued);
    sample("vga-drained", BURST, ticks() - start);
}

static void measure(volatile u32 *mmio)
{
    TIME("in-xen", REQUESTS * 10, sum += in8(INSIDE_XEN));
    if (in8(ECHO) == ECHOED) {
        TIME("echo", REQUESTS, sum += in8(ECHO));
        return;
    }
    TIME("port-read", REQUESTS, sum += in8(KEYBOARD_STATUS));
    TIME("port-write", REQUESTS, out8(UART_SCRATCH, i));
    TIME("unclaimed", REQUESTS * 10, sum += in8(UNCLAIMED));
    out32(PCI_ADDRESS, 0x80000000);
    TIME("pci-read", REQUESTS, sum += in32(PCI_DATA));
    if (mmio)
        TIME("mmio-read", REQUESTS, sum += *mmio);
    TIME("rep-insl", REQUESTS / 5, rep_insl());
    vga_burst();
}

static void __attribute__((used)) guest_main(void)
{
    u32 round;
    u64 start;
    volatile u32 *mmio = (volatile u32 *)place_edu();
    text("BENCH ready\n");
    for (start = ticks(); ticks() - start < QUIET;)
        asm volatile("pause");
    for (round = 0; round < ROUNDS; round++)
        measure(mmio);
    text("BENCH done\n");
    /* Idle: halted, interrupts on (without them Xen would end the domain) but all masked. */
    out8(0x21, 0xff);
    out8(0xa1, 0xff);
    for (;;)
        asm volatile("sti; hlt");
}

asm(".globl _start\n_start: cli\n cld\n mov $stack + 16384, %esp\n call guest_main\n");
