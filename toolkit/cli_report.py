"""`edgekit report`: a run's page or Markdown anew, or several runs side by side."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Write a run's report anew, or several side by side.")
@click.argument("directories", metavar="DIRECTORY...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="File to write. Default: report.html in DIRECTORY; of several, here."
)
@click.option("--markdown", is_flag=True, help="Print a summary in Markdown instead, or write it to --out.")
@click.option("--no-images", is_flag=True, help="Leave test images out of the page.")
@click.option("--open", "show", is_flag=True, help="Open the page in a browser.")
def report(directories: tuple[Path, ...], out: Path | None, markdown: bool, no_images: bool, show: bool) -> None:
    """Write the report of the run in DIRECTORY anew, from its manifest and thumbnails alone; of several runs, one page
    that has them side by side, changes against the first."""
    from toolkit import reporting

    if markdown and show:
        raise click.UsageError("--open shows a page; leave --markdown out")
    if markdown:
        text = reporting.markdown(directories)
        if out is None:
            click.echo(text, nl=False)
            return
        click.echo(reporting.write_text(out, text))
        return
    if len(directories) == 1:
        path = reporting.write_report(directories[0], out, images=not no_images)
    else:
        path = reporting.write_several(directories, out)
    click.echo(path)
    if show:
        reporting.show(path)
