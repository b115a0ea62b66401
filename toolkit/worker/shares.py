"""Each layer's share of a file's time. Shares only: a profiler slows small layers down more than large ones.

Of each layer the median of its times is taken: one that another process interrupted once would seem to be all there is.
"""

from __future__ import annotations

import json
import re
import statistics
from typing import Any, Callable, Dict, List

RUNS = 20  # profiled inferences, after the first
ENDING = "_kernel_time"  # of a node's event in a profile of ONNX Runtime


class Shares:
    """Times of layers in several inferences, and what `of` makes of those of one layer."""

    def __init__(self, how: str, of: Callable[[List[float]], float] = statistics.median) -> None:
        self.how, self.of = how, of
        self.spent: Dict[str, List[float]] = {}
        self.facts: Dict[str, Dict[str, Any]] = {}

    def add(self, name: str, kind: str, spent: float, **facts: Any) -> None:
        """One layer's time in one inference, in any unit. facts: what else is known of it."""
        self.spent.setdefault(name, []).append(spent)
        self.facts.setdefault(name, dict(facts, kind=kind))

    def result(self) -> Dict[str, Any]:
        """The layers in the order they were added, with their shares of all of them."""
        times = {name: self.of(spent) for name, spent in self.spent.items()}
        total = sum(times.values())
        if not total:
            return {"layers": [], "why": "%s counted no time" % self.how}
        rows: List[Dict[str, Any]] = [
            dict(self.facts[name], name=name, share=spent / total) for name, spent in times.items()
        ]
        return {"layers": rows, "how": self.how}


def of_onnxruntime(path: str) -> Dict[str, Any]:
    """Of a profile that ONNX Runtime wrote, the first inference left out: it plans memory.

    reads, writes: the types of its first ends. by: the provider that ran it.
    """
    with open(path) as file:
        events = json.load(file)
    found, seen = Shares("ONNX Runtime's profile, the median of %d runs" % RUNS), set()
    for event in events:
        name, arguments = event.get("name", ""), event.get("args", {})
        if event.get("cat") != "Node" or not name.endswith(ENDING):
            continue
        key = name[: -len(ENDING)]
        if key in seen:
            facts = {"by": re.sub("ExecutionProvider$", "", arguments.get("provider", ""))}
            facts["reads"] = _type(arguments.get("input_type_shape"))
            facts["writes"] = _type(arguments.get("output_type_shape"))
            found.add(key, arguments.get("op_name", ""), event.get("dur", 0) * 1e-6, **facts)
        seen.add(key)
    return found.result()


def _type(ends: Any) -> str:
    """The type of the first of a node's ends, "" where the profile has none."""
    first = ends[0] if ends else {}
    return next(iter(first), "") if isinstance(first, dict) else ""
