/* SPDX-License-Identifier: Apache-2.0
 *
 * The list of distributions that comes with pillion: distributions.json, as it is. */
	.section .rodata
	.globl manifest_builtin, manifest_builtin_bytes
manifest_builtin:
	.incbin "tree/distributions.json" /* from src/ */
manifest_end:
	.byte 0
	.balign 8
manifest_builtin_bytes:
	.quad manifest_end - manifest_builtin
	.section .note.GNU-stack, "", %progbits
