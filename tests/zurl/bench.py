"""Processor time of a daemon for each call, with so many calls under way, against a small local server.

    bench/run --workloads outbound
    ./suite.sh bench.py --daemon /usr/bin/zurl --daemon target/release/examples/egress
"""

import argparse
import asyncio
import json
import os
import statistics
import time

import zmq
import zmq.asyncio

import harness

TICK = os.sysconf("SC_CLK_TCK")


class Receiver(asyncio.Protocol):
    """Answers every request; counts them and the connections."""

    calls = connections = 0
    waiter = None

    def connection_made(self, transport):
        Receiver.connections += 1
        self.transport, self.input = transport, b""

    def data_received(self, data):
        self.input += data
        while (end := self.input.find(b"\r\n\r\n")) >= 0:
            head = self.input[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n")[0]) if at >= 0 else 0
            if len(self.input) < end + 4 + length:
                break
            self.input = self.input[end + 4 + length :]
            Receiver.calls += 1
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            if Receiver.waiter and not Receiver.waiter.done():
                Receiver.waiter.set_result(None)


def cpu(pid):
    fields = open(f"/proc/{pid}/stat", encoding="ascii").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident(pid):
    for line in open(f"/proc/{pid}/status", encoding="ascii"):
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0


def packet(port, **fields):
    body = json.dumps({"event": "thing.happened", "data": "x" * 200})
    return b"T" + harness.encode({**fields, "method": "POST", "uri": f"http://127.0.0.1:{port}/hook", "headers": [["Content-Type", "application/json"]], "body": body})


async def request_reply(socket, port, calls, in_flight):
    for number in range(in_flight):
        await socket.send_multipart([b"", packet(port, id=str(number))])
    for number in range(calls):
        reply = await socket.recv_multipart()
        assert b"4:code,3:200#" in reply[-1], reply
        if number < calls - in_flight:
            await socket.send_multipart([b"", packet(port, id=str(number))])


async def fire_and_forget(socket, port, calls, in_flight):
    start = Receiver.calls
    sent = 0
    while Receiver.calls - start < calls:
        while sent < calls and sent - (Receiver.calls - start) < in_flight:
            await socket.send(packet(port))
            sent += 1
        Receiver.waiter = asyncio.get_running_loop().create_future()
        if Receiver.calls - start < calls and sent - (Receiver.calls - start) >= min(in_flight, calls - (Receiver.calls - start)):
            await Receiver.waiter


async def slow_receivers(context, daemon, server_port, count):
    """Resident memory for each call that waits for its response."""
    waiting = []

    async def hold(reader, writer):
        waiting.append((reader, writer))

    server = await asyncio.start_server(hold, "127.0.0.1", 0, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    pid = daemon.process.pid
    before = resident(pid)
    push = context.socket(zmq.PUSH)
    push.connect(f"ipc://{daemon.path}/in")
    for number in range(count):
        await push.send(packet(port))
        if number % 100 == 0:
            await asyncio.sleep(0.01)
    while len(waiting) < count:
        await asyncio.sleep(0.05)
    memory = (resident(pid) - before) / count
    socket = context.socket(zmq.DEALER)
    socket.connect(f"ipc://{daemon.path}/req")
    began = time.monotonic()
    await request_reply(socket, server_port, 200, 1)
    latency = (time.monotonic() - began) / 200
    for _, writer in waiting:
        writer.close()
    server.close()
    return memory, latency


async def measure(binary, options):
    server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", 0, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    daemon = harness.Daemon(binary, "", loglevel=1)
    context = zmq.asyncio.Context()
    pid = daemon.process.pid
    result = {"daemon": binary}
    for name, kind, path, run in (("request/reply", zmq.DEALER, "req", request_reply), ("fire and forget", zmq.PUSH, "in", fire_and_forget)):
        socket = context.socket(kind)
        socket.connect(f"ipc://{daemon.path}/{path}")
        await run(socket, port, 500, options.in_flight)
        rounds, rates, opened = [], [], []
        for _ in range(options.rounds):
            connections, before, began = Receiver.connections, cpu(pid), time.monotonic()
            await run(socket, port, options.calls, options.in_flight)
            rounds.append((cpu(pid) - before) / options.calls * 1e6)
            rates.append(options.calls / (time.monotonic() - began))
            opened.append(Receiver.connections - connections)
        result[name] = {"us of cpu per call": [round(value, 1) for value in rounds], "calls per second": round(statistics.median(rates)), "new connections": round(statistics.median(opened))}
    if options.slow:
        memory, latency = await slow_receivers(context, daemon, port, options.slow)
        result["slow receivers"] = {"count": options.slow, "KB each": round(memory, 2), "ms for another call meanwhile": round(latency * 1000, 2)}
    context.destroy(0)
    daemon.stop()
    server.close()
    return result


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--daemon", action="append", required=True)
    arguments.add_argument("--calls", type=int, default=5000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--in-flight", type=int, default=50)
    arguments.add_argument("--slow", type=int, default=0)
    arguments.add_argument("--table", action="store_true", help="write a table in Markdown, with the budget, instead of JSON")
    options = arguments.parse_args()
    results = []
    for binary in options.daemon:
        results.append(asyncio.run(measure(binary, options)))
        if not options.table:
            print(json.dumps(results[-1], indent=1), flush=True)
    if options.table:
        table(results, options)


# What a call may cost in processor time, and how many times less than Zurl.
BUDGET_US, BUDGET_TIMES = 40, 4


def table(results, options):
    print(f"## Calls to the outside\n\n{options.calls} calls, {options.in_flight} under way, from pyzmq to a local server; medians of {options.rounds} rounds.\n")
    print("| server | workload | CPU per call | calls per second | connections opened |\n|---|---|---|---|---|")
    cpus = {}
    for result in results:
        name = "waft" if harness.is_ours(result["daemon"]) else "Zurl"
        for workload in ("request/reply", "fire and forget"):
            figures = result[workload]
            cpus[name, workload] = statistics.median(figures["us of cpu per call"])
            print(f"| {name} | {workload} | {cpus[name, workload]:.1f} us | {figures['calls per second']} | {figures['new connections']} |")
    for workload in ("request/reply", "fire and forget"):
        ours, theirs = cpus.get(("waft", workload)), cpus.get(("Zurl", workload))
        if ours and theirs:
            kept = "kept" if ours <= BUDGET_US and theirs / ours >= BUDGET_TIMES else "not kept"
            print(f"\nBudget for {workload}: {BUDGET_US} us and {BUDGET_TIMES} times less than Zurl; {ours:.1f} us and {theirs / ours:.1f} times: {kept}.")
    if options.slow:
        print(f"\n| server | memory for each of {options.slow} calls that wait | another call meanwhile |\n|---|---|---|")
        for result in results:
            name = "waft" if harness.is_ours(result["daemon"]) else "Zurl"
            slow = result["slow receivers"]
            print(f"| {name} | {slow['KB each']:.1f} KB | {slow['ms for another call meanwhile']:.1f} ms |")


if __name__ == "__main__":
    main()
