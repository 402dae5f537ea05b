"""Starts Pushpin and waft with the same files."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile

# A host with routes of its own, to see whether the processes of Pushpin have found each other.
WARM_UP = "warm-up.invalid"
START_DEADLINE = 30


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Program:
    """One of the two programs, running with one configuration in a directory of its own."""

    def __init__(self, name, command, config, routes):
        self.name = name
        self.directory = tempfile.mkdtemp(prefix=f"differential-{name}-")
        self.front, self.control, self.pull, self.sub, self.command = (free_port() for _ in range(5))
        self.stats = f"ipc://{self.directory}/run/pushpin-stats"
        os.mkdir(f"{self.directory}/run")
        self._write("pushpin.conf", self._conf(config))
        warm_up = [f"{WARM_UP} test", f"{WARM_UP},path_beg=/target 127.0.0.1:1"]
        self._write("routes", "\n".join(warm_up + routes) + "\n")
        self.log_path = f"{self.directory}/output"
        with open(self.log_path, "wb") as log:
            arguments = [command] + (["-m"] if name == "pushpin" else [])
            self.process = subprocess.Popen(
                arguments + [f"--config={self.directory}/pushpin.conf"],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )

    async def ready(self):
        """Waits until clients are served by all of its parts."""
        for path, status in [("/stream?channel=warm-up", b"HTTP/1.1 200"), ("/target", b"HTTP/1.1 502")]:
            deadline = asyncio.get_running_loop().time() + START_DEADLINE
            while not await self._answers(path, status):
                if self.process.poll() is not None or asyncio.get_running_loop().time() > deadline:
                    raise SystemExit(f"{self.name} does not start:\n{self.log()}")
                await asyncio.sleep(0.1)
        return self

    async def _answers(self, path, status):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.front)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {WARM_UP}\r\n\r\n".encode())
            try:
                return (await asyncio.wait_for(reader.read(64), 0.5)).startswith(status)
            finally:
                writer.close()
        except (OSError, asyncio.TimeoutError):
            return False

    def log(self):
        with open(self.log_path, errors="replace") as log:
            return log.read()

    def stop(self, keep):
        """Ends it, with its children."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        if keep:
            print(f"the files of {self.name} are in {self.directory}")
        else:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _write(self, name, text):
        with open(f"{self.directory}/{name}", "w") as file:
            file.write(text)

    def _conf(self, config):
        run = f"{self.directory}/run"
        sections = {
            "global": {"include": "internal.conf", "rundir": run},
            "runner": {
                "services": "condure,zurl,pushpin-proxy,pushpin-handler",
                "http_port": f"127.0.0.1:{self.front}",
                "logdir": f"{self.directory}/log",
                "log_level": 2,
                "client_buffer_size": 8192,
                "client_maxconn": 50000,
            },
            "proxy": {
                "routesfile": "routes",
                "sig_iss": "pushpin",
                "sig_key": "changeme",
                "set_x_forwarded_protocol": "proto-only",
                "stats_report_interval": 1,
                "zurl_out_specs": f"ipc://{run}/pushpin-zurl-in",
                "zurl_out_stream_specs": f"ipc://{run}/pushpin-zurl-in-stream",
                "zurl_in_specs": f"ipc://{run}/pushpin-zurl-out",
            },
            "handler": {
                "push_in_spec": f"tcp://127.0.0.1:{self.pull}",
                "push_in_sub_specs": f"tcp://127.0.0.1:{self.sub}",
                "push_in_http_addr": "127.0.0.1",
                "push_in_http_port": self.control,
                "stats_spec": self.stats,
                "command_spec": f"tcp://127.0.0.1:{self.command}",
                "message_rate": 2500,
                "message_hwm": 25000,
                "message_wait": 1000,
                "id_cache_ttl": 60,
                "connection_subscription_max": 20,
                "subscription_linger": 60,
                "stats_report_interval": 1,
                "stats_format": "json",
                "update_on_first_subscription": "true",
            },
        }
        for section, keys in config.items():
            sections[section].update(keys)
        lines = []
        for section, keys in sections.items():
            lines += [f"[{section}]"] + [f"{key}={value}" for key, value in keys.items()]
        return "\n".join(lines) + "\n"
