# SPDX-License-Identifier: Apache-2.0
"""What root of a sandbox tries against the host, as root's machine and as a user's."""
import re

# Perl, which every Debian tree has, makes the calls.  `call` says OK or the error.
CALLS = r"""sub call { my ($n, @a) = @_; my $r = syscall($n, @a); return $r < 0 ? "$!" : "OK" }
my ($mount, $umount, $ptrace, $unshare, $pidfd_open, $pidfd_getfd) = (165, 166, 101, 272, 434, 438);
my ($none, $tmpfs, $cgroup2, $proc, $opt) = ("none", "tmpfs", "cgroup2", "proc", "/opt");
"""


def perl(pil, program, *args):
    return pil.ok("-u", "root", "-e", "perl", "-e", CALLS + program, *args)


def read_only_mounts(pil):
    text = pil.ok("-u", "root", "-e", "cat", "/proc/self/mountinfo")
    return [f[4] for f in map(str.split, text.splitlines()) if "ro" in f[5].split(",")]


# ---- mounts ----

def test_no_read_only_mount_is_made_writable_from_inside(anyones):
    places = read_only_mounts(anyones)
    assert {"/mnt/models", "/run/pillion/host", "/usr/lib/pillion"} < set(places)
    tried = r"""for (@ARGV) { my $p = "$_"; # MS_REMOUNT | MS_BIND
                print "$p: ", call($mount, $none, $p, 0, 0x1020, 0), ", ", call($umount, $p, 2), "\n" }"""
    for line in perl(anyones, tried, *places).splitlines():
        assert re.fullmatch(r"[^:]+: Operation not permitted, Invalid argument", line)
    assert read_only_mounts(anyones) == places
    for folder in ("/mnt/models", "/run/pillion/host", "/usr/lib/pillion/lib"):
        assert "Read-only" in anyones.run("-u", "root", "-e", "touch", f"{folder}/x").stderr


def test_root_of_a_sandbox_still_owns_what_is_its_own(anyones):
    said = perl(anyones, r"""print call($mount, $none, $opt, $tmpfs, 0, 0), "\n", call($umount, $opt, 0), "\n",
                             call($unshare, 0x10000000 | 0x20000 | 0x20000000 | 0x40000000), "\n";
                             if (!fork) { my $p = "/proc"; print call($mount, $proc, $p, $proc, 0, 0), "\n"; exit } wait""")
    assert said == "OK\n" * 4
    anyones.ok("-u", "root", "--", "ip address add 10.9.9.9/32 dev lo && ip address delete 10.9.9.9/32 dev lo")
    anyones.ok("-u", "root", "--", "hostname tried && hostname debian")
    anyones.ok("-u", "root", "--", "touch /root/x && chown 65535:65535 /root/x && chmod 4755 /root/x && rm /root/x")


# ---- other processes ----

def test_descriptors_of_pid_1_are_out_of_reach(anyones):
    said = perl(anyones, r"""my $p = syscall($pidfd_open, 1, 0); die if $p < 0;
                             print call($pidfd_getfd, $p, $_, 0), "\n" for 0 .. 40;
                             print call($ptrace, 16, 1, 0, 0), "\n"; # PTRACE_ATTACH
                             print open(my $f, "<", "/proc/1/mem") ? "OK" : $!, "\n";
                             print readlink("/proc/1/fd/1") ? "OK" : $!, "\n" """)
    assert set(said.splitlines()) == {"Operation not permitted", "Permission denied"}


# ---- control groups ----

def test_cgroups_of_the_host_cannot_be_mounted(anyones):
    said = perl(anyones, r"""print call($mount, $none, $opt, $cgroup2, 0, 0), "\n", call($unshare, 0x02000000), "\n";
                             call($unshare, 0x10000000 | 0x20000) eq "OK" or die;
                             print call($unshare, 0x02000000), "\n" """)
    assert said.splitlines() == ["Operation not permitted"] + ["No space left on device"] * 2
