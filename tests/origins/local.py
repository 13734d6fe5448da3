"""Runs all cases through a proxy of its own to every origin, on this machine.

    python3 local.py --pointsman FILE [--origin NAME...] [--direct] [-- OPTIONS OF drive.py]

Starts the origins, a controller and one proxy with a service for each origin, drives all of them side by side, and ends
everything. `--direct` sends the cases to the origins themselves: that shows what each of them makes of hostile bytes,
and that it records. `--pointsman` is then not needed. Exit code: the largest of `drive.py`.
"""

import argparse
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True

from launch import ORIGINS
from lifetime import Child
from origins import accepts, free_port

HERE = os.path.dirname(os.path.abspath(__file__))
CASES = os.path.join(HERE, "..", "data", "framing", "*.txt")

ENVIRONMENT = """schema = 1
environment = "production"
zone = "production.localhost"
target = { kind = "static" }
"""
SERVICE = """schema = 1
service = "%s"
[component.web]
folder = "dist"
protocol = "h1"
health = { every = "1s" }
[stage.production]
public = true
"""


class House:
    """Processes in one folder, all of which end with us."""

    def __init__(self, folder, program):
        self.folder, self.program = folder, program
        self.children, self.origins = [], {}

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def start_origin(self, name):
        command = [sys.executable, os.path.join(HERE, "origins.py"), "serve", name, "--folder", self.path(name)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"{name} did not start")
        self.origins[name] = (process, line.rsplit(" ", 1)[1].strip())

    def start_proxy(self):
        """A controller, a proxy that joined it, and one service per origin; returns where the proxy listens."""
        controller, port = free_port(), free_port()
        line = ["controller", "--listen", f"127.0.0.1:{controller}"]
        self.start("controller", line + ["--data", self.path("controller")])
        self.reached(controller)
        self.write("production.toml", ENVIRONMENT)
        token = self.run("join", "proxy", "--name", "p1")["token"]
        line = ["proxy", "--http", f"127.0.0.1:{port}", "--admin", "127.0.0.1:0", "--workers", "2"]
        line += ["--access-log", self.path("access.log")]
        self.start("p1", line + ["--data", self.path("p1")], {"POINTSMAN_JOIN": token})
        for name, (_, address) in self.origins.items():
            self.write(f"{name}.toml", SERVICE % name)
            self.run("apply", "-f", "production.toml", "-f", f"{name}.toml")
            release = self.run("release", "add", name, "--version", "1", "--address", f"web={address}")
            self.run("promote", f"{name}@r{release['number']}", "--to", "production")
        self.reached(port)
        return f"127.0.0.1:{port}"

    def start(self, name, arguments, environment=None):
        self.children.append(Child([self.program] + arguments, self.path(f"{name}.log"), environment))

    def reached(self, port):
        if not accepts(port, self.children[-1].has_ended):
            raise SystemExit(f"nothing listens on {port}")

    def run(self, *arguments):
        context = self.path("controller", "operator.toml")
        command = [self.program, "--context", context, "-o", "json", *arguments]
        for _ in range(50):
            if os.path.exists(context):
                break
            time.sleep(0.1)
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder)
        if done.returncode:
            raise SystemExit(f"{' '.join(arguments)}: {done.stderr or done.stdout}")
        return json.loads(done.stdout or "{}")

    def write(self, name, text):
        with open(self.path(name), "w") as file:
            file.write(text)

    def end(self):
        for child in reversed(self.children):
            child.end()
        for process, _ in self.origins.values():
            process.stdin.close()
        for process, _ in self.origins.values():
            process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pointsman", metavar="FILE", help="the program")
    parser.add_argument("--origin", nargs="+", choices=ORIGINS, default=list(ORIGINS), metavar="NAME")
    parser.add_argument("--direct", action="store_true", help="without a proxy")
    parser.add_argument("--results", metavar="DIR", help="where the output of each drive goes, by default the terminal")
    parser.add_argument("options", nargs="*", help="for drive.py")
    arguments = parser.parse_args()
    if not (arguments.direct or arguments.pointsman):
        parser.error("--pointsman or --direct is needed")
    program = arguments.pointsman and os.path.abspath(arguments.pointsman)
    # So that everything ends with us in that case, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = tempfile.mkdtemp(prefix="pointsman-origins-")
    house = House(folder, program)
    try:
        for name in arguments.origin:
            house.start_origin(name)
        proxy = None if arguments.direct else house.start_proxy()
        return drive_all(house, proxy, arguments)
    finally:
        house.end()
        shutil.rmtree(folder)


def drive_all(house, proxy, arguments):
    drives = {}
    for name, (_, address) in house.origins.items():
        command = [sys.executable, os.path.join(HERE, "drive.py"), "--cases", *sorted(glob.glob(CASES))]
        command += ["--proxy", proxy or address, "--host", f"{name}.production.localhost"]
        command += ["--access-log", house.path("access.log")] if proxy else ["--no-trace"]
        command += ["--seen", house.path(name, "seen.jsonl"), *arguments.options]
        with open(house.path(f"{name}.out"), "w") as output:
            drives[name] = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    codes = {name: process.wait() for name, process in drives.items()}
    for name in drives:
        if arguments.results:
            os.makedirs(arguments.results, exist_ok=True)
            shutil.copy(house.path(f"{name}.out"), arguments.results)
        with open(house.path(f"{name}.out")) as output:
            text = output.read().rstrip("\n")
        print(f"=== {name}: {text.splitlines()[-1] if arguments.results and text else text}")
    return max(codes.values())


if __name__ == "__main__":
    sys.exit(main())
