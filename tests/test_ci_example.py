"""The workflow in examples/: what it is made of, and its steps carried out on commits made for it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RECIPE
from toolkit.cli import cli

yaml = pytest.importorskip("yaml", reason="reading the workflow needs pyyaml")

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "examples" / "github-actions" / "edgekit.yml"
PYTHON = f'#!/bin/sh\nexec "{sys.executable}" -m toolkit "$@"\n'


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    return dict(yaml.safe_load(FILE.read_text()))


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    (job,) = workflow["jobs"].values()  # base and head in one job, or timing would be of two machines
    return list(job["steps"])


def test_it_runs_for_pull_requests_with_no_more_rights_than_it_needs(workflow: dict[str, Any]) -> None:
    assert list(workflow[True]) == ["pull_request"]  # YAML 1.1 reads `on` as true; never pull_request_target
    assert workflow["permissions"] == {"contents": "read", "pull-requests": "write"}


def test_nothing_of_an_event_stands_in_a_script(workflow: dict[str, Any]) -> None:
    """A branch or title with a command in it must not become one: values reach scripts as variables."""
    assert not [step for step in steps(workflow) if "${{" in step.get("run", "")]


def test_every_command_and_option_exists(workflow: dict[str, Any]) -> None:
    script = "\n".join(step.get("run", "") for step in steps(workflow))
    used = re.findall(r"\bedgekit (\w+)([^|>\n]*)", script)
    assert {name for name, _ in used} == {"run", "compare", "gate"}
    for name, rest in used:
        known = {option for parameter in cli.commands[name].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known


def test_every_shell_step_is_a_valid_script(workflow: dict[str, Any]) -> None:
    for step in steps(workflow):
        if "run" in step:
            subprocess.run(["bash", "-n", "-c", step["run"]], check=True)


# ---------------------------------------------------------------- carried out


@dataclass
class Checkout:
    """A repository with a recipe and a model, and the runner's environment."""

    folder: Path
    environment: dict[str, str]

    def git(self, *arguments: str) -> str:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        done = subprocess.run(
            ["git", *who, *arguments], cwd=self.folder, env=self.environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, text: str) -> str:
        (self.folder / "recipe.toml").write_text(text)
        self.git("add", "-A")
        self.git("commit", "-qm", "a change")
        return self.git("rev-parse", "HEAD")

    def carry_out(self, workflow: dict[str, Any], base: str, *, cached: bool) -> dict[str, int]:
        """Exit code of each step that was carried out, by its name; as a runner does, none after one that failed."""
        environment = self.environment | {key: str(value) for key, value in workflow["env"].items()} | {"BASE": base}
        codes: dict[str, int] = {}
        for step in steps(workflow):
            condition = str(step.get("if", ""))
            if "edgekit " not in step.get("run", "") or (cached and "cache-hit" in condition):
                continue
            if any(codes.values()) and "!cancelled()" not in condition:
                continue
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
                cwd=self.folder,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            codes[step["name"]] = done.returncode
            print(step["name"], done.returncode, done.stdout[-2000:], done.stderr[-2000:])
        return codes


@pytest.fixture
def checkout(tmp_path: Path, digits_model: Path) -> Checkout:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "edgekit").write_text(PYTHON)
    (programs / "edgekit").chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    environment |= {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"), "GIT_CONFIG_GLOBAL": os.devnull}
    folder = tmp_path / "repository"
    folder.mkdir()
    made = Checkout(folder, environment)
    made.git("init", "-q")
    (folder / "model.keras").write_bytes(digits_model.read_bytes())
    (folder / ".gitignore").write_text("runs/\nbase/\ncomparison.md\n")
    return made


@pytest.mark.slow
def test_equal_head_passes_and_a_planted_regression_fails(checkout: Checkout, workflow: dict[str, Any]) -> None:
    """The regression: four times as many weights are cut away, and no teacher heals it."""
    recipe = RECIPE.replace("[data]", '[model]\nsource = "model.keras"\n\n[data]', 1)
    recipe = recipe.replace('export = ["tflite", { use = "onnx", layout = "NCHW" }]', 'export = ["tflite"]')
    base = checkout.commit(recipe)
    checkout.commit(recipe + "\n# a comment\n")
    codes = checkout.carry_out(workflow, base, cached=False)
    assert codes == {"Build the base": 0, "Build the head": 0, "Compare": 0, "Judge the head by its own budget": 0}
    summary = Path(checkout.environment["GITHUB_STEP_SUMMARY"])
    assert "**Worse:**" not in summary.read_text()
    assert "same file" in summary.read_text()

    summary.unlink()
    (checkout.folder / "runs" / "head").rename(checkout.folder / "runs" / "earlier")
    worse = (
        recipe.replace("sparsity = 0.5", "sparsity = 0.8").replace("epochs = 4", "epochs = 1").replace("0.003", "1e-6")
    )
    checkout.commit(worse.replace("max_accuracy_drop = 0.2", "max_accuracy_drop = 0.9"))
    codes = checkout.carry_out(workflow, base, cached=True)
    assert codes == {"Build the head": 0, "Compare": 1, "Judge the head by its own budget": 0}
    text = summary.read_text()
    assert text.index("**Worse:**") < text.index("accuracy")
    assert len(text) < 65_536
