"""What something costs a process: its memory, processor time and descriptors, from /proc.

Main type: `Watch`; as a context manager it samples from its beginning to its end.
"""

import contextlib
import os
import threading

EVERY = 0.05


class Watch:
    """Samples the process with this id; does nothing without one."""

    def __init__(self, pid):
        self.pid = pid

    def __enter__(self):
        self.before = self.after = self._sample()
        self.peak = self.before
        self.end = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        if self.pid:
            self.thread.start()
        return self

    def __exit__(self, *_why):
        self.end.set()
        if self.pid:
            self.thread.join()
            self.after = self._sample()

    def report(self):
        """Memory before, at its highest and right after, in KiB; processor seconds; descriptors."""
        return {
            "memory_kib": [self.before[0], self.peak[0], self.after[0]],
            "descriptors": [self.before[2], self.peak[2], self.after[2]],
            "processor_s": round(self.after[1] - self.before[1], 2),
            "runs": os.path.exists(f"/proc/{self.pid}/fd"),
        }

    def _run(self):
        while not self.end.wait(EVERY):
            self.peak = tuple(map(max, self.peak, self._sample()))

    def _sample(self):
        if not self.pid:
            return (0, 0, 0)
        with contextlib.suppress(OSError, IndexError, ValueError):
            with open(f"/proc/{self.pid}/statm") as statm, open(f"/proc/{self.pid}/stat") as stat:
                pages = int(statm.read().split()[1])
                times = stat.read().rpartition(")")[2].split()
            ticks = int(times[11]) + int(times[12])
            page, tick = os.sysconf("SC_PAGE_SIZE") // 1024, os.sysconf("SC_CLK_TCK")
            return (pages * page, ticks / tick, len(os.listdir(f"/proc/{self.pid}/fd")))
        return (0, 0, 0)
