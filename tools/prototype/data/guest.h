/* What a small guest knows: the machine below it and how to tell the outside what it saw.
 *
 * A guest is a 32-bit ELF file: `ioreqd run --kernel` takes it (or its source), and on Xen it takes
 * hvmloader's place (xl.cfg: firmware_override). It is entered at _start with flat segments, paging
 * off, interrupts off (xen/arch/x86/hvm/vmx|svm by way of tools/libs/guest/xg_dom_x86.c: vcpu_hvm);
 * guest_main follows with a stack and a GDT of its own. Lines go to port 0xe9, which Xen prints as
 * "(dN) line" (xen/arch/x86/hvm/hvm.c: hvm_print_line; at most 79 characters), or, with
 * SAY_ON_SERIAL defined before this file, to COM1.
 *
 * A guest includes this file once, defines guest_main and ends with guest_end().
 */
#ifndef GUEST_H
#define GUEST_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define USED __attribute__((used))
#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static void guest_main(void);

/* Ports and memory */

static inline u8 in8(u16 port) { u8 v; asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static inline u16 in16(u16 port) { u16 v; asm volatile("inw %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static inline u32 in32(u16 port) { u32 v; asm volatile("inl %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static inline void out8(u16 port, u8 v) { asm volatile("outb %0, %1" :: "a"(v), "Nd"(port)); }
static inline void out16(u16 port, u16 v) { asm volatile("outw %0, %1" :: "a"(v), "Nd"(port)); }
static inline void out32(u16 port, u32 v) { asm volatile("outl %0, %1" :: "a"(v), "Nd"(port)); }

static inline u8 read8(u32 at) { return *(volatile u8 *)at; }
static inline u16 read16(u32 at) { return *(volatile u16 *)at; }
static inline u32 read32(u32 at) { return *(volatile u32 *)at; }
static inline void write8(u32 at, u8 v) { *(volatile u8 *)at = v; }
static inline void write16(u32 at, u16 v) { *(volatile u16 *)at = v; }
static inline void write32(u32 at, u32 v) { *(volatile u32 *)at = v; }

/* The compiler may call these for assignments and initialisers. */
USED void *memset(void *to, int value, unsigned long count)
{
    void *at = to;
    asm volatile("rep stosb" : "+D"(at), "+c"(count) : "a"(value) : "memory");
    return to;
}

USED void *memcpy(void *to, const void *from, unsigned long count)
{
    void *at = to;
    asm volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(count) :: "memory");
    return to;
}

/* The processor */

static inline u64 tsc(void) { u64 v; asm volatile("rdtsc" : "=A"(v)); return v; }
static inline void pause_cpu(void) { asm volatile("pause" ::: "memory"); }
static inline void interrupts_on(void) { asm volatile("sti" ::: "memory"); }
static inline void interrupts_off(void) { asm volatile("cli" ::: "memory"); }

static inline void cpuid(u32 leaf, u32 *a, u32 *b, u32 *c, u32 *d)
{
    asm volatile("cpuid" : "=a"(*a), "=b"(*b), "=c"(*c), "=d"(*d) : "0"(leaf), "2"(0));
}

static inline void write_msr(u32 msr, u64 v) { asm volatile("wrmsr" :: "c"(msr), "A"(v)); }

/* Sleep until an interrupt was taken; none is missed that comes after the caller's own look with
 * interrupts off. Halting with interrupts off would power the domain off. */
static inline void idle(void) { asm volatile("sti; hlt; cli" ::: "memory"); }

/* For guests that must stay alive and have nothing more to do: no interrupt comes any more. */
static inline void stay(void)
{
    out8(0x21, 0xff);
    out8(0xa1, 0xff);
    for (;;)
        idle();
}

struct lock { volatile u32 taken; };
static inline void take(struct lock *lock) { while (__sync_lock_test_and_set(&lock->taken, 1)) pause_cpu(); }
static inline void release(struct lock *lock) { __sync_lock_release(&lock->taken); }

/* Lines: say("text %x %u %s %c", …); one line is whole, whichever vCPUs speak. */

#define CONSOLE_PORT 0xe9
#define COM1 0x3f8
#define COM1_STATUS (COM1 + 5)
#define COM_EMPTY 0x20

static struct lock console_lock;

/* Waits, but not for ever: a missing port hangs nobody. */
static USED void serial_char(char c)
{
    u32 tries = 1000;
    while (!(in8(COM1_STATUS) & COM_EMPTY) && --tries)
        ;
    out8(COM1, c);
}

static inline void put_char(char c)
{
#ifdef SAY_ON_SERIAL
    if (c == '\n')
        serial_char('\r');
    serial_char(c);
#else
    out8(CONSOLE_PORT, c);
#endif
}

static void put_text(const char *text) { while (*text) put_char(*text++); }

static void put_number(u32 v, u32 base, int width)
{
    char digits[32];
    int count = 0;
    do
        digits[count++] = "0123456789abcdef"[v % base];
    while (v /= base);
    while (width-- > count)
        put_char('0');
    while (count)
        put_char(digits[--count]);
}

/* %x hexadecimal, %2x %4x %8x with leading zeros, %u decimal, %s text, %c character. */
static void __attribute__((format(printf, 1, 2))) say(const char *format, ...)
{
    __builtin_va_list values;
    __builtin_va_start(values, format);
    take(&console_lock);
    for (; *format; format++) {
        int width = 0;
        if (*format != '%') {
            put_char(*format);
            continue;
        }
        for (format++; *format >= '0' && *format <= '9'; format++)
            width = width * 10 + *format - '0';
        switch (*format) {
        case 'x': put_number(__builtin_va_arg(values, u32), 16, width); break;
        case 'u': put_number(__builtin_va_arg(values, u32), 10, width); break;
        case 's': put_text(__builtin_va_arg(values, const char *)); break;
        case 'c': put_char(__builtin_va_arg(values, int)); break;
        default: put_char(*format);
        }
    }
    put_char('\n');
    release(&console_lock);
    __builtin_va_end(values);
}

static USED void serial_text(const char *text)
{
    while (*text)
        serial_char(*text++);
}

/* Checks: each prints OK or FAIL, guest_end() the sum of them. */

static volatile u32 failures;

static USED int check(const char *name, u32 got, u32 want)
{
    if (got == want) {
        say("OK %s %x", name, got);
        return 1;
    }
    __sync_fetch_and_add(&failures, 1);
    say("FAIL %s got %x want %x", name, got, want);
    return 0;
}

/* As check, but silent when all is well: for loops. */
static USED int expect(const char *name, u32 got, u32 want)
{
    return got == want || check(name, got, want);
}

static USED void verdict(void)
{
    if (failures)
        say("GUEST FAIL %u", failures);
    else
        say("GUEST PASS");
}

/* PCI configuration, mechanism 1 */

#define PCI_ADDRESS 0xcf8
#define PCI_DATA 0xcfc
#define DEVFN(slot, function) ((slot) << 3 | (function))

static inline void pci_select(u32 bus, u32 devfn, u32 reg)
{
    out32(PCI_ADDRESS, 0x80000000u | bus << 16 | devfn << 8 | (reg & 0xfc));
}

static USED u32 pci_read(u32 devfn, u32 reg, int size)
{
    u16 port = PCI_DATA + (reg & 3);
    pci_select(0, devfn, reg);
    return size == 1 ? in8(port) : size == 2 ? in16(port) : in32(port);
}

static USED void pci_write(u32 devfn, u32 reg, int size, u32 v)
{
    u16 port = PCI_DATA + (reg & 3);
    pci_select(0, devfn, reg);
    if (size == 1)
        out8(port, v);
    else if (size == 2)
        out16(port, v);
    else
        out32(port, v);
}

/* The first function of bus 0 with these identifiers, -1 if there is none. */
static USED int pci_find(u16 vendor, u16 device)
{
    for (int devfn = 0; devfn < 256; devfn++)
        if (pci_read(devfn, 0, 4) == ((u32)device << 16 | vendor))
            return devfn;
    return -1;
}

/* Hypercalls, through the page that Xen fills in (public/arch-x86/cpuid.h: leaf 2 of Xen's) */

#define HYPERCALL_MEMORY_OP 12
#define HYPERCALL_EVENT_CHANNEL_OP 32
#define HYPERCALL_HVM_OP 34
#define HYPERCALL_SCHED_OP 29

#define SHUTDOWN_POWEROFF 0
#define SHUTDOWN_REBOOT 1
#define SHUTDOWN_CRASH 3
#define SHUTDOWN_SOFT_RESET 5
#define SCHEDOP_SHUTDOWN 2

static u8 hypercall_page[4096] __attribute__((aligned(4096)));

static void find_hypercalls(void)
{
    u32 base, a, b, c, d;
    for (base = 0x40000000; base < 0x40010000; base += 0x100) {
        cpuid(base, &a, &b, &c, &d);
        if (b == 0x566e6558 && c == 0x65584d4d && d == 0x4d4d566e) /* XenVMMXenVMM */
            break;
    }
    cpuid(base + 2, &a, &b, &c, &d);
    write_msr(b, (u32)hypercall_page);
}

static USED u32 hypercall(u32 number, u32 one, u32 two, u32 three)
{
    u32 result;
    asm volatile("call *%1"
                 : "=a"(result), "+r"((u32){(u32)hypercall_page + 32 * number}),
                   "+b"(one), "+c"(two), "+d"(three)
                 :: "memory");
    return result;
}

/* The hypercall comes back only from SHUTDOWN_SOFT_RESET, when the new device model runs. */
static USED u32 shutdown(u32 reason)
{
    return hypercall(HYPERCALL_SCHED_OP, SCHEDOP_SHUTDOWN, (u32)&reason, 0);
}

/* What a guest does last: the verdict, then it powers itself off. Failed checks are told to the
 * exit port, too, which is nobody's on Xen: `ioreqd run` ends with status 1 then. */
#define EXIT_PORT 0xf4
static USED void guest_end(void)
{
    verdict();
    if (failures)
        out8(EXIT_PORT, 0);
    shutdown(SHUTDOWN_POWEROFF);
    stay();
}

/* Segments */

#define CODE 8
#define DATA 16

struct __attribute__((packed)) table { u16 limit; u32 base; };

static u64 gdt[3] = {0, 0x00cf9b000000ffffull, 0x00cf93000000ffffull};

static void load_gdt(void)
{
    struct table table = {sizeof gdt - 1, (u32)gdt};
    asm volatile("lgdt %0; ljmp %1, $1f; 1: movw %w2, %%ds; movw %w2, %%es; movw %w2, %%ss"
                 :: "m"(table), "i"(CODE), "r"(DATA) : "memory");
}

/* Interrupts: on_interrupt(vector, handler). A handler that is called must quiet its device; the
 * ends of interrupt are sent here. Vectors of the PICs: 0x20 (master), 0x28 (slave). */

#define PIC_VECTOR 0x20
#define LAPIC 0xfee00000u
#define LAPIC_ID (LAPIC + 0x20)
#define LAPIC_EOI (LAPIC + 0xb0)
#define LAPIC_SPURIOUS (LAPIC + 0xf0)
#define LAPIC_COMMAND (LAPIC + 0x300)
#define LAPIC_COMMAND_HIGH (LAPIC + 0x310)
#define LAPIC_LINT0 (LAPIC + 0x350)
#define SPURIOUS_VECTOR 0xff

static u64 idt[256];
static void (*handlers[256])(u32 vector);
static volatile u32 interrupts_taken[256];

asm(".text\n"
    "isr_table:\n"
    ".set vector, 0\n"
    ".rept 256\n"
    " .balign 16\n"
    " push %eax\n"
    " mov $vector, %eax\n"
    " jmp isr_common\n"
    " .set vector, vector + 1\n"
    ".endr\n"
    "isr_common:\n"
    " push %ecx\n push %edx\n push %ebx\n push %esi\n push %edi\n push %ebp\n cld\n"
    " push %eax\n call isr\n pop %eax\n"
    " pop %ebp\n pop %edi\n pop %esi\n pop %ebx\n pop %edx\n pop %ecx\n pop %eax\n"
    " iret\n");
extern u8 isr_table[];

USED void isr(u32 vector)
{
    if (vector < PIC_VECTOR) {
        say("GUEST FAIL exception %u", vector);
        shutdown(SHUTDOWN_CRASH);
        stay();
    }
    interrupts_taken[vector]++;
    if (handlers[vector])
        handlers[vector](vector);
    if (vector >= PIC_VECTOR && vector < PIC_VECTOR + 16) {
        if (vector >= PIC_VECTOR + 8)
            out8(0xa0, 0x20);
        out8(0x20, 0x20);
    } else if (vector != SPURIOUS_VECTOR) {
        write32(LAPIC_EOI, 0);
    }
}

static void load_idt(void)
{
    struct table table = {sizeof idt - 1, (u32)idt};
    asm volatile("lidt %0" :: "m"(table));
}

static void fill_idt(void)
{
    for (u32 vector = 0; vector < 256; vector++) {
        u32 entry = (u32)isr_table + 16 * vector;
        idt[vector] = (u64)(entry & 0xffff0000) << 32 | 0x8e0000000000ull | CODE << 16 | (entry & 0xffff);
    }
    load_idt();
}

static USED void on_interrupt(u32 vector, void (*handler)(u32 vector)) { handlers[vector] = handler; }

/* Both PICs to their vectors, all lines masked; the LAPIC passes the PICs' interrupts on. */
static USED void set_up_interrupts(void)
{
    static const struct { u16 port; u8 value; } steps[] = {
        {0x20, 0x11}, {0x21, PIC_VECTOR}, {0x21, 4}, {0x21, 1}, {0x21, 0xff},
        {0xa0, 0x11}, {0xa1, PIC_VECTOR + 8}, {0xa1, 2}, {0xa1, 1}, {0xa1, 0xff},
    };
    for (u32 i = 0; i < COUNT_OF(steps); i++)
        out8(steps[i].port, steps[i].value);
    write32(LAPIC_SPURIOUS, 0x100 | SPURIOUS_VECTOR);
    write32(LAPIC_LINT0, 0x700);
}

/* Level-triggered as PCI's are (ELCR), or edge as ISA's, and unmasked. */
static USED void unmask_irq(u32 irq, int level)
{
    u16 elcr = irq < 8 ? 0x4d0 : 0x4d1, mask = irq < 8 ? 0x21 : 0xa1;
    u8 bit = 1 << (irq & 7);
    out8(elcr, level ? in8(elcr) | bit : in8(elcr) & ~bit);
    out8(mask, in8(mask) & ~bit);
    if (irq >= 8)
        out8(0x21, in8(0x21) & ~4);
}

/* Wait until a vector was taken `count` times in all; gives whether it was. Interrupts are on. */
static USED int wait_interrupt(u32 vector, u32 count)
{
    u32 tries = 200000;
    interrupts_on();
    while (interrupts_taken[vector] < count && --tries)
        pause_cpu();
    interrupts_off();
    return interrupts_taken[vector] >= count;
}

/* Further vCPUs: start_vcpu(n, function). Xen gives vCPU n the APIC id 2n. A vCPU starts in real
 * mode at 0x8000 and gets there into the segments above. */

#define TRAMPOLINE 0x8000
#define MAX_VCPUS 8
#define STACK_SIZE 16384

static u8 stacks[MAX_VCPUS][STACK_SIZE] __attribute__((aligned(16)));
static void (*volatile vcpu_start)(u32 vcpu);
static volatile u32 vcpu_number;
static volatile u32 vcpus_started = 1;
USED volatile u32 vcpu_stack;
USED struct table vcpu_gdt;

asm(".text\n.code16\n"
    "trampoline: cli\n xor %ax, %ax\n mov %ax, %ds\n"
    " lgdtl (trampoline_gdt - trampoline + 0x8000)\n"
    " mov %cr0, %eax\n or $1, %al\n mov %eax, %cr0\n"
    " ljmpl *(trampoline_far - trampoline + 0x8000)\n"
    " .balign 4\n"
    "trampoline_gdt: .word 23\n .long gdt_copy\n .balign 4\n"
    "trampoline_far: .long vcpu_entry\n .word 8\n"
    "trampoline_end:\n"
    ".code32\n"
    "vcpu_entry: mov $16, %ax\n mov %ax, %ds\n mov %ax, %es\n mov %ax, %ss\n"
    " mov vcpu_stack, %esp\n call vcpu_main\n");
extern u8 trampoline[], trampoline_end[];
USED u64 gdt_copy[3] = {0, 0x00cf9b000000ffffull, 0x00cf93000000ffffull};

USED void vcpu_main(void)
{
    u32 vcpu = vcpu_number;
    void (*start)(u32) = vcpu_start;
    load_gdt();
    load_idt();
    __sync_fetch_and_add(&vcpus_started, 1);
    start(vcpu);
    stay();
}

static void send_ipi(u32 vcpu, u32 command)
{
    write32(LAPIC_COMMAND_HIGH, vcpu << 25);
    write32(LAPIC_COMMAND, command);
    while (read32(LAPIC_COMMAND) & 0x1000)
        pause_cpu();
}

/* Start a vCPU and wait until it runs; gives whether it does. */
static USED int start_vcpu(u32 vcpu, void (*start)(u32 vcpu))
{
    u32 before = vcpus_started, tries = 2000000;
    vcpu_number = vcpu;
    vcpu_start = start;
    vcpu_stack = (u32)stacks[vcpu] + STACK_SIZE;
    memcpy((void *)TRAMPOLINE, trampoline, trampoline_end - trampoline);
    write32(LAPIC_SPURIOUS, 0x100 | SPURIOUS_VECTOR);
    send_ipi(vcpu, 0x4500);
    send_ipi(vcpu, 0x4600 | TRAMPOLINE >> 12);
    while (vcpus_started == before && --tries)
        pause_cpu();
    return vcpus_started != before;
}

/* Entry */

asm(".globl _start\n.text\n_start: cli\n cld\n mov $first_stack_end, %esp\n call enter\n"
    ".bss\n.balign 16\n.skip 16384\nfirst_stack_end:\n.text\n");

USED void enter(void)
{
    load_gdt();
    fill_idt();
    find_hypercalls();
    guest_main();
    stay();
}

#endif
