"""A server process that ends when we do.

Must not know: which server it is. Main type: `Child`; main function: `until_ended`.

Three ways out, so that nothing stays behind: SIGTERM or SIGINT to us, the end of our standard input (a parent that
died without a word), and, should we be killed ourselves, the signal that Linux then sends to our child.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading

# <linux/prctl.h>
PR_SET_PDEATHSIG = 1
# What a server gets to end by itself, before its whole group is killed.
GRACE_S = 3.0


class Child:
    """A server in a process group of its own; its output goes into a log file."""

    def __init__(self, command, log, environment=None):
        libc = ctypes.CDLL(None, use_errno=True)
        with open(log, "ab") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
            )

    def has_ended(self):
        return self.process.poll() is not None

    def end(self):
        """SIGTERM to the server, which ends its workers; whatever is left of its group is then killed."""
        self.process.terminate()
        try:
            self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def until_ended(has_ended):
    """Returns on SIGTERM, on SIGINT, when standard input closes, or when `has_ended()` is true."""
    end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())

    def watch_input():
        try:
            while os.read(sys.stdin.fileno(), 4096):
                pass
        except (OSError, ValueError):
            pass  # It was closed before we began.
        end.set()

    if sys.stdin is None:
        return
    threading.Thread(target=watch_input, daemon=True).start()
    while not end.wait(0.2):
        if has_ended():
            return
