#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Proves that the differential harness can fail: a stand-in for bdbi spoils one thing at a time (see fake/bdbi)."""
import os
import shutil
import subprocess
import sys
import tempfile

import harness

# fault, tool, text that the harness must say; None: it must pass
FAULTS = [
    ("", "none", None),
    ("", "bbcount", None),
    ("drop-byte", "none", "stdout differs"),
    ("flip-byte", "none", "stdout differs"),
    ("stderr", "none", "stderr differs"),
    ("status", "none", "natively exit status 0, here exit status 1"),
    ("signal", "none", "here killed by SIGSEGV"),
    ("file", "none", "file copy"),
    ("missing-file", "none", "file copy"),
    ("hang", "none", "no end after"),
    ("hold-pipe", "none", "still open"),
    ("stores", "none", "--no-cache stored something"),
    ("no-hits", "none", "nothing came from the cache"),
    ("no-report", "bbcount", "bbcount wrote no report"),
]
# The same for the case "parts".
PARTS = [
    ("", "none", "2 sub-cases agree"),
    ("flip-byte", "none", "sub-case one: stdout differs"),
    ("drop-byte", "none", "did not come to its end"),
]


def main():
    folder = tempfile.mkdtemp(prefix="bdbi-selftest.")
    bad = 0
    try:
        for name in ("bdbi", "bdbi-warm"):
            shutil.copy(os.path.join(harness.HERE, "fake", name), folder)
        for case, (fault, tool, text) in [("sample", f) for f in FAULTS] + [("parts", f) for f in PARTS]:
            with open(os.path.join(folder, "fault"), "w", encoding="utf-8") as f:
                f.write(fault)
            modes = {"stores": "nocache", "no-hits": "warm"}.get(fault, "nocache,cold,learned,warm" if not fault else "cold")
            p = subprocess.run([sys.executable, os.path.join(harness.HERE, "diff.py"), "--bin", folder, "--tool", tool, "--modes", modes,
                                "--cases", os.path.join(harness.HERE, "selftest.toml"), case], capture_output=True, text=True, check=False)
            good = (p.returncode == 0) == (not fault) and (text is None or text in p.stdout)
            print(f"{case}: {fault or 'no fault'} ({tool}): {'as it should be' if good else 'WRONG: ' + p.stdout + p.stderr}", flush=True)
            bad += not good
    finally:
        shutil.rmtree(folder)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
