"""Checks cases without sending them: does a strict reading of the bytes say what the case expects?

Must not know: sockets, origins. Main function: `run`.
"""

import reference

# What a stream may end with, for each ending of an expectation. Half a head is refused only once more is there.
ENDINGS = {
    None: {None},
    "refused": {"refused"},
    "declined": {"declined"},
    "cut": {"cut"},
}


def run(cases):
    wrong = 0
    for case in cases:
        reading = reference.read(case.sent("hello.production.localhost", "c000000000"))
        expect = case.expect
        if expect.either:
            continue
        if len(reading.requests) != expect.count or reading.ending not in ENDINGS[expect.ending]:
            wrong += 1
            print(f"{case.place}: {case.name}: read as {len(reading.requests)} requests, then {reading.ending}")
    print(f"{len(cases)} cases, {wrong} wrong")
    return 1 if wrong else 0
