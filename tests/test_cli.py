"""The command line as a person meets it: help, one-line errors, exit codes, JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from toolkit import __version__
from toolkit.cli import cli

ROOT = Path(__file__).resolve().parents[1]


def invoke(*words: Any) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def assert_one_line(result: Result, code: int, *parts: str) -> None:
    """The exit code, one line on stderr with these parts, and no exception behind it."""
    assert result.exit_code == code, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.output
    for part in parts:
        assert part in lines[0]


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_every_command_has_help(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert cli.commands[command].help


def test_version() -> None:
    assert invoke("--version").output == f"edgekit, version {__version__}\n"


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["check", "digits-demo"], ["plan", "digits-demo"]])
def test_help_check_and_plan_import_no_framework(words: list[str]) -> None:
    code = (
        "import sys\nfrom toolkit.cli import cli\n"
        f"try:\n    cli({words!r}, prog_name='edgekit')\nexcept SystemExit:\n    pass\n"
        "heavy = {'tensorflow', 'keras', 'onnx', 'onnxruntime', 'ai_edge_litert', 'sklearn', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        + ("assert 'pydantic' not in sys.modules and 'numpy' not in sys.modules\n" if "--help" in words else "")
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_check_names_every_mistake_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('schema = 1\nexport = ["tflite"]\nsede = 3\n\n[[passes]]\nuse = "prune"\nsparsity = 2\n')
    result = invoke("check", path)
    assert result.exit_code == 2
    assert f"{path}:3: sede: " in result.stderr
    assert f"{path}:7: passes.0.sparsity: " in result.stderr
    assert "seed" in result.stderr


@pytest.mark.parametrize(("name", "kind"), [("digits-demo", "recipe"), ("raspberry-pi-4", "device profile")])
def test_check_tells_recipes_from_profiles(name: str, kind: str) -> None:
    assert invoke("check", name).output == f"{name}: a valid {kind}, '{name}'\n"
    assert json.loads(invoke("check", name, "--json").output)["kind"] == kind


def test_list_and_show_cover_the_registry() -> None:
    from toolkit import registry

    listed = json.loads(invoke("list", "--json").output)
    for family, entries in registry.FAMILIES.items():
        assert set(entries) <= set(listed[family])
        for name in entries:
            shown = json.loads(invoke("show", f"{family}.{name}", "--json").output)
            assert shown["summary"]
            assert all(field["description"] for field in shown["fields"]), f"{family}.{name}"
    assert "digits-demo" in invoke("list", "recipes").output
    assert "schema = 1" in invoke("show", "recipes.digits-demo").output
    assert "sparsity: a number, > 0, < 1, default None" in invoke("show", "prune").output


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["show", "prun"], ["did you mean 'prune'?"]),
        (["list", "pases"], ["did you mean 'passes'"]),
        (["check", "no-such.toml"], ["no-such.toml", "no such file"]),
        (["run", "post-training-int8"], ["model.source is not given", "give --model PATH"]),
        (["run"], ["no recipe is given"]),
        (["run", "digits-demo", "--set", "passes.0.sparcity=0.5"], ["sparcity", "sparsity"]),
        (["run", "digits-demo", "--set", "nonsense"], ["is not KEY=VALUE"]),
        (["inspect", "no.keras"], ["no.keras", "no such file"]),
        (["bench", "no.tflite"], ["no.tflite", "no such file"]),
        (["report", "no-run"], ["no-run", "holds no manifest.json"]),
        (["compare", "a", "b"], ["holds no manifest.json"]),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(words: list[str], parts: list[str]) -> None:
    assert_one_line(invoke(*words), 2, *parts)


def test_model_that_is_not_what_its_name_says(tmp_path: Path) -> None:
    fake = tmp_path / "fake.keras"
    fake.write_text("not a model")
    out = tmp_path / "run"
    result = invoke("run", "post-training-int8", "--model", fake, "--data", "digits", "--out", out)
    assert_one_line(result, 2, str(fake), "is not a .keras archive")
    assert json.loads((out / "manifest.json").read_text())["status"] == "failed"
    renamed = tmp_path / "model.pb"
    renamed.write_text("x")
    assert_one_line(
        invoke("run", "post-training-int8", "--model", renamed, "--data", "digits"), 2, ".keras", "model.pb"
    )


def test_plan_says_what_cannot_work_and_why(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(
        'schema = 1\n[data]\nuse = "digits"\n[data.splits]\ntest = 0.5\n'
        '[[variants]]\nname = "a"\nexport = ["onnx"]\n[[variants.passes]]\nuse = "quantize"\nscheme = "dynamic"\n'
        '[[variants]]\nname = "b"\nexport = ["tflite"]\n[[variants.passes]]\nuse = "quantize"\nscheme = "int8"\n'
    )
    result = invoke("plan", path)
    assert result.exit_code == 2
    assert f"{path}:8: variants.0.export.0: variant a: ONNX Runtime's quantizer gives" in result.output
    assert "quantize needs the calibration split" in result.output
    planned = json.loads(invoke("plan", "digits-demo", "--json").stdout)
    assert [stage["name"] for stage in planned["stages"]][:1] == ["original"]
    assert not planned["problems"]
    (prune,) = [line for line in invoke("plan", "digits-demo").output.splitlines() if line.startswith("  01-prune ")]
    assert "importance l2" in prune and "device" not in prune and "None" not in prune  # what is not given is not said


def test_plan_says_which_device_cannot_be_measured() -> None:
    result = invoke("plan", "post-training-int8", "--data", "digits", "--device", "raspberry-pi-4")
    assert "raspberry-pi-4 cannot be measured from here" in result.output


def test_inspect_a_model_and_its_files(finished: Any, digits_model: Path) -> None:
    found = json.loads(invoke("inspect", digits_model, "--json").stdout)
    # 3x3 conv 1->12 without bias, 4 BN values of 12, 3x3 conv 12->16 with bias, dense 256->10 with bias
    assert found["parameters"] == 108 + 48 + 1728 + 16 + 2570
    assert found["takes"]["pass prune"].startswith("yes: 28 channels in 2 groups")
    text = invoke("inspect", digits_model).output
    assert "conv2" in text
    assert "exporter onnx: yes, as float32, float16, int8, weight_int8" in text
    for name, scheme in (("original.tflite", "float32"), ("int8.tflite", "int8"), ("int8.onnx", "int8")):
        assert json.loads(invoke("inspect", finished.folder / "artifacts" / name, "--json").stdout)["scheme"] == scheme


def test_bench_and_eval_of_one_file(finished: Any) -> None:
    file = finished.folder / "artifacts" / "int8.onnx"
    result = invoke("bench", file, "--processes", "1", "--seconds", "0.02", "--json")
    names = {m["name"] for m in json.loads(result.stdout)["measurements"]}
    assert {"latency_p50_ms", "latency_p99_ms", "load_ms"} <= names
    evaluated = invoke("eval", file, "--data", "digits", "--preprocess", "{scale = 0.0625}", "--json")
    found = json.loads(evaluated.stdout)
    top1 = next(m for m in found["measurements"] if m["name"] == "top1")
    assert sum(row["correct"] for row in found["per_class"]) == round(top1["value"] * 1797)
    assert top1["value"] > 0.8
    assert "top1" in invoke("eval", file, "--data", "digits", "--preprocess", "{scale = 0.0625}").stdout
    assert_one_line(invoke("bench", file, "--processes", "0"), 2, "processes")
    assert_one_line(invoke("eval", file, "--data", "digits", "--preprocess", "sined"), 2, "--preprocess")
    assert_one_line(invoke("eval", file, "--data", "digits", "--subset", "test"), 2, "--subset")


def test_eval_of_the_original_equals_the_run(finished: Any, digits_model: Path) -> None:
    options = ("--data", "digits", "--preprocess", "{scale = 0.0625}", "--json")
    keras = json.loads(invoke("eval", digits_model, *options).stdout)["measurements"][0]["value"]
    file = finished.folder / "artifacts" / "original.tflite"
    assert json.loads(invoke("eval", file, *options).stdout)["measurements"][0]["value"] == pytest.approx(
        keras, abs=1e-9
    )


def test_eval_names_the_images_it_cannot_read(tmp_path: Path, finished: Any) -> None:
    import numpy as np
    from PIL import Image

    for index in range(300):
        path = tmp_path / "images" / f"digit {index % 10}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), index % 17, np.uint8)).save(path)
    (tmp_path / "images" / "digit 3" / "13.png").write_bytes(b"")
    file = finished.folder / "artifacts" / "int8.onnx"
    options = ("--data", tmp_path / "images", "--preprocess", "{scale = 0.0625}", "--json")
    result = invoke("eval", file, *options)
    assert sum(row["total"] for row in json.loads(result.stdout)["per_class"]) == 299
    assert "left out: digit 3/13.png: cannot be read as an image: the file is empty" in result.stderr
    for index in range(23, 73, 10):
        (tmp_path / "images" / "digit 3" / f"{index}.png").write_bytes(b"no image")
    assert_one_line(invoke("eval", file, *options), 2, "6 of 300 images cannot be read")


def test_damaged_files_are_one_line(tmp_path: Path, finished: Any) -> None:
    whole = (finished.folder / "artifacts" / "int8.tflite").read_bytes()
    for name, content in (("cut.tflite", whole[:1000]), ("text.onnx", b"hello"), ("empty.tflite", b"")):
        path = tmp_path / name
        path.write_bytes(content)
        assert_one_line(invoke("inspect", path), 2, name)
        assert_one_line(invoke("bench", path, "--processes", "1"), 2, name)


@pytest.mark.parametrize(
    ("overrides", "code", "outcome"),
    [
        ([], 0, "PASS"),
        (["--set", "budget.max_size_kib=1"], 1, "FAIL"),
        (
            [
                "--set",
                "measure.processes=0",
                "--set",
                "variants.float.export.0=onnx",
                "--set",
                "budget.max_latency_p50_ms=9",
            ],
            4,
            "INCONCLUSIVE",
        ),
        (["--set", "budget.max_accuracy_drop=DROP"], 4, "INCONCLUSIVE"),  # a limit at what was lost cannot be decided
        (["--device", "raspberry-pi-4", "--set", "budget.max_latency_p50_ms=100"], 4, "INCONCLUSIVE"),
    ],
)
def test_exit_code_is_the_verdict(
    finished: Any, tmp_path: Path, recipe_file: Path, digits_model: Path, overrides: list[str], code: int, outcome: str
) -> None:
    import shutil

    shutil.copytree(finished.folder, tmp_path / "run")
    lost = [m.value for m in finished.manifest.measurements if (m.subject, m.name) == ("int8.tflite", "top1_drop")]
    overrides = [text.replace("DROP", str(lost[0])) for text in overrides]
    result = invoke("run", recipe_file, "--model", digits_model, "--resume", tmp_path / "run", "--json", *overrides)
    assert result.exit_code == code, result.stderr
    assert json.loads(result.stdout)["outcome"] == outcome


def test_table_ends_with_what_was_won_and_where_the_report_is(
    finished: Any, tmp_path: Path, recipe_file: Path, digits_model: Path
) -> None:
    import shutil

    shutil.copytree(finished.folder, tmp_path / "run")
    result = invoke("run", recipe_file, "--model", digits_model, "--resume", tmp_path / "run")
    lines = result.stdout.splitlines()
    assert any("smaller" in line for line in lines)
    assert any(str(tmp_path / "run" / "report.html") in line for line in lines)
    assert lines[-2].startswith("your model:  edgekit run")


def test_compare_two_runs_in_three_forms(finished: Any) -> None:
    assert "same" in invoke("compare", finished.folder, finished.folder).stdout.lower()
    assert json.loads(invoke("compare", finished.folder, finished.folder, "--json").stdout)
    assert "|" in invoke("compare", finished.folder, finished.folder, "--markdown").stdout


def test_doctor_lists_what_is_installed() -> None:
    found = {row["name"]: row for row in json.loads(invoke("doctor", "--json").stdout)}
    assert found["tensorflow"]["state"] == "ok"
    assert found["python"]["state"] in ("ok", "untested")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str) -> None:
    assert "_EDGEKIT_COMPLETE" in invoke("completion", shell).stdout


def test_completion_knows_the_shipped_recipes() -> None:
    environment = {
        **os.environ,
        "_EDGEKIT_COMPLETE": "bash_complete",
        "COMP_WORDS": "edgekit run post",
        "COMP_CWORD": "2",
    }
    command = [sys.executable, "-m", "toolkit"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    assert "post-training-int8" in done.stdout


def heard() -> None:
    """No signal is ignored, as nohup or a shell's background would have it of whoever runs the tests."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_signal_ends_the_command_as_ctrl_c_does_and_leaves_nothing(number: int, code: int, tmp_path: Path) -> None:
    temporary, program = tmp_path / "tmp", tmp_path / "program.py"
    temporary.mkdir()
    program.write_text(
        "import os, time\n"
        "from contextlib import closing\n"
        "from toolkit import cli, pipeline\n"
        "from toolkit.transports.local import Local\n"
        "def run(*args, **kwargs):\n"
        "    with closing(Local().open()):\n"
        "        os.kill(os.getpid(), NUMBER)\n"
        "        time.sleep(20)\n"
        "pipeline.run = run\n"
        "cli.main()\n".replace("NUMBER", str(int(number)))
    )
    done = subprocess.run(
        [sys.executable, str(program), "run", "digits-demo"],
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)},
        preexec_fn=heard,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    assert done.stderr.strip() == ("interrupted" if code == 130 else f"ended by {signal.Signals(number).name}")
    assert [path.name for path in temporary.iterdir() if "lease" not in path.name] == []


def test_interrupt_is_one_line_and_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit import pipeline

    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "run", interrupted)
    result = invoke("run", "digits-demo")
    assert (result.exit_code, result.stderr.strip()) == (130, "interrupted")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("e.onnx", b"", "is empty"),
        ("t.onnx", b"\x1c\x00\x00\x00TFL3" + bytes(40), "is a .tflite file, not an .onnx file"),
        ("o.tflite", b"\x08\x08\x12\x07pytorch" + bytes(9), "damaged or not a .tflite file"),
        ("z.onnx", b"\x08\x08", "has no inputs or no outputs"),
    ],
)
def test_file_of_another_kind_or_none_is_one_line(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    for command in (["inspect"], ["eval", "--data", "digits"], ["bench"]):
        assert_one_line(invoke(*command, tmp_path / name), 2, words)


def test_inspect_and_eval_a_savedmodel_folder(digits_files: dict[str, Path]) -> None:
    found = json.loads(invoke("inspect", digits_files["savedmodel"], "--json").stdout)
    assert (found["kind"], found["parameters"], found["macs"]) == ("SavedModel without Keras", 4470, None)
    assert found["operators"]["Conv2D"] == 2
    assert found["takes"]["pass prune"] == "no: needs a Keras graph; a SavedModel without Keras has none"
    assert found["takes"]["exporter onnx"] == "yes, as float32, float16, int8, weight_int8"
    told = invoke("eval", digits_files["savedmodel"], "--data", "digits", "--preprocess", "{scale=0.0625}", "--json")
    top1 = json.loads(told.stdout)["measurements"][0]
    assert top1["value"] > 0.85
    assert top1["how"]["runtime"] == "tensorflow"
