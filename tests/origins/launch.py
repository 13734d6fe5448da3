"""How each origin is started, on which port and with which files.

Must not know: cases, proxies. Main value: `ORIGINS`, from a name to a function of port and folder which returns a
running origin with `has_ended()` and `end()`.

nginx, Apache and h2o cannot hash a body. They hand each request on to the sink, which they wait for, so they read every
body to its end; the sink says length and hash in an answer's field, and they write that field to their access log
beside what they themselves parsed: method, target, status. Node, gunicorn and Python record from within.
"""

import os
import shutil
import string

import handler
from lifetime import Child
from seen import Follower, Seen

HERE = os.path.dirname(os.path.abspath(__file__))


class Missing(Exception):
    """The server's program is not installed."""


class Logged:
    """A server that writes an access log and hands bodies to the sink."""

    def __init__(self, port, folder, configuration, command):
        program = find(command[0])
        self._sink = handler.sink()
        filled = os.path.join(folder, configuration)
        names = {"port": port, "folder": folder, "sink": self._sink.server_address[1], "root": os.geteuid() == 0}
        fill(configuration, filled, names)
        self._follower = Follower(os.path.join(folder, "access.log"), Seen(os.path.join(folder, "seen.jsonl")))
        command = [program] + [part.format(file=filled, folder=folder) for part in command[1:]]
        self._child = Child(command, os.path.join(folder, "output.log"))
        self.has_ended = self._child.has_ended

    def end(self):
        self._child.end()
        self._follower.end()
        self._sink.shutdown()


class Recording:
    """A program of ours on a server's library, which writes the lines itself."""

    def __init__(self, port, folder, command):
        seen = os.path.join(folder, "seen.jsonl")
        open(seen, "ab").close()
        environment = {"ORIGIN_PORT": str(port), "ORIGIN_SEEN": seen, "ORIGIN_FOLDER": folder}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        self._child = Child([find(command[0])] + command[1:], os.path.join(folder, "output.log"), environment)
        self.has_ended = self._child.has_ended
        self.end = self._child.end


class Within:
    """Python's own server, in this very process."""

    def __init__(self, port, folder):
        self._server = handler.origin(port, Seen(os.path.join(folder, "seen.jsonl")))

    def has_ended(self):
        return False

    def end(self):
        self._server.shutdown()


def find(program):
    # /usr/sbin is not on everybody's path.
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if not path:
        raise Missing(f"{program} is not installed")
    return path


def fill(template, target, names):
    """Copies a configuration, with `@name@` replaced; a line that begins with `@root@` is for root only."""
    with open(os.path.join(HERE, template)) as file:
        lines = file.readlines()
    lines = [line for line in lines if names["root"] or not line.startswith("@root@")]
    text = "".join(lines).replace("@root@", "")
    with open(target, "w") as file:
        file.write(Template(text).substitute(names))


class Template(string.Template):
    """`@port@` rather than `$port`: the dollar belongs to nginx."""

    pattern = r"@(?:(?P<named>[a-z]+)@|(?P<escaped>@)|(?P<braced>(?!))|(?P<invalid>(?!)))"


ORIGINS = {
    "nginx": lambda port, folder: Logged(port, folder, "nginx.conf", ["nginx", "-p", "{folder}", "-c", "{file}"]),
    "apache": lambda port, folder: Logged(
        port, folder, "apache.conf", ["apache2", "-d", "{folder}", "-f", "{file}", "-DFOREGROUND"]
    ),
    "h2o": lambda port, folder: Logged(port, folder, "h2o.conf", ["h2o", "-c", "{file}"]),
    "node": lambda port, folder: Recording(port, folder, ["node", os.path.join(HERE, "node.js")]),
    "gunicorn": lambda port, folder: Recording(
        port, folder, ["gunicorn", "-c", os.path.join(HERE, "gunicorn.conf.py"), "--chdir", HERE, "application:answer"]
    ),
    "python": Within,
}
