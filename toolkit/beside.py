"""What lies beside each delivered file: its contract (`contract`) and a program that follows it (`sample_code`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toolkit import runs
from toolkit.contract import Origin, contract_path, dump, make_contract
from toolkit.core import Artifact, Preprocessing
from toolkit.exporters.intake import outside
from toolkit.sample_code import sample_code


def paths(artifact: Path) -> tuple[Path, Path]:
    """The contract and the program of a file."""
    return contract_path(artifact), artifact.with_name(f"{artifact.name}.py")


def write(artifact: Artifact, preprocessing: Preprocessing, classes: Sequence[str], origin: Origin) -> None:
    """Both, of what is left to the caller: a file that takes pixels does the rest itself."""
    owed = outside(preprocessing) if artifact.pixels else preprocessing
    contract, program = paths(artifact.path)
    runs.write_atomically(contract, dump(make_contract(artifact, owed, classes, origin)))
    runs.write_atomically(program, sample_code(artifact, owed, classes).encode())
