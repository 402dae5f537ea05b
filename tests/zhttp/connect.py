"""Targets whose sockets waft connects, and targets that come and go with the configuration."""

import argparse
import subprocess
import tempfile

import zmq

from harness import Connection, accepts, free_port, wait_for
from tnetstring import decode, encode


def serve(rep, body):
    request = decode(rep.recv()[1:])
    rep.send(b"T" + encode({"id": request["id"], "code": 200, "reason": "OK", "body": body}))


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--program", required=True)
    program = arguments.parse_args().program
    context = zmq.Context()
    with tempfile.TemporaryDirectory(prefix="zhttp-connect") as folder:
        port, worker_port, other = free_port(), free_port(), f"ipc://{folder}/other"
        route = '[[route]]\nhost = "{}"\ntargets = [{}]\n'
        path = f"{folder}/waft.toml"

        def configure(*routes):
            with open(path, "w", encoding="utf-8") as file:
                file.write(f'[server]\nlisten = ["{port}"]\n[control]\nlisten = []\n' + "".join(route.format(*one) for one in routes))

        first = ("first", f'{{ address = "zhttpreq/tcp://127.0.0.1:{worker_port}", connect = true }}')
        configure(first)
        with open(f"{folder}/log", "wb") as log:
            waft = subprocess.Popen([program, "--config", path], stdout=log, stderr=log)
        try:
            wait_for(lambda: accepts(port), "a listener", 30)
            # The worker binds, after waft has tried to connect.
            rep = context.socket(zmq.ROUTER)
            rep.bind(f"tcp://127.0.0.1:{worker_port}")
            client = Connection(port).send("GET /1 HTTP/1.1\r\nHost: first\r\n\r\n")
            frames = rep.recv_multipart()
            request = decode(frames[-1][1:])
            rep.send_multipart(frames[:-1] + [b"T" + encode({"id": request["id"], "code": 200, "reason": "OK", "body": "connected"})])
            assert client.response().body == b"connected"

            configure(first, ("second", f'"zhttpreq/{other}"'))
            late = context.socket(zmq.REP)
            late.connect(other)

            def served():
                client = Connection(port).send("GET /2 HTTP/1.1\r\nHost: second\r\n\r\n")
                if late.poll(500):
                    serve(late, b"added")
                    return client.response().body == b"added"
                return False

            wait_for(served, "a route that was added", 20)

            # An endpoint that cannot be bound changes nothing.
            configure(first, ("second", f'"zhttpreq/{other}"'), ("third", f'"zhttpreq/tcp://127.0.0.1:{port}"'))
            wait_for(lambda: "cannot be used" in open(f"{folder}/log", encoding="utf-8").read(), "a refusal")
            wait_for(served, "the second route")
            print("all is well")
        finally:
            waft.terminate()
            waft.wait(10)
            context.destroy(0)


if __name__ == "__main__":
    main()
