"""CPU time of `edgekit --help` and `edgekit check RECIPE`, interleaved with an empty Python process.

Targets: --help at most 0.15 s of CPU; check at most 0.5 s, TensorFlow not imported. The environment must be
byte-compiled (`make setup` does it).

    python benchmarks/startup.py [--runs 15]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys

COMMANDS = {
    "python (empty)": ([sys.executable, "-c", "pass"], None),
    "edgekit --help": ([sys.executable, "-m", "toolkit", "--help"], 0.15),
    "edgekit check digits-demo": ([sys.executable, "-m", "toolkit", "check", "digits-demo"], 0.5),
}


def cpu_seconds(command: list[str]) -> float:
    """User and system seconds of one child process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    found: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(runs):
        for name, (command, _limit) in COMMANDS.items():
            found[name].append(cpu_seconds(command))
    print(f"{'command':<28} {'min':>7} {'median':>7} {'target':>7}   CPU seconds, {runs} runs")
    for name, values in found.items():
        limit = COMMANDS[name][1]
        goal = f"{limit:7.2f}" if limit else "      -"
        reached = "" if limit is None else ("  reached" if min(values) <= limit else "  missed")
        print(f"{name:<28} {min(values):7.3f} {statistics.median(values):7.3f} {goal}{reached}")


if __name__ == "__main__":
    main()
