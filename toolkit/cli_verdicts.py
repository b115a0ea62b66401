"""`gate` and `compare`: verdicts on runs that are there already."""

from __future__ import annotations

from pathlib import Path

import click

from toolkit.cli_options import json_option, print_result

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


COMMANDS = (gate,)
