"""What a delivered file is by itself, before anything runs it: its size, its zeros, how few values its weights have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toolkit.checks.clusters import measure_clusters, measure_entropy, shared
from toolkit.checks.size import measure_size
from toolkit.checks.weights import weights_of
from toolkit.checks.zeros import is_sparse, measure_zeros, zeros_of
from toolkit.core import Artifact, Measurement
from toolkit.plan import Check
from toolkit.sources import store


def weighed(artifact: Artifact, checks: Sequence[Check], model: Path) -> list[Measurement]:
    """Measurements of a file; of zeros and of shared weights with what each device's runtime makes of them.

    checks: of this file. model: where what it was written from rests.
    """
    weights = weights_of(artifact.path)
    found = [*measure_size(artifact.name, artifact.path), measure_entropy(artifact.name, weights)]
    if is_sparse(zeros := zeros_of(artifact.path)):
        found += [measure_zeros(artifact, zeros, check.device, check.runtime, check.delegate) for check in checks]
    claims = store.read_contract(model).clustered if store.contract_path(model).is_file() else {}
    if claims:
        own = shared(weights, max(codebook.values for codebook in claims.values()))
        found += [measure_clusters(artifact, own, claims, check.device, check.runtime) for check in checks]
    return found
