"""Durable requests to the egress door, over pyzmq: kept, acknowledged, delivered, tried again, refused."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import zmq

WAIT = 20.0
CASES = []


def case(function):
    CASES.append(function)
    return function


def wait_for(condition, what):
    deadline = time.monotonic() + WAIT
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.01)


def post(port, path, body):
    """The answer to a JSON body, none while nobody listens."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
    try:
        client.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = client.getresponse()
        assert answer.status in (200, 201), (answer.status, answer.read())
        return json.loads(answer.read())
    except ConnectionRefusedError:
        return None
    finally:
        client.close()


class Receiver:
    """Takes requests; `refusals` of them are answered with 500 first."""

    def __init__(self, port=0, refusals=0):
        self.requests, self.lock, self.refusals = [], threading.Lock(), refusals
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def take(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with receiver.lock:
                    receiver.requests.append((self.command, self.path, dict(self.headers), body.decode()))
                    refuse = receiver.refusals > 0
                    receiver.refusals -= refuse
                text = f"you sent {self.headers.get('Authorization')}".encode()
                self.send_response(500 if refuse else 200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = take

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def wait(self, count):
        return wait_for(lambda: self.requests if len(self.requests) >= count else None, f"{count} requests")

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Daemon:
    """The egress door, with a queue unless `queue` is false."""

    def __init__(self, more="", queue=True):
        self.folder = tempfile.TemporaryDirectory(prefix="waft-durable")
        path = self.path = self.folder.name
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.metrics_port = free.getsockname()[1]
        lines = [f"{name}_spec=ipc://{path}/{file}" for name, file in [("in", "in"), ("in_stream", "later"), ("out", "out"), ("in_req", "req")]]
        lines += ["[General]", "instance_id=door", f"metrics_listen=127.0.0.1:{self.metrics_port}", more]
        lines += [f"webhooks_dir={path}/queue"] if queue else []
        with open(f"{path}/zurl.conf", "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        self.context = zmq.Context()
        self.start()

    def start(self):
        for name in ("in", "later", "out", "req"):
            if os.path.exists(f"{self.path}/{name}"):
                os.unlink(f"{self.path}/{name}")
        with open(f"{self.path}/log", "ab") as log:
            self.process = subprocess.Popen([sys.argv[1], "--config", f"{self.path}/zurl.conf"], stdout=log, stderr=log)
        wait_for(lambda: os.path.exists(f"{self.path}/out") and os.path.exists(f"{self.path}/req"), "the sockets")

    def register(self, url):
        """Registers an endpoint in the queue, by the API of waft; the daemon must not run."""
        with socket.create_server(("127.0.0.1", 0)) as front, socket.create_server(("127.0.0.1", 0)) as control:
            front, control = front.getsockname()[1], control.getsockname()[1]
        with open(f"{self.path}/waft.toml", "w", encoding="utf-8") as file:
            file.write(
                f'[server]\nlisten = ["127.0.0.1:{front}"]\n[control]\nlisten = ["127.0.0.1:{control}"]\n'
                f'[webhooks]\ndir = "{self.path}/queue"\nallow = ["127.0.0.1"]\n'
            )
        with open(f"{self.path}/log", "ab") as log:
            waft = subprocess.Popen([sys.argv[1], "--config", f"{self.path}/waft.toml"], stdout=log, stderr=log)
        try:
            answer = wait_for(lambda: post(control, "/webhooks/endpoints", {"url": url}), "the API")
        finally:
            waft.terminate()
            waft.wait(WAIT)
        return answer["id"]

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def log(self):
        with open(f"{self.path}/log", encoding="utf-8", errors="replace") as file:
            return file.read()

    def socket(self, kind, name, address=None):
        opened = self.context.socket(kind)
        opened.linger = 0
        opened.rcvtimeo = int(WAIT * 1000)
        if address is not None:
            opened.subscribe(address)
        opened.connect(f"ipc://{self.path}/{name}")
        return opened

    def ask(self, **fields):
        """Request/reply."""
        packet = {name.replace("_", "-"): value for name, value in fields.items()}
        requests = self.socket(zmq.REQ, "req")
        requests.send(b"J" + json.dumps(packet).encode())
        reply = requests.recv()
        requests.close()
        if reply[:1] == b"T":
            # What cannot be read is answered in the default encoding.
            assert b"4:type,5:error," in reply, reply
            return {"type": "error", "condition": "bad-request" if b"11:bad-request," in reply else reply}
        return json.loads(reply[1:])

    def keep(self, uri, **fields):
        """A request that must be kept; its id."""
        reply = self.ask(id="1", uri=uri, **{"method": "POST", "durable": True, **fields})
        assert reply.get("code") == 202 and reply["reason"] == "Accepted", reply
        return json.loads(reply["body"])["id"]

    def metric(self, name):
        with socket.create_connection(("127.0.0.1", self.metrics_port)) as stream:
            stream.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            page = b"".join(iter(lambda: stream.recv(65536), b"")).decode()
        values = [line.rsplit(" ", 1)[1] for line in page.split("\n") if line.startswith(name)]
        return float(values[0]) if values else None

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(WAIT)
        except subprocess.TimeoutExpired:
            self.kill()
        self.context.destroy(0)
        self.folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def refused(reply, condition):
    assert (reply.get("type"), reply.get("condition")) == ("error", condition), reply


@case
def a_request_arrives_as_it_was_sent_with_the_id_that_was_answered():
    receiver = Receiver()
    with Daemon() as daemon:
        headers = [["Content-Type", "text/x-own"], ["Authorization", "Bearer 1"], ["X-Own", "a"]]
        id = daemon.keep(receiver.url("/a/b?c=d"), method="PATCH", headers=headers, body="hello")
        method, path, sent, body = receiver.wait(1)[0]
        assert (method, path, body) == ("PATCH", "/a/b?c=d", "hello"), receiver.requests
        assert [sent[name] for name in ("Content-Type", "Authorization", "X-Own", "webhook-id")] == ["text/x-own", "Bearer 1", "a", id], sent
        # The method is the caller's, with a body or without, and another path goes to the same place.
        daemon.keep(receiver.url("/get"), method="GET")
        assert receiver.wait(2)[1][:2] == ("GET", "/get")
        wait_for(lambda: daemon.metric("waft_webhooks_attempts_total{result=\"delivered\"}") == 2, "two deliveries")
        assert daemon.metric("waft_webhooks_pending") in (0, 1)


@case
def what_was_acknowledged_arrives_though_the_process_was_killed():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Daemon() as daemon:
        ids = {daemon.keep(f"http://127.0.0.1:{port}/{number}") for number in range(20)}
        daemon.kill()
        receiver = Receiver(port)
        daemon.start()
        # One that was tried before the kill is tried again after five seconds.
        wait_for(lambda: {sent["webhook-id"] for _, _, sent, _ in receiver.requests} >= ids, "all of them")


@case
def a_request_that_fails_is_tried_again():
    receiver = Receiver(refusals=1)
    with Daemon() as daemon:
        id = daemon.keep(receiver.url("/"), body="again")
        requests = receiver.wait(2)
        assert [(sent["webhook-id"], body) for _, _, sent, body in requests] == [(id, "again")] * 2, requests


@case
def fire_and_forget_is_kept_too():
    receiver = Receiver()
    with Daemon() as daemon:
        push = daemon.socket(zmq.PUSH, "in")
        push.send(b"J" + json.dumps({"method": "POST", "uri": receiver.url("/quiet"), "body": "x", "durable": True}).encode())
        assert receiver.wait(1)[0][:2] == ("POST", "/quiet")
        assert daemon.metric("waft_webhooks_messages_total") == 1


@case
def who_has_an_address_hears_of_it_there():
    receiver = Receiver()
    with Daemon() as daemon:
        sub = daemon.socket(zmq.SUB, "out", b"me ")
        push = daemon.socket(zmq.PUSH, "in")
        packet = {"from": "me", "id": "7", "seq": 0, "method": "POST", "uri": receiver.url("/"), "durable": True, "user-data": [1]}
        push.send(b"J" + json.dumps(packet).encode())
        answer = json.loads(sub.recv().split(b" ", 1)[1][1:])
        assert (answer["id"], answer["seq"], answer["code"], answer["user-data"]) == ("7", 0, 202, [1]), answer
        assert receiver.wait(1)[0][2]["webhook-id"] == json.loads(answer["body"])["id"]


@case
def a_request_that_comes_again_is_known_by_its_key():
    receiver = Receiver()
    with Daemon() as daemon:
        ask = lambda: json.loads(daemon.ask(method="POST", uri=receiver.url("/"), durable={"idempotency-key": "k"})["body"])
        first, second = ask(), ask()
        assert first["id"] == second["id"] and second["duplicate"] is True and "duplicate" not in first, (first, second)
        last = daemon.keep(receiver.url("/last"))
        wait_for(lambda: any(sent["webhook-id"] == last for _, _, sent, _ in receiver.requests), "the last")
        assert len(receiver.requests) == 2, receiver.requests


@case
def registered_endpoints_take_the_place_of_an_uri():
    receiver = Receiver()
    with Daemon() as daemon:
        daemon.process.terminate()
        daemon.process.wait(WAIT)
        endpoint = daemon.register(receiver.url("/hook"))
        daemon.start()
        body = json.dumps({"n": 1})
        for durable in [{"endpoint": endpoint}, {"type": "order.paid"}]:
            reply = daemon.ask(id="1", method="POST", durable=durable, body=body)
            assert reply.get("code") == 202, reply
        requests = receiver.wait(2)
        assert [(method, path, sent) for method, path, _, sent in requests] == [("POST", "/hook", body)] * 2, requests


@case
def what_cannot_be_kept_is_refused_with_its_condition():
    receiver = Receiver()
    good = {"id": "1", "method": "POST", "uri": receiver.url("/"), "durable": True}
    with Daemon(queue=False) as daemon:
        refused(daemon.ask(**good), "queue-unavailable")
        assert "set webhooks_dir" in daemon.log()
    with Daemon("deny=10.*\nwebhooks_disk_max=1") as daemon:
        refused(daemon.ask(**{**good, "uri": "http://10.0.0.1/"}), "policy-violation")
        for wrong in [
            {"more": True},
            {"uri": "ws://127.0.0.1/"},
            {"follow_redirects": True},
            {"connect_host": "127.0.0.1"},
            {"ignore_policies": True},
            {"method": None},
            {"durable": 1},
            {"durable": {"endpoint": "ep_1"}},
            {"durable": {"app": "unknown"}},
            {"durable": {"idempotency-key": ""}},
            {"uri": None},
            {"uri": None, "durable": {"endpoint": "ep_1"}},
        ]:
            fields = {name: value for name, value in {**good, **wrong}.items() if value is not None}
            refused(daemon.ask(**fields), "bad-request")
        # One byte of disk is not enough for anything.
        refused(daemon.ask(**good), "queue-full")
    assert receiver.requests == []


def main():
    failed = []
    for function in CASES:
        try:
            function()
            print(f"ok    {function.__name__}", flush=True)
        except Exception:
            failed.append(function.__name__)
            print(f"FAIL  {function.__name__}\n{traceback.format_exc()}", flush=True)
    print(f"failed: {failed}" if failed else "all passed", flush=True)
    sys.exit(1 if failed else 0)


main()
