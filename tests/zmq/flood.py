"""Pushes items as fast as it can to the PULL socket of waft and of Pushpin, and prints what each costs them.

Arguments: the waft program, and how many items (200,000). Nobody listens to their channel. Printed for each program: the
items that it took in a second, from the first to the end of its work, and its CPU time for each. A measurement, no test.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import zmq

sys.path.insert(0, str(Path(__file__).parent.parent / "differential"))
from programs import Program  # noqa: E402

ITEM = b"T54:7:channel,4:none,11:http-stream,18:7:content,5:hello,}}"
# Between two looks, and how long no CPU time may pass for the work to be over.
LOOK, STILL = 0.02, 2


def processes(root):
    """A process and all that it started."""
    found = [root]
    for process in found:
        try:
            children = Path(f"/proc/{process}/task").glob("*/children")
            found += [int(child) for path in children for child in path.read_text().split()]
        except OSError:
            pass
    return found


def cpu_seconds(root):
    total = 0
    for process in processes(root):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def measure(name, command, count):
    import asyncio

    config = {"handler": {"message_rate": 0, "stats_spec": "", "command_spec": "", "push_in_sub_specs": ""}}
    program = Program(name, command, config, ["* test"])
    try:
        asyncio.run(program.ready())
        context = zmq.Context()
        socket = context.socket(zmq.PUSH)
        socket.connect(f"tcp://127.0.0.1:{program.pull}")
        for _ in range(100):
            socket.send(ITEM)
        time.sleep(1)
        before, began = cpu_seconds(program.process.pid), time.monotonic()
        for _ in range(count):
            socket.send(ITEM)
        last, changed = cpu_seconds(program.process.pid), time.monotonic()
        while time.monotonic() - changed < STILL:
            time.sleep(LOOK)
            now = cpu_seconds(program.process.pid)
            if now > last:
                last, changed = now, time.monotonic()
        took = changed - began
        socket.close(0)
        return count / took, (last - before) / count * 1e6
    finally:
        program.stop(False)


def main():
    waft, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 200_000
    for name, command in (("waft", waft), ("pushpin", "pushpin")):
        rate, cost = measure(name, command, count)
        print(f"{name}: {rate:,.0f} items a second, {cost:.1f} us of CPU each")


if __name__ == "__main__":
    if subprocess.run(["sh", "-c", "command -v pushpin"], capture_output=True).returncode:
        sys.exit("pushpin is not installed")
    main()
