"""`gate` and `compare`: verdicts on runs that are there already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from toolkit.cli_options import adb_option, complete_names, finite, json_option, print_result, quiet_option, ssh_option

OF_BENCH = ("device", "rounds", "seconds", "ssh", "adb")
OUTCOME_CODES = {"PASS": 0, "NO GATE": 0, "FAIL": 1, "INCONCLUSIVE": 4}


@click.command(short_help="Judge a finished run again, by other limits.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--budget",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Limits: a TOML file with [budget] and [[targets]], or a recipe. Default: the run's own.",
)
@click.option("--write", is_flag=True, help="Put the verdicts into the run's manifest, and write its report anew.")
@json_option
@click.pass_context
def gate(ctx: click.Context, run: Path, budget: Path | None, write: bool, as_json: bool) -> None:
    """Judge the finished run in RUN by the limits in FILE, on what it has kept: nothing is run or measured again."""
    from toolkit.rejudging import rejudge

    made = rejudge(run, budget, write=write)
    print_result(as_json, made.as_dict, made.lines)
    ctx.exit(OUTCOME_CODES[made.outcome])


@click.command(short_help="Say what changed between two runs.")
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--markdown", is_flag=True, help="As Markdown, for a pull request.")
@click.option("--fail-on", type=click.Choice(["worse"]), help="End with exit code 1 where something is worse for sure.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 10),
    callback=finite,
    default=0.02,
    show_default=True,
    help="Share of a size or a time that is no change.",
)
@click.option("--bench", is_flag=True, help="Time the files of both runs here, in turn, whatever hosts they ran on.")
@click.option("--device", default="this-machine", shell_complete=complete_names("devices"), help="Of --bench.")
@click.option("--rounds", type=click.IntRange(6, 500), default=20, show_default=True, help="Of --bench.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.01, 60),
    callback=finite,
    default=0.5,
    show_default=True,
    help="Of --bench: of a process.",
)
@ssh_option
@adb_option
@quiet_option
@json_option
@click.pass_context
def compare(ctx: click.Context, /, before: Path, after: Path, as_json: bool, **options: Any) -> None:
    """Say what changed between the runs in BEFORE and AFTER: recipe, versions, data, verdicts, every measurement."""
    from toolkit import comparing
    from toolkit.progress import shown

    for name in OF_BENCH if not options["bench"] else ():
        if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name} says how --bench times, which is not asked for")
    asked = {name: options.pop(name) for name in ("markdown", "fail_on")}
    with shown() as emit:
        made = comparing.compare_runs(before, after, emit=emit, ended=bool(asked["fail_on"]), **options)
    print_result(as_json, made.as_dict, made.markdown if asked["markdown"] else made.lines)
    ctx.exit(1 if asked["fail_on"] and made.worse else 0)


COMMANDS = (gate, compare)
