#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every public header compiles alone as C11 and as C++17 without a warning."""
import glob
import os
import subprocess
import sys

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
LANGUAGES = [["gcc", "-x", "c", "-std=c11"], ["g++", "-x", "c++", "-std=c++17"]]


def main():
    bad = 0
    headers = glob.glob(os.path.join(ROOT, "include", "bdbi", "*.h"))
    if not headers:
        print("no public header found")
        return 1
    for header in sorted(headers):
        name = "bdbi/" + os.path.basename(header)
        for compiler in LANGUAGES:
            p = subprocess.run([*compiler, "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", os.path.join(ROOT, "include"), "-"],
                               input=f"#include <{name}>\n#include <{name}>\n", text=True, capture_output=True, check=False)
            print(name, compiler[-1], "ok" if p.returncode == 0 else p.stderr)
            bad += p.returncode != 0
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
