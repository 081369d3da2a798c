/* SPDX-License-Identifier: MIT */
/*
 * The PTX files as strings of the program. Assembled in the kernels' directory.
 */
	.section .rodata

	.macro ptx name file
	.global \name
	.type \name, @object
\name:
	.incbin "\file"
	.byte 0
	.size \name, . - \name
	.endm

	ptx cuda_ptx_basic "basic.ptx"
	ptx cuda_ptx_test "test.ptx"
	ptx cuda_ptx_sgemm "sgemm.ptx"
	ptx cuda_ptx_calibrate "calibrate.ptx"

	.section .note.GNU-stack, "", @progbits
