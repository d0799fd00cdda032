# SPDX-License-Identifier: Apache-2.0
"""A terminal with the command line of pillion on it, and what a shell there must do, whatever kind of
machine it is in.

    terminal.py COMMAND...      checks the shell that COMMAND starts; exit status 0: as it must be
"""
import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time

from slowness import bound


class Terminal:
    def __init__(self, argv, env, rows=30, cols=100, timeout=15):
        self.timeout = timeout
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir("/")
            os.execvpe(argv[0], argv, {**env, "TERM": "xterm"})
        self.resize(rows, cols)
        self.seen = ""    # and not yet expected
        self.before = ""  # what came before what was expected last
        self.all = ""

    def resize(self, rows, cols):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def expect(self, text):
        end = time.monotonic() + bound(self.timeout)
        while text not in self.seen:
            assert time.monotonic() < end, f"no {text!r} in {self.seen!r}"
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    text_now = os.read(self.fd, 65536).decode(errors="replace")
                    self.seen += text_now
                    self.all += text_now
                except OSError:
                    assert text in self.seen, self.seen
        self.before, self.seen = self.seen.split(text, 1)

    def send(self, text):
        os.write(self.fd, text.encode())

    def wait(self):
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


def check_shell(t):
    """Size of the window and its changes, a job that is interrupted, the exit status."""
    t.expect("root@debian")
    t.send("stty size; tty\n")
    t.expect("30 100")
    t.expect("/dev/pts/")
    t.resize(40, 120)
    t.send("until [ \"$(stty size)\" = '40 120' ]; do sleep 0.1; done; echo re''sized\n")
    t.expect("resized\r\n")
    t.send("echo wait; sleep 100\n")
    t.expect("wait\r\n")
    time.sleep(0.5)
    t.send("\x03")
    t.send("echo $?$?\n")
    t.expect("130130")
    t.send("exit 9\n")
    assert t.wait() == 9


if __name__ == "__main__":
    check_shell(Terminal(sys.argv[1:], os.environ, timeout=60))
