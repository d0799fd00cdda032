#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The plugin exports ggml_backend_init alone, and imports from the C library alone.
lib=$1
exported=$(nm -D --defined-only "$lib" | awk '{print $3}')
if [ "$exported" != ggml_backend_init ]; then
	echo "exports: $exported"
	exit 1
fi
imported=$(nm -D --undefined-only "$lib" | awk '$1 == "U" && $2 !~ /@GLIBC_/ {print $2}')
if [ -n "$imported" ]; then
	echo "imports: $imported"
	exit 1
fi
needed=$(readelf -d "$lib" | awk '/NEEDED/ && !/\[libc\.so\.6\]/ && !/\[ld-linux/')
if [ -n "$needed" ]; then
	echo "needs: $needed"
	exit 1
fi
