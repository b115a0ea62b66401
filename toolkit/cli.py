"""The command line: each command is a thin face over a function. Results to stdout, progress to stderr.

Nothing heavy is imported at the top: `--help` needs click alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from toolkit import __version__
from toolkit.cli_deploy import COMMANDS as DEPLOYING
from toolkit.cli_device import device
from toolkit.cli_init import init
from toolkit.cli_options import (
    adb_option,
    code_option,
    complete_names,
    data_option,
    device_option,
    finite,
    json_option,
    model_option,
    print_result,
    quiet_option,
    recipe_argument,
    record_option,
    replay_option,
    set_option,
    ssh_option,
)
from toolkit.cli_report import report
from toolkit.cli_verdicts import COMMANDS as VERDICTS
from toolkit.cli_verdicts import OUTCOME_CODES
from toolkit.ended import INTERRUPTED, Ended, forget, interrupted, listen
from toolkit.errors import EdgekitError

EPILOG = """Exit codes: 0 done and every gate passed; 1 a gate failed; 2 a mistake in the command, recipe or data;
3 the environment lacks something; 4 a gate was inconclusive; 130 interrupted."""


class Edgekit(click.Group):
    """Turns Edgekit's own errors into one line and their exit code; anything else is a bug and keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Ended as error:
            words, code = str(error), 128 + error.signal
        except KeyboardInterrupt:
            words, code = "interrupted", INTERRUPTED
        except Exception as error:
            if interrupted():
                words, code = "interrupted", INTERRUPTED
            elif isinstance(error, EdgekitError):
                words, code = f"error: {error}", error.exit_code
            else:
                raise
        click.echo(words, err=True)
        raise click.exceptions.Exit(code)


@click.group(cls=Edgekit, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgekit")
def cli() -> None:
    """Take a trained CNN to an edge device: smaller, faster, and proven to be still right."""


@cli.command(short_help="Carry out a recipe and judge what comes out.")
@click.argument("recipe", required=False, shell_complete=complete_names("recipes"))
@model_option
@data_option
@device_option
@set_option
@code_option
@ssh_option
@adb_option
@replay_option
@record_option
@click.option("--out", type=click.Path(path_type=Path), help="Run directory to make. Default: runs/<time>_<name>.")
@click.option("--resume", type=click.Path(path_type=Path), help="Run directory to take up again.")
@click.option("--no-images", is_flag=True, help="Keep no test images for the report; short for --set report.images=0.")
@quiet_option
@json_option
@click.pass_context
def run(ctx: click.Context, /, as_json: bool, no_images: bool, **options: Any) -> None:
    """Carry out RECIPE (a path or a shipped name) and judge what comes out."""
    options["overrides"] += ("report.images=0",) * no_images
    from toolkit import pipeline
    from toolkit.progress import shown
    from toolkit.report.text import next_steps, summary_lines

    with shown() as emit:
        result = pipeline.run(emit=emit, **options)
    if as_json:
        click.echo(result.json())
    else:
        for line in (*summary_lines(result.manifest), "", *next_steps(result.folder, result.manifest)):
            click.echo(line)
    ctx.exit(OUTCOME_CODES[result.manifest.outcome or "NO GATE"])


@cli.command(short_help="Make a recipe's trained model, and nothing else.")
@recipe_argument
@data_option
@set_option
@code_option
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The .keras file to write.")
@click.option("--resume", is_flag=True, help="Go on after the last epoch of a training that was not finished.")
@quiet_option
@json_option
def train(recipe: str, as_json: bool, **options: Any) -> None:
    """Make the trained model that RECIPE's [train] section describes, and nothing else."""
    from toolkit import trained
    from toolkit.progress import shown

    with shown() as emit:
        made = trained.train(recipe, emit=emit, **options)
    print_result(as_json, made.as_dict, made.lines)


@cli.command(short_help="Say what a recipe would do, and what cannot work.")
@recipe_argument
@model_option
@data_option
@device_option
@set_option
@code_option
@ssh_option
@adb_option
@replay_option
@json_option
def plan(recipe: str, as_json: bool, **options: Any) -> None:
    """Say what RECIPE would do, and what cannot work and why. Does no work."""
    from toolkit.plan import make_plan
    from toolkit.planned import as_dict, lines
    from toolkit.recipe_reader import load_recipe

    made = make_plan(load_recipe(recipe, **options))
    print_result(as_json, lambda: as_dict(made), lambda: lines(made))
    made.require_possible()


@cli.command(short_help="Check a recipe or a device profile.")
@click.argument("file")
@json_option
def check(file: str, as_json: bool) -> None:
    """Check FILE, a recipe or a device profile, and name every mistake with its line."""
    from toolkit.recipe_reader import check_file

    found = check_file(file)
    print_result(as_json, lambda: found, lambda: [f"{file}: a valid {found['kind']}, {found['name']!r}"])


@cli.command(name="list", short_help="List what can be used.")
@click.argument("what", required=False)
@json_option
def list_(what: str | None, as_json: bool) -> None:
    """List what can be used, all of it or only WHAT: passes, exporters, runtimes, datasets, recipes, devices, ..."""
    from toolkit.catalogue import list_names

    found = list_names(what)
    print_result(as_json, lambda: found, lambda: _listed(found))


@cli.command(short_help="Show the fields of one thing.")
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show NAME (a pass, exporter, dataset, recipe, device, ...): its fields, bounds, defaults and meaning."""
    from toolkit.catalogue import show_lines, show_name

    found = show_name(name)
    print_result(as_json, lambda: found, lambda: show_lines(found))


@cli.command(short_help="Show what a model file is and what can take it.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--for", "runtime", help="Of an .onnx file: also what it would do there. tensorrt, tensorrt=VERSION.")
@click.option(
    "--device",
    shell_complete=complete_names("devices"),
    help="Whether it reads the file, and what keeps it slow there.",
)
@code_option
@json_option
def inspect(model: Path, as_json: bool, allow_code: tuple[str, ...], runtime: str | None, device: str | None) -> None:
    """Show what MODEL is (.keras, .tflite, .onnx, SavedModel folder): layers, counts, ends, and what can take it."""
    from dataclasses import asdict

    from toolkit.faster import inspected, lines
    from toolkit.inspection import inspect_file, inspection_lines
    from toolkit.linting import has_tensorrt, lint_file, lint_lines
    from toolkit.profiles import read_by

    report = lint_file(model, runtime, device) if runtime or (device and has_tensorrt(model, device)) else None
    found = inspect_file(model, allow_code=allow_code) | (report.as_dict() if report else {})
    reads = {"read_by": read_by(model, device)} if device and not report else {}
    speed = [each for each in [inspected(model, device)] if each] if device and not report else []
    told = (*reads.get("read_by", ()), *(lint_lines(report) if report else ()), *lines(speed))
    more = reads | ({"speed": [asdict(each) for each in speed]} if speed else {})
    print_result(as_json, lambda: found | more, lambda: (*inspection_lines(found), *told))


def _numbers(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    try:
        found = tuple(int(part) for part in value.split(",")) if value is not None else None
    except ValueError:
        raise click.BadParameter(f"give whole numbers with commas between them, got {value!r}") from None
    if found and len(set(found)) < len(found):
        raise click.BadParameter(f"give each number once, got {value!r}")
    return found


@cli.command(short_help="Measure the latency of files.")
@click.argument("artifacts", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--device", default="this-machine", shell_complete=complete_names("devices"), help="Device profile.")
@click.option("--threads", callback=_numbers, metavar="N[,N...]", help="Threads the runtime may use; several: a sweep.")
@click.option("--batch", type=int, help="Images in one inference, of a file whose batch is free or this one.")
@click.option("--cores", callback=_numbers, metavar="N[,N...]", help="Cores of the device to stay on.")
@click.option(
    "--sustained",
    type=click.FloatRange(0.05, 600),
    callback=finite,
    metavar="MINUTES",
    help="Run each file for so long.",
)
@click.option("--layers", is_flag=True, help="Also why they are no faster, and each layer's share.")
@click.option("--samples", type=click.Path(path_type=Path), help="Folder for raw samples and series.")
@click.option("--processes", type=int, help="Fresh processes for each artifact.")
@click.option("--seconds", type=float, help="Timed seconds in each process.")
@ssh_option
@adb_option
@replay_option
@record_option
@quiet_option
@json_option
def bench(artifacts: tuple[Path, ...], device: str, as_json: bool, **settings: Any) -> None:
    """Measure the latency of ARTIFACTS (.tflite, .onnx), interleaved."""
    from toolkit.measuring import bench_files, measurement_lines
    from toolkit.progress import shown

    with shown() as emit:
        found = bench_files(artifacts, device=device, emit=emit, **settings)
    print_result(as_json, lambda: found, lambda: measurement_lines(found))


@cli.command(short_help="Build a TensorRT engine on the device that will run it.")
@click.argument("onnx", metavar="MODEL", type=click.Path(path_type=Path))
@click.option("--device", required=True, shell_complete=complete_names("devices"), help="Device profile.")
@ssh_option
@click.option("--out", type=click.Path(path_type=Path), help="Engine to write. Default: MODEL.DEVICE.engine.")
@click.option("--batch", help="LEAST,USUAL,MOST or one number, for a file whose batch is free.")
@click.option("--shapes", multiple=True, help="INPUT=LEAST,USUAL,MOST, each as 1x3x224x224; may be repeated.")
@click.option("--workspace-mib", type=click.IntRange(1), help="Most memory of a layer's kernel while building.")
@click.option("--fp16", is_flag=True, help="TensorRT 8: let it use float16 where that is faster.")
@click.option("--dla", "dla_core", type=click.IntRange(0), help="Use this deep learning accelerator.")
@click.option("--sparse", is_flag=True, help="Let 2:4 sparse weights use sparse kernels.")
@click.option("--level", type=click.IntRange(0, 5), help="Builder optimization level (TensorRT 8.6 and later).")
@click.option("--timing-cache", metavar="PATH", help="File on the device that makes later builds there quicker.")
@click.option("--builder", type=click.Choice(["auto", "trtexec", "python"]), default="auto", show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(0, 600),
    callback=finite,
    default=3.0,
    show_default=True,
    help="Of each timed run; 0 builds alone.",
)
@click.option(
    "--power-seconds",
    type=click.FloatRange(0, 3600),
    callback=finite,
    default=15.0,
    show_default=True,
    help="Of sampled power; 0 for none.",
)
@click.option("--allow-sudo", is_flag=True, help="Lock a Jetson's clocks while timing, by `sudo -n`; put back after.")
@click.option("--allow-engine", multiple=True, metavar="SHA256", help="Load this engine, which others built.")
@quiet_option
@json_option
def engine(onnx: Path, as_json: bool, **options: Any) -> None:
    """Build a TensorRT engine of MODEL (.onnx) on the device that will run it, fetch it with its record, and time it;
    or time MODEL (.engine), built before, where its record fits the device."""
    from toolkit import engines
    from toolkit.progress import shown

    with shown() as emit:
        built = engines.build_by_options(onnx, emit=emit, **options)
    print_result(as_json, built.as_dict, built.lines)


@cli.command(name="eval", short_help="Evaluate a file on labelled images.")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--data", required=True, help="Dataset: a path, a dataset's name, or {path=..., more of its parameters}.")
@click.option(
    "--preprocess",
    help="raw, unit, signed, imagenet, caffe, or {scale=...}. Default: as the contract beside it has it, else raw.",
)
@click.option("--subset", help="Only the part of the data that is called this (train, test, eval, ...).")
@click.option(
    "--head", default="auto", show_default=True, help="auto, logits, softmax, sigmoid, sigmoids, embedding, regression."
)
@click.option("--layout", type=click.Choice(["NHWC", "NCHW"]), help="Layout of the file's image input, if not plain.")
@click.option("--device", default="this-machine", shell_complete=complete_names("devices"), help="Device profile.")
@code_option
@ssh_option
@adb_option
@replay_option
@record_option
@quiet_option
@json_option
def eval_(artifact: Path, as_json: bool, **options: Any) -> None:
    """Evaluate ARTIFACT (.tflite, .onnx, .keras, SavedModel folder) on labelled images."""
    from toolkit.measuring import evaluate_file, measurement_lines
    from toolkit.progress import shown

    with shown() as emit:
        found = evaluate_file(artifact, emit=emit, **options)
    print_result(as_json, lambda: found, lambda: measurement_lines(found))


@cli.command(short_help="Say which layer of a file is at fault, and where it first leaves its model.")
@click.argument("target", metavar="RUN_OR_FILE", type=click.Path(path_type=Path))
@click.argument("artifact", required=False)
@click.option("--model", type=click.Path(path_type=Path), help="For a file: the Keras model it was written from.")
@click.option("--data", help="For a file: images, as `eval` takes them.")
@click.option("--preprocess", help="For a file: as `eval` takes it.")
@click.option("--images", type=click.IntRange(1, 1000), default=16, show_default=True, help="How many images to use.")
@click.option("--sensitivity/--no-sensitivity", default=True, help="Also simulate each layer alone, and all but it.")
@click.option(
    "--against", metavar="FILE", help="Only say where the file first differs from this one, of the same model."
)
@click.option("--calibration/--no-calibration", default=True, help="Of a run: also check its calibrations.")
@code_option
@quiet_option
@json_option
def diagnose(
    target: Path, artifact: str | None, as_json: bool, against: str | None, calibration: bool, **options: Any
) -> None:
    """Say which layer is at fault: of ARTIFACT in a run directory (by default of each file), or of a file.

    Of a run also whether its calibration images were enough."""
    from toolkit import coverage, diagnosis
    from toolkit.progress import shown
    from toolkit.report.numbers import plain  # names of layers may hold anything

    if against is not None:
        del options["sensitivity"]
        with shown() as emit:
            between = diagnosis.beside(target, artifact, against=against, emit=emit, **options)
        print_result(as_json, lambda: diagnosis.as_dict(between), lambda: [plain(between.sentence())])
        return
    asked = {name: options[name] for name in ("images", "allow_code")}
    with shown() as emit:
        found = diagnosis.diagnose(target, artifact, emit=emit, **options)
        checks = coverage.check_run(target, artifact, emit=emit, **asked) if calibration and target.is_dir() else []
    print_result(
        as_json,
        lambda: diagnosis.as_dict(found) | coverage.as_dict(checks),
        lambda: map(plain, (*diagnosis.lines(found), *coverage.lines(checks))),
    )


@cli.command(short_help="Say what is installed and what is missing.")
@json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Say what is installed, what is missing and for what, and what of it was never tried."""
    from dataclasses import asdict

    from toolkit.doctor import examine, healthy

    found = examine()
    width = max(len(finding.name) for finding in found)
    lines = [f"{finding.state:<9} {finding.name:<{width}}  {finding.detail}" for finding in found]
    print_result(as_json, lambda: [asdict(finding) for finding in found], lambda: lines)
    ctx.exit(0 if healthy(found) else 3)


@cli.command(short_help="Print a shell completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for SHELL; load it with: eval "$(edgekit completion bash)"."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(found(cli, {}, "edgekit", "_EDGEKIT_COMPLETE").source())


for _command in (*DEPLOYING, *VERDICTS):
    cli.add_command(_command)
cli.add_command(device)
cli.add_command(report)
cli.add_command(init)


def _listed(found: dict[str, dict[str, str]]) -> Iterable[str]:
    for family, entries in found.items():
        width = max(map(len, entries), default=0)
        yield f"{family}:"
        yield from (f"  {name:<{width}}  {text}" for name, text in entries.items())


def main() -> None:
    """Entry point of the `edgekit` command."""
    listen()
    try:
        cli(prog_name="edgekit")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    finally:
        forget()
