"""Which operators of a .tflite file a delegate took, from what the interpreter lists once it is prepared.

A delegate's nodes stand behind the file's own, which stay listed. Each has the tensors that its piece begins and ends
with: whatever makes the ones from the others is in it.
"""

from __future__ import annotations

from typing import Any, Dict, List, Sequence, Set

DELEGATE = "DELEGATE"


def pieces(listed: Sequence[Dict[str, Any]]) -> List[List[int]]:
    """Places in the file of the operators of each piece; listed: index, op_name, inputs, outputs of each node."""
    own = [node for node in listed if node["op_name"] != DELEGATE]
    makers = {int(tensor): node for node in own for tensor in node["outputs"]}
    return [_piece(node, makers) for node in listed if node["op_name"] == DELEGATE]


def _piece(delegated: Dict[str, Any], makers: Dict[int, Dict[str, Any]]) -> List[int]:
    begins = {int(tensor) for tensor in delegated["inputs"]}
    found: Set[int] = set()
    waiting = [int(tensor) for tensor in delegated["outputs"]]
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node["index"] not in found:
            found.add(int(node["index"]))
            waiting += [int(tensor) for tensor in node["inputs"] if int(tensor) not in begins]
    return sorted(found)
