"""What clusters of the contract tests say, kept for the search for secrets at the end of scripts/test (P8).

$RCU_TEST_RUN names the directory, as for the tests in Rust (tests/servers/src/said.rs); without it nothing
is kept.
"""

import itertools
import os
import shutil
from pathlib import Path

_numbers = itertools.count(1)


def keep(directory):
    """What the processes of a cluster wrote to it, and the keys that they had."""
    run = os.environ.get("RCU_TEST_RUN")
    if not run:
        return
    for log in sorted(directory.rglob("*log")):
        if log.is_file():
            name = f"contract-{os.getpid()}-{next(_numbers)}-{log.name}"
            shutil.copyfile(log, Path(run, "said", name))
    for keys in directory.rglob("keys"):
        for name in ("cluster", "operator", "master"):
            secret(name, (keys / name).read_text(encoding="ascii").strip())


def secret(kind, text):
    """Nobody may say this: a key in hex. `kind` is one of tests/servers/src/leaks.rs."""
    run = os.environ.get("RCU_TEST_RUN")
    if run:
        with Path(run, "secrets", f"contract-{os.getpid()}").open("a", encoding="ascii") as secrets:
            secrets.write(f"{kind} {text}\n")
