"""Processor time of a gateway or front for each round trip to a worker, with so many under way.

    target/test-tools/python/bin/python tests/zhttp/bench.py --role gateway --program /usr/bin/pushpin --program target/release/waft
"""

import argparse
import os
import subprocess
import threading

import zmq

import harness
from tnetstring import decode, encode

TICK = os.sysconf("SC_CLK_TCK")


def processes(pid):
    """A process and all below it."""
    found = [pid]
    for one in found:
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(one)], capture_output=True, text=True, check=False)
        found += [int(child) for child in children.stdout.split()]
    return found


def cpu(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def answer(worker, stop, interface):
    """A worker that answers everything at once."""
    while not stop.is_set():
        if interface == "stream":
            if not worker.pull.poll(100):
                continue
            request = decode(worker.pull.recv()[1:])
            packet = {"from": "w1", "id": request["id"], "seq": 0, "code": 200, "reason": "OK", "body": b"x" * 100}
            worker.pub.send(request["from"] + b" T" + encode(packet))
        elif worker.rep.poll(100):
            request = decode(worker.rep.recv()[1:])
            worker.rep.send(b"T" + encode({"id": request["id"], "code": 200, "reason": "OK", "body": b"x" * 100}))


def run(program, role, interface, count, at_once):
    genuine = program.rsplit("/", 1)[-1] in ("pushpin", "condure")
    with harness.Lab(program, role, genuine) as lab:
        stop = threading.Event()
        serving = threading.Thread(target=answer, args=(lab.worker, stop, interface))
        serving.start()
        host, port = ("a", lab.server.port) if interface == "stream" else ("req", lab.server.req_port)
        clients = [lab.connect(port) for _ in range(at_once)]
        request = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"
        pids = processes(lab.server.process.pid)

        def round_trips(rounds):
            for _ in range(rounds):
                for client in clients:
                    client.send(request)
                for client in clients:
                    assert client.response().code == 200

        round_trips(20)
        before = cpu(pids)
        round_trips(count // at_once)
        spent = cpu(pids) - before
        stop.set()
        serving.join()
        print(f"{program} {role} {interface}: {spent / (count // at_once * at_once) * 1e6:.0f} us", flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--program", action="append", required=True)
    arguments.add_argument("--role", default="gateway", choices=["gateway", "front"])
    arguments.add_argument("--interface", default="stream", choices=["stream", "req"])
    arguments.add_argument("--count", type=int, default=10000)
    arguments.add_argument("--at-once", type=int, default=20)
    options = arguments.parse_args()
    assert zmq.zmq_version_info() >= (4, 0)
    for program in options.program:
        run(program, options.role, options.interface, options.count, options.at_once)


if __name__ == "__main__":
    main()
