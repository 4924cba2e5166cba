#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""bbcount's instruction count of a static program is exactly the single-step tracer's, with no cache, cold, learned and warm.

  count.py --bin FOLDER --programs FOLDER --step FILE [--tool bbcount|bbcov|OBJECT] NAME

With bbcount built as a shared OBJECT its report must also be, line by line, the built-in one's. With bbcov the instructions of the covered
blocks are exactly those that the tracer saw executed; what is an instruction, objdump says.

Both runs get the same strings: the program is started by the same absolute path (argv[0], AT_EXECFN) with the same short
environment; AT_PLATFORM is the kernel's own. The strings are also equally aligned, since vector string functions take
other paths at other alignments: the kernel puts the path of the file it executes above the environment, so the program is
copied to a path as long as bdbi's. What stays is AT_PLATFORM's string: the kernel puts it at a random multiple of 16, and glibc's
strlen takes three more instructions for it in the last 32 bytes of a page, once in 128 runs. So two tracer runs must agree before
anything is compared, and a run that counts something else is made again, three times at most.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "differential"))
import harness  # noqa: E402


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin")
    parser.add_argument("--programs")
    parser.add_argument("--step")
    parser.add_argument("--tool", default="bbcount")
    parser.add_argument("name")
    options = parser.parse_args()
    bdbi = os.path.abspath(os.path.join(options.bin, "bdbi"))
    step = os.path.abspath(options.step)
    root = tempfile.mkdtemp(prefix="bdbi-count.")
    cache = os.path.join(root, "cache")
    program = os.path.join(root, "p").ljust(len(bdbi) + (64 if len(bdbi) < len(root) + 2 else 0), "p")
    shutil.copy(os.path.join(options.programs, options.name), program)
    # bdbi does not offer rseq: so that both take glibc's same path.
    env = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "GLIBC_TUNABLES": "glibc.pthread.rseq=0"}
    report = os.path.join(root, "report")
    cover = options.tool == "bbcov"

    def run(argv):
        p = subprocess.run(argv, env=env, cwd=root, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
        if p.returncode != 0:
            raise SystemExit(f"status {p.returncode}: {' '.join(argv)}\n{(p.stdout + p.stderr).decode()}")
        return p.stdout

    def traced():
        if cover:
            out = run([step, "instructions", "-o", report, program])
            with open(report, encoding="utf-8") as f:
                return out, frozenset(int(line.split()[1], 16) for line in f if line.startswith(program + " "))
        out = run([step, "count", "-o", report, program])
        with open(report, encoding="utf-8") as f:
            return out, int(f.read().split()[1])

    def disassembled():
        """The offsets from the program's lowest page of all instructions in its file."""
        headers = subprocess.run(["readelf", "-lW", program], capture_output=True, text=True, check=True).stdout
        base = min(int(m[1], 16) for m in re.finditer(r"^ +LOAD +\S+ 0x([0-9a-f]+)", headers, re.M)) & -4096
        text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", program], capture_output=True, text=True, check=True).stdout
        return frozenset(int(m[1], 16) - base for m in re.finditer(r"^ +([0-9a-f]+):\t", text, re.M))

    def covered():
        """The offsets of the instructions in covered blocks; a block that starts inside one is not."""
        [found] = harness.parse_drcov(report)
        [module] = [i for i, m in enumerate(found["modules"]) if m[0] == program]
        starts = [(start, size) for number, start, size in found["blocks"] if number == module]
        inside = {at for start, size in starts for at in range(start, start + size)} & instructions
        return frozenset(inside | {start for start, _ in starts})

    def empty_cache():
        run([bdbi, "learn", "--wait", "--cache", cache])
        shutil.rmtree(cache, ignore_errors=True)

    def counted(*mode, tool=options.tool, before=lambda: None):
        for _ in range(4):
            before()
            got = counted_once(mode, tool)
            if got[:2] == native:
                break
        return got

    def counted_once(mode, tool):
        if os.path.exists(report):
            os.unlink(report)
        out = run([bdbi, "run", *mode, "--tool", tool + ":out=" + report, "--", program])
        if cover:
            return out, covered(), 0, []
        [numbers] = harness.parse_bbcount(report)
        return out, numbers["instructions"], numbers["blocks"], numbers["modules"]

    instructions = disassembled() if cover else frozenset()
    try:
        seen = [traced()]
        while seen.count(seen[-1]) < 2 and len(seen) < 5:
            seen.append(traced())
        native = seen[-1]
        print("tracer:", *[len(value) if cover else value for _, value in seen])
        if seen.count(native) < 2:
            raise SystemExit("native runs differ")
        results = {"nocache": counted("--no-cache"), "cold": counted("--cache", cache, before=empty_cache)}
        run([bdbi, "learn", "--wait", "--cache", cache])
        results["learned"] = counted("--cache", cache)
        empty_cache()
        run([bdbi + "-warm", "--cache", cache, "--tool", options.tool, program])
        results["warm"] = counted("--cache", cache)
        if options.tool not in ("bbcount", "bbcov"):
            run([bdbi + "-warm", "--cache", cache, "--tool", "bbcount", program])
            results["built in, no cache"] = counted("--no-cache", tool="bbcount")
            results["built in, warm"] = counted("--cache", cache, tool="bbcount")
        bad = 0
        for mode, (out, executed, blocks, modules) in results.items():
            same = (out, executed) == native and (blocks, modules) == results["nocache"][2:]
            if cover:
                print(f"{mode}: {len(executed)} instructions covered: {'same' if same else 'DIFFERENT'}", *[f"{at:x}" for at in sorted(executed ^ native[1])][:20])
            else:
                print(f"{mode}: {executed} instructions, {blocks} blocks: {'same' if same else 'DIFFERENT'}")
            bad += not same
        return 1 if bad else 0
    finally:
        subprocess.run([bdbi, "learn", "--wait", "--cache", cache], env=env, capture_output=True, timeout=60, check=False)
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
