"""Options that several commands share, and how a result is printed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def complete_names(kind: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        from toolkit.devices import shipped

        names = [CompletionItem(name) for name in shipped(kind) if name.startswith(incomplete)]
        return [*names, CompletionItem(incomplete, type="file")]

    return complete


def _be_quiet(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    from toolkit.progress import QUIET

    ctx.meta[QUIET] = value


def finite(ctx: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """Refuse what is no number."""
    if value is not None and math.isnan(value):  # no range of click's keeps it out
        raise click.BadParameter("give a number, got nan")
    return value


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
quiet_option = click.option(
    "--quiet",
    "-q",
    is_flag=True,
    expose_value=False,
    callback=_be_quiet,
    help="Nothing on stderr but warnings and errors.",
)
recipe_argument = click.argument("recipe", shell_complete=complete_names("recipes"))
model_option = click.option("--model", type=click.Path(path_type=Path), help="Trained model; replaces the recipe's.")
data_option = click.option("--data", help="Dataset: a .npz, .csv, folder, or a dataset's name; replaces the recipe's.")
device_option = click.option(
    "--device",
    "devices",
    multiple=True,
    shell_complete=complete_names("devices"),
    help="Device profile; may be repeated.",
)
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change the recipe: passes.0.sparsity=0.6"
)
code_option = click.option(
    "--allow-code",
    multiple=True,
    metavar="MODULE",
    help="Import MODULE and run its code, which a model or dataset needs; may be repeated.",
)

ssh_option = click.option(
    "--ssh",
    multiple=True,
    metavar="[DEVICE=]HOST",
    help="Where a device is, as ssh takes it (USER@HOST); may be repeated.",
)
adb_option = click.option(
    "--adb",
    multiple=True,
    metavar="[DEVICE=]SERIAL",
    help="Which Android device it is, as `adb devices` lists it; may be repeated.",
)
replay_option = click.option(
    "--replay",
    multiple=True,
    metavar="[DEVICE=]FOLDER",
    help="Answer from a recording in the device's place; may be repeated.",
)
record_option = click.option(
    "--record", type=click.Path(path_type=Path), metavar="FOLDER", help="Record what the devices do in a new folder."
)


def print_result(as_json: bool, data: Callable[[], Any], lines: Callable[[], Iterable[str]]) -> None:
    if as_json:
        click.echo(json.dumps(data(), indent=1, default=str))
        return
    for line in lines():
        click.echo(line)
