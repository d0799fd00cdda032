#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""seeds_image.py FOLDER -- disks for fuzz_image, which are too large to be kept here."""
import pathlib
import struct
import subprocess
import sys
import tempfile

BLOCK = 1024
BASE = "^has_journal,^resize_inode,^dir_index"
KINDS = {
    "inline": f"{BASE},inline_data",
    "maps": f"{BASE},^extents,^metadata_csum,^64bit",
    "nocsum": f"{BASE},^metadata_csum",
    "cluster": f"{BASE},bigalloc",
    "shared": f"{BASE},^extents,^metadata_csum,^64bit",
    "levels": f"{BASE},^extents,^metadata_csum,^64bit",
}


def make_tree(root, n_names):
    folder = root
    for level in range(8):
        folder = folder / str(level)
        folder.mkdir()
        first = folder / "file"
        first.write_bytes(bytes([level]) * 1500)
        (folder / "link").symlink_to("x" * (20 if level % 2 else 100))
        for i in range(n_names):
            (folder / f"{i:03}").hardlink_to(first)


def debugfs(disk, commands):
    subprocess.run(["debugfs", "-w", "-f", "-", disk], input="\n".join(commands), text=True,
                   capture_output=True, check=True, timeout=60)


def share(disk):
    """All folders of the levels get the second block of the first one, many times."""
    table, data = 900, 901
    one = struct.pack("<IHBB4s", 12, 12, 3, 1, b"aaa")
    with open(disk, "r+b") as f:
        f.seek(table * BLOCK)
        f.write(struct.pack("<256I", *[data] * 256))
        f.write(one * 84 + struct.pack("<IHBB4s", 12, 16, 3, 1, b"aaa") + bytes(4))
    path, commands = "", []
    for level in range(8):
        path += f"/{level}"
        commands += [f"sif {path} block[IND] {table}", f"sif {path} size {(12 + 256) * BLOCK}"]
    debugfs(disk, commands)


def main():
    out = pathlib.Path(sys.argv[1])
    for name, features in KINDS.items():
        with tempfile.TemporaryDirectory() as base:
            tree = pathlib.Path(base, "tree")
            tree.mkdir()
            make_tree(tree, 200 if name == "levels" else 3)
            disk = pathlib.Path(base, "disk")
            subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-b", str(BLOCK), "-N", "64", "-O",
                            features, "-d", tree, disk, "1m"], check=True, timeout=60)
            if name == "shared":
                share(disk)
            (out / f"seed-{name}").write_bytes(disk.read_bytes())


main()
