"""The plan: stages in an order that works, and what cannot work, before any work."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from toolkit import registry
from toolkit.documents import Document
from toolkit.errors import InputError
from toolkit.plan import make_plan
from toolkit.recipe_reader import load_recipe, parse_recipe

DATA = '[data]\nuse = "digits"\n[data.splits]\nselection = 0.1\ncalibration = 100\ntest = 0.3\n'
INT8 = '[[variants.passes]]\nuse = "quantize"\nscheme = "int8"\n'


def device(folder: Path, name: str, **runtime: Any) -> str:
    """A profile of an ONNX device, as a path."""
    lines = [f"{key} = {value!r}" for key, value in runtime.items()]
    path = folder / f"{name}.toml"
    path.write_text(
        'schema = 1\narch = "any"\ntransport = "local"\n[[runtimes]]\nuse = "onnxruntime"\nformats = ["onnx"]\n'
        + 'delegates = ["cpu"]\n'
        + "\n".join(["schemes = ['float32', 'int8']" if "schemes" not in runtime else "", *lines])
    )
    return str(path)


def plan(text: str) -> Any:
    return make_plan(parse_recipe(Document("r.toml", tomllib.loads("schema = 1\n" + text)), Path.cwd()))


def test_variants_branch_from_the_trunk_and_the_original_is_exported_for_comparison() -> None:
    made = plan(
        DATA + '[[passes]]\nuse = "prune"\nsparsity = 0.5\n'
        '[[variants]]\nname = "a"\nexport = ["tflite"]\n' + INT8 + '[[variants]]\nname = "b"\nexport = ["onnx"]\n'
    )
    assert [(stage.name, stage.parent, stage.quant.scheme) for stage in made.stages] == [
        ("original", "", "float32"),
        ("original.tflite", "original", "float32"),
        ("original.onnx", "original", "float32"),
        ("01-prune", "original", "float32"),
        ("a.02-quantize", "01-prune", "int8"),
        ("a.tflite", "a.02-quantize", "int8"),
        ("b.onnx", "01-prune", "float32"),
    ]
    assert not made.problems


def test_pass_after_quantize_is_refused() -> None:
    made = plan(
        DATA
        + '[[variants]]\nname = "a"\nexport = ["tflite"]\n'
        + INT8
        + '[[variants.passes]]\nuse = "prune"\nsparsity = 0.5\n'
    )
    assert len(made.problems) == 1
    assert "prune comes after quantize" in made.problems[0]
    with pytest.raises(InputError, match="prune comes after quantize"):
        made.require_possible()


def test_device_that_cannot_run_the_scheme_is_named_with_what_it_runs(tmp_path: Path) -> None:
    board = device(tmp_path, "board", schemes=["float32"])
    made = plan(DATA + f'[[targets]]\ndevice = "{board}"\n[[variants]]\nname = "a"\nexport = ["onnx"]\n' + INT8)
    assert len(made.problems) == 1
    assert "board: cannot run int8 onnx files. Fix: it runs onnx as float32" in made.problems[0]


def test_limit_of_latency_beside_a_batch_is_refused_before_any_work() -> None:
    text = DATA + '[[variants]]\nname = "a"\nexport = ["tflite"]\n[measure]\nbatch = 8\n[budget]\n'
    (problem,) = plan(text + "max_latency_p50_ms = 5\n").problems
    assert "a limit of latency is of one image, and this-machine is timed at batch 8" in problem
    assert not plan(text + "max_size_kib = 5\n").problems


def test_file_of_a_format_no_target_runs_is_refused(tmp_path: Path) -> None:
    board = device(tmp_path, "board")
    text = f'export = ["tflite"]\n{DATA}[[targets]]\ndevice = "{board}"\n'
    assert "cannot run float32 tflite files" in plan(text).problems[0]


@pytest.mark.parametrize(
    ("profile", "recipe", "expected"),
    [(None, None, "NHWC"), ("NCHW", None, "NCHW"), ("NCHW", "NHWC", "NHWC"), (None, "NCHW", "NCHW")],
)
def test_layout_is_the_recipes_else_the_devices_else_the_models_own(
    tmp_path: Path, profile: str | None, recipe: str | None, expected: str
) -> None:
    board = device(tmp_path, "board", **({"layout": profile} if profile else {}))
    export = f'[{{ use = "onnx", layout = "{recipe}" }}]' if recipe else '["onnx"]'
    made = plan(f'export = {export}\n{DATA}[[targets]]\ndevice = "{board}"\n')
    layouts = {stage.name: stage.component.layout for stage in made.stages if stage.kind == "export"}
    assert layouts == {"original.onnx": expected, "main.onnx": expected}


def test_devices_that_want_different_layouts_are_named(tmp_path: Path) -> None:
    first, second = device(tmp_path, "one", layout="NCHW"), device(tmp_path, "two", layout="NHWC")
    made = plan(f'export = ["onnx"]\n{DATA}[[targets]]\ndevice = "{first}"\n[[targets]]\ndevice = "{second}"\n')
    assert any("one NCHW, two NHWC" in problem for problem in made.problems)


def test_distill_without_a_train_split_is_refused() -> None:
    made = plan(
        'export = ["tflite"]\n'
        + DATA.replace("test = 0.3", 'test = "rest"')
        + '[[passes]]\nuse = "distill"\nepochs = 1\n'
    )
    assert any("distill needs the train split" in problem for problem in made.problems)


def test_named_network_asks_for_its_weights() -> None:
    with pytest.raises(InputError, match=r"weights: is missing: there are no random weights"):
        make_plan(load_recipe("post-training-int8", model="keras.applications.VGG16", data="digits"))


def test_named_network_gets_its_weights_and_the_number_of_classes() -> None:
    overrides = ['model.weights="imagenet"', 'model.classes=["cat", "dog"]']
    plan = make_plan(
        load_recipe("post-training-int8", model="keras.applications.VGG16", data="digits", overrides=overrides)
    )
    assert (plan.stages[0].use, plan.stages[0].component.weights, plan.stages[0].component.classes) == (
        "applications",
        "imagenet",
        2,
    )
    assert not plan.problems


def test_package_that_a_pass_asks_for_is_missing_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.plan._installed", lambda package: package != "tensorflow-model-optimization")
    text = DATA + '[[passes]]\nuse = "qat"\nbackend = "{}"\n[[variants]]\nname = "a"\nexport = ["tflite"]\n'
    assert plan(text.format("native")).missing == ()
    (missing,) = plan(text.format("tfmot")).missing
    assert missing.endswith("tensorflow-model-optimization is not installed here. Fix: pip install 'edgekit[tfmot]'")


def test_runtime_that_is_missing_here_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    text = DATA + '[[variants]]\nname = "a"\nexport = ["tflite"]\n[budget]\nmax_size_kib = 1\n'
    text += '[[targets]]\ndevice = "DEVICE"\n'
    for device, package, extra in (("cortex-m4", "tflite-micro", "mcu"), ("openvino-cpu", "openvino", "openvino")):
        monkeypatch.setattr(registry.load("runtimes", package), "version", lambda self: None)
        (missing,) = plan(text.replace("DEVICE", device)).missing
        assert missing == f"{device}: {package} is not installed here. Fix: pip install 'edgekit[{extra}]'"


KERNELS = '{ fact = "FACT", source = "a page" }'


@pytest.mark.parametrize(
    ("fact", "field", "words"),
    [
        ("saturating", "reduce_range", "variant a: board: onnxruntime adds products of 8 bits in 16"),
        ("dense_per_tensor", "dense_per_tensor", "takes one scale for a dense layer's weights"),
    ],
)
def test_what_a_devices_kernels_need_changes_the_request_with_a_note(
    tmp_path: Path, fact: str, field: str, words: str
) -> None:
    board = Path(device(tmp_path, "board"))
    board.write_text(board.read_text() + "\nkernels = [" + KERNELS.replace("FACT", fact) + "]")
    made = plan(DATA + f'[[targets]]\ndevice = "{board}"\n[[variants]]\nname = "a"\nexport = ["onnx"]\n' + INT8)
    quants = {stage.name: stage.quant for stage in made.stages}
    assert getattr(quants["a.onnx"], field)
    assert not getattr(quants["original.onnx"], field)
    assert not made.problems
    assert any(words in note and "(a page)" in note for note in made.notes)


def test_seven_bit_weights_behind_corrections_are_noted(tmp_path: Path) -> None:
    board = Path(device(tmp_path, "board"))
    text = DATA + f'[[targets]]\ndevice = "{board}"\n[[variants]]\nname = "a"\nexport = ["onnx"]\n' + INT8
    corrected = text + 'corrections = ["bias"]\n'
    note = "variant a: corrections are for 8-bit weights and may cost accuracy in 7: compare with corrections = []"
    assert note not in plan(corrected).notes
    board.write_text(board.read_text() + "\nkernels = [" + KERNELS.replace("FACT", "saturating") + "]")
    assert note in plan(corrected).notes
    assert note not in plan(text).notes


def test_symmetric_and_float_files_have_nothing_to_saturate(tmp_path: Path) -> None:
    board = Path(device(tmp_path, "board", schemes=["float32", "float16", "int8"]))
    board.write_text(board.read_text() + "\nkernels = [" + KERNELS.replace("FACT", "saturating") + "]")
    for quantize in (INT8 + 'flavour = "symmetric"\n', INT8.replace("int8", "float16")):
        text = f'[[targets]]\ndevice = "{board}"\n[[variants]]\nname = "a"\nexport = ["onnx"]\n' + quantize
        made = plan(DATA + text)
        assert not made.problems
        assert not made.stage("a.onnx").quant.reduce_range


def test_seven_bit_weights_are_refused_where_the_format_has_none(tmp_path: Path) -> None:
    board = tmp_path / "board.toml"
    board.write_text(
        'schema = 1\narch = "any"\n[[runtimes]]\nuse = "litert"\nformats = ["tflite"]\n'
        "schemes = ['float32', 'int8']\nkernels = [" + KERNELS.replace("FACT", "saturating") + "]"
    )
    text = f'[[targets]]\ndevice = "{board}"\n[[variants]]\nname = "a"\nexport = ["tflite"]\n'
    made = plan(DATA + text + INT8)
    assert [problem for problem in made.problems if "weights of .tflite files are 8-bit" in problem]


@pytest.mark.parametrize("name", ["net.onnx", "net.tflite", "net"])
def test_corrections_of_a_file_are_refused_before_any_work(name: str, tmp_path: Path) -> None:
    source = tmp_path / name
    source.touch() if source.suffix else (source / "variables").mkdir(parents=True)
    if not source.suffix:
        (source / "saved_model.pb").touch()
    suffix = source.suffix[1:] or "tflite"
    text = f'[model]\nsource = "{source}"\n{DATA}[[variants]]\nname = "a"\nexport = ["{suffix}"]\n{INT8}'
    assert not plan(text).problems
    (problem,) = plan(text + 'corrections = ["bias"]\n').problems
    assert "quantize: corrections change the layers of a Keras graph, the model is" in problem
    assert "set corrections = []" in problem
    assert "\n" not in problem


def test_layers_in_a_scheme_that_the_device_cannot_run_are_refused_before_any_work(tmp_path: Path) -> None:
    board = tmp_path / "board.toml"
    runtime = "[[runtimes]]\nuse = 'litert'\nformats = ['tflite']\nschemes = ['float32', 'int8']"
    board.write_text(f"schema = 1\narch = 'any'\n{runtime}")
    text = f'[[targets]]\ndevice = "{board}"\n[[variants]]\nname = "a"\nexport = ["tflite"]\n'
    mixed = plan(DATA + text + INT8 + 'layers = { head = "int16x8" }\n').problems
    assert any("board: cannot run int8 tflite files with layers in int16x8" in problem for problem in mixed), mixed
    assert not plan(DATA + text + INT8 + 'layers = { head = "float32" }\n').problems


def test_scheme_that_onnx_has_no_kernels_for_is_refused_before_any_work() -> None:
    text = '[[variants]]\nname = "a"\nexport = ["onnx"]\n' + INT8.replace("int8", "int16x8")
    assert any("no 16-bit kernels of convolutions" in problem for problem in plan(DATA + text).problems)


@pytest.mark.parametrize(
    ("version", "recipe", "expected"),
    [
        ("8.5.2", None, "main.int8-fp32.onnx"),
        ("8.6", None, "main.int8-fp32.onnx"),
        ("10.3", None, "main.int8-fp16.onnx"),
        ("11.4.1", None, "main.int8-fp16.onnx"),
        ("10.3", "float32", "main.int8-fp32.onnx"),
        ("", None, "main.trt.onnx"),
    ],
)
def test_type_beside_int8_is_the_recipes_else_what_the_devices_tensorrt_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, recipe: str | None, expected: str
) -> None:
    board = tensorrt_board(tmp_path, monkeypatch, "board", version)
    export = f'{{ use = "tensorrt", rest = "{recipe}" }}' if recipe else '"tensorrt"'
    made = plan(f'export = [{export}]\n{DATA}[[targets]]\ndevice = "{board}"\n' + SYMMETRIC)
    names = [stage.name for stage in made.stages if stage.kind == "export"]
    assert names == ["original.trt.onnx", expected]  # the original is float32: nothing is beside int8
    assert not made.problems


def test_devices_whose_tensorrt_wants_different_types_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boards = [tensorrt_board(tmp_path, monkeypatch, f"b{version}", version) for version in ("8.5", "10.3")]
    targets = "".join(f'[[targets]]\ndevice = "{board}"\n' for board in boards)
    made = plan(f'export = ["tensorrt"]\n{DATA}{targets}' + SYMMETRIC)
    (problem,) = made.problems
    assert "b8.5 (tensorrt 8.5) float32, b10.3 (tensorrt 10.3) float16" in problem
    both = '[{ use = "tensorrt", rest = "float32" }, { use = "tensorrt", rest = "float16" }]'
    made = plan(f"export = {both}\n{DATA}{targets}" + SYMMETRIC)
    assert not made.problems
    assert {"main.int8-fp32.onnx", "main.int8-fp16.onnx"} <= {stage.name for stage in made.stages}
    both = '["tensorrt", { use = "tensorrt", rest = "float16" }]'
    target = f'[[targets]]\ndevice = "{boards[1]}"\n'
    made = plan(f"export = {both}\n{DATA}{target}" + SYMMETRIC)
    assert "two of its files would be main.int8-fp16.onnx" in made.problems[0]


def test_asymmetric_int8_for_tensorrt_is_refused_with_what_to_set() -> None:
    made = plan(f'export = ["tensorrt"]\n{DATA}' + SYMMETRIC.replace('flavour = "symmetric"\n', ""))
    assert any('set flavour = "symmetric" in the quantize or qat pass' in problem for problem in made.problems)


SYMMETRIC = '[[passes]]\nuse = "quantize"\nscheme = "int8"\nflavour = "symmetric"\n'


def tensorrt_board(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, version: str) -> str:
    """A profile of a device with this TensorRT."""
    monkeypatch.setitem(registry.FAMILIES["runtimes"], "tensorrt", "toolkit.runtimes.onnxruntime:ONNXRuntime")
    path = Path(device(folder, name, version=version))
    path.write_text(path.read_text().replace('use = "onnxruntime"', 'use = "tensorrt"'))
    return str(path)


UNLABELLED = DATA.replace("[data]\n", '[data]\nunlabelled = "more"\n')


@pytest.mark.parametrize(
    "passes",
    [
        '[[passes]]\nuse = "distill"\n',
        '[[passes]]\nuse = "prune"\nsparsity = 0.5\nrecover = { epochs = 1 }\n',
        '[[passes]]\nuse = "distill"\nalpha = 0.0\nunlabelled = false\n[[passes]]\nuse = "qat"\n',
    ],
)
def test_images_without_labels_are_planned_where_a_teacher_teaches(passes: str) -> None:
    assert not plan(_exported(UNLABELLED + passes)).problems


def _exported(text: str) -> str:
    return 'export = ["tflite"]\n' + text


@pytest.mark.parametrize(
    ("passes", "problem"),
    [
        ("", "data.unlabelled: no pass learns from a teacher on them. Fix: add a distill pass, or leave them out"),
        ('[[passes]]\nuse = "distill"\nunlabelled = false\n', "data.unlabelled: no pass learns"),
        ('[[passes]]\nuse = "prune"\nsparsity = 0.5\n', "data.unlabelled: no pass learns"),
        ('[[passes]]\nuse = "sparsify"\nsparsity = 0.5\nepochs = 0\n', "data.unlabelled: no pass learns"),
        (
            '[[passes]]\nuse = "prune"\nsparsity = 0.5\nrecover = { alpha = 0.0 }\n',
            "prune.recover.alpha = 0: learns from labels alone, and data.unlabelled has none. Fix: set unlabelled",
        ),
    ],
)
def test_images_without_labels_that_nothing_learns_from_are_refused(passes: str, problem: str) -> None:
    (found,) = plan(_exported(UNLABELLED + passes)).problems
    assert problem in found
