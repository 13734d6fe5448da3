"""What is wrong with a case, given what the proxy answered, what the origin saw and what the access log says.

Must not know: sockets, files. Main function: `findings`.

Kinds that mean that two parties read the same bytes differently (`DIFFERENCES`):
- smuggled: the origin saw a request that the proxy did not answer for, or did not log as forwarded;
- differs: method, target or body are not what a strict reading of the sent bytes says;
- foreign: an answer belongs to a request of another connection;
- log: the log has a request as forwarded and served that the origin did not see.

Kinds that mean that the proxy is not as strict as it should be, or fails its client:
- reached: the proxy had to refuse, and the origin got a request, or the beginning of one;
- refused: it had to forward, and did not;
- unanswered: the origin saw and answered a request that is right, but the client did not get the answer;
- answers: wrong number of answers, or the refusal is missing;
- open: the connection can be used further after framing was refused.
"""

import re
from dataclasses import dataclass

from handler import saw as name_of
from seen import digest

DIFFERENCES = {"smuggled", "differs", "foreign", "log"}


@dataclass(frozen=True)
class Finding:
    kind: str
    text: str


def findings(case, tag, reading, outcome, seen, log):
    """All that is wrong. `seen` and `log` are the lines of this case; `log` is None without an access log."""
    whole = [line for line in seen if line["complete"] and line["status"] < 400]
    answered = [answer for answer in outcome.answers if answer.saw is not None]
    found = list(agreement(case, tag, reading, outcome, whole, answered))
    if log is not None:
        found += against_log(whole, seen, log)
    if not case.expect.either:
        found += expectation(case, reading, outcome, seen, whole, answered)
    return found


def agreement(case, tag, reading, outcome, whole, answered):
    """The origin's list of requests against the list of answers the client got."""
    for answer in answered:
        if tag not in answer.saw and not case.alone:
            yield Finding("foreign", f"an answer to {answer.saw!r}")
    saw = [name(line["method"], line["target"]) for line in whole]
    said = [name(*answer.saw.split(" ", 1)) for answer in answered]
    if saw[: len(said)] != said:
        yield Finding("smuggled", f"the origin saw {saw}, the answers are to {said}")
    elif len(saw) > len(said) and outcome.end != "ours":
        right = [name(request.method, request.target) for request in reading.requests]
        if right[: len(saw)] == saw:
            yield Finding("unanswered", f"the origin answered {saw}, to the client came {said}")
        else:
            yield Finding("smuggled", f"the origin saw {saw}, the client knows of {said}")


def against_log(whole, seen, log):
    """Each request that the origin saw has its line in the log, in order, and each served line its request."""
    lines = [line for line in log if line.get("upstream")]
    names = [name(line["method"], line["target"]) for line in lines]
    position, matched = 0, set()
    for line in seen:
        if not line["method"]:
            # A request that the origin refuses to read, such as one with a method that it does not know.
            told = lines[position] if position < len(lines) else {}
            if line["status"] >= 400 and told.get("status") == line["status"]:
                matched.add(position)
                position += 1
                continue
            yield Finding("smuggled", "the origin got what is no request")
        elif (this := name(line["method"], line["target"])) in names[position:]:
            position = names.index(this, position) + 1
            matched.add(position - 1)
        else:
            yield Finding("smuggled", f"the origin saw {this!r}, the log has {names}")
    for number, line in enumerate(lines):
        if number not in matched and int(line.get("status") or 0) < 400:
            yield Finding("log", f"the log has {names[number]!r} as served, the origin saw {len(whole)} requests")


def expectation(case, reading, outcome, seen, whole, answered):
    """What a strict proxy does with these bytes, against what was done."""
    expect = case.expect
    if case.origin_may_refuse and any(line not in whole for line in seen):
        # It was forwarded, and that is all the proxy can do.
        return
    right = reading.requests[: expect.count]
    yield from (Finding("differs", text) for text in differences(right, whole))
    if len(whole) < len(right):
        yield Finding("refused", f"the origin saw {len(whole)} of {len(right)} requests{errors(seen)}")
    if len(whole) > len(right):
        extra = [name(line["method"], line["target"]) for line in whole[len(right) :]]
        yield Finding("reached", f"{', '.join(extra)} had to be refused")
    begun = [line for line in seen if line not in whole]
    if begun and expect.ending != "cut":
        yield Finding("reached", f"the origin got the beginning of {len(begun)} requests that had to be refused")
    if outcome.end == "ours":
        return
    own = [answer for answer in outcome.answers if answer.saw is None]
    if any(answer.status < 400 for answer in own):
        yield Finding("answers", "the proxy's own answer is no refusal")
    if expect.ending is None and own and len(answered) == expect.count:
        yield Finding("answers", f"{len(own)} answers too many")
    if len(own) > 1:
        yield Finding("answers", f"refused {len(own)} times: what follows a refusal was read on")
    if expect.ending and not own and outcome.end == "open":
        yield Finding("answers", "no refusal, and not closed")
    if expect.ending in ("refused", "cut") and own and outcome.end == "open":
        yield Finding("open", "not closed after the refusal")
    if outcome.rest:
        yield Finding("answers", f"bytes that are no whole answer: {outcome.rest[:60]!r}")


def differences(right, whole):
    for number, (request, line) in enumerate(zip(right, whole), 1):
        if name(line["method"], line["target"]) != name(request.method, request.target):
            yield f"request {number} is {line['method']} {line['target']}, not {request.method} {request.target}"
        elif line["length"] is not None and line["length"] != len(request.body):
            yield f"the body of request {number} has {line['length']} bytes, not {len(request.body)}"
        elif line["sha256"] is not None and line["sha256"] != digest(request.body):
            yield f"the body of request {number} has other bytes than were sent"


def errors(seen):
    statuses = sorted({line["status"] for line in seen if line["status"] >= 400})
    return f" and answered {statuses}" if statuses else ""


def name(method, target):
    """A request in one form, for what may differ without harm.

    A target is forwarded with its authority or without; without a path, that of OPTIONS is the asterisk (RFC 9112
    §3.2.4), which h2o hands on as a slash; gunicorn tells methods in upper case.
    """
    target = re.sub(r"^(?i:https?)://[^/?#]*", "", target) or "/"
    return name_of(method.upper(), "/" if method == "OPTIONS" and target == "*" else target)
