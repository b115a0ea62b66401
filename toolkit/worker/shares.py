"""Each layer's share of a file's time. Shares only: a profiler slows small layers down more than large ones."""

from __future__ import annotations

import json
from typing import Any, Dict, List

RUNS = 20  # profiled inferences, after the first
ENDING = "_kernel_time"  # of a node's event in a profile of ONNX Runtime


class Shares:
    """Times of layers, added up over several inferences."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.spent: Dict[str, float] = {}
        self.kinds: Dict[str, str] = {}

    def add(self, name: str, kind: str, spent: float) -> None:
        """One layer's time in one inference, in any unit."""
        self.spent[name] = self.spent.get(name, 0.0) + spent
        self.kinds.setdefault(name, kind)

    def result(self) -> Dict[str, Any]:
        """The layers in the order they were added, with their shares of all of them."""
        total = sum(self.spent.values())
        if not total:
            return {"layers": [], "why": "%s counted no time" % self.how}
        rows: List[Dict[str, Any]] = [
            {"name": name, "kind": self.kinds[name], "share": spent / total} for name, spent in self.spent.items()
        ]
        return {"layers": rows, "how": self.how}


def of_onnxruntime(path: str) -> Dict[str, Any]:
    """Of a profile that ONNX Runtime wrote, the first inference left out: it plans memory."""
    with open(path) as file:
        events = json.load(file)
    found, seen = Shares("ONNX Runtime's profile"), set()
    for event in events:
        name, arguments = event.get("name", ""), event.get("args", {})
        if event.get("cat") != "Node" or not name.endswith(ENDING):
            continue
        key = name[: -len(ENDING)]
        if key in seen:
            found.add(key, arguments.get("op_name", ""), event.get("dur", 0) * 1e-6)
        seen.add(key)
    return found.result()
