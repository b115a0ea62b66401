"""What a recipe's pruning asks of devices: said in the plan, before any work."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from toolkit import kernels
from toolkit.devices import load_device
from toolkit.documents import Document
from toolkit.plan import make_plan
from toolkit.pruning import has_amx, multiple_of, needs, runtime_of, said
from toolkit.recipe_reader import parse_recipe

SPLITS = "[data.splits]\nselection = 0.1\ncalibration = 100\ntest = 0.3\n"


def plan(prune: str, *, splits: str = SPLITS, more: str = "") -> Any:
    data = f'[data]\nuse = "digits"\n{splits}'
    text = f'schema = 1\nexport = ["tflite"]\n{more}\n{data}[[passes]]\nuse = "prune"\n{prune}\n'
    return make_plan(parse_recipe(Document("r.toml", tomllib.loads(text)), Path.cwd()))


def test_plan_says_whether_latency_will_be_measured_or_estimated() -> None:
    made = plan('latency = 0.5\ndevice = "raspberry-pi-4"')
    assert not made.problems
    assert "prune: latency on raspberry-pi-4 is estimated, not measured, of float32 files" in made.notes
    made = plan('latency_ms = 1\ndevice = "this-machine"')
    assert not made.problems
    assert "prune: latency on this-machine is measured, of float32 files" in made.notes


def test_plan_refuses_a_device_that_there_is_not_or_that_tells_nothing(tmp_path: Path) -> None:
    (problem,) = plan('latency = 0.5\ndevice = "raspberry-pie-4"').problems
    assert "prune.device" in problem and "raspberry-pi-4" in problem
    profile = tmp_path / "box.toml"
    text = 'schema = 1\narch = "any"\n[[runtimes]]\nuse = "litert"\nformats = ["tflite"]\ndelegates = ["xnnpack"]\n'
    profile.write_text(text + 'schemes = ["float32"]\n')
    (problem,) = plan(f'latency = 0.5\ndevice = "{profile}"').problems
    assert "neither measured from here nor estimated" in problem
    profile.write_text(text + 'schemes = ["int8"]\n')
    (problem,) = plan(f'latency = 0.5\ndevice = "{profile}"').problems
    assert "runs no float32 file" in problem
    (problem,) = plan('latency = 0.5\ndevice = "this-machine"', more="[measure]\nprocesses = 0").problems
    assert "0 processes measure nothing" in problem


def test_plan_says_which_splits_are_missing() -> None:
    bare = '[data.splits]\ntest = "rest"\n'
    (problem,) = plan('macs = 0.5\nimportance = "fisher"', splits=bare).problems
    assert "prune.importance: fisher needs images" in problem
    (problem,) = plan('macs = 0.5\nranking = "sensitivity"', splits=bare).problems
    assert "prune.ranking: sensitivity needs the selection split" in problem
    (problem,) = plan("macs = 0.5\nrecover = { epochs = 2 }", splits=bare).problems
    assert "prune needs the train split" in problem


def test_a_teacher_inside_recover_starts_from_the_recipes_folder_and_must_be_there() -> None:
    (problem,) = plan('macs = 0.5\nrecover = { epochs = 2, teacher = "no/such.keras" }').problems
    assert f"prune.recover.teacher: no such file, got '{Path.cwd() / 'no' / 'such.keras'}'" in problem


def test_a_mistake_inside_recover_is_named_with_its_key() -> None:
    with pytest.raises(Exception, match=r"recover\.epoch: no such key.*did you mean 'epochs'"):
        plan("macs = 0.5\nrecover = { epoch = 2 }")


def test_multiple_is_that_of_the_widest_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("raspberry-pi-4", "jetson-orin-nano-8", "cortex-m55-ethos-u55")
    multiples = {name: multiple_of(load_device(name)) for name in names}
    assert multiples == {"raspberry-pi-4": 8, "jetson-orin-nano-8": 32, "cortex-m55-ethos-u55": 16}
    monkeypatch.setattr(kernels, "flags", lambda: frozenset(["avx2", "avx512f"]))
    assert multiple_of(load_device("this-machine")) == 16
    monkeypatch.setattr(kernels, "flags", lambda: frozenset(["avx2"]))
    assert multiple_of(load_device("this-machine")) == 8
    assert not has_amx(load_device("this-machine"))
    monkeypatch.setattr(kernels, "flags", lambda: frozenset(["avx512f", "amx_int8"]))
    assert has_amx(load_device("this-machine")) and not has_amx(load_device("raspberry-pi-4"))
    targets = "".join(f'[[targets]]\ndevice = "{name}"\n' for name in multiples)
    text = 'macs = 0.5\nround_to = "auto"\n' + targets
    assert 'prune: round_to = "auto" is 32 here' in plan(text).notes


def test_stage_depends_on_the_device_only_where_it_counts() -> None:
    made = plan('latency = 0.5\ndevice = "raspberry-pi-4"')
    component = made.stage("01-prune").component
    assert said(component, needs(made.recipe, component))[0]["name"] == "raspberry-pi-4"
    component = component.model_copy(update={"latency": None, "device": "", "macs": 0.5})
    assert said(component, needs(made.recipe, component)) == ()


def test_plan_says_what_kernels_steps_are_weighed_by() -> None:
    line = "prune: steps are weighed by what kernels of jetson-orin-nano-8 compute, 32 channels at once"
    made = plan('macs = 0.5\nranking = "global"\ndevice = "jetson-orin-nano-8"')
    assert not made.problems and line in made.notes
    component = made.stage("01-prune").component
    assert said(component, needs(made.recipe, component))[-1] == 32
    assert not any("weighed" in note for note in plan('macs = 0.5\nranking = "global"').notes)
    assert not any("weighed" in note for note in plan('latency = 0.5\ndevice = "raspberry-pi-4"').notes)  # local


def test_target_of_the_recipe_lends_its_settings() -> None:
    made = plan(
        'latency = 0.5\ndevice = "raspberry-pi-4"\n[[targets]]\ndevice = "raspberry-pi-4"\nmeasure = { threads = 2 }'
    )
    found = needs(made.recipe, made.stage("01-prune").component)
    assert found.measure.threads == 2
    assert runtime_of(load_device("raspberry-pi-4")) == ("tflite", "litert", "xnnpack")


def test_plan_refuses_latency_on_what_computes_no_float32() -> None:
    (problem,) = plan('latency = 0.5\ndevice = "cortex-m55-ethos-u55"').problems
    assert "candidates are float32 files, and an Ethos-U computes int8 alone" in problem
