"""A server, its workers and its clients, and the registry of cases."""

import os
import random
import socket
import subprocess
import tempfile
import time

import zmq

from tnetstring import decode, encode

WAIT = 10.0
CASES = []


class Case:
    def __init__(self, function, roles, waft_only):
        self.function, self.roles, self.waft_only = function, roles, waft_only
        self.name = function.__name__


def case(roles="gateway front", waft=False):
    """Registers a case for roles of the program; `waft` says that the genuine programs fail it."""

    def register(function):
        CASES.append(Case(function, roles.split(), waft))
        return function

    return register


def wait_for(condition, what="the condition", wait=WAIT):
    deadline = time.monotonic() + wait
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.005)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """The program in one of its roles: `gateway` (Pushpin or waft) or `front` (Condure, or waft by that name)."""

    def __init__(self, program, role, genuine, transport):
        self.role, self.genuine = role, genuine
        self.folder = tempfile.TemporaryDirectory(prefix="zhttp-suite")
        self.path = self.folder.name
        self.port, self.req_port, self.control = free_port(), free_port(), free_port()
        if transport == "tcp":
            # Three ports in a row.
            self.base, self.ends = three_ports()
        else:
            self.base = f"ipc://{self.path}/z"
            self.ends = [f"{self.base}-out", f"{self.base}-out-stream", f"{self.base}-in"]
        self.req, self.nobody = f"ipc://{self.path}/req", f"ipc://{self.path}/nobody"
        log = open(f"{self.path}/log", "wb")
        environment = os.environ
        if role == "front":
            name = program if genuine else f"{self.path}/condure"
            if not genuine:
                os.symlink(os.path.abspath(program), name)
            command = [name, "--listen", f"127.0.0.1:{self.port},stream", "--listen", f"127.0.0.1:{self.req_port},req"]
            command += ["--zclient-stream", self.base, "--zclient-req", self.req, "--id", "suite"]
        elif genuine:
            command = [program, "-m", "--config", self.pushpin_files()]
        else:
            self.req_port = self.port
            routes = [f"--route={line}" for line in self.routes()]
            sets = [f"server.listen={self.port}", f"control.listen=127.0.0.1:{self.control}", "defaults.connect_timeout=2s"]
            sets += ["workers.timeout=4s", "workers.keep_alive=1s", "server.shards=2", "metrics.pushpin_names=false", "grip.sig_key=key"]
            command = [program] + routes + [f"--set={one}" for one in sets]
            environment = dict(os.environ)
        if role == "gateway":
            self.req_port = self.port
        self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        wait_for(lambda: accepts(self.port), "a listener", 30)

    def routes(self):
        return [
            f"* zhttp/{self.base}",
            f"debug,debug zhttp/{self.base}",
            f"req zhttpreq/{self.req}",
            f"over,debug zhttp/{self.base},over_http",
            f"fallback,debug zhttp/{self.nobody} zhttpreq/{self.req}",
            f"nobody,debug zhttp/{self.nobody}",
        ]

    def pushpin_files(self):
        with open(f"{self.path}/routes", "w", encoding="utf-8") as file:
            file.write("\n".join(self.routes()) + "\n")
        path = f"{self.path}/pushpin.conf"
        with open(path, "w", encoding="utf-8") as file:
            file.write(
                f"""[global]
include={{libdir}}/internal.conf
[runner]
services=condure,pushpin-proxy,pushpin-handler
http_port={self.port}
logdir={self.path}
runroot={self.path}
rundir={self.path}
[proxy]
routesfile={self.path}/routes
sig_key=key
[handler]
push_in_http_addr=127.0.0.1
push_in_http_port={self.control}
push_in_spec=ipc://{self.path}/push
push_in_sub_specs=ipc://{self.path}/push-sub
command_spec=ipc://{self.path}/command
"""
            )
        return path

    def log(self):
        with open(f"{self.path}/log", encoding="utf-8", errors="replace") as file:
            return file.read()

    def metric(self, name):
        """A sum over the counters of waft."""
        page = Connection(self.control).fetch("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").body.decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(name))

    def publish(self, text):
        body = text.encode()
        head = f"POST /publish/ HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        answer = Connection(self.control).fetch(head.encode() + body)
        assert answer.code == 200, answer

    def alive(self):
        return self.process.poll() is None

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.folder.cleanup()


def three_ports():
    for _ in range(200):
        # Between the ports of other tests and those that the system gives out by itself.
        port = random.randrange(30_000, 32_700)
        try:
            for other in (port, port + 1, port + 2):
                with socket.socket() as listener:
                    listener.bind(("127.0.0.1", other))
        except OSError:
            continue
        return f"tcp://127.0.0.1:{port}", [f"tcp://127.0.0.1:{port + offset}" for offset in range(3)]
    raise AssertionError("no three free ports in a row")


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


class Response:
    def __init__(self, head, body, complete):
        lines = head.split(b"\r\n")
        self.code = int(lines[0].split(b" ")[1])
        self.reason = lines[0].split(b" ", 2)[2].decode()
        self.headers = [tuple(part.strip() for part in line.decode().split(":", 1)) for line in lines[1:]]
        self.body, self.complete = body, complete

    def values(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def __repr__(self):
        return f"{self.code} {self.reason} {self.headers} {self.body[:200]!r} complete={self.complete}"


class Connection:
    """A client connection, byte by byte."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), WAIT)
        self.buffer = b""

    def send(self, data):
        self.socket.sendall(data.encode() if isinstance(data, str) else data)
        return self

    def more(self):
        data = self.socket.recv(65536)
        self.buffer += data
        return bool(data)

    def take(self, count):
        while len(self.buffer) < count:
            assert self.more(), f"the connection ended after {self.buffer!r}"
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def until(self, end):
        while end not in self.buffer:
            assert self.more(), f"the connection ended after {self.buffer!r}"
        taken, self.buffer = self.buffer.split(end, 1)
        return taken

    def head(self):
        while True:
            head = self.until(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 100"):
                return Response(head, b"", False)

    def chunk(self):
        size = int(self.until(b"\r\n"), 16)
        data = self.take(size)
        assert self.take(2) == b"\r\n"
        return data

    def response(self, to_head=False):
        response = self.head()
        if to_head or response.code in (204, 304):
            response.complete = True
            return response
        try:
            if "chunked" in response.values("transfer-encoding"):
                while True:
                    data = self.chunk()
                    if not data:
                        response.complete = True
                        return response
                    response.body += data
            for length in response.values("content-length"):
                response.body = self.take(int(length))
                response.complete = True
                return response
            while self.more():
                pass
            response.body, response.complete = self.buffer, True
        except (AssertionError, OSError):
            response.body += self.buffer
        return response

    def fetch(self, data):
        return self.send(data).response()

    def ended(self, wait=WAIT):
        """Whether the server ends the connection."""
        self.socket.settimeout(wait)
        try:
            while self.more():
                pass
            return True
        except TimeoutError:
            return False
        except OSError:
            return True

    def close(self):
        self.socket.close()

    # WebSockets.
    def upgrade(self, path="/ws", host="a", headers=""):
        self.send(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n{headers}\r\n"
        )
        return self

    def frame(self, opcode, data=b"", fin=True):
        data = data.encode() if isinstance(data, str) else data
        length = bytes([0x80 | len(data)]) if len(data) < 126 else bytes([0x80 | 127]) + len(data).to_bytes(8, "big")
        self.send(bytes([(0x80 if fin else 0) | opcode]) + length + b"\0\0\0\0" + data)
        return self

    def read_frame(self):
        first, second = self.take(2)
        length = second & 127
        if length == 126:
            length = int.from_bytes(self.take(2), "big")
        elif length == 127:
            length = int.from_bytes(self.take(8), "big")
        return first & 15, bool(first & 0x80), self.take(length)

    def message(self):
        opcode, fin, data = self.read_frame()
        while not fin:
            _, fin, more = self.read_frame()
            data += more
        return opcode, data


class Exchange:
    """A request as its worker has it."""

    def __init__(self, worker, packet):
        self.worker, self.packet = worker, packet
        self.id, self.address, self.seq, self.expected = packet["id"], packet.get("from"), 0, 1
        self.name = worker.name

    def send(self, **fields):
        packet = {"from": self.name, "id": self.id, "seq": self.seq}
        packet.update({key.replace("_", "-"): value for key, value in fields.items()})
        self.seq += 1
        self.raw({key: value for key, value in packet.items() if value is not None})
        return self

    def raw(self, packet):
        payload = packet if isinstance(packet, bytes) else b"T" + encode(packet)
        self.worker.publish(self.address, payload)

    def answer(self, body=b"", code=200, headers=(), more=None, **fields):
        return self.send(code=code, reason="OK", headers=[list(pair) for pair in headers], body=body, more=more, **fields)

    def next(self, wait=WAIT, alive=False):
        """The next packet for this exchange, whose number has to be the next one. Keep-alives count if `alive`."""
        while True:
            packet = self.worker.later(wait)
            if packet["id"] != self.id and not isinstance(packet["id"], list):
                # An earlier case left it behind.
                continue
            if isinstance(packet["id"], list):
                mine = [entry["seq"] for entry in packet["id"] if entry["id"] == self.id]
                if not mine:
                    continue
                assert len(mine) == 1 and "seq" not in packet, packet
                packet["seq"] = mine[0]
            assert packet["seq"] == self.expected, (packet, self.expected)
            self.expected += 1
            if packet.get("type") != b"keep-alive" or alive:
                return packet

    def body(self):
        """The whole body of the request."""
        body, more = self.packet.get("body", b""), self.packet.get("more", False)
        if more:
            self.send(type="credit", credits=1_000_000)
        while more:
            packet = self.data()
            body += packet.get("body", b"")
            more = packet.get("more", False)
        return body

    def data(self):
        """The next packet that is no credit."""
        while True:
            packet = self.next()
            if packet.get("type") != b"credit":
                return packet


class Worker:
    def __init__(self, context, server, name="w1", takes=True):
        self.name = name
        self.pull, self.dealer, self.pub, self.rep = (
            context.socket(kind) for kind in (zmq.PULL, zmq.DEALER, zmq.XPUB, zmq.REP)
        )
        self.sockets = [self.pull, self.dealer, self.pub, self.rep]
        for one in self.sockets:
            one.linger = 0
        # What is sent must not get lost on this side.
        self.pub.sndhwm = 0
        self.dealer.identity = name.encode()
        if takes:
            self.pull.connect(server.ends[0])
            self.rep.connect(server.req)
        self.dealer.connect(server.ends[1])
        self.pub.connect(server.ends[2])
        # A subscription that is there means that answers arrive.
        assert self.pub.poll(int(WAIT * 1000)), "nobody subscribed"

    def init(self, wait=WAIT):
        assert self.pull.poll(int(wait * 1000)), "no request came"
        frames = self.pull.recv_multipart()
        assert len(frames) == 1 and frames[0][:1] == b"T", frames
        packet = decode(frames[0][1:])
        assert packet["from"] and b" " not in packet["from"] and packet["seq"] == 0, packet
        return Exchange(self, packet)

    def idle(self, wait=0.3):
        """Nothing is for this worker."""
        assert not self.pull.poll(int(wait * 1000)), self.pull.recv_multipart()

    def later(self, wait=WAIT):
        assert self.dealer.poll(int(wait * 1000)), "no packet came"
        frames = self.dealer.recv_multipart()
        assert len(frames) == 2 and frames[0] == b"" and frames[1][:1] == b"T", frames
        return decode(frames[1][1:])

    def quiet(self, wait=0.3):
        """Nothing but signs of life comes."""
        deadline = time.monotonic() + wait
        while self.dealer.poll(max(0, int((deadline - time.monotonic()) * 1000))):
            packet = self.later(0)
            assert packet.get("type") == b"keep-alive", packet

    def publish(self, address, payload):
        self.pub.send(address + b" " + payload)

    def drain(self):
        for one in (self.pull, self.dealer):
            while one.poll(0):
                one.recv_multipart()

    def close(self):
        for one in self.sockets:
            one.close()


class Lab:
    """What cases use."""

    def __init__(self, program, role, genuine, transport="ipc"):
        self.role, self.genuine = role, genuine
        self.context = zmq.Context()
        self.server = Server(program, role, genuine, transport)
        self.worker = Worker(self.context, self.server)
        self.connections, self.workers = [], []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.stop()
        self.context.destroy(0)

    def run(self, case):
        self.worker.drain()
        try:
            case.function(self)
            assert self.server.alive(), "the server died"
            # Whatever happened: the next request is served.
            client = self.get("/after")
            self.worker.pull.poll(int(WAIT * 1000))
            exchange = self.worker.init()
            while exchange.packet["uri"].split(b"/")[-1] != b"after":
                exchange = self.worker.init()
            exchange.answer("still here")
            assert client.response().body == b"still here"
        finally:
            for one in self.connections + self.workers:
                one.close()
            self.connections, self.workers = [], []

    def connect(self, port=None):
        connection = Connection(port or self.server.port)
        self.connections.append(connection)
        return connection

    def get(self, path="/", host="a", headers=""):
        return self.connect().send(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n")

    def post(self, body, path="/", host="a", headers="", chunked=False):
        body = body.encode() if isinstance(body, str) else body
        connection = self.connect(self.server.req_port if host == "req" else None)
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\n{headers}{framing}\r\n\r\n".encode()
        return connection.send(head + (b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body))

    def another(self, name):
        """A further worker, which takes no requests of its own accord."""
        worker = Worker(self.context, self.server, name, takes=False)
        self.workers.append(worker)
        return worker

    def reply(self, packet, wait=WAIT):
        """Takes a request of the other interface and replies."""
        assert self.worker.rep.poll(int(wait * 1000)), "no request came"
        payload = self.worker.rep.recv()
        assert payload[:1] == b"T", payload
        request = decode(payload[1:])
        if isinstance(packet, bytes):
            self.worker.rep.send(packet)
        else:
            self.worker.rep.send(b"T" + encode({"id": request["id"], **{key.replace("_", "-"): value for key, value in packet.items()}}))
        return request
