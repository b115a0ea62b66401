"""A finished run made by hand, without TensorFlow: small .onnx files that give the mean of each channel, scaled."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit import runs
from toolkit.contract import dump, make_contract, make_origin
from toolkit.core import Artifact, Interval, Measurement, Preprocessing, Signature, TensorSpec, Verdict
from toolkit.digest import file_sha256
from toolkit.sample_code import sample_code

SIDE = 6
CONTRACT = Preprocessing(size=(SIDE, SIDE), scale=(1 / 255,), offset=(-0.5,))
CLASSES = ("red", "green", "blue")
DEVICE = "this-machine"


def write_model(path: Path, factor: float, ir_version: int = 8) -> None:
    """(1, SIDE, SIDE, 3) float32 to the mean of each channel, times `factor`."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, SIDE, SIDE, 3])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3])
    mean = helper.make_node("ReduceMean", ["image"], ["means"], axes=[1, 2], keepdims=0)
    scaled = helper.make_node("Mul", ["means", "factor"], ["scores"])
    weights = [numpy_helper.from_array(np.float32([factor]), "factor")]
    graph = helper.make_graph([mean, scaled], "means", [image], [scores], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=ir_version), path)


def finished_run(folder: Path, factor: float = 1.0, *, ir_version: int = 8, **more: Any) -> Path:
    """A run directory with good.onnx, which passed, and bad.onnx, which failed. more: fields of the manifest."""
    (folder / "artifacts").mkdir(parents=True)
    (folder / "samples").mkdir()
    classes = more.get("classes", CLASSES)
    records = [_record(folder, name, (factor, ir_version), classes) for name in ("good.onnx", "bad.onnx")]
    how = {"runtime": "onnxruntime", "images": 40}
    wilson = Interval(0.91, 0.99, 0.95, "Wilson 1927")
    source = {"file": "means.keras", "sha256": "ab" * 32}
    manifest = runs.Manifest(
        name="colors",
        status="done",
        started="2026-01-02T03:04:05+00:00",
        recipe={"name": "colors"},
        seed=3,
        host={},
        versions={"edgekit": "0.1.0"},
        outcome="FAIL",
        classes=classes,
        data=(runs.DataRecord("test", 40, "f" * 64, "/home/someone/private/colors"),),
        stages=(runs.StageRecord("original", "keras", "source", "", "k", source, 1.0),),
        artifacts=tuple(records),
        measurements=(
            Measurement("good.onnx", "top1", 0.95, "fraction", "measured", DEVICE, wilson, how),
            Measurement("good.onnx", "sqnr_db", float("inf"), "dB", "measured", DEVICE, None, how),
        ),
        verdicts=(
            Verdict("good.onnx", DEVICE, "max_size_kib", "PASS", 1.0, 9.0, None, "1 KiB, budget 9"),
            Verdict("bad.onnx", DEVICE, "max_size_kib", "FAIL", 10.0, 9.0, None, "10 KiB, budget 9"),
        ),
    )
    (folder / "manifest.json").write_bytes(runs.dump(replace(manifest, **more)))
    return folder


def _record(folder: Path, name: str, written: tuple[float, int], classes: tuple[str, ...]) -> runs.ArtifactRecord:
    path = folder / "artifacts" / name
    write_model(path, *written)
    inputs = (TensorSpec("image", (1, SIDE, SIDE, 3), "float32", "image", "NHWC"),)
    outputs = (TensorSpec("scores", (1, 3), "float32", "logits"),)
    digest, size = file_sha256(path), path.stat().st_size
    artifact = Artifact(name, path, "onnx", "float32", size, digest, Signature(inputs, outputs))
    contract = make_contract(artifact, CONTRACT, classes, make_origin(artifact, "colors", "", {"edgekit": "0.1.0"}))
    path.with_name(f"{name}.json").write_bytes(dump(contract))
    path.with_name(f"{name}.py").write_text(sample_code(artifact, CONTRACT, classes))
    return runs.ArtifactRecord(
        name=name,
        variant=name.partition(".")[0],
        stage="original",
        path=f"artifacts/{name}",
        format="onnx",
        scheme="float32",
        size_bytes=size,
        sha256=digest,
        inputs=inputs,
        outputs=outputs,
    )


def edit_manifest(run: Path, **fields: Any) -> None:
    """Change fields of the manifest as JSON."""
    path = run / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
