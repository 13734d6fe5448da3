"""Results as text for people, or as JSON for programs.

Must not know: how they came about. Main functions: `as_text`, `as_json`.
"""

import json

from cases import escaped
from compare import DIFFERENCES

# So much of what was sent is shown: the interesting byte stands early in nearly all cases.
SHOWN_BYTES = 400


def known(path):
    """Names of cases whose failure is known; a line may end with a comment."""
    if not path:
        return set()
    with open(path) as file:
        return {name for line in file if (name := line.partition("#")[0].strip())}


def as_text(results, known):
    failed = [result for result in results if result.findings]
    lines = []
    for result in sorted(failed, key=lambda result: (result.name in known, not differs(result))):
        note = " (known)" if result.name in known else ""
        lines.append(f"{result.name}{note}  {result.place}  {' '.join(result.rows)}")
        lines += [f"  {finding.kind}: {finding.text}" for finding in result.findings]
        lines.append(f"  sent      {short(result.sent)}")
        lines.append(f"  answered  {answers(result)}")
        lines.append(f"  seen      {'; '.join(map(seen, result.seen)) or 'nothing'}")
        lines.append("")
    different = sum(map(differs, failed))
    right = len(results) - len(failed)
    lines.append(f"{len(results)} cases: {right} right, {len(failed)} not, {different} of them differences")
    fixed = known - {result.name for result in failed}
    if fixed:
        lines.append(f"known to fail, but right: {', '.join(sorted(fixed))}")
    return "\n".join(map(printable, lines))


def as_json(results, known):
    def one(result):
        return {
            "case": result.name,
            "place": result.place,
            "rows": result.rows,
            "known": result.name in known,
            "sent": escaped(result.sent),
            "answers": [vars(answer) for answer in result.outcome.answers] if result.outcome else [],
            "end": result.outcome.end if result.outcome else None,
            "seen": result.seen,
            "findings": [vars(finding) for finding in result.findings],
        }

    failed = [one(result) for result in results if result.findings]
    return json.dumps({"cases": len(results), "failed": failed}, indent=1)


def printable(text):
    """What was sent comes back in targets: no control character may reach a terminal."""
    return "".join(c if c.isascii() and c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def differs(result):
    return any(finding.kind in DIFFERENCES for finding in result.findings)


def short(sent):
    text = escaped(sent[:SHOWN_BYTES])
    return text if len(sent) <= SHOWN_BYTES else f"{text}... ({len(sent)} bytes)"


def answers(result):
    if not result.outcome:
        return "-"
    outcome = result.outcome
    each = [f"{answer.status}{'' if answer.saw is None else f' to {answer.saw!r}'}" for answer in outcome.answers]
    return f"{', '.join(each) or 'nothing'}; {outcome.end}"


def seen(line):
    body = "" if line["length"] is None else f" with {line['length']} bytes"
    cut = "" if line["complete"] else ", not whole"
    return f"{line['method'] or '(no request)'} {line['target'][:100]}{body}{cut}, {line['status']}"
