#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""How much of what programs execute does static discovery alone find?

  recall.py --witnesses FOLDER --programs FOLDER NAME...      asserts 98 % for each named program
  recall.py --witnesses FOLDER --programs FOLDER --table      a Markdown table of all of them, for docs/discovery.md

Denominator: the distinct addresses that `reach` saw reached by a taken branch, call, return or fall-through after a branch, in
file-backed modules. Numerator: those among them that `leaders` lists for the module's file.
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile

REQUIRED = 98.0
PROGRAMS = {
    "python3-json": ["python3", "-c", "import json"],
    "git-version": ["git", "--version"],
    "cc1": ["/usr/lib/gcc/x86_64-linux-gnu/12/cc1", "-quiet", "@tiny.c", "-o", "/dev/null"],
    "ls": ["ls", "-la", "/usr"],
    # for the table only
    "true": ["true"],
    "cat": ["cat", "@tiny.c"],
    "sort": ["sort", "--parallel=1", "@tiny.c"],
    "sha256sum": ["sha256sum", "@tiny.c"],
    "bash": ["bash", "-c", "for i in 1 2 3; do x=$((x + i)); done; (exit 3); echo $x $(echo y) | cat; [[ abc =~ b(.) ]]"],
    "find": ["find", "/usr/share/doc/bash"],
    "perl": ["perl", "-e", "$h{$_ % 7} .= $_ for 1 .. 50; print join(',', map { s/1/x/gr } @h{sort keys %h}), qq(\\n)"],
    "gawk": ["gawk", "BEGIN { for (i = 0; i < 50; i++) s = s sprintf(\"%d,\", sqrt(i)); gsub(/1/, \"x\", s); print s }"],
    "lua5.4": ["lua5.4", "-e", "t = {} for i = 1, 50 do t[i] = ('x'):rep(i) end table.sort(t) print(#table.concat(t))"],
    "git-init": ["git", "init", "-q", "@repository"],
    "sqlite3": ["sqlite3", ":memory:", "create table t(a, b); insert into t values (1, 'x'), (2, 'y'); select * from t order by b desc;"],
    "cc1plus": ["/usr/lib/gcc/x86_64-linux-gnu/12/cc1plus", "-quiet", "@tiny.c", "-o", "/dev/null"],
    "as": ["as", "@tiny.s", "-o", "/dev/null"],
    "make": ["make", "-f", "/dev/null", "-p", "-n"],
    "cmake-version": ["cmake", "--version"],
    "openssl-dgst": ["openssl", "dgst", "-sha256", "@tiny.c"],
    "xz": ["xz", "-T1", "-k", "-c", "@tiny.c"],
    "tar": ["tar", "-cf", "/dev/null", "@tiny.c"],
    "curl-version": ["curl", "--version"],
    "busybox": ["busybox", "ls", "-la", "/usr"],
    "static_exec": ["%static_exec"],
    "static_pie": ["%static_pie"],
    "dl": ["%dl"],
    "branches": ["%branches"],
}


def measure(name, options, root):
    def expand(word):
        if word.startswith("@"):
            return os.path.join(root, word[1:])
        return os.path.abspath(os.path.join(options.programs, word[1:])) if word.startswith("%") else word

    report = os.path.join(root, "report")
    env = {"PATH": "/usr/bin:/bin", "HOME": root, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "PERL_HASH_SEED": "0"}
    p = subprocess.run([os.path.join(os.path.abspath(options.witnesses), "reach"), "-o", report, *map(expand, PROGRAMS[name])], env=env, cwd=root,
                       stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if not os.path.exists(report):
        raise SystemExit(f"{name}: status {p.returncode}: {p.stderr.decode()}")
    reached = {}
    with open(report, encoding="utf-8") as f:
        for line in f:
            module, offset = line.rstrip("\n").rsplit(" ", 1)
            reached.setdefault(module, set()).add(int(offset, 16))
    os.unlink(report)
    found, missed = 0, []
    for module, offsets in reached.items():
        out = subprocess.run([os.path.join(os.path.abspath(options.witnesses), "leaders"), module], capture_output=True, text=True, check=True).stdout
        leaders = {int(line, 16) for line in out.split()}
        found += len(offsets & leaders)
        missed += [f"{os.path.basename(module)}+{o:x}" for o in sorted(offsets - leaders)]
    return len(reached), found, missed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--witnesses", required=True)
    parser.add_argument("--programs", required=True)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    root = tempfile.mkdtemp(prefix="bdbi-recall.")
    try:
        with open(os.path.join(root, "tiny.c"), "w", encoding="utf-8") as f:
            f.write("struct point { int x, y; };\nint sum(struct point *p, int n)\n{\n    int s = 0;\n    while (n-- > 0)\n"
                    "        s += p[n].x * p[n].y;\n    return s;\n}\n")
        with open(os.path.join(root, "tiny.s"), "w", encoding="utf-8") as f:
            f.write(".globl f\nf: mov $1, %eax\n ret\n")
        if options.table:
            print("| program | modules | block starts executed | found | recall |\n|---|---|---|---|---|", flush=True)
        bad = 0
        for name in options.names or (PROGRAMS if options.table else []):
            modules, found, missed = measure(name, options, root)
            count = found + len(missed)
            recall = 100 * found / count if count else 0
            if options.table:
                words = " ".join(w.lstrip("@%") for w in PROGRAMS[name])[:60].replace("|", "\\|")
                print(f"| `{words}` | {modules} | {count} | {found} | {recall:.2f} % |", flush=True)
            else:
                print(f"{name}: {found} of {count} block starts in {modules} modules found: {recall:.2f} %, {REQUIRED} % required", flush=True)
                print("missed:", " ".join(missed[:60]))
                bad += recall < REQUIRED or count < 1000
        return 1 if bad else 0
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
