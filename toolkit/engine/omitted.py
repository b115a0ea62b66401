"""Which layer a file leaves out: without it, the float layers give what the file has."""

from __future__ import annotations

from toolkit.engine.graph import Edge
from toolkit.engine.numeric import sqnr_db
from toolkit.engine.replay import NEAR_DB, Match, Replay, needed, run


def omitted(replay: Replay, found: Match) -> str:
    """Name of a layer that the file's tensor is computed without; "" where none explains its own error.

    Of the layers that lie between the tensors it reads and it, on the last images: those whose output has the shape
    of their input, one at a time.
    """
    graph, carried = replay.graph, replay.carried
    given = {edge: carried[tensor] for edge, tensor in found.sources.items()}
    chain = [] if found.alias else needed(graph, found.edge, set(given))
    value = carried[found.tensor].reshape(replay.alone(found, carried).shape)
    best, name = NEAR_DB, ""
    for index in chain:
        call = graph.calls[index]
        if len(call.inputs) != 1 or call.input_shapes != call.output_shapes:
            continue
        before = run(graph, given, [step for step in chain if step < index])
        without = run(graph, {**given, Edge(index): before[call.inputs[0]]}, chain)[found.edge]
        if (likeness := sqnr_db(without, value)) >= best:
            best, name = likeness, call.name
    return name
