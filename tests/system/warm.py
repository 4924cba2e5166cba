#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""bdbi-warm: what it says, what it skips, --force, --jobs, --also, where the cache is by default and who may read it; a guest that writes
over its environment changes nothing of that."""
import os
import pty
import re
import stat

from common import Test, harness

SUMMARY = re.compile(r"(\d+) modules \((\d+) translated, (\d+) cached already\), (\d+) blocks, (.+) text, (.+) code, [\d.]+ s")

LIBM = "/lib/x86_64-linux-gnu/libm.so.6"  # dl opens it


def warm(test, *options, env=None, cache=None):
    """(lines before the summary, its fields)."""
    where = ["--cache", cache or test.cache] if env is None else []
    lines = test.must([test.warmer, *where, *options], env=env or test.env).stdout.decode().splitlines()
    m = SUMMARY.fullmatch(lines[-1])
    if not m:
        raise harness.Failure(f"no summary: {lines[-1]!r}")
    return lines[:-1], m.groups()


def on_terminal(test):
    """What bdbi-warm writes to a terminal."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(test.warmer, [test.warmer, "--cache", test.path("terminal"), "ls"], test.env)
    text = b""
    try:
        while data := os.read(fd, 4096):
            text += data
    except OSError:  # the terminal's other end is closed
        pass
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, text.decode()


def folder_of(test, name, **variables):
    """Where the cache is with these variables only."""
    env = {k: v for k, v in test.env.items() if k not in ("BDBI_CACHE", "XDG_CACHE_HOME")} | variables
    warm(test, "true", env=env)
    folder = test.path(name)
    mode = stat.S_IMODE(os.stat(folder).st_mode) if os.path.exists(os.path.join(folder, "v1", "data.mdb")) else 0
    test.check(mode == 0o700, f"the cache by default, {list(variables)}: {name}, mode {mode:o}")
    p = test.run([test.bdbi, "run", "--fail-on-jit", "true"], env=env)
    test.check(p.returncode == 0, f"bdbi run finds it there: status {p.returncode} {p.stderr!r}")


def body(test):
    lines, first = warm(test, "ls")
    test.check(first[0] == first[1] == str(len(lines)) and first[2] == "0", f"a line for each of {first[0]} modules, {len(lines)} seen")
    lines, again = warm(test, "ls")
    test.check(not lines and again[1:4] == ("0", first[0], "0"), f"what is cached is skipped: {again}")
    lines, forced = warm(test, "--force", "ls")
    test.check(forced == first and len(lines) == int(first[0]), f"--force translates all again: {forced}")
    for jobs in "1", "3":
        _, other = warm(test, "--jobs", jobs, "ls", cache=test.path("jobs" + jobs))
        test.check(other == first, f"--jobs {jobs} makes the same: {other}")

    status, text = on_terminal(test)
    bars = re.findall(r"\r\x1b\[K\[[#.]{24}\] (\d+)/(\d+) \S+", text)
    test.check(status == 0 and [int(n) for n, _ in bars] == list(range(1, len(bars) + 1)) and len(bars) > 2 and SUMMARY.search(text),
               f"a bar on a terminal: {len(bars)} steps")

    program = test.program("dl")
    for also, status in ([], 125), (["--also", test.program("dl_*.so"), "--also", LIBM], 0):
        _, said = warm(test, *also, program, cache=test.path("also" + str(status)))
        p = test.run([test.bdbi, "run", "--cache", test.path("also" + str(status)), "--no-learn", "--fail-on-jit", program])
        test.check(p.returncode == status, f"{also} {said[0]} modules: status {p.returncode} {p.stderr!r}")

    folder_of(test, "mine", BDBI_CACHE=test.path("mine"), XDG_CACHE_HOME=test.path("xdg"))
    folder_of(test, "xdg/bdbi", XDG_CACHE_HOME=test.path("xdg"))
    folder_of(test, ".cache/bdbi")

    test.env["BDBI_CACHE"] = test.cache = test.path("titled")
    native, elsewhere = test.must([test.program("title")]).stdout, "/v1/misses.log"  # where an empty name would lead
    before = os.path.exists(elsewhere) and os.stat(elsewhere).st_size
    p = test.run([test.bdbi, "run", test.program("title")])
    test.check(p.returncode == 0 and p.stdout == native, f"a program that writes a title: status {p.returncode} {p.stdout!r}")
    after = os.path.exists(elsewhere) and os.stat(elsewhere).st_size
    test.check(after == before, f"what it needs is learned in its cache: {elsewhere} {before}, then {after}")


if __name__ == "__main__":
    Test(__doc__).main(body)
