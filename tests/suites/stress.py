#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A stressor of stress-ng with --verify under bdbi: it passes, or fails as it does natively.

  stress.py --bin FOLDER NAME     NAME.ops: a bounded number of operations (CI); NAME: 5 seconds. 77: no stress-ng, or no such stressor
  stress.py --list
"""
import argparse
import os
import subprocess
import sys
import tempfile

# Operations of the bounded run: a second or so.
STRESSORS = {
    "cpu": 10, "vm": 100, "mmap": 1, "mremap": 1, "fork": 100, "vfork": 300, "clone": 20, "pthread": 200, "signal": 20000, "sigfd": 20000,
    "sigsuspend": 5000, "timer": 500, "futex": 2000, "sem": 2000, "pipe": 20000, "poll": 2000, "switch": 10000, "brk": 20000, "stack": 20,
    "sigsegv": 5000, "sigfpe": 5000, "sigill": 1000, "sigtrap": 5000, "memcpy": 20, "qsort": 2, "str": 200, "matrix": 50, "vecmath": 20,
}


def run(prefix, name, limits):
    with tempfile.TemporaryDirectory(prefix="bdbi-stress.") as folder:
        env = {"PATH": "/usr/bin:/bin", "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8", "BDBI_CACHE": os.path.join(folder, "cache")}
        p = subprocess.run(prefix + ["stress-ng", f"--{name}", "1", "--verify", "--metrics-brief", "--temp-path", folder, *limits], cwd=folder,
                           env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=200, check=False)
        if prefix:
            subprocess.run([prefix[0], "learn", "--wait", "--cache", env["BDBI_CACHE"]], env=env, capture_output=True, timeout=100, check=False)
        return p.returncode, p.stdout.decode("utf-8", "replace")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("name", nargs="?")
    options = parser.parse_args()
    if options.list:
        for name in STRESSORS:
            print(f"{name}.ops ci\n{name} long")
        return 0
    name, _, bounded = options.name.partition(".")
    limits = [f"--{name}-ops", str(STRESSORS[name]), "-t", "100", "--mmap-bytes", "8m", "--mremap-bytes", "8m"] if bounded else ["-t", "5"]
    try:
        known = subprocess.run(["stress-ng", "--help"], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        print("skipped: no stress-ng")
        return 77
    if f"--{name} N" not in known:
        print(f"skipped: this stress-ng has no --{name}")
        return 77
    status, out = run([os.path.join(os.path.abspath(options.bin), "bdbi"), "run", "--"], name, limits)
    print(out)
    if status == 0:
        return 0
    native, text = run([], name, limits)
    print(f"status {status}; natively {native}:\n{text}")
    return 0 if native == status else 1


if __name__ == "__main__":
    sys.exit(main())
