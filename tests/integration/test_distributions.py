# SPDX-License-Identifier: Apache-2.0
"""Distributions from lists, archives and container images, and back into archives."""
import hashlib
import http.server
import io
import json
import lzma
import os
import pathlib
import shutil
import stat
import subprocess
import tarfile
import tempfile
import threading

import pytest

import host as host_lib

APPLETS = ("sh", "ls", "cat", "id", "env", "pwd", "echo", "sleep", "true", "touch", "rm", "mv", "sync", "tar", "stat")
PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"


def make_root(root):
    """The smallest distribution: busybox."""
    for name in ("bin", "etc", "dev", "proc", "sys", "tmp", "root", "run", "usr", "var", "mnt", "home/app"):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copy("/bin/busybox", root / "bin" / "busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc" / "passwd").write_text(PASSWD)
    (root / "etc" / "group").write_text("root:x:0:\napp:x:1000:\n")
    os.chown(root / "home" / "app", 1000, 1000)


@pytest.fixture(scope="module")
def made():
    """A folder with the root of a distribution and archives of it, shared by the tests of this file."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pild-"))
    make_root(folder / "root")
    for suffix, option in (("tar", []), ("tar.gz", ["--gzip"]), ("tar.xz", ["--xz"]), ("tar.zst", ["--zstd"])):
        subprocess.run(["tar", "-C", folder / "root", *option, "-cf", folder / f"busy.{suffix}", "."], check=True)
    shutil.copy(folder / "busy.tar.gz", folder / "busy.wsl")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


class Home:
    """The command line with folders of its own, and with kits that are installed already."""

    def __init__(self, root):
        self.root = root
        self.env = dict(os.environ)
        for kind in ("data", "config", "cache", "runtime"):
            (root / kind).mkdir(mode=0o700)
            self.env["XDG_RUNTIME_DIR" if kind == "runtime" else f"XDG_{kind.upper()}_HOME"] = str(root / kind)
        self.data = root / "data" / "pillion"
        self.distros = self.data / "distros"
        self.data.mkdir(mode=0o700)
        (self.data / "kits").symlink_to(host_lib.installed_data() / "pillion" / "kits")

    def configure(self, text):
        (self.root / "config" / "pillion").mkdir(exist_ok=True)
        (self.root / "config" / "pillion" / "config").write_text(text)

    def run(self, *args, timeout=120, text=True, **kwargs):
        kwargs.setdefault("stdin", subprocess.DEVNULL) if "input" not in kwargs else None
        return subprocess.run([host_lib.PILLION, *map(str, args)], env=self.env, capture_output=True, text=text,
                              timeout=timeout, cwd="/", **kwargs)

    def ok(self, *args, **kwargs):
        done = self.run(*args, **kwargs)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def fails(self, *args, **kwargs):
        done = self.run(*args, **kwargs)
        assert done.returncode == 1, (done.stdout, done.stderr)
        return done.stderr

    def names(self):
        return self.ok("--list", "--quiet").split() if list(self.distros.glob("*/distro.json")) else []

    def close(self):
        self.run("--shutdown")
        for name in self.names():
            self.run("--unregister", name)
        shutil.rmtree(self.root, ignore_errors=True)


@pytest.fixture
def home():
    if os.getuid() != 0:
        pytest.skip("to make files of several owners, these tests need root")
    root = pathlib.Path(tempfile.mkdtemp(prefix="pilh-"))
    root.chmod(0o755)
    h = Home(root)
    yield h
    h.close()


def tree_of(home, name):
    return home.distros / name / "rootfs"


# ---- archives ----

@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.xz", "tar.zst"])
def test_archive_becomes_a_distribution_that_runs(home, made, suffix):
    assert "completed successfully" in home.ok("--import", "busy", home.root / "place", made / f"busy.{suffix}",
                                               "--version", "1")
    assert home.ok("-d", "busy", "-e", "id", "-u") == "0\n"
    assert (home.distros / "busy").is_symlink() and (home.root / "place" / "rootfs" / "bin" / "sh").is_symlink()
    assert stat.S_IMODE((home.root / "place").stat().st_mode) == 0o700  # set-user-id files are kept from others
    home.ok("--unregister", "busy")
    assert not (home.root / "place").exists() and not home.names()


def test_archive_comes_from_standard_input(home, made):
    with open(made / "busy.tar.gz", "rb") as archive:
        home.ok("--import", "busy", home.root / "place", "-", "--version", "1", stdin=archive)
    assert home.ok("-d", "busy", "-e", "pwd") == "/root\n"


def test_wsl_file_is_installed_under_its_own_name(home, made):
    said = home.ok("--install", "--from-file", made / "busy.wsl", "--version", "1", "--no-launch")
    assert "It can be launched via 'pillion -d busy'" in said
    home.ok("--install", "-f", made / "busy.wsl", "--name", "second", "--location", home.root / "l", "--version", "1", "-n")
    assert home.names() == ["busy", "second"] and (home.root / "l" / "distro.json").exists()
    assert "already exists" in home.fails("--install", "--from-file", made / "busy.wsl", "-n")
    assert "can't be specified" in home.fails("--install", "debian", "--from-file", made / "busy.wsl")


def test_folder_that_is_not_empty_is_left_alone(home, made):
    (home.root / "mine").mkdir()
    (home.root / "mine" / "letter").write_text("dear")
    assert "already in use" in home.fails("--import", "busy", home.root / "mine", made / "busy.tar", "--version", "1")
    assert (home.root / "mine" / "letter").read_text() == "dear" and not list(home.distros.glob("*"))


def member(name, **fields):
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def archive(path, *members, base=("bin", "etc")):
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in base:
            tar.addfile(member(name, type=tarfile.DIRTYPE, mode=0o755))
        for info in members:
            tar.addfile(info, io.BytesIO(b"x" * info.size) if info.size < 1000 else None)
    return path


REFUSED = {
    "parent": ([member("../../out", size=1)], "leads out of the tree"),
    "middle": ([member("etc/../../out", size=1)], "leads out of the tree"),
    "link": ([member("l", type=tarfile.LNKTYPE, linkname="../../../etc/shadow")], "out of the tree"),
    "device": ([member("etc/disk", type=tarfile.BLKTYPE, devmajor=8, devminor=0)], "device node (b 8:0)"),
    "owner": ([member("etc/f", uid=65536)], "belongs to 65536:0"),
    "group": ([member("etc/f", gid=2**31)], f"belongs to 0:{2**31}"),
    "size": ([member("etc/f", size=1 << 50)], "more than a file may have"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_archive_with_what_no_tree_may_hold_is_refused(home, kind):
    members, why = REFUSED[kind]
    path = archive(home.root / "bad.tar", *members)
    said = home.fails("--import", "bad", home.root / "place", path, "--version", "1")
    assert why in said, said
    assert not (home.root / "out").exists() and not list(home.distros.glob("*")) and not (home.root / "place").exists()


def test_archive_that_ends_too_early_is_refused(home, made):
    whole = (made / "busy.tar").read_bytes()
    with tarfile.open(made / "busy.tar") as tar:
        between = tar.getmembers()[3].offset  # the cut is between two files
    for data in (whole[:between], whole[:between + 100], (made / "busy.tar.gz").read_bytes()[:-5000],
                 (made / "busy.tar.xz").read_bytes()[:-5000], (made / "busy.tar.zst").read_bytes()[:-5000], b"", b"text"):
        (home.root / "cut").write_bytes(data)
        home.fails("--import", "cut", home.root / "place", home.root / "cut", "--version", "1")
        assert not list(home.distros.glob("*")), len(data)


def test_archive_of_something_else_is_no_distribution(home):
    path = archive(home.root / "photos.tar", member("photos/a", size=3), base=())
    assert "The imported file is not a valid Linux distribution." in \
        home.fails("--import", "p", home.root / "place", path, "--version", "1")


def test_archive_that_would_fill_the_disk_is_refused(home):
    """Terabytes of zeros in some kilobytes."""
    head = member("etc/zeros", size=1 << 40).tobuf(tarfile.GNU_FORMAT)
    compressor = lzma.LZMACompressor()
    with open(home.root / "bomb", "wb") as out:
        out.write(compressor.compress(head))
        for _ in range(64):  # of each that is read, xz makes thousands
            out.write(compressor.compress(bytes(1 << 20)))
        out.write(compressor.flush())
    said = home.fails("--import", "bomb", home.root / "place", home.root / "bomb", "--version", "1")
    assert "Truncated" in said or "room" in said, said
    assert not list(home.distros.glob("*"))


def test_links_of_an_archive_lead_into_the_tree(home, made):
    """An absolute link is followed as a machine would: from the tree's own root."""
    path = archive(home.root / "l.tar", member(str(home.root)[1:], type=tarfile.DIRTYPE, mode=0o755), member("out", type=tarfile.SYMTYPE, linkname=str(home.root)),
                   member("out/made", size=2), member("up", type=tarfile.SYMTYPE, linkname="../../../../etc"),
                   member("up/seen", size=1), member("dev/sda", type=tarfile.BLKTYPE, devmajor=8))
    home.ok("--import", "links", home.root / "place", path, "--version", "1")
    tree = tree_of(home, "links")
    assert not (home.root / "made").exists() and (tree / str(home.root)[1:] / "made").read_text() == "xx"
    assert (tree / "etc" / "seen").exists() and not pathlib.Path("/etc/seen").exists()
    assert not (tree / "dev" / "sda").exists()  # machines have a /dev of their own


# ---- container images ----

@pytest.fixture(scope="module")
def image(made):
    """An OCI layout of two layers, made by umoci; and the tree that umoci makes of it."""
    if not shutil.which("umoci") or not shutil.which("skopeo"):
        pytest.skip("umoci or skopeo is missing (tools/setup-host check)")
    layout = made / "layout"

    def umoci(*args):
        subprocess.run(["umoci", *map(str, args)], check=True, capture_output=True, timeout=120)

    umoci("init", "--layout", layout)
    umoci("new", "--image", f"{layout}:v1")
    umoci("unpack", "--image", f"{layout}:v1", made / "b1")
    root = made / "b1" / "rootfs"
    make_root(root)
    for name in ("gone/deep", "opaque/old", "kind"):
        (root / name).mkdir(parents=True)
    (root / "gone" / "deep" / "file").write_text("1")
    (root / "opaque" / "old" / "file").write_text("1")
    (root / "replaced").write_text("1")
    umoci("repack", "--image", f"{layout}:v1", made / "b1")
    umoci("unpack", "--image", f"{layout}:v1", made / "b2")
    root = made / "b2" / "rootfs"
    shutil.rmtree(root / "gone")
    shutil.rmtree(root / "kind")
    (root / "kind").symlink_to("replaced")
    (root / "replaced").unlink()
    (root / "replaced").mkdir()
    (root / "replaced" / "new").write_text("2")
    os.setxattr(root / "replaced" / "new", "user.note", b"kept")
    umoci("repack", "--image", f"{layout}:v1", made / "b2")
    umoci("config", "--image", f"{layout}:v1", "--config.user", "app", "--config.workingdir", "/usr",
          "--config.env", "GREETING=hello there", "--config.env", "PATH=/opt/bin", "--config.env", "HOME=/opt",
          "--config.env", "GGML_BACKEND_PATH=/opt/none.so", "--config.env", "WSL_DISTRO_NAME=other")
    umoci("unpack", "--image", f"{layout}:v1", made / "b3")
    return layout


def contents(root):
    """What trees have in common whoever unpacked them: names, kinds, modes, owners, contents, attributes."""
    found = {}
    for path in sorted(root.rglob("*")):
        st = path.lstat()
        mapped = 0x78000000 if root.lstat().st_uid >= 0x78000000 else 0
        what = [stat.S_IFMT(st.st_mode), st.st_uid - mapped, st.st_gid - mapped]
        if stat.S_ISLNK(st.st_mode):
            what.append(os.readlink(path))
        else:
            what += [stat.S_IMODE(st.st_mode), int(st.st_mtime) if stat.S_ISREG(st.st_mode) else None,
                     hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None,
                     {n: os.getxattr(path, n) for n in os.listxattr(path) if n.startswith("user.")}]
        found[str(path.relative_to(root))] = what
    return found


@pytest.mark.parametrize("kind", ["oci", "oci-archive", "docker-archive"])
def test_image_becomes_the_tree_that_umoci_makes_of_it(home, made, image, kind):
    source = f"oci:{image}:v1"
    if kind != "oci":
        source = f"{kind}:{home.root / 'image.tar'}"
        subprocess.run(["skopeo", "copy", "--quiet", "--insecure-policy", f"oci:{image}:v1", f"{source}:name:v1"
                        if kind == "docker-archive" else f"{source}:v1"], check=True, timeout=120)
    home.ok("--import", "boxed", source, "--version", "1")
    assert contents(tree_of(home, "boxed")) == contents(made / "b3" / "rootfs")
    assert home.ok("-d", "boxed", "-e", "sh", "-c", 'id -u; pwd; echo "$GREETING"') == "1000\n/usr\nhello there\n"
    ours = home.ok("-d", "boxed", "-e", "sh", "-c", 'echo "$HOME $WSL_DISTRO_NAME $GGML_BACKEND_PATH"').split()
    assert ours == ["/home/app", "boxed", "/usr/lib/pillion/lib/libggml-pillion.so"]
    assert home.ok("-d", "boxed", "--cd", "/", "-u", "root", "-e", "sh", "-c", "id -u; pwd") == "0\n/\n"


def test_opaque_whiteout_hides_what_is_below_and_nothing_else(home, made):
    """Whatever the order in the layer: what the same layer brings stays."""
    def layer(*members):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as tar:
            for info in members:
                tar.addfile(info, io.BytesIO(b"x" * info.size))
        return data.getvalue()

    folder = member("d", type=tarfile.DIRTYPE, mode=0o755)
    layers = [layer(member("bin", type=tarfile.DIRTYPE), folder, member("d/below", size=1), member("gone", size=1)),
              layer(folder, member("d/same", size=1), member("d/.wh..wh..opq"), member("gone", size=2), member(".wh.gone"))]
    write_image(home.root / "image", layers)
    home.ok("--import", "opaque", f"oci:{home.root / 'image'}", "--version", "1")
    tree = tree_of(home, "opaque")
    assert sorted(p.name for p in (tree / "d").iterdir()) == ["same"]
    assert (tree / "gone").read_text() == "xx" and not list(tree.rglob(".wh.*"))


def write_image(folder, layers, config=b"{}"):
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data, kind):
        name = hashlib.sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{name}", "size": len(data)}

    manifest = {"schemaVersion": 2, "config": put(config, "application/vnd.oci.image.config.v1+json"),
                "layers": [put(data, "application/vnd.oci.image.layer.v1.tar") for data in layers]}
    index = {"schemaVersion": 2, "manifests": [put(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return blobs


def test_image_whose_parts_are_not_what_it_says_is_refused(home):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.addfile(member("bin", type=tarfile.DIRTYPE))
    blobs = write_image(home.root / "image", [data.getvalue()])
    (blobs / hashlib.sha256(data.getvalue()).hexdigest()).write_bytes(b"\0" * len(data.getvalue()))
    assert "is not what its digest says" in home.fails("--import", "x", f"oci:{home.root / 'image'}", "--version", "1")
    assert "has no tag 'v9'" in home.fails("--import", "x", f"oci:{home.root / 'image'}:v9", "--version", "1")
    assert not list(home.distros.glob("*"))


# ---- lists and downloads ----

class Server(http.server.ThreadingHTTPServer):
    """Serves files from memory, with faults where they are wanted."""
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked, self.break_after, self.ranges = {}, [], [], True
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server, data = self.server, self.server.files.get(self.path[1:])
        start = 0
        wanted = self.headers.get("Range")
        server.asked.append((self.path[1:], wanted))
        if data is None:
            self.send_error(404)
            return
        if wanted and server.ranges:
            start = int(wanted.split("=")[1].rstrip("-"))
            if start >= len(data):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        end = len(data)
        if server.break_after:
            end = min(end, start + server.break_after.pop(0))
        self.wfile.write(data[start:end])
        if end < len(data):
            self.close_connection = True


@pytest.fixture
def server():
    s = Server()
    yield s
    s.shutdown()
    s.server_close()


def a_list(server, data, name="Busy-1", flavor="Busy", sha=None, **more):
    entry = {"Name": name, "FriendlyName": f"{name} for tests", "Default": True,
             "Amd64Url": {"Url": server.url("busy.wsl"), "Sha256": sha or hashlib.sha256(data).hexdigest()}}
    return json.dumps({"ModernDistributions": {flavor: [{**entry, **more}]}, "Default": flavor}).encode()


@pytest.fixture
def listed(home, made, server):
    server.files["busy.wsl"] = (made / "busy.wsl").read_bytes()
    server.files["list.json"] = a_list(server, server.files["busy.wsl"])
    home.configure(f"[wsl2]\nDistributionListUrl = {server.url('list.json')}\n")
    home.server = server
    return home


def install(home, name="busy", **kwargs):
    return home.run("--install", name, "--version", "1", "--no-launch", **kwargs)


def test_flavor_and_name_of_the_list_are_installed_once_fetched(listed):
    done = install(listed)
    assert done.returncode == 0, done.stderr
    assert "Downloading: Busy-1 for tests" in done.stderr and listed.names() == ["Busy-1"]
    assert listed.ok("-d", "busy-1", "-e", "id", "-u") == "0\n"
    asked = len(listed.server.asked)
    listed.ok("--install", "BUSY-1", "--name", "again", "--version", "1", "--no-launch")
    assert [path for path, _ in listed.server.asked[asked:]] == ["list.json"]


def test_online_list_shows_recipes_and_both_lists(listed, made):
    (listed.root / "more.json").write_bytes(a_list(listed.server, b"", "Extra-2", "Extra"))
    listed.configure(f"[wsl2]\nDistributionListUrl = {listed.server.url('list.json')}\n"
                     f"DistributionListUrlAppend = file://{listed.root}/more.json\n")
    said = listed.ok("--list", "--online")
    assert "The following is a list of valid distributions that can be installed." in said
    names = [line.split()[0] for line in said.splitlines()[4:]]
    assert names == ["debian", "debian-stable", "Extra-2", "Busy-1"]
    rows = json.loads(listed.ok("--list", "--online", "--json"))
    assert {"name": "Busy-1", "friendlyName": "Busy-1 for tests", "url": listed.server.url("busy.wsl")} in rows


def test_list_from_the_network_names_no_file_of_this_computer(listed, made):
    data = (made / "busy.wsl").read_bytes()
    here = {"Amd64Url": {"Url": f"file://{made}/busy.wsl", "Sha256": hashlib.sha256(data).hexdigest()}}
    listed.server.files["list.json"] = a_list(listed.server, data, **here)
    done = install(listed)
    assert done.returncode == 1 and "'Busy-1' has the address of a file of this computer" in done.stderr
    (listed.root / "list.json").write_bytes(listed.server.files["list.json"])
    listed.configure(f"[wsl2]\nDistributionListUrl = file://{listed.root}/list.json\n")
    done = install(listed)
    assert done.returncode == 0, done.stderr


def test_list_that_comes_along_needs_no_network(home):
    names = [line.split()[0] for line in home.ok("--list", "--online").splitlines()[4:]]
    assert {"Ubuntu", "Ubuntu-24.04", "Ubuntu-26.04", "Debian", "kali-linux", "archlinux", "debian"} <= set(names)


def test_broken_transfer_is_gone_on_with(listed):
    size = len(listed.server.files["busy.wsl"])
    listed.server.break_after = [10**6, size // 3, size // 3]  # the list, then twice the archive
    done = install(listed)
    assert done.returncode == 0, done.stderr
    ranges = [wanted for path, wanted in listed.server.asked if path == "busy.wsl"]
    assert ranges == [None, f"bytes={size // 3}-", f"bytes={size // 3 * 2}-"]


def test_what_an_interrupted_command_left_is_gone_on_with(listed):
    data = listed.server.files["busy.wsl"]
    downloads = listed.root / "cache" / "pillion" / "downloads"
    downloads.mkdir(parents=True)
    part = downloads / (hashlib.sha256(data).hexdigest() + ".part")
    part.write_bytes(data[:1000])
    assert install(listed).returncode == 0
    assert ("busy.wsl", "bytes=1000-") in listed.server.asked
    listed.ok("--unregister", "Busy-1")
    shutil.rmtree(downloads)
    downloads.mkdir()
    part.write_bytes(b"of another file" * 10)  # found out by its hash; then all of it comes
    assert install(listed).returncode == 0


def test_server_that_cannot_resume_gives_all_of_it(listed):
    listed.server.ranges = False
    size = len(listed.server.files["busy.wsl"])
    listed.server.break_after = [10**6, size // 2]
    done = install(listed)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("fault, why", [
    ("hash", "The distribution hash doesn't match. Expected: "),
    ("gone", "the server has no such file (404)"),
    ("closed", "the server cannot be reached"),
])
def test_download_that_fails_says_why_and_leaves_nothing(listed, fault, why):
    data = listed.server.files["busy.wsl"]
    if fault == "hash":
        listed.server.files["busy.wsl"] = data[:-1] + b"?"
    elif fault == "gone":
        del listed.server.files["busy.wsl"]
    else:
        listed.server.files["list.json"] = a_list(listed.server, data, Amd64Url={
            "Url": "http://127.0.0.1:1/busy.wsl", "Sha256": hashlib.sha256(data).hexdigest()})
    done = install(listed)
    assert done.returncode == 1 and why in done.stderr, done.stderr
    assert not list(listed.distros.glob("*")) and not listed.names()
    assert not list((listed.root / "cache" / "pillion" / "downloads").glob("[0-9a-f]*"))


def test_list_that_is_not_as_wsl_wants_it_is_refused_as_a_whole(listed):
    data = listed.server.files["busy.wsl"]
    for bad in (b"<html>", a_list(listed.server, data, Extra=1), a_list(listed.server, data, "Other"),
                a_list(listed.server, data, Default=False), a_list(listed.server, data, sha="12")):
        listed.server.files["list.json"] = bad
        done = install(listed)
        assert done.returncode == 1 and "list of distributions" in done.stderr, done.stderr
        assert ("list.json", None) in listed.server.asked and not listed.names()
    listed.configure("[wsl2]\nDistributionListUrl = ftp://x/y\n")
    assert "'ftp://x/y' is no address" in listed.fails("--list", "--online")


# ---- exporting ----

def make_rich(root, ids):
    """Files with all that an archive has to carry; `ids` maps an id inside to one of the host."""
    second = 10**9
    (root / "rich" / "deep").mkdir(parents=True)
    os.chmod(root / "rich", 0o2750)
    for name, data in (("plain", b"text"), ("setuid", b"#!"), ("caps", b"\x7fELF"), ("acl", b"a"), ("noted", b"n"),
                       ("name with \n and ü", b"odd"), ("x" * 250, b"long")):
        (root / "rich" / name).write_bytes(data)
    os.link(root / "rich" / "plain", root / "rich" / "deep" / "hard")
    (root / "rich" / "soft").symlink_to("/" + "y" * 150)
    os.mkfifo(root / "rich" / "fifo")
    with open(root / "rich" / "sparse", "wb") as f:
        f.truncate(1 << 33)
        f.seek(1 << 32)
        f.write(b"middle")
    for path in [root / "rich", *(root / "rich").rglob("*")]:
        os.chown(path, ids(0), ids(0), follow_symlinks=False)
    os.chown(root / "rich" / "noted", ids(1000), ids(65535))
    os.chown(root / "rich" / "soft", ids(33), ids(33), follow_symlinks=False)
    os.chmod(root / "rich" / "setuid", 0o6755)
    os.chmod(root / "rich", 0o2750)
    os.setxattr(root / "rich" / "noted", "user.note", b"\0binary\xff" * 20)
    os.setxattr(root / "rich" / "caps", "security.capability",
                bytes.fromhex("01000003" + "0020000000000000" + "00" * 8) + ids(0).to_bytes(4, "little"))
    entries = [(1, 6, 0xffffffff), (2, 4, ids(1000)), (4, 4, 0xffffffff), (16, 4, 0xffffffff), (32, 0, 0xffffffff)]
    acl = (2).to_bytes(4, "little") + b"".join(t.to_bytes(2, "little") + p.to_bytes(2, "little") + w.to_bytes(4, "little")
                                               for t, p, w in entries)
    os.setxattr(root / "rich" / "acl", "system.posix_acl_access", acl)
    os.setxattr(root / "rich" / "deep", "system.posix_acl_default", acl)
    os.utime(root / "rich" / "plain", ns=(second, 1_600_000_000 * second + 123_456_789))
    os.utime(root / "rich" / "acl", ns=(0, 5_000_000_000 * second + 999_999_999))  # after 2038
    os.utime(root / "rich" / "soft", ns=(7, 1_500_000_000 * second + 1), follow_symlinks=False)
    os.utime(root / "rich" / "deep", ns=(0, 1_400_000_000 * second + 42))
    os.chmod(root, 0o751)
    os.setxattr(root, "user.root", b"r")
    os.utime(root, ns=(0, 1_200_000_000 * second + 5))
    os.utime(root / "rich", ns=(0, 1_300_000_000 * second + 4711))


def describe(root):
    """All that equal trees have in common, by path."""
    found, first = {}, {}
    for path in [root, *sorted(root.rglob("*"))]:
        st = path.lstat()
        what = [st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns,
                {a: os.getxattr(path, a, follow_symlinks=False) for a in os.listxattr(path, follow_symlinks=False)}]
        if stat.S_ISREG(st.st_mode):
            what += [st.st_size, first.setdefault(st.st_ino, str(path.relative_to(root)))]
            what.append(path.read_bytes() if st.st_size < 1 << 20 else st.st_blocks < 2048)
        elif stat.S_ISLNK(st.st_mode):
            what.append(os.readlink(path))
        found[str(path.relative_to(root))] = what
    return found


def inside(number):
    return 0x78000000 + number


@pytest.fixture
def rich(home, made):
    home.ok("--import", "rich", home.root / "rich", made / "busy.tar", "--version", "1")
    make_rich(tree_of(home, "rich"), inside)
    return home


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.xz", "tar.zst"])
def test_all_that_files_are_made_of_survives_export_and_import(rich, suffix):
    before = describe(tree_of(rich, "rich"))
    rich.ok("--export", "rich", rich.root / f"out.{suffix}")
    assert describe(tree_of(rich, "rich")) == before
    assert (rich.root / f"out.{suffix}").stat().st_size < 4 << 20  # holes are holes
    rich.ok("--import", "again", rich.root / "again", rich.root / f"out.{suffix}", "--version", "1")
    after = describe(tree_of(rich, "again"))
    assert after.keys() == before.keys()
    assert {k: (before[k], after[k]) for k in before if before[k] != after[k]} == {}


def test_archive_is_one_that_tar_reads(rich):
    """GNU tar finds the names, owners, links and holes that are there."""
    archive_bytes = rich.run("--export", "rich", "-", text=False)
    assert archive_bytes.returncode == 0, archive_bytes.stderr
    (rich.root / "out.tar").write_bytes(archive_bytes.stdout)
    (rich.root / "by-tar").mkdir()
    subprocess.run(["tar", "-C", rich.root / "by-tar", "--numeric-owner", "-xpf", rich.root / "out.tar"], check=True)
    tree = rich.root / "by-tar" / "rich"
    assert (tree / "noted").stat().st_uid == 1000 and (tree / "noted").stat().st_gid == 65535
    assert (tree / "plain").stat().st_nlink == 2 and (tree / "plain").stat().st_mtime_ns == 1_600_000_000_123_456_789
    assert (tree / "sparse").stat().st_size == 1 << 33 and (tree / "sparse").stat().st_blocks < 2048


def test_running_distribution_is_exported_as_it_is_at_one_moment(home, made):
    """A program moves a file between two folders all the time: each archive has it exactly once."""
    home.ok("--import", "busy", home.root / "busy", made / "busy.tar", "--version", "1")
    tree = tree_of(home, "busy")
    for name in ("one", "two"):
        (tree / name).mkdir()
        (tree / name / "data").write_bytes(os.urandom(4 << 20))  # reading takes long beside moving
        os.chown(tree / name, inside(0), inside(0))
    mover = subprocess.Popen([host_lib.PILLION, "-d", "busy", "-e", "sh", "-c",
                              "touch /one/f; while true; do mv /one/f /two/f; mv /two/f /one/f; done"],
                             env=home.env, stdin=subprocess.DEVNULL)
    try:
        host_lib.wait_for("the program to begin", lambda: (tree / "two" / "f").exists(), 30, pause=0)
        for _ in range(8):
            home.ok("--export", "busy", home.root / "out.tar.gz")
            with tarfile.open(home.root / "out.tar.gz") as tar:
                moved = [name for name in tar.getnames() if name in ("./one/f", "./two/f")]
            assert len(moved) == 1, moved
        assert mover.poll() is None
        host_lib.wait_for("the program to go on", lambda: (tree / "one" / "f").exists(), 30, pause=0)
        host_lib.wait_for("the program to go on", lambda: (tree / "two" / "f").exists(), 30, pause=0)
    finally:
        home.run("--terminate", "busy")
        mover.kill()
        mover.wait()


def test_killed_export_lets_the_machine_go_on_and_leaves_no_file(home, made):
    home.ok("--import", "busy", home.root / "busy", made / "busy.tar", "--version", "1")
    with open(tree_of(home, "busy") / "big", "wb") as f:
        for _ in range(64):
            f.write(os.urandom(1 << 20))
    home.ok("-d", "busy", "-e", "true")
    export = subprocess.Popen([host_lib.PILLION, "--export", "busy", home.root / "out.tar.xz"], env=home.env,
                              stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    host_lib.wait_for("the export to begin", lambda: (home.root / "out.tar.xz.part").exists(), 30)
    export.kill()
    export.wait()
    assert home.ok("-d", "busy", "-e", "echo", "alive") == "alive\n"
    assert not (home.root / "out.tar.xz").exists()


def test_disk_image_of_a_sandbox_is_imported_as_a_sandbox_again(rich):
    """As a raw image and back: --format vhd, --import-in-place, --import --vhd."""
    before = describe(tree_of(rich, "rich"))
    rich.ok("--export", "rich", rich.root / "out.img", "--format", "vhd")
    assert (rich.root / "out.img").stat().st_blocks * 512 < 64 << 20
    assert not (rich.distros / "rich" / "disk.ext4").exists()
    assert describe(tree_of(rich, "rich")) == before


def test_formats_that_cannot_be_are_refused(rich):
    assert "--format is tar" in rich.fails("--export", "rich", rich.root / "x", "--format", "zip")
    assert "a disk cannot go to standard output" in rich.fails("--export", "rich", "-", "--vhd")
    assert "There is no distribution with the supplied name." in rich.fails("--export", "nobody", rich.root / "x")
    assert "No such file" in rich.fails("--export", "rich", "/nowhere/x.tar")


def test_machine_does_not_start_while_its_distribution_is_worked_on(home, made):
    """Who exports a stopped machine reads files that nobody changes."""
    home.ok("--import", "busy", home.root / "busy", made / "busy.tar", "--version", "1")
    with open(tree_of(home, "busy") / "big", "wb") as f:
        for _ in range(64):
            f.write(os.urandom(1 << 20))
    export = subprocess.Popen([host_lib.PILLION, "--export", "busy", home.root / "out.tar.xz"], env=home.env,
                              stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    host_lib.wait_for("the export to begin", lambda: (home.root / "out.tar.xz.part").exists(), 30)
    said = home.fails("-d", "busy", "-e", "true")
    assert "An install, uninstall, or conversion is in progress for this distribution (Exporting)." in said
    assert "Exporting" in home.ok("--list", "--verbose")
    export.kill()
    export.wait()
    home.ok("-d", "busy", "-e", "true")
