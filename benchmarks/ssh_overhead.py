"""What measuring over SSH costs: one worker job through Edgekit against the same job started by hand on that host.

Two sshd connections to this machine stand for host and device, so both sides have the same processor; the two ways take
turns. By hand: `ssh HOST python worker.zip job.json` on a connection that is open already, with file and worker there.
Targets: latency (smallest median of a process) within 5%; total time at most 1.2 times that by hand, plus connecting.

    python benchmarks/ssh_overhead.py [--rounds 8] [--seconds 3.0]
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.loopback import HOST, serve
from toolkit.transports.remote import RemoteSession
from toolkit.transports.ssh import SSH

LATENCY, TOTAL = 0.05, 1.2


def write_model(path: Path) -> None:
    """Convolutions of about a millisecond: a network's worth of work without its file."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    weights, nodes, name = [], [], "x"
    for index in range(6):
        weights.append(numpy_helper.from_array(random.normal(0, 0.05, (32, 32, 3, 3)).astype("float32"), f"w{index}"))
        nodes += [helper.make_node("Conv", [name, f"w{index}"], [f"c{index}"], pads=[1, 1, 1, 1]),
                  helper.make_node("Relu", [f"c{index}"], [f"r{index}"])]  # fmt: skip
        name = f"r{index}"
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, [1, 32, 40, 40]) for end in ("x", name)]
    graph = helper.make_graph(nodes, "convolutions", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def p50(result: dict[str, Any]) -> float:
    return statistics.median(result["samples_ns"]) / 1e6


def through(session: RemoteSession, model: Path, job: dict[str, Any]) -> tuple[float, float]:
    """Median latency and total seconds of one job through the session."""
    started = time.perf_counter()
    found = session.run({**job, "model": session.push(model)}, timeout_s=120)
    return p50(found), time.perf_counter() - started


def by_hand(folder: str, worker: str, model: str, job: dict[str, Any], client: list[str]) -> tuple[float, float]:
    """The same, as a person would do it: write the job, start the worker, read the result."""
    text = json.dumps({**job, "model": model, "result": f"{folder}/by-hand-result.json"})
    command = (
        f"cd {folder} && cat > by-hand.json && env -u PYTHONPATH {shlex.quote(sys.executable)} {worker} by-hand.json"
        " && cat by-hand-result.json && rm by-hand-result.json"
    )
    started = time.perf_counter()
    done = subprocess.run([*client, command], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"by hand: {done.stderr.strip()}")
    return p50(json.loads(done.stdout)), time.perf_counter() - started


def measure(folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Both ways in turns."""
    model = folder / "convolutions.onnx"
    write_model(model)
    job = {"kind": "bench", "runtime": "onnxruntime", "delegate": "cpu", "threads": 1, "seconds": seconds,
           "warmup_seconds": 0.3, "seed": 0, "name": "convolutions"}  # fmt: skip
    started = time.perf_counter()
    with closing(SSH(host=HOST, python=sys.executable).open()) as session:
        connecting = time.perf_counter() - started
        through(session, model, job)  # the worker and the file travel once
        client = session._link._client()  # type: ignore[attr-defined]
        there = (session.folder(), session._worker, session.push(model), job, client)
        ours, theirs = [], []
        for number in range(rounds):
            turns = [lambda: ours.append(through(session, model, job)), lambda: theirs.append(by_hand(*there))]
            for turn in turns if number % 2 else turns[::-1]:
                turn()
    latency = min(each[0] for each in ours) / min(each[0] for each in theirs)
    total = statistics.median(each[1] for each in ours) / statistics.median(each[1] for each in theirs)
    return {"connecting_s": connecting, "latency_ratio": latency, "total_ratio": total, "ours": ours, "by_hand": theirs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgekit-bench-") as name, serve(Path(name)) as server:
        os.environ["PATH"] = f"{server.binaries}:{os.environ['PATH']}"
        found = measure(Path(name), args.rounds, args.seconds)
    if args.json:
        print(json.dumps(found))
        return
    for way in ("ours", "by_hand"):
        latency, total = min(each[0] for each in found[way]), statistics.median(each[1] for each in found[way])
        print(f"{way.replace('_', ' '):<8} latency {latency:.3f} ms (smallest median), total {total:.2f} s (median)")
    print(f"connecting, work folder and lease: {found['connecting_s']:.2f} s, once")
    for name, ratio, limit in (
        ("latency", abs(found["latency_ratio"] - 1), LATENCY),
        ("total", found["total_ratio"], TOTAL),
    ):
        print(f"{name}: {ratio:.3f} (target at most {limit}) {'met' if ratio <= limit else 'MISSED'}")


if __name__ == "__main__":
    main()
