# SPDX-License-Identifier: Apache-2.0
# The two things people type.  Everything else is meson: meson setup build && ninja -C build.
.PHONY: demo check

demo:
	@tools/setup-host demo
	@tools/demo

check:
	@tools/setup-host check
	@tests/run
