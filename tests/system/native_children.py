#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What bdbi cannot run - set-id and 32-bit programs - runs natively when a guest executes it, and only --verbose says so."""
import os
import shutil
import struct

from common import Test


def elf32(path):
    """A 32-bit program that ends with status 7."""
    code = b"\xb8\x01\x00\x00\x00\xbb\x07\x00\x00\x00\xcd\x80"  # exit(7)
    header = b"\x7fELF\x01\x01\x01" + bytes(9) + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, 0x8048000 + 84, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    segment = struct.pack("<IIIIIIII", 1, 0, 0x8048000, 0x8048000, 84 + len(code), 84 + len(code), 5, 0x1000)
    with open(path, "wb") as f:
        f.write(header + segment + code)
    os.chmod(path, 0o755)


def body(test):
    os.chmod(test.root, 0o755)
    elf32(test.path("elf32"))
    shutil.copy("/usr/bin/id", test.path("setid"))
    if os.getuid() == 0:
        os.chown(test.path("setid"), 65534, 65534)
    os.chmod(test.path("setid"), 0o4755)
    for name, arguments, why in ("elf32", "", "32-bit"), ("setid", " -u", "set-id"):
        script = f"./{name}{arguments}; echo status $?; echo after"
        native = test.run(["bash", "-c", script])
        for options in [], ["--no-cache"]:
            p = test.run([test.bdbi, "run", *options, "bash", "-c", script])
            test.check((p.returncode, p.stdout, p.stderr) == (native.returncode, native.stdout, native.stderr),
                       f"{name} {options}: {p.stdout!r} {p.stderr!r}, natively {native.stdout!r} {native.stderr!r}")
        p = test.run([test.bdbi, "run", "--verbose", "bash", "-c", script])
        said = [line for line in p.stderr.decode().splitlines() if line.startswith("bdbi: ") and "natively" in line]
        test.check(p.stdout == native.stdout and len(said) == 1 and name in said[0] and why in said[0], f"{name} --verbose: {said}")
    print("natively:", native.stdout)


if __name__ == "__main__":
    Test(__doc__).main(body)
