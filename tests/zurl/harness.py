"""A daemon, its clients, and the registry of cases."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time

import zmq

from backend import Backend
from nameserver import NameServer

# The suite of the other side of ZHTTP has them: TNetStrings by an implementation that is not the daemon's.
sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "zhttp"))
from tnetstring import decode, encode

WAIT = 10.0
CASES = []


class Case:
    def __init__(self, function, conf, waft_only):
        self.function, self.conf, self.waft_only = function, conf, waft_only
        self.name = function.__name__


def case(conf="", waft=False):
    """Registers a case. `conf` is added to the daemon's configuration."""

    def register(function):
        CASES.append(Case(function, conf, waft))
        return function

    return register


def is_ours(binary):
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)
    return "waft" in version.stdout


class Daemon:
    def __init__(self, binary, conf, loglevel=3, as_is=False):
        self.folder = tempfile.TemporaryDirectory(prefix="zurl-suite")
        self.path = self.folder.name
        lines = ["[General]", "instance_id=zurltest"]
        for name, socket in [("in_spec", "in"), ("in_stream_spec", "in-stream"), ("out_spec", "out"), ("in_req_spec", "req")]:
            if f"no {name}" not in conf:
                lines.append(f"{name}=ipc://{self.path}/{socket}")
        lines += [line for line in conf.split("\n") if line and not line.startswith("no ")]
        text = conf.replace("/var/run/zurl", self.path) if as_is else "\n".join(lines) + "\n"
        with open(f"{self.path}/conf", "w", encoding="utf-8") as file:
            file.write(text)
        self.requests = f"ipc://{self.path}/{'zurl-' if as_is else ''}req"
        environment = dict(os.environ)
        if is_ours(binary):
            environment |= {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "all_proxy": "http://127.0.0.1:9"}
        self.process = subprocess.Popen(
            [binary, f"--config={self.path}/conf", f"--logfile={self.path}/log", f"--loglevel={loglevel}"], env=environment
        )
        wait_for(lambda: any(os.path.exists(f"{self.path}/{name}") for name in ("req", "out", "zurl-req")))

    def log(self):
        with open(f"{self.path}/log", encoding="utf-8", errors="replace") as file:
            return file.read()

    def alive(self):
        return self.process.poll() is None

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.folder.cleanup()


def wait_for(condition, what="the condition", wait=WAIT):
    deadline = time.monotonic() + wait
    while not condition():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.005)


class Client:
    """The three sockets of a client of the stream interface, and one of the other."""

    def __init__(self, context, daemon, address):
        self.address, self.daemon = address, daemon
        self.push, self.router, self.sub = (context.socket(kind) for kind in (zmq.PUSH, zmq.ROUTER, zmq.SUB))
        for socket in (self.push, self.router, self.sub):
            socket.linger = 0
            socket.rcvtimeo = int(WAIT * 1000)
        self.router.router_mandatory = 1
        self.push.connect(f"ipc://{daemon.path}/in")
        self.router.connect(f"ipc://{daemon.path}/in-stream")
        self.sub.connect(f"ipc://{daemon.path}/out")
        self.sub.subscribe(f"{address} ".encode())
        # An exchange that is not there is answered once the subscription is known.
        deadline = time.monotonic() + WAIT
        while True:
            try:
                self.send({"from": address, "id": "probe", "seq": 1, "type": "keep-alive"})
                if self.sub.poll(100):
                    break
            except zmq.ZMQError:
                time.sleep(0.01)
            assert time.monotonic() < deadline, "the daemon does not answer"
        while self.sub.poll(50):
            self.sub.recv()

    def start(self, **fields):
        packet = {"from": self.address, "seq": 0, **{key.replace("_", "-"): value for key, value in fields.items()}}
        self.push.send(b"T" + encode({key: value for key, value in packet.items() if value is not None}))

    def send(self, packet):
        self.router.send_multipart([b"zurltest", b"", b"T" + encode(packet)])

    def more(self, id, seq, **fields):
        self.send({"from": self.address, "id": id, "seq": seq, **{key.replace("_", "-"): value for key, value in fields.items()}})

    def receive(self, wait=WAIT):
        assert self.sub.poll(int(wait * 1000)), "no packet came"
        address, payload = self.sub.recv().split(b" ", 1)
        assert address == self.address.encode(), address
        if payload[:1] == b"J":
            return json.loads(payload[1:])
        assert payload[:1] == b"T", payload
        return decode(payload[1:])

    def quiet(self, wait=0.3):
        assert not self.sub.poll(int(wait * 1000)), self.sub.recv()

    def close(self):
        for socket in (self.push, self.router, self.sub):
            socket.close()


class Lab:
    """What cases use: daemons by configuration, clients, a backend."""

    def __init__(self, binary):
        self.binary, self.ours = binary, is_ours(binary)
        self.context = zmq.Context()
        self.daemons, self.clients, self.names = {}, [], 0
        self.backend, self.names_of = Backend(), NameServer()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.metrics_port = free.getsockname()[1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for daemon in self.daemons.values():
            daemon.stop()
        self.context.destroy(0)

    def run(self, case):
        if case.conf not in self.daemons or not self.daemons[case.conf].alive():
            conf = case.conf.replace("DNS", f"127.0.0.1:{self.names_of.port}").replace("METRICS", f"127.0.0.1:{self.metrics_port}")
            self.daemons[case.conf] = Daemon(self.binary, conf)
        self.daemon = self.daemons[case.conf]
        try:
            case.function(self)
            assert self.daemon.alive(), "the daemon died"
        finally:
            for client in self.clients:
                client.close()
            self.clients = []

    def url(self, path, host="127.0.0.1"):
        return f"http://{host}:{self.backend.port}{path}"

    def ws_url(self, path, host="127.0.0.1"):
        return f"ws://{host}:{self.backend.port}{path}"

    def client(self):
        self.names += 1
        client = Client(self.context, self.daemon, f"client{self.names}")
        self.clients.append(client)
        return client

    def request(self, raw=None, json_encoding=False, frames=None, wait=WAIT, **fields):
        """One request and its reply over the other interface."""
        packet = {key.replace("_", "-"): value for key, value in fields.items()}
        if raw is None:
            raw = b"J" + json.dumps(packet).encode() if json_encoding else b"T" + encode(packet)
        socket = self.context.socket(zmq.DEALER)
        socket.linger = 0
        socket.connect(self.daemon.requests)
        try:
            socket.send_multipart((frames or [b""]) + [raw])
            assert socket.poll(int(wait * 1000)), "no reply came"
            reply = socket.recv_multipart()
        finally:
            socket.close()
        assert reply[: len(frames or [b""])] == (frames or [b""]), reply
        payload = reply[-1]
        return json.loads(payload[1:]) if payload[:1] == b"J" else decode(payload[1:])


def condition(packet, expected):
    """The packet is an error with one of the conditions."""
    assert packet.get("type") in (b"error", "error"), packet
    found = packet["condition"] if isinstance(packet["condition"], str) else packet["condition"].decode()
    assert found in expected.split("|"), packet
