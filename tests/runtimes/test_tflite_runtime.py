"""Every TFLite scheme on the real tflite-runtime 2.14.0, LiteRT's predecessor, in an environment of its own.

It needs numpy < 2 and Python 3.11 at most, so that it never stands beside TensorFlow here: the test makes a virtual
environment where the network is there, and is skipped with the reason where it is not.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from toolkit import compat
from toolkit.devices import DeviceRuntime

VERSION = "2.14.0"
SCHEMES = ("float32", "float16", "dynamic", "int8", "int16x8", "weight_int8", "weight_int4")
# what it says of what it does not read, in its own words
REFUSED = {
    "dynamic": "Didn't find op for builtin opcode 'FULLY_CONNECTED' version '12'",
    "weight_int4": "(DEQUANTIZE) failed to prepare",
}
# the built-in kernels of both: XNNPACK's differ by a step here and there
RUN = """
import json, sys
import numpy as np
try:
    from tflite_runtime.interpreter import Interpreter, OpResolverType
except ImportError:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType
images, found = np.load(sys.argv[1]), {}
for path in sys.argv[3:]:
    try:
        kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        network = Interpreter(path, experimental_op_resolver_type=kernels)
        network.allocate_tensors()
        entry, end = network.get_input_details()[0], network.get_output_details()[0]
        answers = []
        for image in images:
            network.set_tensor(entry["index"], image[None].astype(entry["dtype"]))
            network.invoke()
            answers.append(network.get_tensor(end["index"])[0].tolist())
        found[path] = answers
    except Exception as error:
        found[path] = str(error)
json.dump(found, open(sys.argv[2], "w"))
"""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python that has it."""
    names = [sys.executable] if sys.version_info < (3, 12) else ["python3.11", "python3.10", "python3.9"]
    base = next((path for name in names if (path := shutil.which(name))), None)
    if base is None:
        pytest.skip("no Python of 3.11 or earlier here")
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([base, "-m", "venv", str(folder)], check=True)
    install = [str(folder / "bin" / "pip"), "install", "--quiet", f"tflite-runtime=={VERSION}", "numpy<2"]
    done = subprocess.run(install, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        pytest.skip(f"tflite-runtime {VERSION} cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return str(folder / "bin" / "python")


@pytest.fixture(scope="module")
def files(digits_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The digits network in every scheme, as a run delivers it."""
    from tests.conftest import RECIPE, parsed
    from toolkit import pipeline

    folder = tmp_path_factory.mktemp("schemes")
    head = RECIPE[: RECIPE.index("[[passes]]")]
    lines = [head, "[measure]", "processes = 0"]
    for scheme in SCHEMES:
        lines += ["[[variants]]", f'name = "{scheme}"', 'export = ["tflite"]']
        lines += ["[[variants.passes]]", 'use = "quantize"', f'scheme = "{scheme}"'] if scheme != "float32" else []
    text = "\n".join(lines)
    parsed(text)
    (folder / "schemes.toml").write_text(text)
    made = pipeline.run(folder / "schemes.toml", model=digits_model, out=folder / "run")
    return {scheme: made.folder / "artifacts" / f"{scheme}.tflite" for scheme in SCHEMES}


@pytest.fixture(scope="module")
def answers(python: str, files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """What it answers, and what LiteRT here does: by scheme, a list of outputs or the error's text."""
    folder = tmp_path_factory.mktemp("answers")
    np.save(folder / "images.npy", np.random.default_rng(0).uniform(0, 1, (40, 8, 8, 1)).astype("float32"))
    found = []
    for name, each in (("theirs", python), ("ours", sys.executable)):
        out = folder / f"{name}.json"
        command = [each, "-c", RUN, str(folder / "images.npy"), str(out), *map(str, files.values())]
        subprocess.run(command, check=True, capture_output=True)
        found.append({scheme: json.loads(out.read_text())[str(path)] for scheme, path in files.items()})
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
def test_scheme_runs_as_in_litert_or_its_operator_is_named(
    scheme: str, answers: list[dict[str, object]], files: dict[str, Path]
) -> None:
    theirs, ours = (each[scheme] for each in answers)
    runtime = DeviceRuntime(use="tflite-runtime", formats=("tflite",), schemes=("int8",), version=VERSION)
    told = compat.refusals(files[scheme], runtime)
    if scheme in REFUSED:
        assert isinstance(theirs, str)
        assert REFUSED[scheme] in theirs
        assert len(told) == 1  # known before it was run
        return
    assert told == ()
    assert not isinstance(theirs, str), theirs
    np.testing.assert_allclose(np.array(theirs), np.array(ours), atol=0 if scheme == "int8" else 1e-4)


def test_dynamic_file_with_one_scale_for_all_weights_runs(python: str, digits_model: Path, tmp_path: Path) -> None:
    """What docs/devices.md says to set."""
    from dataclasses import replace

    from toolkit.core import ExportContext, QuantSpec
    from toolkit.exporters.tflite import TFLite
    from toolkit.sources.keras import Keras

    model = replace(Keras().load(digits_model), quant=QuantSpec("dynamic", "per_tensor"))
    TFLite().export(model, tmp_path / "whole.tflite", ExportContext())
    np.save(tmp_path / "images.npy", np.zeros((1, 8, 8, 1), "float32"))
    command = [
        python,
        "-c",
        RUN,
        str(tmp_path / "images.npy"),
        str(tmp_path / "out.json"),
        str(tmp_path / "whole.tflite"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (found,) = json.loads((tmp_path / "out.json").read_text()).values()
    assert np.shape(found) == (1, 10)
