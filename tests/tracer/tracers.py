#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`reach` says exactly what `step blocks` says, and `step count` is right about a program whose number is known.

  tracers.py --witnesses FOLDER --programs FOLDER
"""
import argparse
import os
import subprocess
import sys
import tempfile

# 1 + 100 * 2 + a rep that counts once + 3 for exit
KNOWN = ".globl _start\n_start: mov $100, %ecx\n1: dec %ecx\n jnz 1b\n mov $0, %edi\n mov $7, %ecx\n lea buffer(%rip), %rdi\n rep stosb\n" \
        " mov $60, %eax\n xor %edi, %edi\n syscall\n.bss\nbuffer: .zero 64\n"
KNOWN_COUNT = 1 + 200 + 4 + 3


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--witnesses", required=True)
    parser.add_argument("--programs", required=True)
    options = parser.parse_args()
    step, reach = (os.path.join(os.path.abspath(options.witnesses), n) for n in ("step", "reach"))
    programs = os.path.abspath(options.programs)
    bad = 0
    with tempfile.TemporaryDirectory(prefix="bdbi-tracers.") as root:
        report, known = os.path.join(root, "report"), os.path.join(root, "known")

        def lines(*argv):
            # At the same addresses each time: string functions take other paths at other alignments.
            p = subprocess.run(["setarch", "-R", *argv], cwd=root, env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=False)
            with open(report, encoding="utf-8") as f:
                return [line for line in f.read().splitlines() if not line.startswith("#")], p.stdout, p.returncode

        subprocess.run(["gcc", "-nostdlib", "-static", "-x", "assembler", "-", "-o", known], input=KNOWN, text=True, check=True)
        counted = lines(step, "count", "-o", report, known)[0]
        print("known program:", counted)
        bad += counted != [f"instructions {KNOWN_COUNT}"]
        for argv in ["true"], ["ls", "-d", "/"], [programs + "/count_libc"], ["sha256sum", "/etc/passwd"]:
            slow, fast = lines(step, "blocks", "-o", report, *argv), lines(reach, "-o", report, *argv)
            print(f"{' '.join(argv)}: step {len(slow[0])}, reach {len(fast[0])}, {'same' if slow == fast else 'DIFFERENT'}")
            bad += slow != fast or len(slow[0]) < 500
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
