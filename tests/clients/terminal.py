"""A person at a terminal: runs a command on one, waits for a text, types an answer, and tells all that was shown.

    terminal.py TEXT ANSWER COMMAND [ARGUMENT]...

Ends with 0; the last line is the command's exit code.
"""

import os
import pty
import sys

LONGEST = 1 << 20


def main():
    text, answer, command = sys.argv[1].encode(), sys.argv[2].encode(), sys.argv[3:]
    os.environ["NO_COLOR"] = "1"
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(command[0], command)
    shown, answered = b"", False
    while len(shown) < LONGEST:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # The other side is closed.
            break
        if not piece:
            break
        shown += piece
        if not answered and text in shown:
            os.write(terminal, answer + b"\n")
            answered = True
    _, status = os.waitpid(pid, 0)
    print(shown.decode(errors="replace").replace("\r\n", "\n"))
    print(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
