"""`edgekit device estimate|calibrate|micro`: what a file would cost on a device that is not there."""

from __future__ import annotations

from pathlib import Path

import click

from toolkit.cli_options import complete_names, json_option, print_result


@click.command(short_help="Estimate a file's latency on a device that is not there.")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--device", required=True, shell_complete=complete_names("devices"), help="Device profile.")
@click.option("--threads", type=click.IntRange(1, 64), help="Threads the runtime may use. Default: the profile's.")
@click.option("--processor", default="", help="Name of one of the profile's processors. Default: the first.")
@json_option
def estimate(artifact: Path, device: str, as_json: bool, threads: int | None, processor: str) -> None:
    """Estimate the latency of ARTIFACT (.tflite, .onnx) on a device, with a range."""
    from toolkit.devices import load_device
    from toolkit.estimates import roofline, workload

    profile = load_device(device)
    found = roofline.estimate(profile, workload.read(artifact), threads=threads, processor=processor)
    print_result(
        as_json,
        lambda: roofline.as_dict(found, artifact.name, profile.name),
        lambda: roofline.lines(found, artifact.name, profile.name),
    )


COMMANDS = (estimate,)
