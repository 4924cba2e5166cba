#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""docs/limits.md: what ends with one line ends with that line and its status; what a program sees otherwise than natively is said under --verbose."""
import os
import shutil

from common import Test


def lines_of(p):
    return [line for line in p.stderr.decode("utf-8", "replace").splitlines() if line.startswith("bdbi: ")]


def busy(test):
    """A file that somebody has open for writing, given to bdbi itself; what a guest executes is in sub_exec."""
    shutil.copy("/bin/true", test.path("busy"))
    with open(test.path("script"), "w") as f:
        f.write("#!/bin/sh\n")
    os.chmod(test.path("script"), 0o755)
    for name in "busy", "script":
        for options in [], ["--no-cache"]:
            with open(test.path(name), "r+b"):
                p = test.run([test.bdbi, "run", *options, "./" + name])
            said = lines_of(p)
            test.check(p.returncode == 126 and len(said) == 1 and "text file busy" in said[0], f"open for writing, {name} {options}: {p.returncode} {said}")
            p = test.run([test.bdbi, "run", *options, "./" + name])
            test.check(p.returncode == 0 and p.stderr == b"", f"closed again, {name} {options}: {p.returncode} {p.stderr!r}")


def body(test):
    busy(test)


if __name__ == "__main__":
    Test(__doc__).main(body)
