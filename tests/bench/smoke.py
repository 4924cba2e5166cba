#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The benchmark script works and what it writes is well formed: one program, one round; the smallest points of scale. Counts are
checked, times never."""
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

IDEAL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ideal")
RUN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "run")


def complaints(folder, set_, runners):
    with open(os.path.join(folder, set_ + ".json"), encoding="utf-8") as f:
        data = json.load(f)
    if data["set"] != set_ or data["runners"] != runners or len(data["programs"]) != 1:
        yield f"{set_}: {data['set']}, {data['runners']}, {len(data['programs'])} programs"
    program = data["programs"][0]
    if program["failed"] or sorted(program["ratios"]) != sorted(runners) or len(program["rounds"]) != 1:
        yield f"{set_}: not every runner took the program: {program}"
    for name in (r for r in runners if r.startswith("bdbi")):
        stats = program["stats"].get(name, {})
        if stats.get("processes") != 1 or stats.get("dispatch_syscall", 0) < 1:
            yield f"{set_}: strange counts: {stats}"
        if (stats.get("jit_blocks") == 0) == (set_ == "cold"):
            yield f"{set_}: {stats.get('jit_blocks')} blocks translated in the run"
        if name not in data["summary"]:
            yield f"{set_}: no summary of {name}"
    root = xml.etree.ElementTree.parse(os.path.join(folder, set_ + ".svg")).getroot()
    if len(root.findall("{http://www.w3.org/2000/svg}rect")) < 2 * len(runners[1:]):
        yield f"{set_}: the chart has too few bars"
    with open(os.path.join(folder, set_ + ".txt"), encoding="utf-8") as f:
        if "geomean" not in f.read():
            yield f"{set_}: the table has no geomean"


NUMBERS = {"libraries": [1, 5], "threads": [1, 2, 4, 8], "images": [10], "megabytes": [1], "processes": [1, 5]}
SERIES = {"libraries": 2, "threads": 2, "images": 2, "megabytes": 2, "warming": 1, "processes": 4}


def scale_complaints(folder):
    with open(os.path.join(folder, "scale.json"), encoding="utf-8") as f:
        data = json.load(f)["scale"]
    numbers = {name: [p["n"] for p in points] for name, points in data.items()}
    if numbers != NUMBERS:
        yield f"scale: points {numbers}"
    for name, count in SERIES.items():
        root = xml.etree.ElementTree.parse(os.path.join(folder, "charts", f"scale-{name}.svg")).getroot()
        drawn = [len(line.get("points").split()) for line in root.findall("{http://www.w3.org/2000/svg}polyline")]
        if drawn != [len(NUMBERS.get(name, NUMBERS["megabytes"]))] * count:
            yield f"scale: lines of {drawn} points in the chart of {name}"
    with open(os.path.join(folder, "scale.txt"), encoding="utf-8") as f:
        if f.read().count("exponent") != 3:
            yield "scale: the tables do not say how the cost grows"


def main():
    found = []
    with tempfile.TemporaryDirectory(prefix="bdbi-bench-smoke.") as folder:
        for set_, runners, options in (
            ("startup", ["native", "bdbi", "bdbi+bbcount", "env"], ["--tool", "bbcount", "--vs", "env"]),
            ("cold", ["native", "bdbi-cold"], ["--no-peers"]),
        ):
            p = subprocess.run([RUN, set_, "--only", "true", "--rounds", "1", "--runs", "2", "--out", folder, *options, *sys.argv[1:]],
                               capture_output=True, text=True, timeout=100, check=False)
            if p.returncode != 0:
                found.append(f"{set_}: status {p.returncode}\n{p.stdout}{p.stderr}")
                continue
            found += complaints(folder, set_, runners)
        p = subprocess.run([RUN, "scale", "--most", "10", "--rounds", "1", "--out", folder, "--charts", os.path.join(folder, "charts"), *sys.argv[1:]],
                           capture_output=True, text=True, timeout=100, check=False)
        found += [f"scale: status {p.returncode}\n{p.stdout}{p.stderr}"] if p.returncode else scale_complaints(folder)
    p = subprocess.run([IDEAL, "--runs", "1", *sys.argv[1:]], capture_output=True, text=True, timeout=100, check=False)
    lines = [line.split() for line in p.stdout.splitlines()]
    if p.returncode != 0 or sum(words[1:3] == ["bdbi", "bbcov"] for words in lines) != 2 or sum(words[1].startswith("gcc") for words in lines) != 6:
        found.append(f"ideal: status {p.returncode}\n{p.stdout}{p.stderr}")
    print("\n".join(found) or "ok")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
