"""Cases of raw requests, read from data files. Their format is described in `tests/data/framing/README.md`.

Must not know: sockets, proxies, origins. Main types: `Case`; `Expectation`, what a strict proxy does with it;
`Malformed`, a mistake in a file. Main function: `read_files`.
"""

import os
import re
from dataclasses import dataclass

NUMBERS = ["refused", "one", "two", "three", "four", "five"]
ENDINGS = ["refused", "declined", "cut"]
KEYS = {"rows", "expect", "why", "alone", "origin"}


class Malformed(Exception):
    """A mistake in a file of cases, with its place."""


@dataclass(frozen=True)
class Expectation:
    """`count` requests are forwarded and answered; then, when `ending` is set, the proxy refuses what follows.

    With `either` both is right, and only the origin and the proxy have to agree.
    """

    count: int = 0
    ending: str | None = None
    either: bool = False

    @property
    def answers(self):
        """Least number of final answers, where the proxy answers all."""
        return max(1, self.count + (self.ending is not None))


@dataclass(frozen=True)
class Case:
    name: str
    place: str
    rows: tuple
    expect: Expectation
    why: str
    # Why it cannot run beside others: its requests carry no name by which to recognise them.
    alone: str
    # Whether an origin may answer what is forwarded with an error of its own.
    origin_may_refuse: bool
    text: str

    def steps(self, host, tag):
        """What to do on the connection: ("send", bytes), or ("pause" | "close" | "reset", b"")."""
        return render(self.text, host, tag)

    def sent(self, host, tag):
        """All bytes, as if sent in one piece."""
        return b"".join(data for what, data in self.steps(host, tag) if what == "send")


def read_files(paths):
    cases = [case for path in paths for case in read_file(path)]
    names = [case.name for case in cases]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise Malformed(f"two cases of one name: {', '.join(sorted(twice))}")
    return cases


def read_file(path):
    with open(path, encoding="ascii") as file:
        lines = file.read().split("\n")
    path = os.path.basename(path)
    cases, block, start = [], [], 0
    for number, line in enumerate(lines + [""], 1):
        if line != line.rstrip():
            raise Malformed(f"{path}:{number}: ends with white space, write it as \\x20 or \\t")
        if line and not line.startswith("#"):
            start = start if block else number
            block.append(line)
        elif not line and block:
            cases += read_block(f"{path}:{start}", block)
            block = []
    return cases


def read_block(place, lines):
    kind, _, name = lines[0].partition(" ")
    keys, text, variants = {}, [], []
    for line in lines[1:]:
        key, colon, value = line.partition(":")
        if line.startswith("> "):
            text.append(line[2:])
        elif line.startswith("- ") and " | " in line:
            variants.append([part for part in line[2:].split(" | ", 1)])
        elif line.startswith("- ") and line.endswith(" |"):
            variants.append([line[2:-2], ""])
        elif colon and key in KEYS:
            keys[key] = value.strip()
        else:
            raise Malformed(f"{place}: no such line: {line}")
    if kind not in ("case", "each") or not name or not text or (kind == "each") != bool(variants):
        raise Malformed(f"{place}: a block is `case NAME` or `each NAME` with `- NAME | BYTES`, and lines `> BYTES`")
    shared = {
        "place": place,
        "rows": tuple(keys.get("rows", "").split()),
        "expect": expectation(place, keys.get("expect", "")),
        "why": keys.get("why", ""),
        "alone": keys.get("alone", ""),
        "origin_may_refuse": keys.get("origin") == "may refuse",
    }
    if shared["expect"].either and not shared["why"]:
        raise Malformed(f"{place}: `either` needs a `why:`")
    if kind == "case":
        variants = [("", None)]
    cases = []
    for variant, it in variants:
        full = name + "/" + variant.strip() if variant else name
        whole = "".join(text) if it is None else "".join(text).replace("{it}", it)
        cases.append(Case(name=full, text=whole, **shared))
        if "{case}" not in whole and not shared["alone"]:
            raise Malformed(f"{place}: without {{case}} it has to run `alone:`, with the reason")
        try:
            cases[-1].steps("host", "c000000000")
        except (KeyError, ValueError) as error:
            raise Malformed(f"{place}: {full}: {error}") from error
    return cases


def expectation(place, text):
    if text == "either":
        return Expectation(either=True)
    first, _, then = text.partition(", then ")
    if first in ENDINGS and not then:
        return Expectation(ending=first)
    if first in NUMBERS[1:] and (not then or then in ENDINGS):
        return Expectation(count=NUMBERS.index(first), ending=then or None)
    raise Malformed(f"{place}: no such expectation: {text!r}")


PIECE = re.compile(r"\\x([0-9a-fA-F]{2})|\\([rnt\\])|\{([^{}]*)\}|([^\\{}])")
ESCAPES = {"r": b"\r", "n": b"\n", "t": b"\t", "\\": b"\\"}


def render(text, host, tag):
    """Replaces escapes and placeholders. Lengths of spans are filled in last, as the spans may hold the host."""
    pieces, spans, steps = [], {}, []
    for piece in parse(text):
        if isinstance(piece, bytes):
            pieces.append(piece)
            continue
        word, _, argument = piece.partition(" ")
        if word in ("pause", "close", "reset", "length", "hex"):
            pieces.append((word, argument))
        elif word == "begin":
            spans[argument] = [len(pieces), None]
        elif word == "end":
            spans[argument][1] = len(pieces)
        elif word == "repeat":
            count, _, what = argument.partition(" ")
            pieces.append(b"".join(parse(what)) * int(count))
        else:
            pieces.append({"host": host, "case": tag}[word].encode())
    for piece in pieces:
        if isinstance(piece, tuple) and piece[0] in ("length", "hex"):
            begin, end = spans[piece[1]]
            length = sum(len(part) for part in pieces[begin:end] if isinstance(part, bytes))
            piece = (b"%d" if piece[0] == "length" else b"%x") % length
        if isinstance(piece, bytes) and steps and steps[-1][0] == "send":
            steps[-1] = ("send", steps[-1][1] + piece)
        else:
            steps.append(("send", piece) if isinstance(piece, bytes) else (piece[0], b""))
    return steps


def parse(text):
    """Bytes as `bytes`, placeholders as `str`."""
    position, pieces = 0, []
    while position < len(text):
        match = PIECE.match(text, position)
        if not match:
            raise ValueError(f"cannot read {text[position:position + 20]!r}")
        code, escape, placeholder, plain = match.groups()
        if placeholder is not None:
            pieces.append(placeholder)
        else:
            pieces.append(bytes([int(code, 16)]) if code else ESCAPES[escape] if escape else plain.encode())
        position = match.end()
    return pieces


def escaped(data):
    """Bytes as they stand in a file of cases."""
    names = {13: "\\r", 10: "\\n", 9: "\\t", 92: "\\\\"}
    return "".join(names.get(b) or (chr(b) if 32 <= b < 127 else f"\\x{b:02x}") for b in data)
