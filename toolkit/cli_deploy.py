"""`bundle` and `deploy`: commands that take what a run delivered to where it will run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from toolkit.cli_options import adb_option, complete_names, json_option, print_result, quiet_option, ssh_option
from toolkit.errors import InputError

card_option = click.option(
    "--card",
    multiple=True,
    metavar="KEY=TEXT",
    help="For the model card: authors, license, data_license, intended_use, limits; may be repeated.",
)
allow_option = click.option("--allow-failed", is_flag=True, help="Also a file that failed a gate.")


@click.command(short_help="Pack a run's file with all that its user needs.")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("artifact", required=False)
@click.option("--device", shell_complete=complete_names("devices"), help="Device it is for, whose gates count.")
@click.option("--out", type=click.Path(path_type=Path), help="Archive to write. Default: in RUN/bundles.")
@card_option
@allow_option
@quiet_option
@json_option
def bundle(run: Path, artifact: str | None, as_json: bool, **options: Any) -> None:
    """Pack ARTIFACT of the run in RUN (by default the one that passed) into an archive: the file, its contract, labels,
    a model card, example programs, and reference answers. It reproduces byte for byte."""
    from toolkit import bundle as bundles
    from toolkit.progress import shown

    with shown() as emit:
        written = bundles.bundle(run, artifact, emit=emit, **options)
    print_result(as_json, written.as_dict, written.lines)


@click.command(short_help="Put a run's file on a device and make it current there.")
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.argument("artifact", required=False)
@click.option("--device", required=True, shell_complete=complete_names("devices"), help="Device profile.")
@ssh_option
@adb_option
@click.option("--rollback", is_flag=True, help="Make current there what was current before.")
@click.option("--into", default="", metavar="FOLDER", help="Folder of the device. Default: edgekit in its home folder.")
@click.option("--name", default="", help="What the deployment is called there. Default: the recipe's name.")
@click.option("--keep", type=click.IntRange(1), default=3, show_default=True, help="Versions that stay there.")
@click.option("--smoke/--no-smoke", default=True, help="Try it there on the reference images first.")
@card_option
@allow_option
@quiet_option
@json_option
def deploy(run: Path | None, artifact: str | None, as_json: bool, rollback: bool, **options: Any) -> None:
    """Put ARTIFACT of the run in RUN, with all that belongs to it, on a device: a folder of its own, checked by hash,
    tried there on reference images, and made current by one rename. --rollback goes back to what was before."""
    from toolkit import deploy as deploying
    from toolkit.progress import shown

    if run is None and not (rollback and options["name"]):
        raise InputError("deploy", "no run is given", "name a run's directory; --rollback does with --name")
    if rollback and (artifact or options["card"] or options["allow_failed"]):
        problem = "goes to what was current before: no ARTIFACT, --card or --allow-failed goes with it"
        raise InputError("--rollback", problem, "leave them out")
    with shown() as emit:
        if rollback:
            known = {key: options[key] for key in ("device", "ssh", "adb", "into", "smoke")}
            name = options["name"] or deploying.name_of(run or Path())
            done = deploying.roll_back(name=name, emit=emit, **known)
        else:
            done = deploying.deploy(run or Path(), artifact, emit=emit, **options)
    print_result(as_json, done.as_dict, done.lines)


COMMANDS = (bundle, deploy)
