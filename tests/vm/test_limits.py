# SPDX-License-Identifier: Apache-2.0
"""What a control group limits, in a Debian kernel that has one with all controllers."""
import ctypes.util
import pathlib

import host as host_lib
import outer as outer_lib
import pytest


@pytest.fixture(scope="module")
def outer():
    why = outer_lib.missing()
    if why:
        pytest.skip(why)
    library = ctypes.util.find_library("cmocka")
    folders = [pathlib.Path("/usr/lib/x86_64-linux-gnu"), pathlib.Path("/usr/lib64"), pathlib.Path("/usr/lib")]
    path = next(f / library for f in folders if (f / library).exists())
    o = outer_lib.Outer(files=[host_lib.BUILD / "tests" / "unit" / "test_cgroup", path])
    yield o
    o.close()


@pytest.mark.parametrize("place", ["/sys/fs/cgroup", "/sys/fs/cgroup/above/own"])
def test_group_of_a_machine_limits_what_is_in_it(outer, place):
    said = outer.ok(f"mkdir -p {place} && echo $$ >{place}/cgroup.procs && LD_LIBRARY_PATH=/test /test/test_cgroup 2>&1;"
                    " find /sys/fs/cgroup -name 'pillion-*'", 60)
    assert "[       OK ] test_real_group_limits_what_is_in_it" in said, said
    assert "pillion-" not in said, said  # nothing is left behind
