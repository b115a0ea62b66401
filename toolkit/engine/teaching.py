"""How to train: everything the training loop is told, for distillation, transfer learning and training from scratch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from toolkit.engine.clusters import Sharing
from toolkit.engine.hints import Beside
from toolkit.engine.loss import DECISIONS, Target
from toolkit.engine.schedule import Schedule
from toolkit.engine.sparsity import Sparsity
from toolkit.engine.views import Views

Precision = Literal["float32", "float16", "bfloat16"]


def policy_of(precision: Precision) -> str | None:
    """Keras' name for a precision; None for its usual one."""
    return None if precision == "float32" else f"mixed_{precision}"


@dataclass(frozen=True)
class Teaching:
    """How to train. head: what the outputs are (the names of `loss`).

    target: what the loss asks for, and how much of it the teacher has a say in. beside: what is learned of the teacher
    beside its outputs. augment, views: random changes of the
    images, of both kinds. judged_by: what evaluates epochs, a score to be large or a loss to be small. patience: epochs
    without a better evaluation before stopping; 0 never stops early. frozen: layers that stay as they are and work as
    in inference. momentum: of sgd (Nesterov's); weight_decay: of adamw. precision: what is computed in, by Keras' mixed
    policies (Micikevicius et al. 2017, arXiv:1710.03740); the weights stay float32. sparsity, sharing: zeros, and
    weights that share values, that are made, or kept, as training goes on.
    """

    epochs: int
    batch_size: int = 64
    learning_rate: float = 1e-3
    head: str = "softmax"
    target: Target = Target()
    beside: Beside = Beside()
    schedule: Schedule = Schedule()
    augment: str = "none"
    views: Views = Views()
    optimizer: str = "adam"
    momentum: float = 0.9
    weight_decay: float = 0.004
    frozen: frozenset[str] = frozenset()
    judged_by: Literal["score", "loss"] = "score"
    patience: int = 0
    precision: Precision = "float32"
    sparsity: Sparsity | None = None
    sharing: Sharing | None = None
    seed: int = 0

    @property
    def policy(self) -> str | None:
        """What is computed in, as Keras calls it."""
        return policy_of(self.precision)

    @property
    def labels_only(self) -> Target:
        """The target where there is no teacher."""
        return replace(self.target, alpha=0.0)

    @property
    def asks_teacher(self) -> bool:
        """Whether the teacher has a say."""
        return self.target.alpha > 0 or self.beside.any

    @property
    def judgement(self) -> str:
        """What evaluation is called as a curve."""
        if self.judged_by == "loss":
            return "selection_loss"
        return "selection_accuracy" if self.head in DECISIONS else "selection_score"

    def worth(self, judged: float) -> float:
        """What evaluation gave, as a number to be large."""
        return -judged if self.judged_by == "loss" else judged
