# SPDX-License-Identifier: Apache-2.0
"""Reads /proc/PID/smaps and asks what matters here: writable code, private copies of cached code, use of the translator."""
import os
import re
import subprocess


class Mapping:
    def __init__(self, start, end, permissions, offset, device, inode, path):
        self.start, self.end, self.permissions, self.offset = start, end, permissions, offset
        self.file = (device, inode)
        self.path = path
        self.kb = {}

    def __str__(self):
        return f"{self.start:x}-{self.end:x} {self.permissions} {self.path}"


def parse(text):
    mappings = []
    for line in text.splitlines():
        m = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) ([0-9a-f]+) (\S+) (\d+)\s*(.*)", line)
        if m:
            mappings.append(Mapping(int(m[1], 16), int(m[2], 16), m[3], int(m[4], 16), m[5], int(m[6]), m[7]))
        else:
            m = re.match(r"(\w+):\s+(\d+) kB", line)
            if m and mappings:
                mappings[-1].kb[m[1]] = int(m[2])
    return mappings


def writable_code(mappings):
    """Complaints about mappings that are W and X, and about memory that is W at one address and X at another."""
    found = [f"writable and executable: {m}" for m in mappings if "w" in m.permissions and "x" in m.permissions]
    writable = {m.file: m for m in mappings if m.permissions[1] == "w" and m.permissions[3] == "s" and m.file[1] != 0}
    for m in mappings:
        if "x" in m.permissions and m.file in writable:
            found.append(f"executable {m} is writable as {writable[m.file]}")
    return found


def cached_code(mappings):
    return [m for m in mappings if "x" in m.permissions and m.path.endswith("data.mdb")]


def copied_code(mappings):
    return [f"{m.kb['Anonymous']} kB of private copies: {m}" for m in cached_code(mappings) if m.kb["Anonymous"] != 0]


def core_addresses(bdbi, cache={}):  # pylint: disable=dangerous-default-value
    """Where the core's sections (launcher/core.ld) start in the program BDBI: a segment that holds none of them is the translator's."""
    if bdbi not in cache:
        lines = subprocess.run(["readelf", "-SW", bdbi], capture_output=True, text=True, check=True).stdout.splitlines()
        cache[bdbi] = [int(m[1], 16) for m in (re.search(r" \.core\.\w+ +\w+ +([0-9a-f]+) ", line) for line in lines) if m]
    return cache[bdbi]


def translator_segments(mappings, bdbi):
    core = core_addresses(bdbi)
    path = os.path.realpath(bdbi)
    return [m for m in mappings if m.path == path and not any(m.start <= a < m.end for a in core)]


def used_translator(mappings, bdbi):
    """Complaints if the translator's segments are not all untouched."""
    segments = translator_segments(mappings, bdbi)
    if not segments:
        return ["the translator has no segments of its own"]
    return [f"{m.kb['Rss']} kB of the translator in memory: {m}" for m in segments if m.kb["Rss"] != 0]


def is_guest(mappings):
    """Whether this is a process that runs a program under bdbi (and not, for instance, a learner or a native shell)."""
    return any(m.path.endswith("/bdbi") for m in mappings) and not any(m.path.endswith("lock.mdb") for m in mappings)


def read_folder(folder):
    """{pid: mappings} of the guests among the *.smaps files that at_exit has left."""
    found = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".smaps"):
            with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as f:
                mappings = parse(f.read())
            if is_guest(mappings):
                found[name.removesuffix(".smaps")] = mappings
    return found
