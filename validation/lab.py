"""Experiments that several entries share, run once and kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from ..experiments.configuration import Figure3Config
from ..kernels.recursion import Types
from ..patches.data import PatchData
from ..patches.network import PatchCNN
from ..theory import Recursion, State, empirical_types, population_types, simulate
from ..training.loop import train

#: The second configuration: noiseless, with a threshold so small that features reach the linear part of sigma.
#: Few patches, since B enters it only if P_NR rho/q is small against log k; an init so small that the orthogonal part
#: of the ascent, lr~ sigma'(z) |w_orth|^2, is negligible beside z (its own assumption of Lemma 5.2); lr~ rho > 1, so
#: that the plateau B* = 0.165 lies in the polynomial part.
SMALL_RHO = {
    "n_classes": 5, "n_neurons": 10, "patch_dim": 1000, "n_patches": 16, "n_robust": 1, "alpha": 2.0, "beta": 1.0,
    "q": 3, "rho": 0.3, "init_std": 0.001, "lr": 0.02, "ascent_lr": 20.0, "eps": 1.0,
}  # fmt: skip
SMALL_RHO_ITERATIONS = {False: 6000, True: 10000}


class Story(NamedTuple):
    """A training of the default configuration, noise and all: networks (R runs), history, data."""

    config: Figure3Config
    net: PatchCNN
    history: dict[str, np.ndarray]
    data: PatchData
    test: PatchData


class Exact(NamedTuple):
    """Network and recursion side by side at a few iterations, float64, noiseless.

    ``phi (T, R, k, m, 2k)`` and ``weights (T, R, k, m, d)`` of the network; ``recursion`` from its first weights.
    """

    config: Figure3Config
    iteration: np.ndarray
    weights: np.ndarray
    phi: np.ndarray
    recursion: Recursion
    state: State
    data: PatchData


class Scaling(NamedTuple):
    """Simulations of SMALL_RHO with one parameter changed: see `Lab.scaling`."""

    name: str
    value: float
    setting: dict
    recursion: Recursion


@dataclass
class Lab:
    """`quick`: fewer seeds for networks, fewer points for scalings; the same statements and rules."""

    quick: bool = False
    _kept: dict = field(default_factory=dict, repr=False)

    def once(self, key, make: Callable):
        """make(), the first time that `key` is asked for; keys are shared by all entries."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    @property
    def n_seeds(self) -> int:
        """Seeds of trained networks."""
        return 4 if self.quick else 16

    n_draws = 16  # seeds of simulations: cheap, never fewer

    # -------------------------------------------------------------- the default configuration
    def config(self, **changes) -> Figure3Config:
        return Figure3Config(**({"n_seeds": self.n_seeds} | changes))

    def story(self, adversarial: bool) -> Story:
        """The default configuration trained to the end on `n_seeds` seeds, float32 as in `advfeat reproduce`."""

        def make():
            config = self.config()
            data, test = config.data("train"), config.data("test")
            result = train(config.network(), data, config.training(adversarial), test)
            return Story(config, result.net, result.history, data, test)

        return self.once(("story", adversarial), make)

    def exact(self, adversarial: bool) -> Exact:
        """Network beside recursion without noise: default configuration, float64, two seeds, 40 looks on the way."""
        config, looks = self.config(noise_std=0.0, dtype="float64", n_seeds=2), 40
        every = max(config.n_iter // looks, 1)
        return self.once(("exact", adversarial), lambda: beside_recursion(config, adversarial, every))

    # -------------------------------------------------------------- the small-rho configuration
    def small(self, adversarial: bool) -> Recursion:
        """SMALL_RHO simulated on `n_draws` seeds from drawn states, a record every 20 iterations."""
        return self.once(("small", adversarial), lambda: small_rho(adversarial, self.n_draws))

    def scaling(self, name: str, adversarial: bool) -> list[Scaling]:
        """SMALL_RHO with one parameter changed, `n_draws` seeds each, until every class has settled.

        `name`: "n_classes", "n_neurons", "init_std" (the lemmas' sigma_0; d itself only enters through it and through
        H), or "n_patches" (with beta changed to keep the density ratio; adversarial training stops B only if
        beta <= eps, so fewer patches than SMALL_RHO's are no test of it).  At SMALL_RHO's own value it is `small`.
        Adversarial quick runs take two values each.
        """
        values = {
            "n_classes": (3, 5, 10),
            "n_neurons": (5, 10, 20),
            "init_std": (2e-3, 1e-3, 5e-4),
            "n_patches": (16, 32, 64) if adversarial else (8, 16, 32),
        }[name]
        if self.quick and adversarial:  # these runs are the longest
            values = values[:2]
        return [self.once((name, v, adversarial), lambda v=v: self._scaled(name, v, adversarial)) for v in values]

    def _scaled(self, name, value, adversarial):
        changes, slower = {name: value}, 1.0
        if name == "n_patches":  # the density ratio P_R alpha^q / (P_NR beta^q) stays
            changes["beta"] = ((SMALL_RHO["n_patches"] - 1) / (value - 1)) ** (1 / SMALL_RHO["q"])
        if name == "n_classes":
            slower = value / SMALL_RHO["n_classes"]
        if name == "init_std":
            slower = SMALL_RHO["init_std"] / value
        setting = SMALL_RHO | changes
        if setting == SMALL_RHO:
            return Scaling(name, value, setting, self.small(adversarial))
        return Scaling(name, value, setting, small_rho(adversarial, self.n_draws, slower, **changes))


def small_rho(adversarial: bool, n_draws: int, slower: float = 1.0, record_every: int = 20, **changes) -> Recursion:
    """SMALL_RHO (with changes) simulated from drawn states on seeds 0..n_draws-1, for `slower` times its iterations."""
    c = SMALL_RHO | changes
    n_iter = int(SMALL_RHO_ITERATIONS[adversarial] * slower)
    shape = (c["n_classes"], c["n_neurons"], c["patch_dim"])
    state = State.draw(*shape, rng=list(range(n_draws)), init_std=c["init_std"])
    types = population_types(c["n_classes"], c["n_patches"], c["n_robust"], c["alpha"], c["beta"])
    ascent = {"ascent_lr": c["ascent_lr"], "eps": c["eps"]} if adversarial else {}
    options = {"q": c["q"], "rho": c["rho"], "lr": c["lr"], "n_iter": n_iter, "record_every": record_every}
    return simulate(state, types, **options, **ascent)


def features_of(config: Figure3Config) -> np.ndarray:
    """(2k, d): u_1..u_k, v_1..v_k."""
    return np.concatenate(config.distribution().features)


def recursion_types(data: PatchData, n_classes: int) -> Types:
    return empirical_types(data.y, data.robust, data.strength, n_classes)


def beside_recursion(config: Figure3Config, adversarial: bool, every: int) -> Exact:
    """Train `config` with a look at the weights every `every` iterations, and simulate it from the same weights."""
    net, data, looks = config.network(), config.data("train"), []
    training = replace(config.training(adversarial), record_every=every)
    history = train(net, data, training, metrics=lambda n, _: looks.append(n.weights.astype(float)) or {}).history
    W = np.stack(looks)
    state = State.from_weights(net.W, config.distribution().features)
    ascent = {"ascent_lr": config.ascent_lr, "eps": config.eps} if adversarial else {}
    found = simulate(
        state, recursion_types(data, config.n_classes), q=config.q, rho=config.rho, lr=config.lr,
        n_iter=config.n_iter, record_every=every, norm=config.norm, objective=config.objective,
        n_ascent=config.n_ascent, **ascent,
    )  # fmt: skip
    return Exact(config, history["iteration"], W, W @ features_of(config).T, found, state, data)


def first_record(iteration: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """Index of the first record at which `reached` (T, ...) holds, -1 where it never does."""
    return np.where(reached.any(axis=0), reached.argmax(axis=0), -1)


def at(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """values (T, ...) at record index (...), NaN where the index is -1."""
    taken = np.take_along_axis(values, np.maximum(index, 0)[None], 0)[0]
    return np.where(index >= 0, taken, np.nan)
