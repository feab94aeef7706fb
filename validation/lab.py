"""The settings of simulations, and the experiments that several entries share, run once and kept."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import wraps
from typing import NamedTuple

import numpy as np

from .. import theory
from ..experiments.configuration import Figure3Config
from ..kernels.recursion import Types
from ..patches.data import PatchData
from ..patches.network import PatchCNN
from ..theory import Recursion, State, empirical_types, simulate
from ..training.loop import train


@dataclass(frozen=True)
class Setting:
    """All that a noiseless training depends on.  The defaults are the second configuration, SMALL_RHO: a threshold so
    small that features reach the linear part of sigma.

    Few patches, since B enters it only if P_NR rho/q is small against log k; an init so small that the orthogonal
    part of the ascent, lr~ sigma'(z) |w_orth|^2, is negligible beside z (its own assumption of Lemma 5.2); lr~ rho >
    1, so that the plateau B* = 0.165 lies in the polynomial part.
    """

    n_classes: int = 5
    n_neurons: int = 10
    patch_dim: int = 1000
    n_patches: int = 16
    n_robust: int = 1
    alpha: float = 2.0
    beta: float = 1.0
    q: int = 3
    rho: float = 0.3
    init_std: float = 0.001
    lr: float = 0.02
    ascent_lr: float = 20.0
    eps: float = 1.0

    def but(self, **changes) -> "Setting":
        return replace(self, **changes)

    def config(self, **changes) -> Figure3Config:
        """The same numbers as a configuration of networks."""
        return Figure3Config(**(asdict(self) | changes))

    @property
    def n_nonrobust(self) -> int:
        return self.n_patches - self.n_robust

    @property
    def density(self) -> float:
        """c = P_R alpha^q / (P_NR beta^q), which is kappa_A / kappa_B too."""
        return theory.density_ratio(self.alpha, self.beta, self.n_patches, self.n_robust, self.q)

    @property
    def plateau(self) -> float:
        """B* of Lemma 5.2."""
        return theory.plateau(self.beta, self.q, self.rho, self.ascent_lr)

    @property
    def leading_order(self) -> theory.LeadingOrder:
        names = ("n_classes", "alpha", "beta", "n_robust", "n_nonrobust", "q", "rho", "lr", "ascent_lr", "eps")
        return theory.LeadingOrder(**{name: getattr(self, name) for name in names})

    def start(self, seeds) -> State:
        """Drawn initial states, one run a seed."""
        return State.draw(self.n_classes, self.n_neurons, self.patch_dim, rng=list(seeds), init_std=self.init_std)

    def simulate(self, state: State, n_iter: int, record_every: int = 1, **ascent) -> Recursion:
        """The exact recursion on the population; adversarial with ``ascent_lr`` and ``eps``."""
        types = theory.population_types(self.n_classes, self.n_patches, self.n_robust, self.alpha, self.beta)
        options = {"q": self.q, "rho": self.rho, "lr": self.lr, "n_iter": n_iter, "record_every": record_every}
        return simulate(state, types, **options, **ascent)


SMALL_RHO = Setting()
HELD_OUT = 1000  # from here on no seed has been looked at when a rule, a level or a record was chosen
ITERATIONS = {False: 6000, True: 10000}  # of SMALL_RHO, standard and adversarial


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
    setting: Setting
    recursion: Recursion


def shared(function):
    """`function(lab, *arguments)`, computed once in a lab for all entries that ask for it."""

    @wraps(function)
    def kept(lab, *arguments, **options):
        key = (function, *arguments, *sorted(options.items()))
        return lab.once(key, lambda: function(lab, *arguments, **options))

    return kept


@dataclass
class Lab:
    """`quick`: fewer seeds for networks, fewer points for scalings; the same statements and rules.

    `first` is the smallest seed.  Whatever an entry draws, it draws from `seeds` or a `seed` of the lab, so that its
    numbers on the development seeds, from 0, stand beside those on the held-out ones, from HELD_OUT.
    """

    quick: bool = False
    first: int = 0
    _kept: dict = field(default_factory=dict, repr=False)

    n_draws = 16  # seeds of simulations: cheap, never fewer

    @property
    def seeds(self) -> range:
        """Of simulations, one run each."""
        return range(self.first, self.first + self.n_draws)

    def seed(self, number: int) -> int:
        """Of a draw that the entry numbers."""
        return self.first + number

    def once(self, key, make: Callable):
        """make(), the first time that `key` is asked for; keys are common to all entries."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def give(self, value, function, *arguments) -> None:
        """`value` stands for what the `shared` function would compute."""
        self._kept[(function.__wrapped__, *arguments)] = value

    @property
    def n_seeds(self) -> int:
        """How many networks are trained, from `first` on."""
        return 4 if self.quick else 16

    # -------------------------------------------------------------- the default configuration
    def config(self, **changes) -> Figure3Config:
        return Figure3Config(**({"n_seeds": self.n_seeds, "first_seed": self.first} | changes))

    @shared
    def story(self, adversarial: bool) -> Story:
        """The default configuration trained to the end on `n_seeds` seeds, float32 as in `advfeat reproduce`."""
        config = self.config()
        data, test = config.data("train"), config.data("test")
        result = train(config.network(), data, config.training(adversarial), test)
        return Story(config, result.net, result.history, data, test)

    @shared
    def exact(self, adversarial: bool) -> Exact:
        """Network beside recursion without noise: default configuration, float64, two seeds, 40 looks on the way."""
        config = self.config(noise_std=0.0, dtype="float64", n_seeds=2)
        return beside_recursion(config, adversarial, max(config.n_iter // 40, 1))

    # -------------------------------------------------------------- the small-rho configuration
    @shared
    def small(self, adversarial: bool) -> Recursion:
        """SMALL_RHO simulated on `n_draws` seeds from drawn states, a record every 20 iterations."""
        return small_rho(adversarial, self.seeds)

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
        return [self.scaled(name, value, adversarial) for value in values]

    @shared
    def scaled(self, name: str, value, adversarial: bool) -> Scaling:
        base, changes = getattr(SMALL_RHO, name), {name: value}
        slower = {"n_classes": value / base, "init_std": base / value}.get(name, 1.0)
        if name == "n_patches":  # the density ratio P_R alpha^q / (P_NR beta^q) stays
            changes["beta"] = (SMALL_RHO.n_nonrobust / (value - 1)) ** (1 / SMALL_RHO.q)
        setting = SMALL_RHO.but(**changes)
        if setting == SMALL_RHO:
            return Scaling(name, value, setting, self.small(adversarial))
        return Scaling(name, value, setting, small_rho(adversarial, self.seeds, slower, **changes))

    def settings(self, adversarial: bool) -> dict[str, Scaling]:
        """SMALL_RHO and all its scalings, by "name = value"; itself once, as "small rho"."""
        found = {"small rho": Scaling("", 0, SMALL_RHO, self.small(adversarial))}
        for name in ("init_std", "n_neurons", "n_classes", "n_patches"):
            scaled = self.scaling(name, adversarial)
            found |= {f"{name} = {s.value:g}": s for s in scaled if s.setting != SMALL_RHO}
        return found


def small_rho(adversarial: bool, seeds, slower: float = 1.0, record_every: int = 20, **changes) -> Recursion:
    """SMALL_RHO (with changes) simulated from states drawn by `seeds`, for `slower` times its iterations."""
    c = SMALL_RHO.but(**changes)
    ascent = {"ascent_lr": c.ascent_lr, "eps": c.eps} if adversarial else {}
    return c.simulate(c.start(seeds), int(ITERATIONS[adversarial] * slower), record_every, **ascent)


def features_of(config: Figure3Config) -> np.ndarray:
    """(2k, d): u_1..u_k, v_1..v_k."""
    return np.concatenate(config.distribution().features)


def recursion_types(data: PatchData, n_classes: int) -> Types:
    return empirical_types(data.y, data.robust, data.strength, n_classes)


def simulated(c: Figure3Config, state: State, types: Types, adversarial: bool, every: int) -> Recursion:
    """The exact recursion with the numbers of a configuration."""
    ascent = {"ascent_lr": c.ascent_lr, "eps": c.eps} if adversarial else {}
    options = {"norm": c.norm, "objective": c.objective, "n_ascent": c.n_ascent, "record_every": every}
    return simulate(state, types, q=c.q, rho=c.rho, lr=c.lr, n_iter=c.n_iter, **options, **ascent)


def beside_recursion(config: Figure3Config, adversarial: bool, every: int) -> Exact:
    """Train `config` with a look at the weights every `every` iterations, and simulate it from the same weights."""
    net, data, looks = config.network(), config.data("train"), []
    training = replace(config.training(adversarial), record_every=every)
    history = train(net, data, training, metrics=lambda n, _: looks.append(n.weights.astype(float)) or {}).history
    W = np.stack(looks)
    state = State.from_weights(net.W, config.distribution().features)
    found = simulated(config, state, recursion_types(data, config.n_classes), adversarial, every)
    return Exact(config, history["iteration"], W, W @ features_of(config).T, found, state, data)
