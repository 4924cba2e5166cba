#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A case of cases.toml, natively twice and under bdbi with no cache, cold, warm and learned: all the same.

  diff.py --bin FOLDER --programs FOLDER [--tool none|bbcount|bbcov|OBJECT] [--modes LIST] [--keep] CASE
  diff.py --list      one line per case: name, labels and seconds for ctest

  nocache   --no-cache
  cold      an empty cache
  learned   the cold run's cache after `bdbi learn --wait`
  warm      a new cache filled by bdbi-warm
and, if --modes says so:
  training  a run with --train and a new cache filled by bdbi-warm: it translates all and notes what runs
  trained   its cache after `bdbi learn --wait`: code that ran comes first
"""
import argparse
import os
import shutil
import sys
import time

import harness
from harness import Failure

MODES = ["nocache", "cold", "learned", "warm"]


def run_mode(bench, mode, tool):
    cache = ["--cache", bench.path("cache")]
    stats = bench.path("stats")
    if os.path.exists(stats):
        os.unlink(stats)
    if mode == "nocache":
        result = bench.run(bench.prefix(tool, "--no-cache"))
        if os.path.exists(os.path.join(bench.path("cache"), "v1")):
            raise Failure("--no-cache stored something")
        return result
    if mode == "cold":
        bench.new_cache()
        return bench.run(bench.prefix(tool, *cache))
    if mode == "training":
        bench.new_cache()
        bench.warm(tool)
        return bench.run(bench.prefix(tool, *cache, "--train"))
    if mode in ("learned", "trained"):
        bench.learn()
    else:
        bench.new_cache()
        bench.warm(tool)
    result = bench.run(bench.prefix(tool, *cache, "--stats=" + stats))
    processes = harness.parse_stats(stats)
    if result.status < 0 and not processes:
        return result  # a signal ended it: no time for statistics
    if not processes:
        raise Failure("--stats wrote nothing")
    if harness.total(processes, "cache_blocks") == 0:
        raise Failure(f"{mode}: nothing came from the cache: {processes}")
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin")
    parser.add_argument("--programs", default="")
    parser.add_argument("--tool", default="none")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--cases", default=os.path.join(harness.HERE, "cases.toml"))
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("case", nargs="?")
    options = parser.parse_args()

    cases = harness.load_cases(options.cases)
    if options.list and options.cases != parser.get_default("cases"):
        for case in cases.values():
            print(case.name, "ci" if case.ci else "long")
        return 0
    if options.list:
        for case in cases.values():
            print(case.name, "quick" if case.quick else "full", "nomiss" if case.nomiss else "any", case.timeout,
                  "none bbcount" if case.tools else "none")
        return 0

    missing = [name for name in cases[options.case].needs if not (shutil.which(name) or os.path.exists(name))]
    if missing:
        print(f"skipped: {options.case} needs {' '.join(missing)}")
        return 77
    bench = harness.Bench(cases[options.case], options.bin, options.programs)
    failures = 0
    try:
        native = bench.run([])
        again = harness.compare(native, bench.run([]), bench.case.subcases)
        if again:
            raise Failure("two native runs differ; the case needs a rule\n" + "\n".join(again))
        if native.status != 0 and not bench.case.fails:
            raise Failure(f"natively {native.describe_status()}: {native.err.decode('utf-8', 'replace')[-500:]}")
        for mode in options.modes.split(","):
            start, agreeing = time.monotonic(), ""
            try:
                result = run_mode(bench, mode, options.tool)
                different = harness.compare(native, result, bench.case.subcases)
                if bench.case.subcases:
                    agreeing = f", {harness.agreeing(native, result)} sub-cases agree"
                reports = mode != "training" and (harness.is_bbcount(options.tool) or options.tool == "bbcov")
                if reports and not any(r["blocks"] for r in bench.tool_reports()) and native.status >= 0:
                    different.append(f"{options.tool} wrote no report")
            except Failure as failure:
                different = [str(failure)]
            seconds = time.monotonic() - start
            print(f"{options.case} {options.tool} {mode}: {'FAILED' if different else 'same'}{agreeing} ({seconds:.1f} s)", flush=True)
            for text in different:
                print(text, flush=True)
            failures += bool(different)
    except Failure as failure:
        print(failure)
        failures += 1
    finally:
        if options.keep:
            print("kept", bench.root)
        else:
            bench.close()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
