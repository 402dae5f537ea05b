"""Runs the fuzzing client of Autobahn|Testsuite against waft and says what came of it.

The suite is a program for Python 2.7. It is installed into target/test-tools/autobahn. Every case runs twice: through
waft to a WebSocket target, and through waft to a target that speaks WebSocket-over-HTTP. A run of all sections writes
docs/conformance.md.
"""

import argparse
import collections
import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOOLS = os.path.join(ROOT, "target", "test-tools")
SUITE = "autobahntestsuite==0.8.2"
# The last of its releases that makes environments for Python 2.7.
VIRTUALENV = "virtualenv==20.21.1"
PAGE = os.path.join(ROOT, "docs", "conformance.md")

SECTIONS = {
    1: "framing",
    2: "pings and pongs",
    3: "reserved bits",
    4: "opcodes",
    5: "fragmentation",
    6: "UTF-8",
    7: "closing",
    9: "limits and speed",
    10: "fragments cut by the sender",
    12: "compression, by payload",
    13: "compression, by parameters",
}
WAYS = {"direct": "WebSocket target", "over_http": "WebSocket-over-HTTP target"}

# Why a case ends as NON-STRICT or INFORMATIONAL, by the beginning of its number.
FAILS_AT_ONCE = (
    "The client sends a valid message and a broken frame in one go. The suite wants the echo before the connection "
    "fails, and accepts an end without it: waft fails at once, while the echo is still on its way through the target."
)
REASONS = {
    "3.": FAILS_AT_ONCE,
    "4.": FAILS_AT_ONCE,
    "5.15": FAILS_AT_ONCE,
    "7.1.6": "A message of 256 KiB is followed by a close at once; whether its echo still comes is not judged.",
    "7.13.": "Close codes that nobody has defined (5000, 65535); what a server does is not judged. waft fails with 1002.",
}

WAFT = """
[server]
listen = ["127.0.0.1:{front}"]
[control]
listen = ["127.0.0.1:{control}"]
[websocket]
message_max = "32 MiB"
compression = true
[[route]]
path = "/direct"
targets = ["127.0.0.1:{direct}"]
[[route]]
path = "/over_http"
targets = ["127.0.0.1:{events},over_http"]
"""


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    arguments.add_argument("--sections", help="numbers such as 1,2,9; all when absent", default="")
    arguments.add_argument("--waft", help="the program", default=os.path.join(ROOT, "target", "release", "waft"))
    options = arguments.parse_args()
    sections = [int(number) for number in options.sections.split(",") if number] or list(SECTIONS)
    unknown = set(sections) - set(SECTIONS)
    if unknown:
        sys.exit(f"there is no section {sorted(unknown)}; there are {sorted(SECTIONS)}")

    wstest = install()
    with tempfile.TemporaryDirectory(prefix="waft-conformance-") as directory, Programs() as programs:
        front = start_servers(programs, options.waft, directory)
        results = fuzz(programs, wstest, directory, front, sections)
    text = report(results, sections)
    print(text)
    if sections == list(SECTIONS):
        with open(PAGE, "w", encoding="utf-8") as page:
            page.write(text)
        print(f"written to {os.path.relpath(PAGE, ROOT)}")
    sys.exit(1 if failures(results) else 0)


def install():
    """The suite's program, installed if it was not yet."""
    home = os.path.join(TOOLS, "autobahn")
    wstest = os.path.join(home, "bin", "wstest")
    mark = os.path.join(home, "installed")
    if os.path.exists(mark):
        return wstest
    python = find_python2()
    if python is None:
        sys.exit(
            "no Python 2.7 was found, which the suite needs: put python2.7 on the PATH, or install it with "
            "`pyenv install 2.7.18`"
        )
    shutil.rmtree(home, ignore_errors=True)
    helper = os.path.join(TOOLS, "virtualenv")
    environment = {**os.environ, "PIP_NO_PYTHON_VERSION_WARNING": "1"}
    run = lambda *command: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    print(f"installing {SUITE} with {python}")
    run(sys.executable, "-m", "venv", "--clear", helper)
    run(os.path.join(helper, "bin", "pip"), "install", "--quiet", "--disable-pip-version-check", VIRTUALENV)
    run(os.path.join(helper, "bin", "virtualenv"), "--quiet", "--python", python, home)
    run(os.path.join(home, "bin", "pip"), "install", "--quiet", "--disable-pip-version-check", SUITE)
    open(mark, "w", encoding="utf-8").close()
    return wstest


def find_python2():
    """An interpreter on the PATH, or one that pyenv has."""
    pyenv = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    candidates = [shutil.which("python2.7"), shutil.which("python2")]
    candidates += sorted(glob.glob(os.path.join(pyenv, "versions", "2.7*", "bin", "python2.7")), reverse=True)
    for candidate in filter(None, candidates):
        # A shim of pyenv is there for versions that are not in use.
        asked = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=False)
        if asked.returncode == 0 and "Python 2.7" in asked.stdout + asked.stderr:
            return candidate
    return None


class Programs:
    """What was started, to be ended however the run ends."""

    def __init__(self):
        self.running = []

    def __enter__(self):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        return self

    def __exit__(self, *_):
        for program in self.running:
            program.terminate()
        for program in self.running:
            program.wait()

    def start(self, *command, **options):
        program = subprocess.Popen(command, **options)
        self.running.append(program)
        return program


def start_servers(programs, waft, directory):
    """Starts waft and its targets; returns the port for clients."""
    ports = dict(zip(("front", "control", "direct", "events"), free_ports(4)))
    script = os.path.join(ROOT, "tests", "conformance", "echo.mjs")
    programs.start("node", script, str(ports["direct"]), str(ports["events"]))
    config = os.path.join(directory, "waft.toml")
    with open(config, "w", encoding="utf-8") as file:
        file.write(WAFT.format(**ports))
    with open(os.path.join(directory, "waft.log"), "w", encoding="utf-8") as log:
        programs.start(waft, "--config", config, stdout=log, stderr=log)
    for port in ports.values():
        wait_for(port)
    return ports["front"]


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_for(port):
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}")


def fuzz(programs, wstest, directory, front, sections):
    """Runs both ways side by side; returns the reports of the cases by way and number."""
    clients = {}
    for way in WAYS:
        home = os.path.join(directory, way)
        os.mkdir(home)
        spec = {
            "outdir": os.path.join(home, "reports"),
            "servers": [{"agent": "waft", "url": f"ws://127.0.0.1:{front}/{way}"}],
            "cases": [f"{section}.*" for section in sections],
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
        path = os.path.join(home, "spec.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(spec, file)
        log = open(os.path.join(home, "log"), "w", encoding="utf-8")
        clients[way] = programs.start(wstest, "-m", "fuzzingclient", "-s", path, cwd=home, stdout=log, stderr=log)
    follow(clients, directory)
    results = {}
    for way in WAYS:
        reports = os.path.join(directory, way, "reports")
        with open(os.path.join(reports, "index.json"), encoding="utf-8") as file:
            index = json.load(file)["waft"]
        results[way] = {}
        for number, entry in index.items():
            with open(os.path.join(reports, entry["reportfile"]), encoding="utf-8") as file:
                results[way][number] = {**entry, **json.load(file)}
    return results


def follow(clients, directory):
    """Waits for the end, and tells now and then how far it is."""
    told = time.monotonic()
    while any(client.poll() is None for client in clients.values()):
        time.sleep(0.5)
        if time.monotonic() - told > 20:
            told = time.monotonic()
            lines = []
            for way in clients:
                with open(os.path.join(directory, way, "log"), encoding="utf-8") as log:
                    begun = [line for line in log if line.startswith("Running test case ID")]
                lines.append(f"{way} {begun[-1].split()[4] if begun else '-'}")
            print("at " + ", ".join(lines), flush=True)
    for way, client in clients.items():
        if client.returncode != 0:
            with open(os.path.join(directory, way, "log"), encoding="utf-8") as log:
                sys.exit(f"the suite ended with {client.returncode}:\n{log.read()[-2000:]}")


def verdict(result):
    """What the suite says of a case, the worse of its two judgements first."""
    order = ["FAILED", "FAILED BY CLIENT", "WRONG CODE", "UNCLEAN", "UNIMPLEMENTED", "NON-STRICT", "INFORMATIONAL", "OK"]
    return min(result["behavior"], result["behaviorClose"], key=order.index)


def failures(results):
    """Cases that are neither OK nor what the suite accepts beside it."""
    accepted = {"OK", "NON-STRICT", "INFORMATIONAL"}
    return [(way, number) for way in results for number in results[way] if verdict(results[way][number]) not in accepted]


def report(results, sections):
    lines = [
        "# Conformance with RFC 6455 and RFC 7692",
        "",
        "Written by `make conformance`, which runs the fuzzing client of Autobahn|Testsuite 0.8.2 against waft: through waft to",
        "a WebSocket target (an echo with the npm package ws), and through waft to an echo that speaks WebSocket-over-HTTP.",
        "Compression is on for both, messages may have 32 MiB. `make conformance SECTIONS=1,2` runs a part and writes nothing.",
        "",
    ]
    for way, title in WAYS.items():
        lines += [f"## {title}", "", "| Section | Cases | OK | NON-STRICT | INFORMATIONAL | others |", "|---|---|---|---|---|---|"]
        whole = collections.Counter()
        for section in sections:
            counts = collections.Counter(verdict(results[way][number]) for number in of(results[way], section))
            lines.append(row(f"{section} {SECTIONS[section]}", counts))
            whole += counts
        lines += [row("all", whole), ""]
    lines += ["## Cases that are not OK", ""]
    grouped = collections.defaultdict(list)
    for way in WAYS:
        for section in sections:
            for number in of(results[way], section):
                result = results[way][number]
                if verdict(result) != "OK":
                    grouped[(verdict(result), reason(number, result))].append((number, way))
    if not grouped:
        lines.append("None.")
    for (judged, why), cases in grouped.items():
        by_way = collections.defaultdict(list)
        for number, way in cases:
            by_way[way].append(number)
        numbers = by_way.get("direct", [])
        if all(by_way.get(way) == numbers for way in WAYS):
            where = f"{', '.join(numbers)} (both ways)"
        else:
            where = "; ".join(f"{', '.join(numbers)} ({WAYS[way]})" for way, numbers in by_way.items())
        lines.append(f"- **{judged}** {where}: {why}")
    return "\n".join(lines) + "\n"


def of(cases, section):
    """The numbers of a section's cases, in order."""
    key = lambda number: [int(part) for part in number.split(".")]
    return sorted((number for number in cases if key(number)[0] == section), key=key)


def row(title, counts):
    known = ("OK", "NON-STRICT", "INFORMATIONAL")
    others = sum(count for name, count in counts.items() if name not in known)
    cells = [title, counts.total(), *(counts[name] for name in known), others]
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def reason(number, result):
    for beginning, why in REASONS.items():
        if number.startswith(beginning) and verdict(result) in ("NON-STRICT", "INFORMATIONAL"):
            return why
    return f"{result['result']} {result['resultClose']}"


if __name__ == "__main__":
    main()
