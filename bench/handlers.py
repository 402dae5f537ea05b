"""CPU time of a server for each round trip to a Mongrel2 handler, of Mongrel2 and of waft in the same run.

    target/test-tools/python/bin/python bench/handlers.py [WAFT] [SECONDS]

WAFT is a release build (target/release/waft). A handler over pyzmq answers 100 bytes; clients on kept connections ask
one request after the other. What is printed is user and system time of the server alone, in microseconds a request.
"""

import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time

import zmq

WAFT = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "target/release/waft")
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 5
CLIENTS = [1, 8, 64]
BODY = b"x" * 100
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + BODY
REQUEST = b"GET /h HTTP/1.1\r\nHost: one.test\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def handler(send, recv, ready, stop):
    context = zmq.Context()
    pull, pub = context.socket(zmq.PULL), context.socket(zmq.XPUB)
    pull.connect(send)
    pub.connect(recv)
    pub.recv()
    ready.set()
    while not stop.is_set():
        if pull.poll(100):
            _ident, connection, path, _rest = pull.recv().split(b" ", 3)
            if path != b"@*":
                pub.send(b"u %d:%s, " % (len(connection), connection) + ANSWER)
    context.destroy(0)


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(port, clients):
    """Round trips within the time, over so many connections at once."""
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(clients)]
    poll, by_number, got = select.epoll(), {}, {}
    for one in sockets:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(one, select.EPOLLIN)
        by_number[one.fileno()], got[one.fileno()] = one, 0
        one.sendall(REQUEST)
    done, end = 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        for number, _event in poll.poll(0.1):
            got[number] += len(by_number[number].recv(65536))
            if got[number] == len(ANSWER):
                done, got[number] = done + 1, 0
                by_number[number].sendall(REQUEST)
    for one in sockets:
        one.close()
    return done


def start(which, directory, port, specs):
    with open(f"{directory}/mongrel2.conf", "w") as conf:
        conf.write(f"""
h = Handler(send_spec='{specs[0]}', send_ident='h', recv_spec='{specs[1]}', recv_ident='')
main = Server(uuid="u", name="main", port={port}, access_log="/access.log", error_log="/error.log", chroot="{directory}",
    pid_file="/pid", default_host="one.test", hosts=[Host(name="one.test", routes={{'/h': h}})])
settings = {{"server.daemonize": 0, "limits.min_ping": 0, "control_port": "ipc://{directory}/control"}}
servers = [main]
""")
    quiet = {"cwd": directory, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if which == "waft":
        return subprocess.Popen([WAFT, "--config", "mongrel2.conf"], **quiet)
    subprocess.run(["m2sh", "load", "-db", "c.sqlite", "-config", "mongrel2.conf"], env={**os.environ, "LOGNAME": "b"}, check=True, **quiet)
    command = ["mongrel2", "c.sqlite", "u"]
    if os.getuid() == 0:
        subprocess.run(["chown", "-R", "nobody", directory], check=True)
        command = ["setpriv", "--reuid=nobody", "--clear-groups", *command]
    return subprocess.Popen(command, **quiet)


def measure(which):
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        port, specs = free_port(), [f"tcp://127.0.0.1:{free_port()}" for _ in range(2)]
        server = start(which, directory, port, specs)
        ready, stop = threading.Event(), threading.Event()
        thread = threading.Thread(target=handler, args=(*specs, ready, stop))
        thread.start()
        assert ready.wait(20), f"{which} does not run"
        for clients in CLIENTS:
            before = cpu_seconds(server.pid)
            done = load(port, clients)
            used = cpu_seconds(server.pid) - before
            print(f"{which:9} {clients:3} clients: {used / max(done, 1) * 1e6:7.1f} us a round trip, {done / SECONDS:8.0f} a second", flush=True)
        stop.set()
        thread.join()
        server.kill()
        server.wait()


for which in ["mongrel2", "waft"]:
    measure(which)
