/* What a guest can see of every device of the machine: set up off its defaults, then read again and
 * again, and compared with the first reading.
 *
 * A survey reads every register that has a value to keep. Where a read has a side effect (the
 * UART's IIR, the i8042's buffer, fw_cfg's position) each survey does the same, so that each finds
 * what the one before it left; the first is therefore thrown away. What waits in a queue (the
 * UART's received bytes) is only read by survey_end().
 */
#ifndef SURVEY_H
#define SURVEY_H

#include "guest.h"

#define CMOS_COUNTER 0x70
#define CMOS_LAST_INDEX 0x2c
#define EDU_BAR 0xe0000000u
#define EDU_LIVENESS (EDU_BAR + 0x04)
#define EDU_BUFFER 0x40000
#define EDU_BYTES 64
#define PLATFORM_PORTS 0xc000
#define PM_BASE 0xb000
#define COM1_SCRATCH (COM1 + 7)
#define QUEUED "queue"
#define FW_CFG_DIRECTORY 0x19
#define LATCH 0x80001234u

enum { PCI_LATCH, PCI_CONFIG, CMOS, UART, I8042, PORT92, PM, PLATFORM, FW_CFG, EDU, OTHER, GROUPS };
static const char *const group_names[GROUPS] = {
    "cf8", "pci", "cmos", "uart", "i8042", "port92", "pm", "platform", "fw_cfg", "edu", "other",
};

struct reading { u16 group; u16 place; u32 value; };
struct survey { u32 count; struct reading readings[4096]; };

static struct survey baseline, latest;
static struct survey *current;
static u32 functions[32], function_count;
static int edu;
static u8 edu_copy[EDU_BYTES];

static void note(u32 group, u32 place, u32 value)
{
    if (current->count < COUNT_OF(current->readings))
        current->readings[current->count++] = (struct reading){group, place, value};
}

/* The i8042: commands, and answers within a bounded wait */

static u32 i8042_answer(void)
{
    for (u32 tries = 100; tries; tries--)
        if (in8(0x64) & 1)
            return in8(0x60);
    return 0xdead;
}

static void i8042_drain(void)
{
    while (in8(0x64) & 1)
        in8(0x60);
}

static void mouse(u8 byte)
{
    out8(0x64, 0xd4);
    out8(0x60, byte);
}

/* Setting up */

static void disturb_uart(void)
{
    out8(COM1 + 3, 0x80);
    out8(COM1 + 0, 0x34);
    out8(COM1 + 1, 0x02);
    out8(COM1 + 3, 0x1b);
    out8(COM1 + 2, 0x81);
    out8(COM1 + 4, 0x1f);
    out8(COM1 + 1, 0x08);
    for (const char *byte = QUEUED; *byte; byte++)
        out8(COM1, *byte);
}

static void disturb_i8042(void)
{
    out8(0x64, 0x60);
    out8(0x60, 0x04);
    i8042_drain();
    out8(0x60, 0xf0);
    i8042_answer();
    out8(0x60, 0x01);
    i8042_answer();
    mouse(0xe8);
    i8042_answer();
    mouse(0x01);
    i8042_answer();
    mouse(0xf3);
    i8042_answer();
    mouse(0x28);
    i8042_answer();
}

static void disturb_pci(void)
{
    for (u32 devfn = 0; devfn < 256; devfn++)
        if (pci_read(devfn, 0, 4) != 0xffffffff && function_count < COUNT_OF(functions))
            functions[function_count++] = devfn;
    for (u32 i = 0; i < function_count; i++)
        pci_write(functions[i], 0x3c, 1, 0x50 + i);
    for (u32 link = 0; link < 4; link++)
        pci_write(DEVFN(1, 0), 0x60 + link, 1, link & 1 ? 0x05 : 0x0a);
    pci_write(DEVFN(1, 3), 0x40, 4, PM_BASE | 1);
    pci_write(DEVFN(1, 3), 0x80, 1, 1);
    int platform = pci_find(0x5853, 0x0001);
    check("there is a platform device", platform >= 0, 1);
    pci_write(platform, 0x10, 4, PLATFORM_PORTS);
    pci_write(platform, 0x14, 4, 0xf2000000);
    pci_write(platform, 4, 2, 3);
}

static void wait_edu(u32 offset, u32 bit)
{
    for (u32 tries = 100000; tries && read32(EDU_BAR + offset) & bit; tries--)
        ;
}

static void edu_transfer(u32 from, u32 to, u32 command)
{
    write32(EDU_BAR + 0x80, from);
    write32(EDU_BAR + 0x88, to);
    write32(EDU_BAR + 0x90, EDU_BYTES);
    write32(EDU_BAR + 0x98, command);
    wait_edu(0x98, 1);
}

static void disturb_edu(void)
{
    edu = pci_find(0x1234, 0x11e8);
    if (!check("there is an edu device", edu >= 0, 1))
        return;
    pci_write(edu, 0x10, 4, EDU_BAR);
    pci_write(edu, 4, 2, 6);
    pci_write(edu, 0x44, 4, 0xfee01000);
    write32(EDU_BAR + 0x08, 12);
    wait_edu(0x20, 1);
    check("edu factorial", read32(EDU_BAR + 0x08), 479001600);
    for (u32 i = 0; i < EDU_BYTES; i++)
        edu_copy[i] = 3 * i + 1;
    edu_transfer((u32)edu_copy, EDU_BUFFER, 1);
    write32(EDU_BAR + 0x60, 0x00c0de00);
}

static void disturb(void)
{
    disturb_pci();
    for (u32 index = 0x0e; index < 0x80; index++) {
        out8(0x70, index);
        if (index >= 0x40)
            out8(0x71, index * 5);
    }
    disturb_uart();
    disturb_i8042();
    disturb_edu();
    out8(0x92, 0x0a);
    out8(0xb3, 0x77);
    out8(0xb2, 0xf1);
    out16(PM_BASE + 4, in16(PM_BASE + 4) | 0x0402);
    out16(0xafe2, 0x0002);
    out8(0x10, 0x01);
}

/* Reading */

static void read_pci(void)
{
    note(PCI_LATCH, 0, in32(PCI_ADDRESS));
    for (u32 i = 0; i < function_count; i++)
        for (u32 reg = 0; reg < 256; reg += 4)
            note(PCI_CONFIG, functions[i] << 8 | reg, pci_read(functions[i], reg, 4));
    out32(PCI_ADDRESS, LATCH);
}

static void read_cmos(void)
{
    note(CMOS, 0, in8(0x71));
    for (u32 index = 0x0e; index < 0x80; index++)
        if (index < CMOS_COUNTER || index > CMOS_COUNTER + 3) {
            out8(0x70, index);
            note(CMOS, index, in8(0x71));
        }
    out8(0x70, CMOS_LAST_INDEX);
}

static void read_uart(void)
{
    u8 lcr = in8(COM1 + 3);
    for (u32 offset = 1; offset < 7; offset++)
        note(UART, offset, in8(COM1 + offset));
    out8(COM1 + 3, lcr | 0x80);
    note(UART, 0x10, in8(COM1));
    note(UART, 0x11, in8(COM1 + 1));
    out8(COM1 + 3, lcr);
}

static void read_i8042(void)
{
    note(I8042, 0x64, in8(0x64));
    out8(0x64, 0x20);
    note(I8042, 0x20, i8042_answer());
    out8(0x64, 0xd0);
    note(I8042, 0xd0, i8042_answer());
    out8(0x60, 0xf0);
    note(I8042, 0xf0, i8042_answer());
    out8(0x60, 0x00);
    note(I8042, 0xf1, i8042_answer());
    note(I8042, 0xf2, i8042_answer());
    mouse(0xe9);
    for (u32 byte = 0; byte < 4; byte++)
        note(I8042, 0xe9 + byte, i8042_answer());
}

static void read_pm(void)
{
    static const u16 bytes[] = {0xb2, 0xb3, 0xafe0, 0xafe1, 0xafe2, 0xafe3};
    for (u32 i = 0; i < COUNT_OF(bytes); i++)
        note(PM, bytes[i], in8(bytes[i]));
    note(PM, PM_BASE + 4, in16(PM_BASE + 4));
    for (u32 port = 0xae00; port < 0xae10; port += 4)
        note(PM, port, in32(port));
    for (u32 port = 0xaf00; port < 0xaf20; port++)
        note(PM, port, in8(port));
}

static void read_platform(void)
{
    note(PLATFORM, 0x10, in8(0x10));
    note(PLATFORM, 0x110, in16(0x10));
    note(PLATFORM, 0x12, in8(0x12));
    note(PLATFORM, PLATFORM_PORTS, in8(PLATFORM_PORTS));
}

static void read_fw_cfg(void)
{
    note(FW_CFG, 0, in8(0x511));
    note(FW_CFG, 1, in8(0x511));
    out16(0x510, FW_CFG_DIRECTORY);
    for (u32 byte = 0; byte < 13; byte++)
        note(FW_CFG, 0x100 + byte, in8(0x511));
    note(FW_CFG, 0x200, in32(0x514));
    note(FW_CFG, 0x204, in32(0x518));
}

static void read_edu(void)
{
    static const u8 registers[] = {0x00, 0x08, 0x20, 0x24, 0x80, 0x84, 0x88, 0x8c, 0x90, 0x98};
    for (u32 i = 0; i < COUNT_OF(registers); i++)
        note(EDU, registers[i], read32(EDU_BAR + registers[i]));
    memset(edu_copy, 0, sizeof edu_copy);
    edu_transfer(EDU_BUFFER, (u32)edu_copy, 3);
    for (u32 i = 0; i < EDU_BYTES; i += 4)
        note(EDU, 0x1000 + i, *(u32 *)(edu_copy + i));
}

static void read_others(void)
{
    note(OTHER, 0xcf9, in8(0xcf9));
    note(OTHER, 0x402, in8(0x402));
    note(OTHER, 0x505, in8(0x505));
}

static void take_survey(struct survey *into)
{
    current = into;
    into->count = 0;
    read_pci();
    read_cmos();
    read_uart();
    read_i8042();
    note(PORT92, 0x92, in8(0x92));
    read_pm();
    read_platform();
    read_fw_cfg();
    read_edu();
    read_others();
}

static u32 checksum(const struct survey *survey, u32 group)
{
    u32 sum = 0;
    for (u32 i = 0; i < survey->count; i++)
        if (survey->readings[i].group == group)
            sum = (sum << 7 | sum >> 25) ^ survey->readings[i].value ^ survey->readings[i].place << 8;
    return sum;
}

/* A checksum per device, and whatever differs from the first survey. */
static void compare(const char *when)
{
    u32 shown = 0;
    for (u32 group = 0; group < GROUPS; group++)
        say("SUM %s %s %8x", when, group_names[group], checksum(&latest, group));
    check("readings", latest.count, baseline.count);
    for (u32 i = 0; i < latest.count; i++) {
        const struct reading *now = &latest.readings[i], *then = &baseline.readings[i];
        if (now->value != then->value && shown++ < 20)
            say("FAIL %s: %s[%x] got %x want %x", when, group_names[now->group], now->place,
                now->value, then->value);
    }
    if (shown)
        __sync_fetch_and_add(&failures, shown);
}

static void survey_start(void)
{
    disturb();
    take_survey(&latest);
    take_survey(&baseline);
    take_survey(&latest);
    check("readings", latest.count > 400, 1);
    compare("start");
}

static void survey_again(const char *when)
{
    take_survey(&latest);
    compare(when);
}

/* The queued bytes, last. */
static USED void survey_end(void)
{
    for (const char *byte = QUEUED; *byte; byte++)
        check("queued byte", in8(COM1), *byte);
    check("nothing more is queued", in8(COM1_STATUS) & 1, 0);
}

/* Counting through devices: what one step writes the next one reads. */

static u32 counter;

static void count_step(void)
{
    u32 found = 0;
    if (counter) {
        for (u32 byte = 0; byte < 4; byte++) {
            out8(0x70, CMOS_COUNTER + byte);
            found |= in8(0x71) << 8 * byte;
        }
        expect("count in CMOS", found, counter);
        expect("count in the UART", in8(COM1_SCRATCH), counter & 0xff);
        expect("count in edu", read32(EDU_LIVENESS), ~counter);
    }
    counter++;
    for (u32 byte = 0; byte < 4; byte++) {
        out8(0x70, CMOS_COUNTER + byte);
        out8(0x71, counter >> 8 * byte);
    }
    out8(0x70, CMOS_LAST_INDEX);
    out8(COM1_SCRATCH, counter);
    write32(EDU_LIVENESS, counter);
}

#endif
