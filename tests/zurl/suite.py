"""Runs every case against one daemon and prints what failed."""

import argparse
import resource
import sys
import traceback

import cases_faults  # noqa: F401  (importing registers the cases)
import cases_http  # noqa: F401
import cases_websocket  # noqa: F401
import harness


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--daemon", required=True, help="the binary, zurl or ours")
    arguments.add_argument("--only", default="", help="run the cases whose name has this text")
    arguments.add_argument("--all", action="store_true", help="run the cases for waft against zurl too, where they fail")
    options = arguments.parse_args()
    genuine = options.daemon.rsplit("/", 1)[-1] == "zurl" and not harness.is_ours(options.daemon)
    # The daemon inherits the limit.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    failed, passed, left_out = [], 0, 0
    with harness.Lab(options.daemon) as lab:
        for case in harness.CASES:
            if options.only not in case.name:
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
    print(f"{passed} passed, {len(failed)} failed, {left_out} left out: {failed}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
