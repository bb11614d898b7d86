/* Makes a guest an image that hvmloader starts as the BIOS (xl.cfg: bios_path_override): linked at
 * 0xf0000, with .reset at 0xfff00 and .bss in RAM far away. Real mode begins at f000:fff0. */
#ifndef BIOS_H
#define BIOS_H

asm(".section .reset, \"ax\"\n.code16\n"
    "stub: cli\n"
    " lgdtl %cs:stub_table - stub + 0xff00\n"
    " mov %cr0, %eax\n or $1, %al\n mov %eax, %cr0\n"
    " ljmpl $8, $stub_32\n"
    ".balign 8\n"
    "stub_gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff\n"
    "stub_table: .word 23\n .long stub_gdt\n"
    ".code32\n"
    "stub_32: mov $16, %ax\n mov %ax, %ds\n mov %ax, %es\n mov %ax, %ss\n jmp _start\n"
    ".code16\n"
    ".org 0xf0\n ljmp $0xf000, $0xff00\n"
    ".org 0x100\n"
    ".code32\n.text\n");

#endif
