#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Memory maps, read from outside at each process's end, five runs per program with ASLR on: no mapping is writable and
executable, no memory is writable at one address and executable at another, no page of cached code was copied. And no mmap or
mprotect on the way asks for both. That the cached code moves from run to run shows that ASLR was on.
"""
import os
import re
import shutil

from common import Test, smaps

PROGRAMS = [
    ["true"],
    ["ls", "-la", "/usr"],
    ["bash", "-c", "seq 1 10 | sort -r | head -3; (exit 3)"],
    ["python3", "-c", "import json, threading; t = threading.Thread(target=print); t.start(); t.join()"],
    ["@threads"],
    ["@static_exec"],
    ["@static_pie"],
    ["@dl"],
    ["@guest_jit"],
    ["@signal_threads"],
]


def body(test):
    for words in PROGRAMS:
        name = " ".join(words)[:30]
        argv = [test.program(w[1:]) if w.startswith("@") else w for w in words]
        for tool in [], ["--tool", "bbcount:out=" + test.path("report")]:
            test.warm(*(["--tool", "bbcount"] if tool else []), argv[0])
            test.run([test.bdbi, "run", *tool, "--", *argv])
            test.learn()
            complaints, places, pieces = [], set(), 0
            for _ in range(5):
                folder = test.path("smaps")
                shutil.rmtree(folder, ignore_errors=True)
                os.mkdir(folder)
                test.run([test.witness("at_exit"), folder, test.bdbi, "run", "--no-learn", *tool, "--", *argv])
                guests = smaps.read_folder(folder)
                if not guests:
                    complaints.append("no process seen at its end")
                for mappings in guests.values():
                    complaints += smaps.writable_code(mappings) + smaps.copied_code(mappings)
                    pieces += len(smaps.cached_code(mappings))
                    places.update(m.start for m in smaps.cached_code(mappings))
            if pieces == 0:
                complaints.append("no cached code was mapped")
            # A static ET_EXEC alone has its code at a fixed place.
            if len(places) < 5 and name not in ("@static_exec",):
                complaints.append(f"the code was at {len(places)} places only")
            # What the core itself asks the kernel for, at any time.
            trace = test.path("trace")
            test.run(["strace", "-f", "-qq", "-o", trace, "-e", "trace=mmap,mprotect,pkey_mprotect", test.bdbi, "run", "--no-learn", *tool, "--",
                      *argv])
            with open(trace, encoding="utf-8", errors="replace") as f:
                complaints += [line.strip() for line in f if re.search(r"PROT_WRITE\|PROT_EXEC", line)]
            test.check(not complaints, f"{name} {'bbcount' if tool else 'none'}: {pieces} mappings of cached code at {len(places)} places"
                       + "".join("\n  " + c for c in complaints[:10]))


if __name__ == "__main__":
    Test(__doc__).main(body)
