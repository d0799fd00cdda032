# SPDX-License-Identifier: Apache-2.0
"""Runs beside the monitors that bench/vmm compares: in the emulated computer, or on this host.

    vmm_rounds.py QUESTION      a JSON object: see ask() in bench/vmm

One part is measured in rounds, each monitor once per round, until every figure is on one side of its
aim (decided()) or there were as many rounds as wanted.  The last line printed is
{"rounds": [{MONITOR: {FIGURE: VALUE}}], "notes": [TEXT]}.

The monitors: `pillion` has all the devices that src/machine/kvm.c gives a user's machine, `bare` the
same without the host's folder, so that its memory is private; `qemu` has what the figure needs and
no more; `device` is qemu with vhost-device-vsock.
"""
import contextlib
import json
import math
import mmap
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

MEMORY_MIB = 256
DISK_BYTES = 128 << 20
RUN_SECONDS = 90
MADV_POPULATE_WRITE = 23  # of <sys/mman.h>; Linux 5.14
BASE = "console=hvc0 quiet panic=-1 reboot=t 8250.nr_uarts=0 random.trust_cpu=on bench="
OURS = ("pillion", "bare")


def meets(ratio, sign, aim):
    return ratio <= aim if sign == "<=" else ratio >= aim


def ratios(rounds, name, who, peer):
    return [r[who][name] / r[peer][name] for r in rounds
            if name in r.get(who, {}) and r.get(peer, {}).get(name)]


def decided(found, sign, aim):
    """Sign test: were @found of something that is as often on one side of @aim as on the other, so
    many would be on one side once in twenty times or less."""
    n, met = len(found), sum(meets(r, sign, aim) for r in found)
    return sum(math.comb(n, i) for i in range(max(met, n - met), n + 1)) <= 0.05 * 2 ** n


# ---- the two monitors ----

CONSOLE = ["-chardev", "stdio,id=c", "-device", "virtio-serial-pci", "-device", "virtconsole,chardev=c"]


def qemu(ask, what, devices=(), initrd="initrd"):
    machine = ("microvm,x-option-roms=off,pit=off,pic=off,isa-serial=off,rtc=off,auto-kernel-cmdline=off,"
               f"acpi=on,pcie={'on' if devices else 'off'}")
    return ["qemu-system-x86_64", "-M", machine, "-enable-kvm", "-cpu", "host", "-nodefaults",
            "-no-user-config", "-nographic", "-no-reboot", "-m", str(MEMORY_MIB), "-smp", "1",
            "-kernel", ask["kernel"], "-initrd", ask[initrd], "-append", BASE + what, *devices]


def pillion(ask, what, devices, initrd="initrd"):
    return [ask["vmm"], "--kernel", ask["kernel"], "--initrd", ask[initrd], "--cmdline", BASE + what,
            "--memory", str(MEMORY_MIB), "--cpus", "1", "--console-fd", "1", *devices]


def wait_for_file(path):
    for _ in range(200):
        if os.path.exists(path):
            return
        time.sleep(0.05)
    raise TimeoutError(f"{path} does not appear")


@contextlib.contextmanager
def ended(process):
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def shared_folder(work):
    """A virtiofsd; yields the path of its socket."""
    program = next(p for p in ("/usr/libexec/virtiofsd", "/usr/lib/virtiofsd", "/usr/lib/qemu/virtiofsd")
                   if os.path.exists(p))
    path, folder = work / "fs.sock", work / "folder"
    folder.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    options = (["-o", f"source={folder}", "-o", "sandbox=chroot", "-f"] if "qemu" in program else
               [f"--shared-dir={folder}", "--sandbox=chroot"])
    with ended(subprocess.Popen([program, f"--socket-path={path}", *options], stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)):
        wait_for_file(path)
        yield path


@contextlib.contextmanager
def devices_of_a_machine(work, folders):
    """What build_command() in src/machine/kvm.c asks for; yields options and descriptors."""
    card, passt = socket.socketpair()
    control, supervisor = socket.socketpair()
    agent, forward = (socket.socket(socket.AF_UNIX) for _ in range(2))
    with contextlib.ExitStack() as stack:
        for end in (card, passt, control, supervisor, agent, forward):
            stack.enter_context(end)
        for listener, name in ((agent, "agent"), (forward, "forward")):
            (work / name).unlink(missing_ok=True)
            listener.bind(str(work / name))
            listener.listen()
        options = ["--disk", work / "disk", "--disk", work / "swap",
                   "--net-fd", card.fileno(), "--net-control", control.fileno(),
                   "--vsock-listen", f"{agent.fileno()}:1024", "--vsock-listen", f"{forward.fileno()}:1027",
                   "--vsock-connect", f"1025:{work}/life", "--vsock-connect", f"1026:{work}/broker"]
        if folders:
            options += ["--fs", f"share0,{stack.enter_context(shared_folder(work))}"]
        yield [str(o) for o in options], [s.fileno() for s in (card, control, agent, forward)]


@contextlib.contextmanager
def command(ask, work, who, what, *, peer=(), ours=(), initrd="initrd"):
    """The command line of one monitor, and the descriptors to pass on.  @peer, @ours: devices that
    the figure needs besides."""
    if who not in OURS:
        yield qemu(ask, what, peer, initrd), ()
        return
    with devices_of_a_machine(work, who == "pillion") as (devices, fds):
        yield pillion(ask, what, [*devices, *ours], initrd), fds


# ---- time to boot ----

def settle():
    """The end of one monitor is not for the next to wait for, nor the start of a folder's server.  And
    memory that held code is slow to write in an emulated computer, which has to forget what it made of
    that code: the memory that a monitor gets is not the one that the monitor before has left."""
    time.sleep(1)
    available = re.search(r"MemAvailable:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())
    with mmap.mmap(-1, min(1 << 30, int(available[1]) << 9)) as memory:
        memory.madvise(MADV_POPULATE_WRITE)


TRACE = pathlib.Path("/sys/kernel/tracing")
ENTRIES = "instances/entries/"  # the first entries only: a buffer of their own that keeps what came first
EVENTS = {ENTRIES: ["kvm/kvm_entry"], "": ["kvm/kvm_pio", "sched/sched_process_exec"]}


def tell(path, text):
    (TRACE / path).write_text(text)


@contextlib.contextmanager
def tracing():
    subprocess.run(["mount", "-t", "tracefs", "tracefs", TRACE], stderr=subprocess.DEVNULL)
    (TRACE / ENTRIES).mkdir(exist_ok=True)
    tell(ENTRIES + "options/overwrite", "0")
    tell(ENTRIES + "buffer_size_kb", "64")
    for where, events in EVENTS.items():
        tell(where + "tracing_on", "0")
        tell(where + "trace_clock", "mono")
        for e in events:
            tell(f"{where}events/{e}/enable", "1")
    tell("events/kvm/kvm_pio/filter", "port == 0xf4")
    yield
    for where, events in EVENTS.items():
        for e in events:
            tell(f"{where}events/{e}/enable", "0")


def traced_boot(argv, fds):
    """Milliseconds from exec to the first entry into the guest, and to its first process."""
    at = {}
    for where in EVENTS:
        tell(where + "trace", "")
        tell(where + "tracing_on", "1")
    subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   pass_fds=fds, timeout=RUN_SECONDS)
    for where in EVENTS:
        tell(where + "tracing_on", "0")
        for line in (TRACE / where / "trace").read_text().splitlines():
            m = re.search(r"\s(\d+\.\d+): (\w+): (.*)", line)
            if m and (m[2] != "sched_process_exec" or os.path.basename(argv[0]) in m[3]):
                at[m[2]] = min(float(m[1]), at.get(m[2], math.inf))
    start = at["sched_process_exec"]
    return {"entry": (at["kvm_entry"] - start) * 1000, "init": (at["kvm_pio"] - start) * 1000}


def boots(ask, work):
    with tracing():
        for who in ("qemu", *OURS):
            with command(ask, work, who, "boot", initrd="boot_initrd") as (argv, fds):
                settle()
                yield who, traced_boot(argv, fds)


# ---- what the guest prints ----

def guest(argv, fds):
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              pass_fds=fds, timeout=RUN_SECONDS)
        text, errors = done.stdout, done.stderr
    except subprocess.TimeoutExpired as e:
        text, errors = e.stdout or b"", f"no end after {RUN_SECONDS} s".encode()
    found = {}
    for name, value in re.findall(rb"BENCH (\S+) ([0-9.]+)", text):
        found.setdefault(name.decode(), []).append(float(value))
    if b"BENCH end" not in text:
        notes.append(f"{os.path.basename(argv[0])}: {(text + errors)[-400:]!r}")
    return {name: statistics.median(values) for name, values in found.items() if name != "end"}


def disks(ask, work):
    peer = [*CONSOLE, "-object", "iothread,id=t", "-drive",
            f"if=none,id=d,format=raw,file={work}/disk,discard=unmap", "-device",
            "virtio-blk-pci,drive=d,iothread=t"]
    for who in ("qemu", *OURS):
        os.sync()  # what the one before has written is not for this one to wait for
        with command(ask, work, who, "blk", peer=peer) as (argv, fds):
            yield who, guest(argv, fds)


@contextlib.contextmanager
def vhost_device(ask, work):
    """vhost-device-vsock, which finds what the guest connects to at PATH_PORT."""
    for port in (5000, 5001, 5002):
        os.path.lexists(f"{work}/vm_{port}") or os.symlink(f"{work}/{port}", f"{work}/vm_{port}")
    (work / "device").unlink(missing_ok=True)
    with ended(subprocess.Popen([ask["device"], "--vm",
                                 f"guest-cid=3,socket={work}/device,uds-path={work}/vm"])):
        wait_for_file(work / "device")
        yield


def vsocks(ask, work):
    peers = {"qemu": ["-device", "vhost-vsock-pci,guest-cid=9"],
             "device": ["-object", f"memory-backend-memfd,id=m,size={MEMORY_MIB}M,share=on",
                        "-machine", "memory-backend=m", "-chardev", f"socket,id=v,path={work}/device",
                        "-device", "vhost-user-vsock-pci,chardev=v"]}
    ours = [a for p in (5000, 5001, 5002) for a in ("--vsock-connect", f"{p}:{work}/{p}")]
    for who in ("qemu", *OURS, *(["device"] if ask["device"] else [])):
        with contextlib.ExitStack() as stack:
            for where in ("vsock", str(work)):
                stack.enter_context(ended(subprocess.Popen([ask["host"], where])))
            if who == "device":
                stack.enter_context(vhost_device(ask, work))
            time.sleep(0.5)
            argv, fds = stack.enter_context(command(ask, work, who, "vsock", ours=ours,
                                                    peer=[*CONSOLE, *peers.get(who, [])]))
            yield who, guest(argv, fds)


# ---- memory ----

def own_kib(pid):
    """KiB that are resident and not the guest's memory, which the monitor marks as not to be dumped (dd)."""
    total = 0
    for text in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", pathlib.Path(f"/proc/{pid}/smaps").read_text(), flags=re.M):
        flags = re.search(r"^VmFlags:(.*)$", text, re.M)
        if flags and "dd" not in flags[1].split():
            total += int(re.search(r"^Rss:\s+(\d+)", text, re.M)[1])
    return total


def memory(ask, work):
    """Of the process that was started and of the one in the jail, which is the machine."""
    for who in OURS:
        with command(ask, work, who, "idle") as (argv, fds), \
                ended(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=subprocess.DEVNULL, pass_fds=fds)) as p:
            threading.Timer(RUN_SECONDS, p.kill).start()
            while b"BENCH up" not in (line := p.stdout.readline()):
                if not line:
                    raise EOFError("the guest ended")
            children = pathlib.Path(f"/proc/{p.pid}/task/{p.pid}/children").read_text().split()
            yield who, {"memory_kib": sum(own_kib(pid) for pid in (p.pid, *children))}


PARTS = {"boots": boots, "memory": memory, "disks": disks, "vsocks": vsocks}
notes = []


def over(ask, rounds):
    """All aims of what was measured are decided."""
    return all(decided(found, *aim) for name, aim in ask["aims"].items() for who in OURS
               if (found := ratios(rounds, name, who, "qemu")))


def main():
    ask = json.loads(sys.argv[1])
    rounds = []
    with tempfile.TemporaryDirectory(dir=ask["scratch"]) as folder:
        work = pathlib.Path(folder)
        (work / "swap").write_bytes(b"")
        os.truncate(work / "swap", 64 << 20)
        with open(work / "disk", "wb") as disk:  # every block is there: its making is not measured
            for _ in range(DISK_BYTES >> 20):
                disk.write(os.urandom(1 << 20))
        try:
            if ask["part"] == "boots":  # one round for nothing: programs and kernel come from the disk
                list(boots(ask, work))
            while len(rounds) < ask["rounds"] and not (rounds and over(ask, rounds)):
                rounds.append({})
                for who, found in PARTS[ask["part"]](ask, work):
                    rounds[-1][who] = found
        except Exception as e:  # what there is is still worth having
            notes.append(f"{ask['part']}: {type(e).__name__}: {e}")
    print(json.dumps({"rounds": rounds, "notes": notes}))


if __name__ == "__main__":
    main()
