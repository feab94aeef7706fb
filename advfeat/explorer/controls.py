"""What the page's controls hold: a declared configuration, its address, its file, and where its sliders run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, urlencode

import numpy as np

from ..core.config import Configuration, key, word
from ..experiments.configuration import Figure3Config
from ..experiments.figure3 import TRAININGS

SAMPLES = 4  # training samples of a class; without noise one has what all have
#: The most of n_seeds n_iter n_classes (n_classes n_neurons)^2, about what the recursion multiplies: seconds of work.
MOST_WORK = 2e9
MOST_WEIGHTS = 2e7  # of all seeds' networks, drawn for every state
SMALLEST = 100  # of n_classes (n_classes n_neurons)^2: an iteration of smaller networks takes no less


def like(name: str, default, high=None):
    """The key of this name of Figure 3's configuration, with a default, and a bound, of the page."""
    held = dict(Figure3Config.__dataclass_fields__[name].metadata)
    return field(default=default, metadata=held | ({} if high is None else {"high": high}))


def step_work(k: int, m: int) -> int:
    """About the multiplications of an iteration of one seed."""
    return max(k * (k * m) ** 2, SMALLEST)


class Slider(NamedTuple):
    """A symbol, a short name, and the ends between which a slider runs; typed values may lie outside."""

    symbol: str
    words: str
    low: float
    high: float
    logarithmic: bool = False
    step: float = 0.0  # of a linear one

    def position(self, value: float) -> float:
        """0 at the lower end, 1 at the upper one, and beyond."""
        if not self.logarithmic:
            return (value - self.low) / (self.high - self.low)
        return math.log(max(value, self.low / 1e3) / self.low) / math.log(self.high / self.low)

    def value(self, position):
        """Of a position, a number or an array of them."""
        if not self.logarithmic:
            return self.low + np.asarray(position) * (self.high - self.low)
        return self.low * (self.high / self.low) ** np.asarray(position)


SLIDERS = {
    "n_classes": Slider("k", "classes", 2, 10, step=1),
    "n_patches": Slider("P", "patches", 2, 256, True),
    "n_robust": Slider("P_R", "robust patches", 0, 32, step=1),
    "patch_dim": Slider("d", "dimension", 20, 1000, True),
    "alpha": Slider("α", "robust strength", 0.5, 10, True),
    "beta": Slider("β", "non-robust strength", 0.1, 5, True),
    "n_neurons": Slider("m", "neurons of a class", 1, 20, step=1),
    "q": Slider("q", "degree of the activation", 2, 8, step=1),
    "rho": Slider("ϱ", "threshold of the activation", 1, 1000, True),
    "init_std": Slider("σ₀", "deviation of initial weights", 0.01, 1, True),
    "lr": Slider("η", "learning rate", 0.1, 100, True),
    "ascent_lr": Slider("η̃", "rate of the ascent", 0.1, 1000, True),
    "eps": Slider("ε", "radius of training", 0, 4, step=0.02),
    "eps_test": Slider("ε_test", "radius of the test", 0, 3, step=0.01),
    "n_iter": Slider("T", "iterations", 200, 20000, step=200),
    "n_seeds": Slider("seeds", "number of seeds", 1, 32, step=1),
}
#: The controls under their headings, in the order of the page.
GROUPS = {
    "Data": ("n_classes", "n_patches", "n_robust", "patch_dim", "alpha", "beta"),
    "Network": ("n_neurons", "q", "rho", "init_std"),
    "Training": ("lr", "ascent_lr", "eps", "norm", "n_iter", "n_seeds"),
    "Test": ("eps_test",),
}
#: What a diagram's axes may be.
AXES = ("alpha", "beta", "n_patches", "n_robust", "rho", "init_std", "lr", "ascent_lr", "eps", "q", "n_neurons",
        "n_classes")  # fmt: skip
SHOWN = {"robust_share": "A / (A + B)", "plateau_ratio": "B / B*"}


@dataclass(frozen=True)
class Controls(Configuration):
    """One state of the page: a point of the theory, and what the diagram shows around it.

    The point's keys are those of `Figure3Config`, whose rules hold here too, and their messages are what the page
    shows.  Without noise, so that the exact recursion speaks of the network as it is trained.
    """

    n_classes: int = like("n_classes", 5, high=20)
    n_patches: int = like("n_patches", 64)
    n_robust: int = like("n_robust", 1)
    patch_dim: int = like("patch_dim", 100, high=10_000)
    alpha: float = like("alpha", 3.0)
    beta: float = like("beta", 1.0)
    n_neurons: int = like("n_neurons", 5, high=100)
    q: int = like("q", 3)
    rho: float = like("rho", 100.0)
    init_std: float = like("init_std", 0.1)
    lr: float = like("lr", 12.5)
    ascent_lr: float = like("ascent_lr", 40.0)
    eps: float = like("eps", 1.0)
    eps_test: float = like("eps_test", 0.5)
    norm: str = like("norm", "linf")
    n_iter: int = like("n_iter", 4000)
    n_seeds: int = like("n_seeds", 8, high=64)
    across: str = key("alpha", "the diagram's axis across", choices=AXES)
    up: str = key("n_robust", "the diagram's axis upwards", choices=AXES)
    training: str = key("adversarial", "the diagram's training", choices=TRAININGS)
    shown: str = key("robust_share", "what the diagram shows", choices=tuple(SHOWN))

    def __post_init__(self):
        super().__post_init__()
        self.config()
        K, seeds = self.n_classes * self.n_neurons, self.n_seeds
        work = seeds * self.n_iter * self.step_work
        if work > MOST_WORK:
            rule = "n_seeds n_iter n_classes (n_classes n_neurons)^2"
            raise ValueError(f"n_iter = {self.n_iter}: {rule} = {work:.3g} must be <= {MOST_WORK:.3g}, seconds of work")
        if seeds * K * self.patch_dim > MOST_WEIGHTS:
            rule = "n_seeds n_classes n_neurons patch_dim"
            given = f"{rule} = {seeds * K * self.patch_dim:.3g}"
            raise ValueError(f"patch_dim = {self.patch_dim}: {given} must be <= {MOST_WEIGHTS:.3g}")
        if self.across == self.up:
            raise ValueError(f"up = {self.up!r}: must differ from across = {self.across!r}")

    @property
    def step_work(self) -> int:
        return step_work(self.n_classes, self.n_neurons)

    def config(self) -> Figure3Config:
        """The trainings of this point: its network's are what the recursion follows, to rounding."""
        point = {name: getattr(self, name) for name in POINT}
        return Figure3Config(noise_std=0.0, dtype="float64", n_train=SAMPLES * self.n_classes, **point)

    # -------------------------------------------------------------- from and to an address
    @classmethod
    def from_texts(cls, texts: dict[str, str]) -> Controls:
        """From what stands in the controls; a key that is missing has its default.  ValueError with the library's
        message."""
        return cls.build(None, [f"{name}={text}" for name, text in texts.items()])

    @classmethod
    def from_query(cls, query: str) -> Controls:
        """From an address after its question mark."""
        return cls.from_texts(dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True)))

    def texts(self) -> dict[str, str]:
        """What stands in the controls."""
        return {name: word(value).removesuffix(".0") for name, value in self.as_dict().items()}

    def query(self) -> str:
        """What differs from the defaults, as it stands in an address; "" where nothing does."""
        plain = Controls().texts()
        changed = {name: text for name, text in self.texts().items() if text != plain[name]}
        return urlencode(changed, quote_via=quote)

    def command(self, file: str = "point.toml") -> str:
        """What trains the network of this point, with the file that `toml` is."""
        return f"advfeat reproduce --config {file}"

    def toml(self, file: str = "point.toml") -> str:
        """A commented file of the point, with the command that trains its network."""
        return f"# {self.command(file)}\n# advfeat explore shows it at ?{self.query()}\n\n{self.config().toml()}"


POINT = tuple(name for names in GROUPS.values() for name in names)


def control_of(message: str) -> str:
    """The control that a refusal speaks of, the first that it names; "" where it names none."""
    first = message.split(" = ", 1)[0].split(":", 1)[0].strip()
    return first if first in Controls.keys() else ""  # noqa: SIM118
