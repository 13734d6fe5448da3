"""A run of cases against one proxy and origin: side by side where that can be told apart, else alone.

Must not know: how results are shown. Main types: `Run`, `Result`.
"""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import reference
from compare import Finding, findings
from exchange import exchange

# The origin's lines come after the proxy's answers; those of bodies that were cut come when connections are closed.
# Longer than the proxy's log lags behind.
SETTLE_S = 0.4
SETTLE_AT_MOST_S = 5.0
# So many cases are run again, each alone, to find out whose a stray request is.
TRACED = 40
# Clocks of two processes, and a request's way.
OVERLAP_S = 1.0


@dataclass
class Result:
    name: str
    place: str
    rows: tuple
    tag: str
    sent: bytes
    outcome: object
    seen: list
    findings: list


class Lines:
    """The lines that were added to a file of JSON objects since it was last asked. No file is no lines."""

    def __init__(self, path):
        self.path = path
        self.offset = self.size()

    def size(self):
        return os.path.getsize(self.path) if self.path and os.path.exists(self.path) else 0

    def take(self):
        if not self.size():
            return []
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            data = file.read()
        whole, _, _ = data.rpartition(b"\n")
        self.offset += len(whole) + 1 if whole else 0
        return [json.loads(line) for line in whole.split(b"\n") if line]


class Run:
    def __init__(self, arguments, address):
        self.host, self.address = arguments.host, address
        self.patience, self.at_once = arguments.patience, arguments.at_once
        self.seen = Lines(arguments.seen)
        self.log = Lines(arguments.access_log) if arguments.access_log else None
        # No two runs share a tag, so what is left of an earlier one on a connection is recognised.
        self.traced = 0 if arguments.no_trace else TRACED
        self.run = os.getpid() % 0x10000
        self.number = 0

    def all(self, cases):
        beside = [case for case in cases if not case.alone]
        results, strays = self.beside(beside)
        for case in cases:
            if case.alone:
                results.append(self.alone(case))
        if strays:
            results += self.trace(strays, beside, results)
        return results

    def beside(self, cases):
        """Results, and what was seen that belongs to none of them."""
        tags = [self.tag() for _ in cases]
        with ThreadPoolExecutor(self.at_once) as pool:
            outcomes = list(pool.map(self.send, cases, tags))
        seen, log = self.settled()
        results = [
            self.result(case, tag, outcome, seen, log, lambda line, tag=tag: has(line, tag))
            for case, tag, outcome in zip(cases, tags, outcomes)
        ]
        return results, [line for line in seen if not any(has(line, tag) for tag in tags)]

    def alone(self, case):
        tag = self.tag()
        outcome = self.send(case, tag)
        seen, log = self.settled()
        return self.result(case, tag, outcome, seen, log, lambda _: True)

    def trace(self, strays, cases, results):
        """Runs those cases again that were under way when something was seen that is nobody's."""
        outcomes = {result.name: result.outcome for result in results}

        def near(case):
            began, ended = outcomes[case.name].began - OVERLAP_S, outcomes[case.name].ended + OVERLAP_S
            return any(began <= stray["at"] <= ended for stray in strays)

        # What is to be forwarded as it is comes last.
        suspects = sorted(filter(near, cases), key=is_forwarded)
        guilty = []
        for case in suspects[: self.traced]:
            again = self.alone(case)
            foreign = [line for line in again.seen if not has(line, again.tag)]
            if foreign:
                text = f"the origin got {said(foreign)}, which is no request of ours"
                again.findings.append(Finding("smuggled", text))
                guilty.append(again)
        if guilty:
            return guilty
        tried = min(len(suspects), self.traced)
        text = f"the origin got {said(strays)}; alone, {tried} of {len(suspects)} cases do not do it again"
        return [Result("(nobody's)", "", (), "", b"", None, strays, [Finding("smuggled", text)])]

    def send(self, case, tag):
        reading = self.reading(case, tag)
        methods = [request.method for request in reading.requests]
        steps = case.steps(self.host, tag)
        return exchange(self.address, steps, methods, case.expect.answers, self.patience)

    def result(self, case, tag, outcome, seen, log, is_its):
        seen = [line for line in seen if is_its(line)]
        # Others may drive the same proxy to other origins.
        ours = lambda line: line.get("host", self.host).partition(":")[0] == self.host
        log = None if log is None else [line for line in log if ours(line) and is_its(line)]
        found = findings(case, tag, self.reading(case, tag), outcome, seen, log)
        sent = case.sent(self.host, tag)
        return Result(case.name, case.place, case.rows, tag, sent, outcome, seen, found)

    def reading(self, case, tag):
        return reference.read(case.sent(self.host, tag))

    def tag(self):
        # Of one width, so that lengths do not depend on it.
        self.number += 1
        return f"c{self.run:04x}{self.number:05d}"

    def settled(self):
        """What was written since the last time, once nothing is added any more."""
        deadline = time.monotonic() + SETTLE_AT_MOST_S
        size = None
        logged = self.log.size if self.log else lambda: 0
        while time.monotonic() < deadline and size != (size := (self.seen.size(), logged())):
            time.sleep(SETTLE_S)
        return self.seen.take(), self.log.take() if self.log else None


def has(line, tag):
    return tag in line.get("target", "") or tag == line.get("case")


def is_forwarded(case):
    return case.expect.ending is None and not case.expect.either


def said(lines):
    """The first few of them, in short."""
    short = [repr(f"{line['method'] or '(no request)'} {line['target'][:40]}".strip()) for line in lines]
    return ", ".join(short[:3]) + (f" and {len(short) - 3} more" if len(short) > 3 else "")
