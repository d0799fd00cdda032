# SPDX-License-Identifier: Apache-2.0
"""What a checker has found right before, so that it need not look again.

A checker that looks at one source file says the same as long as nothing changes of what it sees.
So a verdict has a key: a digest of the checker itself (its program and the libraries it loads), of
its arguments and settings, of the text that the preprocessor makes, macros included, and of every
file that it read for that, headers of the system included (their comments can switch a check off).
Only "right" is kept, as an empty file of that name in the user's cache; what was wrong, or did not
end, is looked at again each time.  Without a key (the preprocessor failed) nothing is kept either.

PILLION_NO_VERDICTS=1 in the environment: everything is looked at.
"""
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time

KEPT = 30 * 24 * 3600  # seconds since a verdict was last of use


def identity(program):
    """Which build of a program this is, and of what it loads."""
    path = pathlib.Path(shutil.which(program) or program).resolve()
    libraries = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
    files = [path, *map(pathlib.Path, re.findall(r"=> (/\S+)", libraries))]
    return [f"{f.resolve()} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files]


class Verdicts:
    def __init__(self, folder, programs, settings=()):
        """@programs: the checker and what it starts; @settings: files it reads."""
        self.folder = pathlib.Path(folder)
        self.common = [*(line for p in programs for line in identity(p)),
                       *(pathlib.Path(s).read_text() for s in settings)]
        self.digests = {}
        self.off = os.environ.get("PILLION_NO_VERDICTS") == "1"

    def digest_of(self, path):
        if path not in self.digests:
            self.digests[path] = hashlib.sha256(path.read_bytes()).hexdigest()
        return self.digests[path]

    def key(self, preprocessor, source, cwd, arguments):
        """Of @source as @preprocessor sees it in @cwd, and @arguments of the checker."""
        with tempfile.NamedTemporaryFile() as rule:
            done = subprocess.run([*preprocessor, "-E", "-dD", "-MD", "-MF", rule.name, source],
                                  cwd=cwd, capture_output=True, stdin=subprocess.DEVNULL, check=False)
            depends = rule.read().decode()
        if done.returncode:
            return None
        read = depends.split(":", 1)[1].replace("\\\n", " ").split()
        text = repr([self.common, list(map(str, preprocessor)), str(source), str(cwd),
                     list(map(str, arguments)), hashlib.sha256(done.stdout).hexdigest(),
                     sorted((name, self.digest_of((cwd / name).resolve())) for name in set(read))])
        return hashlib.sha256(text.encode()).hexdigest()

    def right(self, key):
        """It was right before."""
        path = self.folder / str(key)
        if key is None or self.off or not path.exists():
            return False
        os.utime(path)
        return True

    def keep(self, key):
        if key is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / key).touch()

    def forget_old(self):
        for path in self.folder.glob("*"):
            if time.time() - path.stat().st_mtime > KEPT:
                path.unlink(missing_ok=True)
