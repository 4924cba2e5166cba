# SPDX-License-Identifier: Apache-2.0
"""What the system tests share: options, a scratch folder with a cache, running bdbi, a list of complaints."""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "differential"))
import harness  # noqa: E402
import smaps  # noqa: E402,F401


class Test:
    def __init__(self, description):
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--bin", required=True, help="folder of bdbi and bdbi-warm")
        parser.add_argument("--programs", required=True, help="folder of the guest programs")
        parser.add_argument("--witnesses", required=True, help="folder of step, at_exit, leaders")
        parser.add_argument("--keep", action="store_true")
        parser.add_argument("rest", nargs="*")
        self.options = parser.parse_args()
        self.bdbi = os.path.abspath(os.path.join(self.options.bin, "bdbi"))
        self.warmer = os.path.abspath(os.path.join(self.options.bin, "bdbi-warm"))
        self.root = tempfile.mkdtemp(prefix="bdbi-test.")
        self.cache = self.path("cache")
        self.env = {"PATH": "/usr/bin:/bin", "HOME": self.root, "LANG": "C.UTF-8", "TMPDIR": self.root, "BDBI_CACHE": self.cache,
                    "PYTHONHASHSEED": "0"}
        self.complaints = 0

    def path(self, *names):
        return os.path.join(self.root, *names)

    def program(self, name):
        return os.path.abspath(os.path.join(self.options.programs, name))

    def witness(self, name):
        return os.path.abspath(os.path.join(self.options.witnesses, name))

    def run(self, argv, timeout=60, **keys):
        """CompletedProcess with bytes; a timeout is an error of the test."""
        keys.setdefault("env", self.env)
        keys.setdefault("cwd", self.root)
        keys.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(argv, capture_output=True, timeout=timeout, check=False, **keys)

    def must(self, argv, **keys):
        p = self.run(argv, **keys)
        if p.returncode != 0:
            raise harness.Failure(f"status {p.returncode}: {' '.join(argv)}\n{(p.stdout + p.stderr).decode('utf-8', 'replace')[-2000:]}")
        return p

    def learn(self):
        self.must([self.bdbi, "learn", "--wait", "--cache", self.cache], timeout=300)

    def warm(self, *options):
        self.must([self.warmer, "--cache", self.cache, *options], timeout=300)

    def check(self, good, text):
        print(("ok: " if good else "FAILED: ") + text, flush=True)
        self.complaints += not good

    def main(self, body):
        try:
            body(self)
        except harness.Failure as failure:
            self.check(False, str(failure))
        except subprocess.TimeoutExpired as timeout:
            self.check(False, str(timeout))
        finally:
            if os.path.isdir(self.cache) and os.access(self.bdbi, os.X_OK):
                subprocess.run([self.bdbi, "learn", "--wait", "--cache", self.cache], env=self.env, capture_output=True, timeout=300,
                               check=False)
            if self.options.keep:
                print("kept", self.root)
            else:
                shutil.rmtree(self.root, ignore_errors=True)
        sys.exit(1 if self.complaints else 0)
