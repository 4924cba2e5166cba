#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The corpus of instructions, natively and under bdbi in every mode: each group's line must be the same.

  corpus.py --bin FOLDER --programs FOLDER --program NAME [--tool none|bbcount] [--modes LIST] [ARGUMENT of the program]...
  corpus.py ... --soak SECONDS [--first-seed N]      other states for as long, with no cache; stops at the first difference

With a tool the arithmetic flags that a fault's frame shows are left out (docs/limits.md).
"""
import argparse
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "differential"))
import diff
import harness


def groups(result):
    """{(place, group): the rest of its line}"""
    if result.status != 0:
        raise harness.Failure(f"{result.describe_status()}: {result.out[-300:]!r} {result.err[-300:]!r}")
    return {tuple(line.split()[:2]): line.split()[2:] for line in result.out.decode().splitlines()}


def differing(native, other):
    keys = list(native) + [k for k in other if k not in native]
    return [k for k in keys if native.get(k) != other.get(k)]


def report(program, keys):
    """Names the groups; what to run to see the items."""
    for place, group in keys[:10]:
        print(f"  {place} {group}: differs; compare {program} --place {place} --group {group}, then --item N")
    if len(keys) > 10:
        print(f"  and {len(keys) - 10} more")


def soak(bench, options):
    end, seed = time.monotonic() + options.soak, options.first_seed
    while time.monotonic() < end:
        bench.case.argv = bench.case.argv[:1] + ["--seed", str(seed)] + options.arguments
        native = groups(bench.run([]))
        keys = differing(native, groups(diff.run_mode(bench, "nocache", options.tool)))
        print(f"seed {seed}: {len(native)} groups, {len(keys)} differ", flush=True)
        if keys:
            report(options.program, keys)
            return 1
        seed += 1
    return 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--programs", required=True)
    parser.add_argument("--program", required=True)
    parser.add_argument("--tool", default="none")
    parser.add_argument("--modes", default=",".join(diff.MODES))
    parser.add_argument("--soak", type=int, default=0)
    parser.add_argument("--first-seed", type=int, default=2)
    options, options.arguments = parser.parse_known_args()
    if options.tool != "none":
        options.arguments.append("--no-fault-flags")

    path = "@programs@/" + options.program
    case = harness.Case({"name": options.program, "argv": [path] + options.arguments})
    bench = harness.Bench(case, options.bin, options.programs)
    failures = 0
    try:
        if options.soak:
            return soak(bench, options)
        result = bench.run([])
        if result.status == 77:
            print(result.out.decode(), end="")
            return 77
        native = groups(result)
        unstable = differing(native, groups(bench.run([])))
        if unstable:
            raise harness.Failure(f"two native runs differ: {unstable[:5]}")
        for mode in options.modes.split(","):
            start = time.monotonic()
            keys = differing(native, groups(diff.run_mode(bench, mode, options.tool)))
            print(f"{options.program} {options.tool} {mode}: {len(native)} groups, {len(keys)} differ ({time.monotonic() - start:.1f} s)", flush=True)
            report(options.program, keys)
            failures += bool(keys)
    except harness.Failure as failure:
        print(failure)
        failures += 1
    finally:
        bench.close()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
