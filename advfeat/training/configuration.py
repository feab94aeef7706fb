"""How to train: the declared configuration of one training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from ..core import checks
from ..core.config import Configuration, about, key
from ..core.types import PerRun, Seeds
from ..kernels.layers import Mode
from .optim import OPTIMISERS, SCHEDULES, OptimiserName, RateSchedule

Ascent = Literal["gradient", "steepest"]
Loss = Literal["cross_entropy", "trades"]


@dataclass(frozen=True)
class TrainConfig(Configuration):
    """How to train.  ``lr``, ``ascent_lr``, ``eps`` and ``seed`` are one value, or one per run of a batch.

    ``lr``, ``ascent_lr`` and ``eps`` must be finite, and the rates > 0, in the network's dtype too: `train` checks it.

    Attributes
    ----------
    lr : learning rate eta > 0.
    n_iter : iterations T >= 0 (for minibatches, of one batch each).
    adversarial : train on X~ = X + clip_eps(ascent_lr grad_X J(X)), held constant, instead of X.
    ascent_lr, eps : the ascent's rate eta-tilde > 0 and radius >= 0; needed iff adversarial.
    objective : J, "neg_label_logit" (the paper's -F_y), "margin" or "cross_entropy".
    n_ascent, norm : ascent steps (the paper: 1; at most 10,000); "linf" or "l2", patch by patch.
    batch_size : None for full batch, else samples per step, in a new random order each epoch.
    seed : of the minibatches' order, of augmentation and of ascents' starts.
    later_seed, later_from : another one, from this iteration on.
    record_every : iterations between records (default n_iter / 20); iteration 0 and n_iter are always recorded.
    checkpoint_every : records between checkpoints in a run folder.
    optimiser, momentum, nesterov, weight_decay, decay_vectors : of `training.optim`; in the paper SGD, with all at 0.
    schedule, drops, warm_up : how lr moves along the training (`training.optim.rate`).
    eps_warm_up : first iterations, over which eps and the ascent's rate grow from 0.
    loss, beta : "trades" (Zhang et al. 2019; `training.adversary.trades`) instead of the cross-entropy at X~; its
        ascent raises the divergence and begins next to the samples, whatever `objective` says.
    augmentation, padding : of images (`images.data.augmented`).
    ascent, random_start : "steepest" ascent with a random start is PGD (Madry et al. 2018), `ascent_lr` its step.
    crafting_mode, crafting_updates : the mode of batch norm in which samples are ascended, and whether its running
        statistics move there; only networks that have modes.
    """

    lr: PerRun = field(metadata=about("learning rate, eta", "weight / input", above=0, per_run=True))
    n_iter: int = field(metadata=about("iterations, T, of one batch each", low=0, high=checks.MOST))
    adversarial: bool = key(False, "train on ascended samples X + clip_eps(ascent_lr grad_X J(X)) instead of X")
    ascent_lr: PerRun | None = key(
        None, "rate of the ascent, given iff adversarial", "input / weight", above=0, per_run=True
    )
    eps: PerRun | None = key(None, "radius of the ascent, given iff adversarial", "input", low=0, per_run=True)
    objective: checks.AscentObjective = key("neg_label_logit", "what the ascent raises, J",
                                            choices=tuple(checks.OBJECTIVES))  # fmt: skip
    n_ascent: int = key(1, "steps of the ascent", low=1, high=checks.MOST_STEPS)
    norm: checks.AscentNorm = key("linf", "norm of the ascent's balls, patch by patch", choices=tuple(checks.NORMS))
    batch_size: int | None = key(None, "samples per step, all without it", low=1)
    seed: Seeds = key(0, "seed of the minibatches' order", low=0, per_run=True)
    later_seed: int | None = key(None, "another seed of the same, from the iteration later_from on", low=0)
    later_from: int = key(0, "first iteration of later_seed", low=0, high=checks.MOST)
    record_every: int | None = key(None, "iterations between two records, n_iter / 20 without it", low=1)
    checkpoint_every: int = key(1, "records between two checkpoints in a run folder", low=1)
    momentum: float = key(0.0, "share of the last step that is kept, below 1", low=0)
    weight_decay: float = key(0.0, "share of the weights that is added to their gradient", low=0)
    optimiser: OptimiserName = key("sgd", "how parameters move along gradients", choices=OPTIMISERS)
    nesterov: bool = key(False, "whether momentum looks a step ahead")
    decay_vectors: bool = key(True, "whether biases and batch norms decay too")
    schedule: RateSchedule = key("constant", "how the learning rate moves along the training",
                                 choices=tuple(SCHEDULES))  # fmt: skip
    drops: tuple[float, ...] = key((0.5, 0.75), "shares of the training where the step schedule divides by 10",
                                   low=0, many=True)  # fmt: skip
    warm_up: int = key(0, "first iterations, over which the learning rate grows from 0", low=0, high=checks.MOST)
    ascent: Ascent = key("gradient", "what the ascent follows", choices=get_args(Ascent))
    random_start: bool = key(False, "whether the ascent starts at a random point of the ball")
    eps_warm_up: int = key(0, "first iterations, over which the radius grows from 0", low=0, high=checks.MOST)
    loss: Loss = key("cross_entropy", "what is made small", choices=get_args(Loss))
    beta: float = key(6.0, "weight of the divergence in TRADES", low=0)
    augmentation: checks.Augmentation = key("none", "how images are moved and mirrored at random",
                                            choices=checks.AUGMENTATIONS)  # fmt: skip
    padding: int = key(4, "pixels by which augmentation moves at most", low=1, high=32)
    crafting_mode: Mode = key("evaluate", "mode of batch norm in the ascent", choices=("evaluate", "train"))
    crafting_updates: bool = key(False, "whether the ascent moves batch norm's running statistics")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.momentum >= 1:
            raise ValueError(f"momentum = {self.momentum!r}: must be < 1")
        if self.optimiser == "adam" and (self.momentum or self.nesterov):
            raise ValueError(f"momentum = {self.momentum!r}, nesterov = {self.nesterov!r}: Adam has its own")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov = True: needs momentum > 0")
        if any(drop > 1 for drop in self.drops):
            raise ValueError(f"drops = {self.drops!r}: shares of the training must be <= 1")
        if self.crafting_updates and self.crafting_mode != "train":
            raise ValueError("crafting_updates = True: only with crafting_mode = 'train', in which statistics are seen")
        if self.loss == "trades" and self.random_start:
            raise ValueError("random_start = True: TRADES begins next to the samples")
        for name in ("ascent", "random_start", "crafting_mode", "eps_warm_up", "loss"):
            if not self.adversarial and getattr(self, name) != self.keys()[name].default:
                raise ValueError(f"{name} = {getattr(self, name)!r}: only with adversarial = True")
        for name in ("ascent_lr", "eps"):
            if (getattr(self, name) is None) == self.adversarial:
                rule = "must be given" if self.adversarial else "must be None"
                raise ValueError(f"{name} = {getattr(self, name)!r}: {rule} when adversarial = {self.adversarial}")

    @property
    def record_points(self) -> int:
        """Iterations between two records."""
        return self.record_every or max(self.n_iter // 20, 1)
