/* VCPUS vCPUs use four devices at once: the CMOS memory, COM1, the edu device and the shape device
 * (devices/shape_device.py). Each device belongs to one vCPU; with fewer vCPUs than devices, one
 * vCPU takes several in turn. Every answer is checked. */
#include "shape_device.h"

#ifndef VCPUS
#define VCPUS 1
#endif
#define STEPS 300

#define EDU_VENDOR 0x1234
#define EDU_DEVICE 0x11e8
#define EDU 0xe0100000
#define EDU_BUFFER 0x40000
#define TRANSFER 512

#define SCHEDOP_YIELD 0

static volatile u32 done;
static u8 dma_from[TRANSFER] __attribute__((aligned(4096)));
static u8 dma_to[TRANSFER] __attribute__((aligned(4096)));
static u32 transfers;

static void relax(void) { hypercall(HYPERCALL_SCHED_OP, SCHEDOP_YIELD, 0, 0); }

static void cmos_step(u32 i)
{
    out8(0x70, 0x40 + i % 8);
    out8(0x71, i * 3);
    out8(0x70, 0x40 + (i + 5) % 8);
    expect("CMOS", in8(0x71), i < 3 ? 0 : (u8)((i - 3) * 3));
}

static void uart_step(u32 i)
{
    out8(COM1 + 7, i * 5);
    expect("UART: line status", in8(COM1 + 5) & 0x9f, 0);
    expect("UART: scratch", in8(COM1 + 7), (u8)(i * 5));
    expect("UART: line control", in8(COM1 + 3), 0);
}

static u32 factorial(u32 n) { return n < 2 ? 1 : n * factorial(n - 1); }

/* One transfer is under way all the time: to the device, then back to other memory. */
static void edu_dma(void)
{
    int back = transfers & 1;

    if (read32(EDU + 0x98) & 1)
        return;
    if (transfers && !back)
        for (u32 i = 0; i < TRANSFER; i++)
            expect("edu: a byte there and back", dma_to[i], dma_from[i]);
    if (!back)
        for (u32 i = 0; i < TRANSFER; i++)
            dma_from[i] = transfers * 11 + i * 7;
    write32(EDU + 0x80, back ? EDU_BUFFER : (u32)dma_from);
    write32(EDU + 0x84, 0);
    write32(EDU + 0x88, back ? (u32)dma_to : EDU_BUFFER);
    write32(EDU + 0x8c, 0);
    write32(EDU + 0x90, TRANSFER);
    write32(EDU + 0x94, 0);
    write32(EDU + 0x98, back ? 3 : 1);
    transfers++;
}

static void edu_step(u32 i)
{
    u32 tries = 10000;

    write32(EDU + 4, i * 0x10001);
    expect("edu: liveness", read32(EDU + 4), ~(i * 0x10001));
    write32(EDU + 8, i % 13);
    while (read32(EDU + 0x20) & 1 && --tries)
        ;
    expect("edu: factorial", read32(EDU + 8), factorial(i % 13));
    if (i % 8 == 0)
        edu_dma();
}

static void shape_step(u32 i)
{
    u8 out[12], in[12];
    u32 count = 3, word = i % 4;
    void *at = out;

    MMIO32(4 * word) = i * 0x01030507;
    expect("MMIO", MMIO32(4 * word), i * 0x01030507);
    expect("a port", in8(ORACLE + i % 16), oracle(i % 16));
    for (u32 j = 0; j < sizeof out; j++)
        out[j] = i + j * 9;
    asm volatile("rep outsl" : "+S"(at), "+c"(count) : "d"(QUEUE) : "memory");
    at = in, count = 3;
    asm volatile("rep insl" : "+D"(at), "+c"(count) : "d"(QUEUE) : "memory");
    for (u32 j = 0; j < sizeof out; j++)
        expect("the queue", in[j], out[j]);
}

static void edu_set_up(void)
{
    int devfn = pci_find(EDU_VENDOR, EDU_DEVICE);

    if (!expect("there is an edu device", devfn >= 0, 1))
        return;
    pci_write(devfn, 0x10, 4, EDU);
    pci_write(devfn, 0x04, 2, 6);
    expect("edu: identification", read32(EDU), 0x010000ed);
}

static void work(u32 vcpu)
{
    static void (*const steps[])(u32) = {cmos_step, uart_step, edu_step, shape_step};

    for (u32 i = 0; i < STEPS; i++)
        for (u32 job = vcpu; job < COUNT_OF(steps); job += VCPUS)
            steps[job](i);
    __sync_fetch_and_add(&done, 1);
}

/* A vCPU that has done its work halts with interrupts off: it is then offline. */
static void work_and_halt(u32 vcpu)
{
    work(vcpu);
    for (;;)
        asm volatile("cli; hlt");
}

static void guest_main(void)
{
    for (u32 i = 0; i < 8; i++) {
        out8(0x70, 0x40 + i);
        out8(0x71, 0);
    }
    edu_set_up();
    for (u32 vcpu = 1; vcpu < VCPUS; vcpu++)
        expect("a vCPU starts", start_vcpu(vcpu, work_and_halt), 1);
    say("GUEST %u vCPUs", VCPUS);
    work(0);
    while (done < VCPUS)
        relax();
    expect("there were transfers", transfers > 2, 1);
    say("transfers %u", transfers);
    guest_end();
}
