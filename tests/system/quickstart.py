#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""scripts/quickstart, from another folder, with the build of this test: ends with the program having run warm and says how much
of it came from the cache."""
import os
import re

from common import Test

SCRIPTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts")


def body(test):
    env = dict(test.env, BDBI_BUILD=os.path.dirname(os.path.dirname(test.bdbi)))
    for arguments, output in ([], None), (["ls", "-d", "/usr"], b"/usr\n"):
        p = test.run([os.path.join(SCRIPTS, "quickstart"), *arguments], env=env, timeout=280, cwd="/")
        text = p.stderr.decode("utf-8", "replace")
        m = re.search(r"quickstart: (\d+) of (\d+) modules were served from the cache", text)
        test.check(p.returncode == 0 and m and int(m[1]) > 1 and m[1] == m[2], f"{arguments}: status {p.returncode}\n{text[-1500:]}")
        native = test.run(["/bin/ls"], cwd="/").stdout if output is None else output
        test.check(p.stdout == native, f"stdout {p.stdout[:100]!r}")
    p = test.run([os.path.join(SCRIPTS, "quickstart"), "sh", "-c", "exit 7"], env=env, timeout=280, cwd="/")
    test.check(p.returncode == 7, f"the program's exit status: {p.returncode}")


if __name__ == "__main__":
    Test(__doc__).main(body)
