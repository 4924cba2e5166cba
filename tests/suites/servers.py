#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Servers under bdbi with clients natively and under bdbi, and the builds of packages.

  servers.py --bin FOLDER redis|memcached|nginx|postgres|build|build_lua     77: a program is not there
  servers.py --list
"""
import argparse
import hashlib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time


class Suite:
    def __init__(self, options):
        self.bdbi = os.path.join(os.path.abspath(options.bin), "bdbi")
        self.root = tempfile.mkdtemp(prefix="bdbi-servers.")
        os.chmod(self.root, 0o755)
        self.env = {"PATH": "/usr/bin:/bin:/usr/sbin", "HOME": self.root, "TMPDIR": self.root, "LANG": "C.UTF-8", "TZ": "UTC",
                    "BDBI_CACHE": self.path("cache")}
        self.run = [self.bdbi, "run", "--"]
        self.complaints = 0

    def path(self, *names):
        return os.path.join(self.root, *names)

    def check(self, good, text):
        print(("ok: " if good else "FAILED: ") + text, flush=True)
        self.complaints += not good

    def command(self, argv, timeout=200, **keys):
        p = subprocess.run(argv, env=self.env, cwd=self.root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           text=True, timeout=timeout, check=False, **keys)
        return p.returncode, p.stdout

    def server(self, argv, port):
        """Started, and answering at the port (a number, or the path of a socket)."""
        with open(self.path("log"), "ab") as log:
            p = subprocess.Popen(argv, env=self.env, cwd=self.root, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        for _ in range(600):
            if p.poll() is not None:
                break
            try:
                with socket.socket(socket.AF_INET if isinstance(port, int) else socket.AF_UNIX) as s:
                    s.connect(("127.0.0.1", port) if isinstance(port, int) else port)
                    return p
            except OSError:
                time.sleep(0.1)
        self.check(False, f"{argv} does not answer:\n{self.log()}")
        p.kill()
        sys.exit(1)

    def log(self):
        with open(self.path("log"), encoding="utf-8", errors="replace") as f:
            return f.read()[-3000:]

    def stop(self, p, number, status=0):
        p.send_signal(number)
        try:
            self.check(p.wait(60) == status, f"the server ends with status {p.returncode} (expected {status})")
        except subprocess.TimeoutExpired:
            p.kill()
            self.check(False, "the server ends within a minute")
        self.check("bdbi:" not in self.log(), f"bdbi has nothing to say {re.findall('bdbi:.*', self.log())[:3]}")

    def close(self):
        if os.path.isdir(self.path("cache")):
            self.command([self.bdbi, "learn", "--wait"])
        shutil.rmtree(self.root, ignore_errors=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def redis(suite):
    port = free_port()
    p = suite.server(suite.run + ["redis-server", "--port", str(port), "--save", "", "--dir", suite.root], port)
    for prefix in ([], suite.run):
        status, out = suite.command(prefix + ["redis-benchmark", "-p", str(port), "-n", "3000", "-q", "-t", "ping,set,get,incr,lpush,lrange_100,mset"])
        done = len(re.findall(r"requests per second, p50", out))
        suite.check(status == 0 and done == 9, f"redis-benchmark: status {status}, {done} of 9 tests")
    cli = ["redis-cli", "-p", str(port)]
    for argv, expected in (["set", "k", "value"], "OK"), (["get", "k"], "value"), (["eval", "return redis.call('get','k')..'!'", "0"], "value!"):
        status, out = suite.command(suite.run + cli + argv)
        suite.check(out.strip() == expected, f"redis-cli {argv}: {out!r}")
    suite.command(cli + ["bgsave"])  # a forked child writes it
    for _ in range(100):
        if "rdb_bgsave_in_progress:0" in suite.command(cli + ["info", "persistence"])[1]:
            break
        time.sleep(0.1)
    status, out = suite.command(["redis-check-rdb", suite.path("dump.rdb")])
    suite.check(status == 0, f"the dump is sound: status {status}")
    suite.stop(p, signal.SIGTERM)


def memcached(suite):
    port = free_port()
    user = ["-u", "root"] if os.getuid() == 0 else []
    p = suite.server(suite.run + ["memcached", *user, "-p", str(port), "-t", "4", "-l", "127.0.0.1"], port)
    good = []

    def client(number):
        with socket.create_connection(("127.0.0.1", port)) as s, s.makefile("rwb") as f:
            for i in range(300):
                f.write(b"set k%d_%d 0 0 5\r\nhello\r\nget k%d_%d\r\n" % (number, i, number, i))
                f.flush()
                lines = [f.readline() for _ in range(4)]
                if lines != [b"STORED\r\n", b"VALUE k%d_%d 0 5\r\n" % (number, i), b"hello\r\n", b"END\r\n"]:
                    return
        good.append(number)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    suite.check(len(good) == 8, f"{len(good)} of 8 clients got what they stored")
    suite.stop(p, signal.SIGTERM)


def nginx(suite):
    port = free_port()
    os.makedirs(suite.path("html"))
    os.makedirs(suite.path("logs"))
    with open(suite.path("html", "index.html"), "wb") as f:
        f.write(bytes(range(256)) * 40)
    with open(suite.path("conf"), "w", encoding="utf-8") as f:
        f.write(f"""worker_processes 2; daemon off; pid {suite.root}/pid; error_log {suite.root}/errors;
{"user root;" if os.getuid() == 0 else ""}
events {{ worker_connections 256; }}
http {{ access_log off; gzip on; gzip_types *;
  client_body_temp_path {suite.root}/b; proxy_temp_path {suite.root}/p; fastcgi_temp_path {suite.root}/f; uwsgi_temp_path {suite.root}/u;
  scgi_temp_path {suite.root}/s; server {{ listen 127.0.0.1:{port}; root {suite.root}/html; }} }}
""")
    p = suite.server(suite.run + ["nginx", "-p", suite.root, "-c", suite.path("conf")], port)
    url = f"http://127.0.0.1:{port}/index.html"
    for prefix, reload in ([], True), (suite.run, False):
        status, out = suite.command(prefix + ["wrk", "-t2", "-c20", "-d2", url])
        requests = int(re.search(r"(\d+) requests in", out)[1]) if status == 0 else 0
        suite.check(requests > 100 and "Socket errors" not in out and "Non-2xx" not in out, f"wrk: {requests} requests, no error\n{out if status else ''}")
        if reload:
            p.send_signal(signal.SIGHUP)  # new workers take over
            time.sleep(1)
    for options in [], ["--compressed"]:
        got = subprocess.run(["curl", "-s", *options, url], capture_output=True, timeout=60, check=False).stdout
        suite.check(got == bytes(range(256)) * 40, f"curl {options} gets the page: {len(got)} bytes")
    suite.stop(p, signal.SIGQUIT)
    with open(suite.path("errors"), encoding="utf-8") as f:
        bad = [line for line in f if re.search(r"\[(alert|crit|emerg|error)\]", line)]
    suite.check(not bad, f"nothing in the error log {bad[:3]}")


def postgres(suite):
    binaries = sorted(os.path.join("/usr/lib/postgresql", v, "bin") for v in os.listdir("/usr/lib/postgresql"))[-1]
    suite.env["PATH"] += ":" + binaries
    as_user = []
    os.mkdir(suite.path("pg"))
    if os.getuid() == 0:  # it refuses to run as root
        user = pwd.getpwnam("postgres")
        os.chown(suite.path("pg"), user.pw_uid, user.pw_gid)
        os.mkdir(suite.path("pgcache"))
        os.chown(suite.path("pgcache"), user.pw_uid, user.pw_gid)
        suite.env["BDBI_CACHE"] = suite.path("pgcache")
        shutil.copytree(os.path.dirname(suite.bdbi), suite.path("bin"), ignore=shutil.ignore_patterns("lockstep"))  # where it may read
        suite.bdbi = suite.path("bin", "bdbi")
        suite.run[0] = suite.bdbi
        as_user = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
    status, out = suite.command(as_user + suite.run + ["initdb", "-D", "pg/data", "--no-sync"])
    suite.check(status == 0, f"initdb: status {status}\n{out[-1500:] if status else ''}")
    where = ["-h", suite.path("pg"), "-p", "5999"]
    p = suite.server(as_user + suite.run + ["postgres", "-D", "pg/data", "-p", "5999", "-k", suite.path("pg"), "-c", "listen_addresses="],
                     suite.path("pg", ".s.PGSQL.5999"))
    time.sleep(1)
    status, out = suite.command(as_user + ["pgbench", "-i", "-q", "-s", "1", *where, "postgres"])
    suite.check(status == 0, f"pgbench -i: status {status} {out[-500:] if status else ''}")
    for prefix, clients, count in ([], 4, 100), (suite.run, 2, 50):
        status, out = suite.command(as_user + prefix + ["pgbench", "-n", "-c", str(clients), "-j", "2", "-t", str(count), *where, "postgres"])
        suite.check(f"actually processed: {clients * count}/{clients * count}" in out, f"pgbench: all of {clients * count} transactions")
    query = ("select count(*), (select count(*) from pgbench_history), sum(abalance) = (select sum(delta) from pgbench_history),"
             " sum(abalance) = (select sum(bbalance) from pgbench_branches) from pgbench_accounts")
    status, out = suite.command(as_user + suite.run + ["psql", "-At", *where, "-c", query, "postgres"])
    suite.check(out.strip() == "100000|500|t|t", f"the accounts add up: {out.strip()}")
    suite.stop(p, signal.SIGINT)


def build_package(suite, package, command, tests):
    """Debian's source of PACKAGE: COMMAND leaves the same files natively and under bdbi, and says TESTS (an expression) at least twice."""
    apt = suite.path("apt")
    os.makedirs(os.path.join(apt, "lists", "partial"))
    os.makedirs(os.path.join(apt, "archives", "partial"))
    with open(os.path.join(apt, "sources.list"), "w", encoding="utf-8") as f:
        f.write("deb-src http://deb.debian.org/debian bookworm main\n")
    options = [f"Dir::Etc::sourcelist={apt}/sources.list", "Dir::Etc::sourceparts=/dev/null", f"Dir::State::Lists={apt}/lists",
               f"Dir::Cache={apt}", "APT::Sandbox::User=root"]
    apt_get = ["apt-get", "-qq"] + [word for option in options for word in ("-o", option)]
    for words in ["update"], ["source", "--download-only", package]:
        status, out = suite.command(apt_get + words)
        if status != 0:
            print(f"skipped: apt-get {words}: {out[-500:]}")
            return 77
    archive = next(name for name in os.listdir(suite.root) if re.match(package + r"_.*\.orig\.tar\.\w+$", name))
    suite.env["SOURCE_DATE_EPOCH"] = "1600000000"
    trees = []
    for prefix in [], suite.run:
        shutil.rmtree(suite.path("w"), ignore_errors=True)
        os.mkdir(suite.path("w"))
        suite.command(["tar", "-C", "w", "--strip-components=1", "-xf", archive])
        status, out = suite.command(prefix + ["sh", "-c", f"cd w && {command}"], 900)
        passed = len(re.findall(tests, out))
        suite.check(status == 0 and passed >= 2, f"{command}: status {status}, {passed} of its tests\n{out[-1500:] if status else ''}")
        tree = {}
        for folder, _, names in os.walk(suite.path("w")):
            for name in names:
                path = os.path.join(folder, name)
                if name != "configure.log" and not os.path.islink(path):  # which has dates and process numbers
                    with open(path, "rb") as f:
                        tree[os.path.relpath(path, suite.path("w"))] = (os.stat(path).st_mode, hashlib.sha256(f.read()).hexdigest())
        trees.append(tree)
    different = [name for name in sorted(set(trees[0]) | set(trees[1])) if trees[0].get(name) != trees[1].get(name)]
    suite.check(not different, f"{len(trees[0])} files are the same {different[:10]}")
    return 0


def build(suite):
    return build_package(suite, "zlib", "./configure && make -j2 && make test", "test OK")


LUA_TEST = """
local t = {}
for i = 1, 100000 do t[i] = (i * 7919) % 100003 end
table.sort(t)
local c = coroutine.wrap(function() for i = 1, 1000 do coroutine.yield(i) end return 0 end)
local sum = 0
for i = 1, 1000 do sum = sum + c() end
assert(t[1] <= t[2] and sum == 500500 and not pcall(error, "x") and ("x"):rep(1000):gsub("x", "yy"):len() == 2000)
assert(load(string.dump(function(a) return a + 1 end))(1) == 2 and string.format("%a", 0.5) == "0x1p-1")
print("test OK"); os.exit(true, true)
"""


def build_lua(suite):
    with open(suite.path("test.lua"), "w", encoding="utf-8") as f:
        f.write(LUA_TEST)
    command = ("make -j2 linux && make test && src/lua ../test.lua && src/luac -s -o test.luac ../test.lua && src/lua test.luac &&"
               " make install INSTALL_TOP=$PWD/installed")
    return build_package(suite, "lua5.4", command, "test OK|Lua 5.4")


NEEDS = {redis: ["redis-server", "redis-benchmark"], memcached: ["memcached"], nginx: ["nginx", "wrk", "curl"], postgres: ["/usr/lib/postgresql"],
         build: ["apt-get", "make", "gcc"], build_lua: ["apt-get", "make", "gcc"]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("name", nargs="?")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{function.__name__} long" for function in NEEDS))
        return 0
    function = next(f for f in NEEDS if f.__name__ == options.name)
    missing = [n for n in NEEDS[function] if not (os.path.exists(n) or shutil.which(n, path="/usr/bin:/bin:/usr/sbin"))]
    if missing:
        print(f"skipped: no {' '.join(missing)}")
        return 77
    suite = Suite(options)
    try:
        skipped = function(suite)
    finally:
        suite.close()
    return skipped or (1 if suite.complaints else 0)


if __name__ == "__main__":
    sys.exit(main())
