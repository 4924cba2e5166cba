#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""After bdbi-warm and three learned runs with fixed inputs, 20 more runs of a case have no miss and never touch the translator.

  nomiss.py --bin FOLDER --programs FOLDER --at-exit FILE [--tool T] [--runs N] CASE

A miss ends the run with status 125 (--fail-on-jit). What may miss nevertheless is listed in EXCEPTIONS with its cause.
"""
import argparse
import os
import sys

import harness
import smaps
from harness import Failure

# case: cause; at most 3
EXCEPTIONS = {
    "python-ctypes": "libffi writes its closures into anonymous memory at run time: code without a file is translated in the run",
    "gcc-c": "runs a program that it has linked a moment before; gcc-c-compile shows the rest",
    "gcc-cxx": "runs a program that it has linked a moment before; gcc-cxx-compile shows the rest",
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin")
    parser.add_argument("--programs")
    parser.add_argument("--at-exit")
    parser.add_argument("--tool", default="none")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("case")
    options = parser.parse_args()
    if options.case in EXCEPTIONS:
        print(f"exception: {EXCEPTIONS[options.case]}")
        return 0

    bench = harness.Bench(harness.load_cases()[options.case], options.bin, options.programs)
    cache = ["--cache", bench.path("cache")]
    stats = bench.path("stats")
    try:
        native = bench.run([])
        bench.new_cache()
        bench.warm(options.tool)
        for _ in range(3):
            bench.run(bench.prefix(options.tool, *cache))
            bench.learn()
        bad = 0
        for run in range(options.runs):
            if os.path.exists(stats):
                os.unlink(stats)
            result = bench.run(bench.prefix(options.tool, *cache, "--fail-on-jit", "--stats=" + stats))
            different = harness.compare(native, result)
            processes = harness.parse_stats(stats)
            if harness.total(processes, "jit_blocks") != 0 or (not processes and native.status >= 0):
                different.append(f"blocks translated in the run: {[(p['path'], p.get('jit_blocks')) for p in processes]}")
            if different:
                bad += 1
                print(f"run {run + 1}: " + "\n".join(different), flush=True)
        if bad:
            raise Failure(f"{bad} of {options.runs} runs had a miss")
        folder = bench.path("out")
        at_exit = [options.at_exit, folder]
        # A learner that this run starts (threads in another order: new pairs for the hot list) would be taken for a guest.
        bench.run(at_exit + bench.prefix(options.tool, *cache, "--no-learn", "--fail-on-jit"))
        guests = smaps.read_folder(folder)
        complaints = [f"{pid}: {text}" for pid, mappings in guests.items() for text in smaps.used_translator(mappings, bench.bdbi)]
        if not guests:
            complaints.append("no process was seen at its end")
        if complaints:
            raise Failure("\n".join(complaints))
        print(f"{options.runs} runs without a miss, {len(guests)} processes never touched the translator")
        return 0
    except Failure as failure:
        print(failure)
        return 1
    finally:
        if options.keep:
            print("kept", bench.root)
        else:
            bench.close()


if __name__ == "__main__":
    sys.exit(main())
