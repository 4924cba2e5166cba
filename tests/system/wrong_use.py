#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Wrong use: one clear line on stderr and the documented exit status; a broken cache is slower, not wrong."""
import os
import re
import shutil
import subprocess

from common import Test


def make_files(test):
    def write(name, data, mode=0o755):
        with open(test.path(name), "wb") as f:
            f.write(data)
        os.chmod(test.path(name), mode)

    with open("/bin/true", "rb") as f:
        true = f.read()
    header = bytearray(true[:64])
    write("text", b"just text, no program\n")
    write("empty", b"")
    write("plain", true, 0o644)
    write("unreadable", true, 0o111)
    write("magic", b"\x7fELF")
    write("half-header", true[:40])
    write("half", true[:len(true) // 3])
    write("header", true[:64])
    header[4] = 1
    write("elf32", bytes(header) + true[64:])
    header[4] = 2
    header[18] = 0xb7
    write("arm", bytes(header) + true[64:])
    header[18] = 0x3e
    header[16] = 1
    write("object", bytes(header) + true[64:])
    write("script-missing", b"#!/nonexistent/interpreter\n")
    write("script-empty", b"#!\n")
    os.mkdir(test.path("folder"))
    os.symlink("loop", test.path("loop"))


# arguments after `bdbi run`, status, regex for the line, whether the same must hold without root only
RUNS = [
    (["/nonexistent/program"], 127, r"/nonexistent/program.*(not found|[Nn]o such file)"),
    (["no-such-program-in-path"], 127, r"no-such-program-in-path.*(not found|[Nn]o such file)"),
    (["@text/below"], 127, r"text/below"),
    (["@folder"], 126, r"folder.*directory"),
    (["@text"], 126, r"text"),
    (["@empty"], 126, r"empty"),
    (["@magic"], 126, r"magic"),
    (["@half-header"], 126, r"half-header"),
    (["@header"], 126, r"header"),
    (["@half"], 126, r"half"),
    (["@elf32"], 126, r"elf32"),
    (["@arm"], 126, r"arm"),
    (["@object"], 126, r"object"),
    (["@plain"], 126, r"plain.*([Pp]ermission|executable)"),
    (["@loop"], (126, 127), r"loop"),
    (["@script-missing"], (126, 127), r"script-missing|/nonexistent/interpreter"),
    (["@script-empty"], 126, r"script-empty"),
    (["--no-such-option", "true"], 125, r"--no-such-option"),
    (["--tool", "no-such-tool", "true"], 125, r"no-such-tool"),
    (["--tool", "bbcount:nonsense=1", "true"], 125, r"nonsense"),
    (["--tool"], 125, r"--tool"),
    (["--cache"], 125, r"--cache"),
    (["--cache", "/proc/" + "long/" * 120, "true"], 125, r"--cache.* 511 bytes"),
    ([], 125, r"PROG|program|usage"),
    (["--", ], 125, r"PROG|program|usage"),
]

WARMS = [
    (["/nonexistent/program"], 127, r"/nonexistent/program"),
    (["@folder"], 126, r"folder"),
    (["@text"], 126, r"text"),
    (["@half"], 126, r"half"),
    (["@elf32"], 126, r"elf32"),
    (["@arm"], 126, r"arm"),
    (["--no-such-option", "true"], 125, r"--no-such-option"),
    (["--tool", "no-such-tool", "true"], 125, r"no-such-tool"),
    (["--jobs", "none", "true"], 125, r"jobs"),
    ([], 125, r"PROG|program|usage"),
]


def judge(test, argv, status, pattern, what, progress=False, **keys):
    """PROGRESS: lines about what was done may come before the line that says what went wrong."""
    p = test.run(argv, **keys)
    lines = p.stderr.decode("utf-8", "replace").splitlines()
    if progress:
        lines, p.stdout = lines[-1:], b""
    statuses = status if isinstance(status, tuple) else (status,)
    good = p.returncode in statuses and len(lines) == 1 and re.search(pattern, lines[0]) and p.stdout == b"" and lines[0].startswith("bdbi")
    test.check(good, f"{what}: status {p.returncode} (expected {status}), stdout {p.stdout[:80]!r}, stderr {lines[:4]}")


def still_right(test, what, *options, quiet=True):
    """The program runs as it should although the cache is no good; at most one line says so."""
    p = test.run([test.bdbi, "run", *options, "--", "ls", "-d", "/usr"])
    lines = p.stderr.splitlines()
    test.check(p.returncode == 0 and p.stdout == b"/usr\n" and len(lines) <= (0 if quiet else 1),
               f"{what}: status {p.returncode}, {p.stdout[:80]!r}, stderr {lines[:4]}")


def broken_caches(test):
    test.warm("ls")
    data = os.path.join(test.cache, "v1", "data.mdb")
    with open(data, "rb") as f:
        good = f.read()

    def damaged(what, content):
        with open(data, "wb") as f:
            f.write(content)
        still_right(test, what, "--no-learn", quiet=False)
        with open(data, "wb") as f:
            f.write(good)

    still_right(test, "the cache as it is", "--no-learn")
    damaged("data.mdb empty", b"")
    for part in 10, 100, 4096, 5000, 8192, len(good) // 2, len(good) - 4096:
        damaged(f"data.mdb cut to {part} bytes", good[:part])
    for at in list(range(0, 256, 16)) + list(range(4096, 4096 + 256, 16)):
        flipped = bytearray(good)
        flipped[at] ^= 0xff
        damaged(f"data.mdb with byte {at} flipped", bytes(flipped))
    # Pages of the tree, and the headers of images. (Code itself is not checked at each start.)
    tree = [at for at in range(8192, len(good), 4096) if is_tree_page(good, at)]
    images = [at for at in range(8192, len(good), 4096) if good[at + 16:at + 24] == b"BDBIIMG1"]
    test.check(bool(tree) and bool(images), f"{len(tree)} tree pages and {len(images)} images found to damage")
    for at in tree[:10] + images[:10]:
        for first, last in (0, 16), (16, 176), (24, 28), (80, 100), (1000, 1100):
            flipped = bytearray(good)
            for i in range(at + first, min(at + last, len(good))):
                flipped[i] ^= 0xff
            damaged(f"data.mdb with bytes {at + first} to {at + last} flipped", bytes(flipped))
    damaged("data.mdb of zeros", bytes(len(good)))
    damaged("data.mdb of text", b"this is not a database\n" * 1000)
    with open(os.path.join(test.cache, "v1", "misses.log"), "ab") as f:
        f.write(b"\x00garbage" * 100)
    still_right(test, "garbage in the miss log", "--no-learn")  # a learner of its own could come when the store is a folder
    p = test.run([test.bdbi, "learn", "--wait", "--cache", test.cache])
    test.check(p.returncode == 0, f"learning from it: status {p.returncode} {p.stderr[:200]!r}")
    still_right(test, "the cache after that", "--no-learn")
    for name in ("data.mdb", "lock.mdb"):
        path = os.path.join(test.cache, "v1", name)
        os.unlink(path)
        os.mkdir(path)
        still_right(test, f"{name} is a folder", "--no-learn", quiet=False)
        os.rmdir(path)


def is_tree_page(data, page):
    """Branch and leaf pages of LMDB carry their own number and the flag 1 or 2."""
    return int.from_bytes(data[page:page + 8], "little") == page // 4096 and int.from_bytes(data[page + 10:page + 12], "little") in (1, 2)


def bad_places(test):
    with open(test.path("file"), "w", encoding="utf-8") as f:
        f.write("a file\n")
    still_right(test, "cache below a file", "--cache", test.path("file", "cache"), quiet=False)
    still_right(test, "cache is a file", "--cache", test.path("file"), quiet=False)
    still_right(test, "cache in a missing folder", "--cache", test.path("a", "b", "c"), quiet=False)
    still_right(test, "cache in /proc", "--cache", "/proc/nothing", quiet=False)
    judge(test, [test.warmer, "--cache", "/proc/nothing", "ls"], 125, r"/proc/nothing", "warm into /proc")
    judge(test, [test.warmer, "--cache", test.path("file"), "ls"], 125, r"file", "warm into a file")
    # A small file system: everything that does not fit is reported once, and nothing that was there is lost.
    small = test.path("small")
    os.mkdir(small)
    if os.getuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "none", small], check=False,
                                           stderr=subprocess.DEVNULL).returncode == 0:
        try:
            judge(test, [test.warmer, "--cache", os.path.join(small, "cache"), "ls"], 125, r"space|full", "warm into a full disk", progress=True)
            still_right(test, "cache on a full disk", "--cache", os.path.join(small, "cache"), quiet=False)
            subprocess.run(["mount", "-o", "remount,ro", small], check=True)
            still_right(test, "cache on a read-only disk", "--cache", os.path.join(small, "cache"), quiet=False)
        finally:
            subprocess.run(["umount", "-l", small], check=False)
    else:
        print("not root: no full disk tried")
    if os.getuid() == 0:
        # As nobody: root may read and write everything.
        os.chmod(test.root, 0o755)
        shutil.copy("/bin/true", test.path("mine"))
        os.chmod(test.path("mine"), 0o700)
        os.mkdir(test.path("locked"), 0o700)
        nobody = {"user": 65534, "group": 65534, "extra_groups": []}
        reachable = test.run([test.bdbi, "run", "--no-cache", "--", "true"], **nobody).returncode == 0
        if reachable:
            for name in ("unreadable", "mine", "locked/x"):
                judge(test, [test.bdbi, "run", "--no-cache", "--", test.path(name)], 126, name, f"as nobody: {name}", **nobody)
            p = test.run([test.bdbi, "run", "--cache", test.path("locked"), "--", "ls", "-d", "/usr"], **nobody)
            test.check(p.returncode == 0 and p.stdout == b"/usr\n" and len(p.stderr.splitlines()) <= 1, f"cache not writable: {p}")
            judge(test, [test.warmer, "--cache", test.path("locked"), "ls"], 125, "locked", "as nobody: warm into a locked folder", **nobody)
        else:
            print("nobody cannot reach the build folder: permissions not tried")


def body(test):
    make_files(test)
    for command, table in ([test.bdbi, "run"], RUNS), ([test.warmer], WARMS):
        for arguments, status, pattern in table:
            words = [test.path(w[1:]) if w.startswith("@") else w for w in arguments]
            judge(test, command + words, status, pattern, " ".join([os.path.basename(command[0]), *command[1:], *arguments]))
    judge(test, [test.bdbi, "nonsense"], 125, "nonsense", "unknown command")
    broken_caches(test)
    shutil.rmtree(test.cache)
    bad_places(test)


if __name__ == "__main__":
    Test(__doc__).main(body)
