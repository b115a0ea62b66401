"""The worker on tflite-micro: the integers of TFLite's reference kernels, an arena that was tried, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.estimates.small import SIZE, Network, network
from toolkit.errors import InputError, StageError
from toolkit.transports.local import LocalSession

pytest.importorskip("tflite_micro", reason="pip install 'edgekit[mcu]'")
JOB = {"runtime": "tflite-micro", "delegate": "none", "threads": 1}


@pytest.fixture(scope="module")
def session() -> Iterator[LocalSession]:
    opened = LocalSession()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "images.npy"
    np.save(path, np.random.default_rng(0).uniform(-6, 6, (40, SIZE, SIZE, 3)).astype(np.float32))
    return path


def answers(session: LocalSession, file: Path, images: Path, folder: Path) -> Any:
    job = {**JOB, "kind": "eval", "model": str(file), "inputs": {"image": str(images)}}
    session.run({**job, "outputs": {"chances": str(folder / "out.npy")}}, timeout_s=120)
    return np.load(folder / "out.npy")


def reference(file: Path, images: Path) -> Any:
    """What TFLite's reference kernels answer."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(str(file), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for image in np.load(images):
        scale, zero = taken["quantization"]
        steps = np.clip(np.rint(image / np.float32(scale)) + zero, -128, 127).astype(np.int8) if scale else image
        interpreter.set_tensor(taken["index"], steps[None])
        interpreter.invoke()
        raw, (scale, zero) = interpreter.get_tensor(given["index"])[0], given["quantization"]
        found.append((raw.astype(np.float32) - zero) * np.float32(scale) if scale else raw)
    return np.stack(found)


@pytest.mark.parametrize("named", [True, False])
def test_int8_outputs_are_those_of_the_reference_kernels(
    session: LocalSession, images: Path, tmp_path: Path, named: bool
) -> None:
    file = network(tmp_path / "net.tflite", int8=True, named=named)
    found = answers(session, file, images, tmp_path)
    assert len(np.unique(found)) > 5  # they do depend on the image
    np.testing.assert_array_equal(found, reference(file, images))


def test_float_outputs_are_those_of_the_reference_kernels(session: LocalSession, images: Path, tmp_path: Path) -> None:
    file = network(tmp_path / "net.tflite", int8=False)
    np.testing.assert_allclose(answers(session, file, images, tmp_path), reference(file, images), atol=1e-6)


def bench(session: LocalSession, file: Path, **more: Any) -> dict[str, Any]:
    job = {**JOB, "kind": "bench", "seconds": 0.01, "warmup_seconds": 0, "model": str(file), **more}
    return session.run(job, timeout_s=120)


def test_arena_holds_the_largest_layer_and_was_tried(session: LocalSession, tmp_path: Path) -> None:
    from tflite_micro.python.tflite_micro import runtime

    file = network(tmp_path / "net.tflite", int8=True)
    found = bench(session, file)
    arena = found["arena_bytes"]
    assert arena >= SIZE * SIZE * (3 + 4)  # the first layer's input and output at once
    runtime.Interpreter.from_file(str(file), arena_size=arena).invoke()
    with pytest.raises(RuntimeError):
        runtime.Interpreter.from_file(str(file), arena_size=arena - 16)
    assert found["kernel_path"] == "tflite-micro reference kernels"
    assert found["versions"]["tflite-micro"]


def test_float_arena_is_larger_than_that_of_int8(session: LocalSession, tmp_path: Path) -> None:
    int8, wide = (bench(session, network(tmp_path / f"{i}.tflite", int8=i))["arena_bytes"] for i in (True, False))
    # an int8 file also keeps multipliers and shifts of each channel; float activations have 4 bytes
    assert wide > int8
    assert wide >= 4 * SIZE * SIZE * (3 + 4)


def test_file_that_aborts_the_kernels_is_named_and_the_session_lives_on(session: LocalSession, tmp_path: Path) -> None:
    net = Network(int8=True)
    options = net.schema.SoftmaxOptionsT()
    options.beta = 1.0
    scores, chances = net.tensor("s", (1, 3), scale=1e-12), net.tensor("c", (1, 3), scale=1 / 256, zero=-128)
    net.op("SOFTMAX", [scores], [chances], options)
    file = tmp_path / "degenerate.tflite"
    file.write_bytes(net.pack([scores], [chances]))
    with pytest.raises(StageError, match=r"degenerate\.tflite: the worker was killed by SIGABRT"):
        bench(session, file)
    assert bench(session, network(tmp_path / "net.tflite", int8=True))["arena_bytes"]


def test_operator_without_a_kernel_is_named(session: LocalSession, tmp_path: Path) -> None:
    net = Network(int8=False)
    one, two = net.tensor("one", (1, 4)), net.tensor("two", (1, 4))
    net.op("ATAN2", [one, one], [two])
    file = tmp_path / "odd.tflite"
    file.write_bytes(net.pack([one], [two]))
    with pytest.raises(InputError, match="ATAN2"):
        bench(session, file)


@pytest.mark.parametrize(
    ("asked", "said"),
    [({"threads": 2}, "one thread"), ({"delegate": "xnnpack"}, "no delegate"), ({"batch": 4}, "one image at a time")],
)
def test_what_it_has_not_is_refused(session: LocalSession, tmp_path: Path, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        bench(session, network(tmp_path / "net.tflite", int8=True), **asked)
