# SPDX-License-Identifier: Apache-2.0
"""MicroVMs with Debian's kernels in them, in an emulated computer that has KVM."""
import outer as outer_lib
import pytest


@pytest.fixture(scope="module")
def outer():
    why = outer_lib.missing()
    if why:
        pytest.skip(why)
    o = outer_lib.Outer(kernels=("trixie", "bookworm"),
                        distros=(("debian", "debian"), ("bookworm", "bookworm")))
    yield o
    o.close()


def test_outer_computer_has_kvm(outer):
    assert outer.ok("uname -r").startswith("6.1.")
    outer.ok("test -c /dev/kvm && grep -q svm /proc/cpuinfo")


def test_status_says_that_kvm_is_usable(outer):
    said = outer.ok("pillion --status")
    assert "KVM" in said or "microVM" in said


def test_machine_has_the_kernel_of_the_kit(outer):
    assert "cloud" in outer.ok("pillion -d debian -e uname -r", timeout=300)
