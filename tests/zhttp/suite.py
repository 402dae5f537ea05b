"""Runs every case of one role against one program and prints what failed."""

import argparse
import sys
import traceback

import cases_faults  # noqa: F401  (importing registers the cases)
import cases_grip  # noqa: F401
import cases_http  # noqa: F401
import cases_websocket  # noqa: F401
import harness


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--program", required=True, help="waft, pushpin or condure")
    arguments.add_argument("--role", required=True, choices=["gateway", "front"])
    arguments.add_argument("--transport", default="ipc", choices=["ipc", "tcp"])
    arguments.add_argument("--only", default="", help="run the cases whose name has this text")
    arguments.add_argument("--all", action="store_true", help="run the cases for waft on genuine programs too, where they fail")
    options = arguments.parse_args()
    genuine = options.program.rsplit("/", 1)[-1] in ("pushpin", "condure")
    failed, passed, left_out = [], 0, 0
    with harness.Lab(options.program, options.role, genuine, options.transport) as lab:
        for case in harness.CASES:
            if options.only not in case.name or options.role not in case.roles:
                continue
            if genuine and case.waft_only and not options.all:
                left_out += 1
                continue
            try:
                lab.run(case)
                passed += 1
                print(f"ok    {case.name}", flush=True)
            except Exception:
                failed.append(case.name)
                print(f"FAIL  {case.name}\n{traceback.format_exc()}", flush=True)
                if not lab.server.alive():
                    break
        if failed:
            print(lab.server.log()[-6000:])
    print(f"{passed} passed, {len(failed)} failed, {left_out} left out: {failed}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
