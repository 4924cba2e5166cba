# SPDX-License-Identifier: Apache-2.0
"""Running and timing: the scratch folder, the runners (native, bdbi, peers), bdbi's caches, the rounds.

A runner turns a program's command line into its own. Within a round all runners take a program in turn, so a ratio compares runs
that were close in time; what is reported is the median over the rounds of the ratios, not a ratio of medians.
"""
import hashlib
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import tempfile
import threading
import time

STATS = ("jit_blocks", "dispatch_ibl_miss", "dispatch_direct_miss", "dispatch_syscall", "ibl_hits", "dispatch_event", "dispatch_fault", "dispatch_signal")
DEFAULT_PEERS = ("valgrind --tool=none --trace-children=yes -q", "qemu-x86_64")


class Failure(Exception):
    """Something that should run did not; the text says what."""


class Sample:
    """One run: wall and CPU seconds (of the process and all it waited for), wait status."""

    def __init__(self, wall, cpu, status):
        self.wall, self.cpu, self.status = wall, cpu, status


class Scratch:
    """A folder for inputs, outputs and caches, and the environment of every run."""

    def __init__(self, keep):
        self.keep = keep
        self.root = tempfile.mkdtemp(prefix="bdbi-bench.")
        self.inputs = self.folder("inputs")
        self.env = {"PATH": "/usr/bin:/bin", "HOME": self.root, "TMPDIR": self.root, "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0",
                    "PERL_HASH_SEED": "0", "PERL_PERTURB_KEYS": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        self.null = os.open("/dev/null", os.O_RDWR)

    def path(self, name):
        return os.path.join(self.root, name)

    def folder(self, name):
        os.makedirs(self.path(name), exist_ok=True)
        return self.path(name)

    def run(self, argv, out=None, timeout=300):
        """Sample of one run; stdout and stderr go to the descriptor OUT, or nowhere."""
        out = self.null if out is None else out
        actions = [(os.POSIX_SPAWN_DUP2, self.null, 0), (os.POSIX_SPAWN_DUP2, out, 1), (os.POSIX_SPAWN_DUP2, out, 2)]
        begin = time.perf_counter()
        pid = os.posix_spawn(argv[0], argv, self.env, file_actions=actions)
        timer = threading.Timer(timeout, os.kill, (pid, signal.SIGKILL)) if timeout else None
        if timer:
            timer.start()
        _, status, usage = os.wait4(pid, 0)
        wall = time.perf_counter() - begin
        if timer:
            timer.cancel()
            timer.join()
        return Sample(wall, usage.ru_utime + usage.ru_stime, os.waitstatus_to_exitcode(status))

    def quick(self, argv):
        """Like run, without the thread that watches the time: for what takes milliseconds and is known to end."""
        return self.run(argv, timeout=0)

    def output(self, argv):
        """(status, digest of stdout) of one run."""
        p = subprocess.run(argv, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=600,
                           check=False, cwd=self.root)
        return p.returncode, hashlib.sha256(p.stdout).hexdigest()

    def must(self, argv):
        p = subprocess.run(argv, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, timeout=600, check=False)
        if p.returncode != 0:
            raise Failure(f"status {p.returncode}: {' '.join(argv)}\n{p.stderr.decode('utf-8', 'replace')[-1000:]}")
        return p

    def close(self):
        if self.keep:
            print("kept", self.root)
        else:
            shutil.rmtree(self.root, ignore_errors=True)


# ---- runners ----


class Native:
    name = "native"

    def prepare(self, argv):
        pass

    def wrap(self, argv):
        return argv

    def after(self):
        pass

    def stats(self, argv):
        return None


class Peer(Native):
    """Any command that takes a program's command line after its own arguments."""

    def __init__(self, command):
        self.argv = shlex.split(command)
        self.argv[0] = shutil.which(self.argv[0]) or self.argv[0]
        self.name = os.path.basename(self.argv[0])
        self.command = command

    def installed(self):
        return os.access(self.argv[0], os.X_OK)

    def wrap(self, argv):
        return self.argv + argv


class Bdbi(Native):
    """Warm: one cache for all programs, each warmed ahead of time, with a training run if TRAIN, and then learned from two runs."""

    def __init__(self, scratch, folder, tool=None, train=False):
        self.scratch, self.train = scratch, train
        self.name = f"bdbi+{tool}" if tool else "bdbi"
        self.program, self.warmer = os.path.join(folder, "bdbi"), os.path.join(folder, "bdbi-warm")
        self.tool = ["--tool", tool] if tool else []
        self.cache = scratch.folder("cache." + self.name)

    def wrap(self, argv, *options):
        return [self.program, "run", "--cache", self.cache, *self.tool, *options, "--", *argv]

    def prepare(self, argv):
        train = ["--train"] if self.train else []
        self.scratch.must([self.warmer, "--cache", self.cache, *self.tool, *train, *argv])
        for _ in range(2):
            self.scratch.run(self.wrap(argv))
            self.scratch.must([self.program, "learn", "--wait", "--cache", self.cache])

    def stats(self, argv):
        """One more run's counts, summed over its processes."""
        path = self.scratch.path("stats")
        if os.path.exists(path):
            os.unlink(path)
        self.scratch.run(self.wrap(argv, "--stats=" + path))
        return read_stats(path)


class ColdBdbi(Bdbi):
    """Every run begins with an empty cache and adds nothing to it."""

    def __init__(self, scratch, folder, tool=None):
        super().__init__(scratch, folder, tool)
        self.name, self.count = "bdbi-cold", 0
        self.cache = scratch.folder("cold.0")

    def wrap(self, argv, *options):
        return super().wrap(argv, "--no-learn", *options)

    def prepare(self, argv):
        pass

    def after(self):
        shutil.rmtree(self.cache, ignore_errors=True)
        self.count += 1
        self.cache = self.scratch.folder(f"cold.{self.count}")


def read_stats(path):
    """The counts of a --stats=FILE, summed over the processes in it."""
    sums = {"processes": 0, **dict.fromkeys(STATS, 0)}
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace") as f:
            for line in f:
                key, _, value = line.rstrip("\n").partition(" ")
                if key == "process":
                    sums["processes"] += 1
                elif key in STATS and value.isdigit():
                    sums[key] += int(value)
    return sums


# ---- rounds ----


class Plan:
    """How a set is measured. many: this many runs a round, alternating between the runners, of which one counts (pick: the median); a
    runner that has used up `budget` seconds of the round stops after its third run, or with five times as much at once."""

    def __init__(self, clock, many=1, budget=1.0, pick=statistics.median):
        self.clock, self.many, self.budget, self.pick = clock, many, budget, pick


def prepare(scratch, runner, argv, expected):
    """None, or why this runner cannot take this program. EXPECTED: status and digest of the native output."""
    try:
        runner.prepare(argv)
        got = scratch.output(runner.wrap(argv))
    except (Failure, subprocess.TimeoutExpired, OSError) as e:
        return str(e).splitlines()[0][:200]
    finally:
        runner.after()
    if got[0] != expected[0]:
        return f"status {got[0]}, natively {expected[0]}"
    return None if got[1] == expected[1] else "stdout differs from native"


def one_round(scratch, runners, argv, plan):
    """{runner's name: seconds}. All runs must end alike: one that fails is fast."""
    seconds, status = {r.name: [] for r in runners}, None
    run = scratch.run if plan.many == 1 else scratch.quick
    for turn in range(plan.many):
        for r in runners:
            taken = seconds[r.name]
            if sum(taken) > plan.budget * (1 if turn >= 3 else 5):
                continue
            command = r.wrap(argv)
            sample = run(command)
            r.after()
            status = sample.status if status is None else status
            if sample.status != status:
                raise Failure(f"status {sample.status} instead of {status}: {' '.join(command)}")
            taken.append(getattr(sample, plan.clock))
    return {name: plan.pick(values) for name, values in seconds.items()}


def measure(scratch, program, runners, plan, rounds, peer_rounds):
    """The JSON object of one program. Peers take part in the first PEER_ROUNDS rounds only."""
    argv = program.command(scratch.inputs)
    result = {"name": program.name, "package": program.package, "rounds": [], "ratios": {}, "stats": {}, "failed": {}}
    if not argv:
        result["skipped"] = f"not installed: Debian package {program.package}"
        return result
    expected = scratch.output(argv)
    able = []
    for r in runners:
        why = prepare(scratch, r, argv, expected)
        if why:
            result["failed"][r.name] = why
        else:
            able.append(r)
    if not able or able[0].name != "native":
        raise Failure(f"{program.name} does not give the same output twice: {result['failed']}")
    for n in range(rounds):
        now = [r for r in able if not isinstance(r, Peer) or n < peer_rounds]
        result["rounds"].append(one_round(scratch, now, argv, plan))
    for r in able:
        pairs = [(x[r.name], x["native"]) for x in result["rounds"] if r.name in x]
        if pairs:
            result["ratios"][r.name] = round(statistics.median(a / b for a, b in pairs), 4)
        counts = r.stats(argv)
        r.after()
        if counts:
            result["stats"][r.name] = counts
    result["native_seconds"] = statistics.median(x["native"] for x in result["rounds"])
    return result


def summary(results, names):
    """{runner: geomean, worst, worst_program, programs} over the programs that the runner could take."""
    out = {}
    for name in names:
        ratios = {r["name"]: r["ratios"][name] for r in results if name in r["ratios"]}
        if ratios:
            worst = max(ratios, key=ratios.get)
            out[name] = {"geomean": round(statistics.geometric_mean(ratios.values()), 4), "worst": ratios[worst], "worst_program": worst,
                         "programs": len(ratios)}
    return out
