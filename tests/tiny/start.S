/* SPDX-License-Identifier: Apache-2.0
 *
 * The begin of every tiny guest: from the PVH entry (32-bit, no paging) to long mode with the first
 * 4 GiB mapped one to one, then tiny_main().  Other processors start at 0x1000, in real mode, where
 * the first one copies ap_start. */
	.section .note.pvh, "a", @note
	.long 4, 4, 18			/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long entry

	.text
	.code32
	.globl entry
entry:
	movl $stack_top, %esp
	movl %ebx, start_info
	call enter_long
	ljmp $8, $long_entry

enter_long:				/* 64-bit code needs but a far jump after it */
	movl %cr4, %eax
	orl $0x620, %eax		/* PAE, SSE */
	movl %eax, %cr4
	movl $page_l4, %eax
	movl %eax, %cr3
	movl $0xc0000080, %ecx		/* EFER.LME */
	rdmsr
	orl $0x100, %eax
	wrmsr
	movl %cr0, %eax
	andl $~4, %eax			/* no emulation of the FPU */
	orl $0x80000002, %eax		/* paging */
	movl %eax, %cr0
	lgdt gdt_pointer
	ret

	.code64
long_entry:
	movl $16, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	lidt idt_pointer
	xorl %ebp, %ebp
	call tiny_main
	call tiny_end

/* Vector N counts in interrupts[N]; there are sixteen of them, from 0x40 on.  A fault ends. */
	.globl interrupt_stubs
	.balign 16
interrupt_stubs:
	.set i, 0
	.rept 16
	.balign 16
	incl interrupts + 4 * i
	jmp end_interrupt
	.set i, i + 1
	.endr
	.balign 16
	.globl fault_stub
fault_stub:
	movl $0x600, %edx		/* no stack to trust: report by a triple fault */
	lidt no_idt
	ud2

end_interrupt:
	pushq %rax
	movl $0xfee000b0, %eax
	movl $0, (%rax)
	popq %rax
	iretq

	.globl ap_start, ap_start_end
	.code16
	.balign 16
ap_start:
	cli
	xorw %ax, %ax
	movw %ax, %ds
	lgdtl (0x1000 + ap_gdt_pointer - ap_start)
	movl %cr0, %eax
	orl $1, %eax
	movl %eax, %cr0
	ljmpl $24, $ap_protected
ap_gdt_pointer:
	.word gdt_end - gdt - 1
	.long gdt
ap_start_end:

	.code32
ap_protected:
	movw $16, %ax
	movw %ax, %ds
	movw %ax, %ss
	movl $ap_stack_top, %esp
	call enter_long
	ljmp $8, $ap_long
	.code64
ap_long:
	movl $16, %eax
	movl %eax, %ds
	movl %eax, %ss
	call tiny_ap_main
1:	hlt
	jmp 1b

	.data
	.balign 8
gdt:	.quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff
gdt_end:
gdt_pointer:
	.word gdt_end - gdt - 1
	.quad gdt
idt_pointer:
	.word 0x50 * 16 - 1
	.quad idt
no_idt:	.word 0
	.quad 0
	.globl start_info
start_info:
	.quad 0

	.balign 4096
page_l4:
	.quad page_l3 + 3
	.fill 511, 8, 0
page_l3:
	.quad page_l2 + 3, page_l2 + 0x1003, page_l2 + 0x2003, page_l2 + 0x3003
	.fill 508, 8, 0
page_l2:
	.set i, 0
	.rept 2048
	.quad i * 0x200000 + 0x83
	.set i, i + 1
	.endr

	.bss
	.balign 4096
	.globl idt, interrupts
idt:	.skip 0x50 * 16
interrupts:
	.skip 64
	.balign 16
	.skip 8192
stack_top:
	.skip 4096
ap_stack_top:
	.section .note.GNU-stack, "", @progbits
