"""A model as tensorflow-model-optimization shares its weights: `cluster_weights` around the chosen layers.

Page: tensorflow.org/model_optimization, "Weight clustering comprehensive guide". A wrapper's layer loses its kernel to
a tensor that is made anew of centroids whenever it is called; the kernel itself goes on as the wrapper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.core import Array
    from toolkit.engine.clusters import Sharing
    from toolkit.engine.teaching import Teaching

STARTS = {"linear": "LINEAR", "density": "DENSITY_BASED", "kmeans": "KMEANS_PLUS_PLUS"}


class Task:
    """The wrapped model, and how to read its weights."""

    def __init__(self, old: Any, how: Teaching) -> None:
        import tf_keras
        from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster

        if how.sharing is None:
            raise ValueError("no shared weights were asked for")
        options = {name: arguments(name, how.sharing) for name in how.sharing.made}

        def wrapped(layer: Any) -> Any:
            return cluster.cluster_weights(layer, **options[layer.name]) if layer.name in options else layer

        self.model = tf_keras.models.clone_model(old, clone_function=wrapped)

    def learned(self) -> dict[str, Array]:
        """Arrays to hand back, "weight/LAYER/i", shared ones with the values they share by now."""
        found: dict[str, Array] = {}
        for layer in self.model.layers:
            inner = getattr(layer, "layer", layer)
            weights = inner.get_weights()
            if inner is not layer:
                layer.update_clustered_weights_associations()
                for place, name in sorted(layer.position_original_weights.items()):
                    weights.insert(place, layer.get_weight_from_layer(name).numpy())
            found |= {f"weight/{inner.name}/{index}": weight for index, weight in enumerate(weights)}
        return found


def arguments(name: str, asked: Sharing) -> Mapping[str, Any]:
    """What `cluster_weights` is given for a layer."""
    from tensorflow_model_optimization.python.core.clustering.keras.cluster_config import CentroidInitialization

    codebook = asked.made[name]
    return {
        "number_of_clusters": codebook.values,
        "cluster_centroids_init": getattr(CentroidInitialization, STARTS[asked.start]),
        "preserve_sparsity": name in asked.zeros,
        "cluster_per_channel": codebook.per == "channel",
    }
