#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A module of Python's own test suite (Debian: libpython3.11-testsuite) under bdbi.

  python.py --bin FOLDER MODULE      exit status 77: not there, or it fails natively too
  python.py --list                   one line per module of python.txt: name, ci or long
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = "/usr/bin/python3"
SECONDS = 900


def modules():
    with open(os.path.join(HERE, "python.txt"), encoding="utf-8") as f:
        return {line.split()[0]: line.split()[1:] for line in f if line.strip() and not line.startswith("#")}


def run(prefix, module, arguments):
    with tempfile.TemporaryDirectory(prefix="bdbi-python.") as folder:
        os.mkdir(os.path.join(folder, "w"))
        env = {"PATH": "/usr/bin:/bin", "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8", "BDBI_CACHE": os.path.join(folder, "cache")}
        start = time.monotonic()
        p = subprocess.run(prefix + [PYTHON, "-m", "test", *arguments, module], cwd=os.path.join(folder, "w"), env=env,
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS, check=False)
        if prefix:
            subprocess.run([prefix[0], "learn", "--wait", "--cache", env["BDBI_CACHE"]], env=env, capture_output=True, timeout=300, check=False)
        return p.returncode, p.stdout, time.monotonic() - start


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("module", nargs="?")
    options = parser.parse_args()
    known = modules()
    if options.list:
        print("\n".join(f"{name} {words[0]}" for name, words in known.items()))
        return 0
    if subprocess.run([PYTHON, "-c", f"import test.{options.module}"], capture_output=True, check=False).returncode != 0:
        print(f"skipped: no test.{options.module} (package libpython3.11-testsuite)")
        return 77
    arguments = known[options.module][1:]
    status, out, seconds = run([os.path.join(os.path.abspath(options.bin), "bdbi"), "run", "--"], options.module, arguments)
    print(f"{options.module}: status {status} in {seconds:.1f} s")
    if status == 0:
        return 0
    print(out.decode("utf-8", "replace")[-4000:])
    native, _, seconds = run([], options.module, arguments)
    print(f"natively: status {native} in {seconds:.1f} s")
    return 77 if native != 0 else 1


if __name__ == "__main__":
    sys.exit(main())
