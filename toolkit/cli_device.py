"""`edgekit device`: profiles listed, shown, checked, and captured from a device."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from toolkit import cli_estimates
from toolkit.cli_options import complete_names, json_option, print_result


@click.group(short_help="List, show, check and capture device profiles.")
def device() -> None:
    """Device profiles: what a device is and can run. A new device is one TOML file and no code."""


@device.command(name="list", short_help="List the shipped profiles.")
@click.option("--measurable", is_flag=True, help="Only those that something reaches: this machine, SSH, adb.")
@click.option("--family", help="Only board, phone, microcontroller, computer, jetson or gpu.")
@json_option
def list_(as_json: bool, measurable: bool, family: str | None) -> None:
    """List the shipped profiles: what they are, how they are measured, which files they run."""
    from toolkit.profiles import listed

    found = listed(measurable=measurable, family=family)
    print_result(as_json, lambda: found, lambda: _rows(found))


@device.command(short_help="Show what a profile says, and what a plan would.")
@click.argument("profile", shell_complete=complete_names("devices"))
@json_option
def show(profile: str, as_json: bool) -> None:
    """Show what PROFILE (a path or a shipped name) says, each fact with its source, and what a plan would say."""
    from toolkit.profiles import shown, shown_lines

    found = shown(profile)
    print_result(as_json, lambda: found, lambda: shown_lines(found))


@device.command(short_help="Check profiles.")
@click.argument("files", nargs=-1, shell_complete=complete_names("devices"))
@json_option
def check(files: tuple[str, ...], as_json: bool) -> None:
    """Check FILES (paths or shipped names; all shipped ones by default) and name every mistake with its line."""
    from toolkit.profiles import checked

    names = checked(files)
    print_result(as_json, lambda: names, lambda: [f"{name}: a valid device profile" for name in names])


@device.command(short_help="Write a profile from the device itself.")
@click.option("--ssh", metavar="HOST", help="Where it is, as ssh takes it (USER@HOST).")
@click.option("--adb", metavar="SERIAL", help="The phone's serial number, as `adb devices` lists it.")
@click.option("--python", help="Python there that has the runtimes. Default: python3; here: this one.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The .toml file to write.")
@json_option
def capture(as_json: bool, **options: Any) -> None:
    """Ask a device what it is and write its profile: over SSH, over adb, or this machine with neither.

    Model, cores, instruction sets, memory, system, runtimes with their versions, sensors. Nothing is installed or
    changed there, and no Python is needed.
    """
    from toolkit.capturing import capture as captured

    found = captured(**options)
    print_result(as_json, found.as_dict, found.lines)


for command in cli_estimates.COMMANDS:
    device.add_command(command)


def _rows(found: list[dict[str, Any]]) -> Iterable[str]:
    widths = [max((len(item[key]) for item in found), default=0) for key in ("name", "family", "reached")]
    for item in found:
        name, family, reached = (
            item[key].ljust(width) for key, width in zip(("name", "family", "reached"), widths, strict=True)
        )
        yield f"{name}  {family}  {reached}  {item['title']} ({', '.join(item['formats'])})"
