"""`edgekit init`: a first recipe for a model and a device."""

from __future__ import annotations

from pathlib import Path

import click

from toolkit.cli_options import code_option, complete_names


@click.command(short_help="Write a first recipe for a model and a device.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--device", required=True, shell_complete=complete_names("devices"), help="Device profile.")
@click.option("--data", help="Dataset: a path, a dataset's name, or {path=..., more of its parameters}.")
@click.option("--out", type=click.Path(path_type=Path), help="File to write. Default: to standard output.")
@code_option
def init(model: Path, device: str, data: str | None, out: Path | None, allow_code: tuple[str, ...]) -> None:
    """Write a first recipe for MODEL on a device, with a comment on every choice, from what model, device and images
    are. It is checked and planned before it is written; what no file can say is marked CHECK."""
    from toolkit import starting

    started = starting.start(model, device, data=data, out=out, allow_code=allow_code)
    for line in starting.lines(started, out):
        click.echo(line)
