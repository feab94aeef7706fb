"""The configuration of one training."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from ..core import checks
from .optim import SGD


@dataclass(frozen=True)
class TrainConfig:
    """How to train.  ``lr``, ``ascent_lr``, ``eps`` and ``seed`` are one value, or one per run of a batch.

    ``lr``, ``ascent_lr`` and ``eps`` must be finite, and the rates > 0, in the network's dtype too: `train` checks it.

    Attributes
    ----------
    lr : learning rate eta > 0.
    n_iter : iterations T >= 0 (for minibatches, of one batch each).
    adversarial : train on X~ = X + clip_eps(ascent_lr grad_X J(X)), held constant, instead of X.
    ascent_lr, eps : the ascent's rate eta-tilde > 0 and radius >= 0; needed iff adversarial.
    objective : J, "neg_label_logit" (the paper's -F_y), "margin" or "cross_entropy".
    n_ascent, norm : ascent steps (the paper: 1); "linf" or "l2", patch by patch.
    batch_size : None for full batch, else samples per step, in a new random order each epoch.
    seed : of the minibatches' order.
    record_every : iterations between records (default n_iter / 20); iteration 0 and n_iter are always recorded.
    checkpoint_every : records between checkpoints in a run folder.
    """

    lr: float
    n_iter: int
    adversarial: bool = False
    ascent_lr: float | None = None
    eps: float | None = None
    objective: str = "neg_label_logit"
    n_ascent: int = 1
    norm: str = "linf"
    batch_size: int | None = None
    seed: int = 0
    record_every: int | None = None
    checkpoint_every: int = 1
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self):
        checks.integer("n_iter", self.n_iter, 0)
        checks.choice("adversarial", self.adversarial, (True, False))
        checks.choice("objective", self.objective, checks.OBJECTIVES)
        checks.choice("norm", self.norm, checks.NORMS)
        checks.integer("n_ascent", self.n_ascent, 1)
        checks.integer("checkpoint_every", self.checkpoint_every, 1)
        for name in ("batch_size", "record_every"):
            if getattr(self, name) is not None:
                checks.integer(name, getattr(self, name), 1)
        SGD(np.ones(1), self.momentum, self.weight_decay)
        rules = {"lr": {"above": 0}, "ascent_lr": {"above": 0}, "eps": {"low": 0}}
        for name, rule in rules.items():
            if getattr(self, name) is not None:
                checks.per_run(name, getattr(self, name), np.size(getattr(self, name)), **rule)
        for name in ("ascent_lr", "eps"):
            if (getattr(self, name) is None) == self.adversarial:
                rule = "must be given" if self.adversarial else "must be None"
                raise ValueError(f"{name} = {getattr(self, name)!r}: {rule} when adversarial = {self.adversarial}")

    @property
    def record_points(self) -> int:
        """Iterations between two records."""
        return self.record_every or max(self.n_iter // 20, 1)

    @classmethod
    def from_dict(cls, values: dict) -> TrainConfig:
        return cls(**values)

    def as_dict(self) -> dict:
        """JSON-ready, as it stands in config.json and in checkpoints."""
        return {name: np.asarray(value).tolist() for name, value in asdict(self).items()}
