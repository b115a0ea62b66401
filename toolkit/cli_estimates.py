"""`edgekit device estimate|calibrate|micro`: what a file would cost on a device that is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from toolkit.cli_options import complete_names, json_option, print_result


@click.command(short_help="Estimate a file's latency on a device that is not there.")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--device", "profile", required=True, shell_complete=complete_names("devices"), help="Device profile.")
@click.option("--threads", type=click.IntRange(1, 64), help="Threads the runtime may use. Default: the profile's.")
@click.option("--processor", default="", help="Name of one of the profile's processors. Default: the first.")
@click.option("--system-config", help="Of an Ethos-U: Vela's system configuration. Default: the profile's.")
@click.option("--memory-mode", help="Of an Ethos-U: Vela's memory mode. Default: the profile's.")
@json_option
def estimate(artifact: Path, profile: str, as_json: bool, **options: Any) -> None:
    """Estimate the latency of ARTIFACT (.tflite, .onnx) on a device, with a range; by Vela where it is an Ethos-U."""
    from toolkit.devices import load_device
    from toolkit.estimates import estimated

    told = {name: options[name] for name in ("system_config", "memory_mode") if options[name] is not None}
    target = load_device(profile)
    found = estimated.estimate_file(
        artifact, target, threads=options["threads"], processor=options["processor"], told=told
    )
    print_result(
        as_json,
        lambda: estimated.as_dict(found, artifact, target),
        lambda: estimated.lines(found, artifact, target),
    )


@click.command(short_help="Learn a device's speed from latencies measured on it.")
@click.argument("profile", shell_complete=complete_names("devices"))
@click.option(
    "--from",
    "sources",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="A run directory, or what `edgekit bench --json` printed; may be repeated.",
)
@click.option("--models", type=click.Path(path_type=Path), help="Folder of the files that `bench` timed.")
@click.option("--processor", default="", help="Name of the processor that was timed. Default: the profile's first.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The .toml file to write.")
@json_option
def calibrate(profile: str, as_json: bool, **options: Any) -> None:
    """Learn what the processor of PROFILE reaches from latencies measured on it, and write a copy of the profile whose
    estimates rest on that."""
    from toolkit.calibrating import calibrate_profile

    found = calibrate_profile(profile, **options)
    print_result(as_json, found.as_dict, found.lines)


@click.command(short_help="Write what a microcontroller's program needs of a .tflite file.")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder to make, for the array and its headers.")
@json_option
def micro(artifact: Path, out: Path | None, as_json: bool) -> None:
    """Print the operators to register and the arena that ARTIFACT (.tflite) needs in tflite-micro; with --out also
    write it as a C array."""
    from dataclasses import asdict

    from toolkit import runs
    from toolkit.errors import InputError
    from toolkit.estimates import micro as micros

    found = micros.needs(artifact)
    if out is not None:
        if out.exists():
            raise InputError(str(out), "is there already", "name a new folder")
        texts = micros.sources(artifact)
        runs.make_folder(out)
        for name, text in texts.items():
            runs.write_atomically(out / name, text.encode())
    print_result(as_json, lambda: {**asdict(found), "calls": found.calls}, lambda: found.lines(artifact.name))


COMMANDS = (estimate, calibrate, micro)
