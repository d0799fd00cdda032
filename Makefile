# SPDX-License-Identifier: Apache-2.0
# The things people type (check-kvm is a part of check; soak asks the same for hours).  Everything else is meson: meson setup build && ninja -C build.
.PHONY: demo check check-kvm soak

demo:
	@tools/setup-host demo
	@tools/demo

check:
	@tools/setup-host check
	@tests/run

soak:
	@tools/setup-host check
	@tests/run --soak

check-kvm:
	@tools/setup-host check
	@tests/run build kvm
