"""ONNX Runtime on a graph in memory: one thread, refusals as one line, any tensors as outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from toolkit.errors import UnsupportedError

if TYPE_CHECKING:
    from toolkit.core import Array

FORMAT = "onnx"


def session(content: bytes, **options: Any) -> Any:
    """An InferenceSession on the CPU; options: attributes of SessionOptions."""
    import onnxruntime

    how = onnxruntime.SessionOptions()
    for name, value in {"intra_op_num_threads": 1, "log_severity_level": 3, **options}.items():
        setattr(how, name, value)
    return onnxruntime.InferenceSession(content, how, providers=["CPUExecutionProvider"])


@contextmanager
def runnable() -> Iterator[None]:
    """ONNX Runtime's refusal of a graph as one line."""
    from onnxruntime.capi import onnxruntime_pybind11_state as ort

    try:
        yield
    except (ort.Fail, ort.InvalidArgument, ort.InvalidGraph, ort.NotImplemented, ort.RuntimeException) as error:
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise UnsupportedError(FORMAT, f"ONNX Runtime cannot run the graph: {text[0]}") from error


def outputs_of(proto: Any, names: Sequence[str], feed: Mapping[str, Array]) -> dict[str, Array]:
    """The values of these tensors, which need not be outputs of the graph."""
    asked = [name for name in names if name not in feed]
    with runnable():
        ran = session(with_outputs(proto, asked)).run(asked, dict(feed))
    found = {**feed, **dict(zip(asked, ran, strict=True))}
    return {name: found[name] for name in names}


def with_outputs(proto: Any, names: Sequence[str]) -> bytes:
    """The graph, serialized, with these tensors as outputs too."""
    import onnx

    wide = onnx.ModelProto()
    wide.CopyFrom(proto)
    given = {value.name for value in wide.graph.output}
    wide.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in given)
    return bytes(wide.SerializeToString())
