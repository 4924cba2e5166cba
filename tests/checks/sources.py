#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The sources: formatted as .clang-format says, SPDX line first, no path of the machine they were written on, README short."""
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
CODE = (".c", ".h", ".cpp")
SCRIPTS = (".py", ".sh", ".S", ".cmake", ".toml")
# Home folders and working folders of whoever writes; /work and the like are caught by the checkout's own path.
PRIVATE = re.compile(r"/home/[a-z]|/root/|/Users/|(?<![\w@.}/])/wor[k]/")


def files():
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return [f for f in listed.stdout.splitlines() if os.path.isfile(os.path.join(ROOT, f))]
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [d for d in folders if d not in ("build", ".git")]
        found += [os.path.relpath(os.path.join(folder, n), ROOT) for n in names]
    return found


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8", errors="replace") as f:
        return f.read()


def check_format(names):
    program = shutil.which("clang-format-14") or shutil.which("clang-format")
    p = subprocess.run([program, "--dry-run", "--Werror", *names], cwd=ROOT, capture_output=True, text=True, check=False)
    return [line for line in p.stderr.splitlines() if "error:" in line]


def check_spdx(names):
    bad = []
    for name in names:
        lines = read(name).splitlines()[:2]
        if lines and lines[0].startswith("#!"):
            lines = lines[1:]
        if not lines or "SPDX-License-Identifier: Apache-2.0" not in lines[0]:
            bad.append(f"{name}: no SPDX line first")
    return bad


def check_paths(names):
    bad = []
    for name in names:
        for number, line in enumerate(read(name).splitlines(), 1):
            if ROOT + "/" in line or PRIVATE.search(line) and name != "tests/checks/sources.py":
                bad.append(f"{name}:{number}: path of a machine: {line.strip()[:100]}")
    return bad


def main():
    names = files()
    code = [n for n in names if n.endswith(CODE)]
    commented = code + [n for n in names if n.endswith(SCRIPTS) or os.path.basename(n) == "CMakeLists.txt" or n.startswith(("scripts/", ".ci/"))]
    checks = {
        "format": lambda: check_format(code),
        "spdx": lambda: check_spdx(commented),
        "paths": lambda: check_paths(names),
        "readme": lambda: [f"README.md has {n} lines" for n in [len(read("README.md").splitlines())] if n >= 200],
    }
    wanted = sys.argv[1:] or list(checks)
    bad = 0
    for name in wanted:
        found = checks[name]()
        print(f"{name}: {len(found)} complaints")
        print("".join(f"  {text}\n" for text in found[:60]), end="")
        bad += len(found)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
