"""Plays each scenario to Pushpin and to waft at the same time and compares what all who took part have seen.

Arguments: the waft program, then names of scenarios or parts of them (all, when there are none). `--show` prints the
records, `--keep` leaves the files of the programs, `--write` prints the differences in the form of differences.toml.

differences.toml holds what is meant to differ, each with its reason. A difference that it does not have fails, and so
does one of its own that has gone.
"""

import argparse
import asyncio
import difflib
import importlib
import json
import re
import resource
import shutil
import sys
import time
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from peers import Backend  # noqa: E402
from programs import Program  # noqa: E402
from world import SCENARIOS, Statistics, World  # noqa: E402

# Each configuration is started once. What is not said here is the same in all, see programs.py.
CONFIGS = {
    "stock": {"proxy": {"sockjs_url": "http://cdn.example/sockjs.js"}},
    # For scenarios that look at numbers of the whole program: one scenario at a time.
    "alone": {"handler": {"message_block_size": 100}},
    # One delivery each 25 ms, and few that may wait.
    "paced": {"handler": {"message_rate": 40, "message_hwm": 10}},
    "other": {
        "proxy": {
            "debug": "true",
            "auto_cross_origin": "true",
            "accept_x_forwarded_protocol": "true",
            "set_x_forwarded_protocol": "true",
            "x_forwarded_for": "truncate:1,append",
            "x_forwarded_for_trusted": "append",
            "orig_headers_need_mark": "X-Marked",
            "accept_pushpin_route": "true",
            "upstream_key": "upstream",
            "sig_iss": "me",
            "sig_key": "base64:b3RoZXI=",
        },
        "handler": {
            "connection_subscription_max": 2,
            "id_cache_ttl": 0,
            "subscription_linger": 1,
            "stats_subscription_ttl": 4,
            "stats_format": "tnetstring",
            "message_block_size": 100,
        },
    },
}

# How many scenarios are played at a time, and how often one is played again before a difference counts: both programs
# share few processors, and Pushpin does some things a second later.
AT_A_TIME = 12
ATTEMPTS = "abc"
# How long one scenario may take, and how long all of them.
SCENARIO_DEADLINE = 40
RUN_DEADLINE = 240


class Side:
    """One program with one configuration, and what belongs to it."""

    def __init__(self, name, command, config, scenarios):
        self.worlds = {}
        self._make = (name, command, config, scenarios)

    async def start(self):
        name, command, config, scenarios = self._make
        self.backend = await Backend(self._find).start()
        target = f"127.0.0.1:{self.backend.port}"
        routes = []
        for key, one in scenarios:
            values = {"key": key, "host": f"{key}.test", "target": target, "refused": "127.0.0.1:1"}
            routes += [line.format(**values) for line in one.routes]
        self.program = Program(name, command, CONFIGS[config], routes)
        self.stats = Statistics(self.program.stats)
        await self.program.ready()
        # Until the subscriber of the statistics hears.
        while not self.stats.told:
            await self.program._answers("/", b"HTTP/1.1 200")
            await asyncio.sleep(0.05)
        return self

    def _find(self, text):
        named = (self.worlds.get(key.lower()) for key in re.findall(r"[kK]\d{4}[abcABC]", text))
        return next(filter(None, named), None)

    async def play(self, scenario, key):
        if scenario.config == "alone":
            self.stats.told.clear()
        world = self.worlds[key] = World(self, scenario, key)
        try:
            await asyncio.wait_for(scenario.play(world), SCENARIO_DEADLINE)
        except Exception as error:  # A scenario that cannot go on is part of the record.
            world.note("scenario", f"{type(error).__name__}: {error}")
        await world.finish()
        return world.record()


class Everywhere:
    """Rules for what differs in many scenarios; each must be needed."""

    def __init__(self, rules):
        self.rules = [(rule["program"], re.compile(rule["line"]), rule.get("becomes"), rule["reason"]) for rule in rules]
        self.used = [False] * len(self.rules)

    def apply(self, program, lines):
        for at, (whose, pattern, becomes, _reason) in enumerate(self.rules):
            if whose not in (program, "both"):
                continue
            changed = []
            for line in lines:
                found = pattern.search(line)
                self.used[at] |= bool(found)
                if not found:
                    changed.append(line)
                elif becomes is not None:
                    changed.append(pattern.sub(becomes, line))
            lines = changed
        return lines

    def unused(self):
        return [rule[3] for rule, used in zip(self.rules, self.used) if not used]


def differing(pushpin, waft):
    """The lines that only one of the two records has, in order."""
    only = {"- ": [], "+ ": []}
    for line in difflib.ndiff(pushpin, waft, linejunk=None, charjunk=None):
        if line[:2] in only:
            only[line[:2]].append(line[2:])
    return only["- "], only["+ "]


def toml(name, reason, pushpin, waft):
    def listed(lines):
        return "[\n" + "".join(f"  {json.dumps(line, ensure_ascii=False)},\n" for line in lines) + "]"

    parts = [f"[[difference]]\nscenario = {json.dumps(name)}\nreason = {json.dumps(reason)}"]
    parts += [f"{who} = {listed(lines)}" for who, lines in (("pushpin", pushpin), ("waft", waft)) if lines]
    return "\n".join(parts) + "\n"


class Run:
    def __init__(self, options, chosen):
        self.options, self.chosen = options, chosen
        known = tomllib.loads((HERE / "differences.toml").read_text())
        self.everywhere = Everywhere(known.get("everywhere", []))
        self.known = {}
        for one in known.get("difference", []):
            assert one["reason"].strip(), one
            self.known[one["scenario"]] = one
        self.failures, self.same, self.differ = [], 0, 0

    async def compare(self, sides, scenario, number):
        known = self.known.get(scenario.name, {})
        expected = (known.get("pushpin", []), known.get("waft", []))
        for attempt in ATTEMPTS:
            key = f"k{number:04}{attempt}"
            records = await asyncio.gather(*(side.play(scenario, key) for side in sides))
            records = [
                self.everywhere.apply(side.program.name, lines) for side, lines in zip(sides, records, strict=True)
            ]
            found = differing(*records)
            if found == expected:
                break
        if self.options.show:
            for side, lines in zip(sides, records, strict=True):
                print(f"--- {scenario.name} [{side.program.name}]", *lines, sep="\n", flush=True)
        if found == expected:
            self.same += not known
            self.differ += bool(known)
            return
        if self.options.write:
            print(toml(scenario.name, known.get("reason", ""), *found), flush=True)
        self.failures.append(scenario.name)
        print(f"FAILED {scenario.name}", flush=True)
        if known:
            print(f"  it is meant to differ ({known['reason']}), but not like this:")
        for mark, lines in zip("-+", found, strict=True):
            for line in lines:
                print(f"  {mark} {line}")

    async def go(self):
        commands = {"pushpin": "pushpin", "waft": self.options.waft}
        numbered = list(enumerate(self.chosen))
        sides = {}
        for config in sorted({one.config for one in self.chosen}):
            mine = [(f"k{at:04}{letter}", one) for at, one in numbered if one.config == config for letter in ATTEMPTS]
            sides[config] = [Side(name, command, config, mine) for name, command in commands.items()]
        started = [side for pair in sides.values() for side in pair]
        try:
            await asyncio.gather(*(side.start() for side in started))
            places = asyncio.Semaphore(AT_A_TIME)

            async def in_turn(at, one):
                async with places:
                    await self.compare(sides[one.config], one, at)

            await asyncio.gather(*(in_turn(at, one) for at, one in numbered))
            for side in started:
                if side.program.process.poll() is not None:
                    self.failures.append(f"{side.program.name} has ended by itself")
                    print(f"FAILED {self.failures[-1]}:\n{side.program.log()}")
        finally:
            for side in started:
                if hasattr(side, "program"):
                    side.stats.close()
                    side.program.stop(self.options.keep)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("waft")
    parser.add_argument("names", nargs="*")
    for flag in ("--show", "--keep", "--write"):
        parser.add_argument(flag, action="store_true")
    options = parser.parse_args()
    if shutil.which("pushpin") is None:
        print("skipped: pushpin is not installed")
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    for path in sorted((HERE / "scenarios").glob("*.py")):
        sys.path.insert(0, str(path.parent))
        importlib.import_module(path.stem)
    chosen = [one for one in SCENARIOS.values() if not options.names or any(name in one.name for name in options.names)]
    began = time.monotonic()
    run = Run(options, chosen)
    asyncio.run(asyncio.wait_for(run.go(), RUN_DEADLINE))
    if not options.names:
        unknown = [name for name in run.known if name not in SCENARIOS]
        run.failures += unknown + run.everywhere.unused()
        for name in unknown:
            print(f"FAILED differences.toml tells of {name}, which is no scenario")
        for reason in run.everywhere.unused():
            print(f"FAILED no scenario needs this rule any more: {reason}")
    print(f"{len(chosen)} scenarios: {run.same} same, {run.differ} differ as intended, "
          f"{len(run.failures)} failures, {time.monotonic() - began:.0f} seconds")
    sys.exit(bool(run.failures))


if __name__ == "__main__":
    main()
