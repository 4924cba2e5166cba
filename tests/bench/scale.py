# SPDX-License-Identifier: Apache-2.0
"""How cost grows: start-up against loaded libraries, CPU time against threads, memory against concurrent processes.

The guests are generated and compiled here. Each point is native and bdbi in turn, several rounds, medians; `extra` is what bdbi
costs over native per library, thread or process: it must not grow with their number.
"""
import os
import re
import statistics
import subprocess

import programs
from measure import Failure, Plan, one_round

LIBRARIES = (1, 5, 20, 50, 100, 200)
THREADS = (1, 2, 4, 8, 16, 32)
PROCESSES = (1, 5, 20)
FUNCTIONS = 40  # in each library

THREADS_C = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static unsigned long step(unsigned long x, unsigned long i) { return x * 6364136223846793005ul + (i ^ (x >> 33)); }
static unsigned long other(unsigned long x, unsigned long i) { return (x ^ i) + (x << 7); }
static unsigned long (*volatile table[2])(unsigned long, unsigned long) = {step, other};

static void *work(void *seed)
{
    unsigned long x = (unsigned long)seed;
    for (unsigned long i = 0; i < 4000000; i++)
        x = table[x >> 40 & 1](x, i);
    return (void *)x;
}

int main(int argc, char **argv)
{
    int n = argc > 1 ? atoi(argv[1]) : 1;
    pthread_t threads[64];
    unsigned long sum = 0;
    for (long i = 0; i < n; i++)
        pthread_create(&threads[i], NULL, work, (void *)(i + 1));
    for (int i = 0; i < n; i++) {
        void *x;
        pthread_join(threads[i], &x);
        sum += (unsigned long)x;
    }
    printf("%lu\n", sum);
    return 0;
}
"""

# The process that the memory is read from: a Python with a few modules, as idle servers are.
WAITER = "import json, re, socket, sys; print('ready', flush=True); sys.stdin.read()"


def compile_(scratch, source, output, *options):
    scratch.must([programs.which("gcc"), "-O1", "-o", output, source, *options])
    return output


def libraries(scratch, n):
    """A program that calls into N libraries of FUNCTIONS functions each."""
    folder = scratch.folder(f"libraries.{n}")
    objects = []
    for i in range(n):
        path = os.path.join(folder, f"libscale{i}.so")
        body = "".join(f"long scale{i}_{k}(long x) {{ return x % {k + 2} ? x * {2 * k + 3} + {i} : x - {k}; }}\n" for k in range(FUNCTIONS))
        calls = "".join(f"    x = scale{i}_{k}(x);\n" for k in range(FUNCTIONS))
        source = programs.make_file(folder, f"scale{i}.c", body + f"long scale{i}(long x)\n{{\n{calls}    return x;\n}}\n")
        objects.append(compile_(scratch, source, path, "-shared", "-fPIC", "-nostdlib"))
    declared = "".join(f"long scale{i}(long);\n" for i in range(n))
    calls = "".join(f"    x = scale{i}(x);\n" for i in range(n))
    main = programs.make_file(folder, "main.c", declared + f"int main(void)\n{{\n    long x = 1;\n{calls}    return (x & 1) * 0;\n}}\n")
    return [compile_(scratch, main, os.path.join(folder, "main"), *objects, "-Wl,-rpath," + folder)]


def threads(scratch, n):
    source = programs.make_file(scratch.folder("threads"), "threads.c", THREADS_C)
    program = os.path.join(scratch.folder("threads"), "threads")
    if not os.path.exists(program):
        compile_(scratch, source, program, "-pthread")
    return [program, str(n)]


def timed_points(scratch, runners, name, numbers, command, plan, rounds):
    points = []
    for n in numbers:
        argv = command(scratch, n)
        for r in runners:
            r.prepare(argv)
        taken = [one_round(scratch, runners, argv, plan) for _ in range(rounds)]
        seconds = {r.name: statistics.median(t[r.name] for t in taken) for r in runners}
        extra = {r.name: (seconds[r.name] - seconds["native"]) / n for r in runners[1:]}
        points.append({"n": n, "seconds": seconds, "extra_seconds_each": extra})
        print(f"{name} {n:4}: " + ", ".join(f"{k} {v * 1000:.2f} ms" for k, v in seconds.items())
              + "".join(f", {k}: {v * 1e6:.0f} us more for each" for k, v in extra.items()), flush=True)
    return points


def rollup(pid):
    """Private, shared and proportional kB of a process."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii", errors="replace") as f:
        kb = {m[1]: int(m[2]) for m in re.finditer(r"^(\w+): +(\d+) kB", f.read(), re.M)}
    return {"private": kb["Private_Clean"] + kb["Private_Dirty"], "shared": kb["Shared_Clean"] + kb["Shared_Dirty"], "pss": kb["Pss"]}


def memory_of(scratch, argv, n):
    """The means over N processes that run at the same time."""
    running = []
    try:
        for _ in range(n):
            running.append(subprocess.Popen(argv, env=scratch.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
        for p in running:
            if p.stdout.readline() != b"ready\n":
                raise Failure(f"did not get ready: {' '.join(argv)}")
        all_ = [rollup(p.pid) for p in running]
        return {key: round(statistics.mean(m[key] for m in all_)) for key in all_[0]}
    finally:
        for p in running:
            p.stdin.close()
            p.stdout.close()
            p.wait()


def memory_points(scratch, runners):
    python = programs.tool("python3", "-S", "-c", WAITER)
    points = []
    if not python:
        print("processes: skipped, not installed: Debian package python3")
        return points
    for r in runners:
        r.prepare(python)
    for n in PROCESSES:
        kb = {r.name: memory_of(scratch, r.wrap(python), n) for r in runners}
        points.append({"n": n, "kb_each": kb})
        print(f"processes {n:3}: " + "; ".join(f"{name} private {m['private']} shared {m['shared']} pss {m['pss']} kB each" for name, m in kb.items()),
              flush=True)
    return points


def run(scratch, runners, rounds, only):
    """The JSON object of the scale set: points of libraries, threads, processes."""
    out = {}
    if not programs.which("gcc"):
        print("libraries, threads: skipped, not installed: Debian package gcc")
    else:
        if only in (None, "libraries"):
            out["libraries"] = timed_points(scratch, runners, "libraries", LIBRARIES, libraries, Plan("wall", 10, 1.0), rounds)
        if only in (None, "threads"):
            out["threads"] = timed_points(scratch, runners, "threads", THREADS, threads, Plan("cpu"), rounds)
    if only in (None, "processes"):
        out["processes"] = memory_points(scratch, runners)
    return out


def groups(result):
    """For the chart: what each library or thread costs (ms), and the memory of each process (MB)."""
    out = []
    for name in ("libraries", "threads"):
        out += [(f"{p['n']} {name}, ms each", {k: v * 1000 / p["n"] for k, v in p["seconds"].items()}) for p in result.get(name, [])]
    for key in ("private", "pss"):
        out += [(f"{p['n']} processes, MB {key}", {k: m[key] / 1024 for k, m in p["kb_each"].items()}) for p in result.get("processes", [])]
    return out
