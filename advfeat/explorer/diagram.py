"""A phase diagram around a point: what the recursion ends with over two fields, coarse first, and where the theory
draws its boundaries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from contourpy import contour_generator

from ..kernels.recursion import Types
from ..patches.features import q_sum
from ..theory import State, plateau, population_types, simulate
from ..theory.events import TAKE_OFF
from ..theory.timing import log_flow_time, log_growth_rate
from ..theory.window import density
from .controls import AXES, SLIDERS, Controls, step_work
from .curves import start

SIDE = 24  # cells of an axis
STRIDES = (6, 2, 1)  # of the passes: 16 cells, 144, all 576
SEEDS = 2
MOST_ITERATIONS = 2000
BATCH_WORK = 2e8  # multiplications between two looks at whether to go on, tens of milliseconds
MESH = 97  # points of an axis at which boundaries are looked for
SHAPE = ("n_classes", "n_neurons", "q", "init_std")  # cells that differ in one are not computed together


@dataclass(frozen=True)
class DiagramAxis:
    """A field over its slider's range, in equal steps of the slider's position."""

    name: str

    @property
    def slider(self):
        return SLIDERS[self.name]

    @property
    def whole(self) -> bool:
        return Controls.known(self.name).kind is int

    def values(self, n: int = SIDE) -> list:
        """At the centres of n cells; of an integer the nearest ones."""
        return [self.value(p) for p in (np.arange(n) + 0.5) / n]

    def value(self, position: float):
        """A field's value at a position within 0..1, to three digits, as a click on the diagram means it."""
        held = float(self.slider.value(min(max(position, 0.0), 1.0)))
        return round(held) if self.whole else float(f"{held:.3g}")

    def position(self, value: float) -> float:
        return min(max(self.slider.position(value), 0.0), 1.0)

    def ticks(self) -> dict[float, str]:
        """Position -> label."""
        low, high = self.slider.low, self.slider.high
        if self.slider.logarithmic:
            decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
            parts = (1, 2, 5) if high / low < 200 else (1,)
            values = [n * 10.0**decade for decade in decades for n in parts]
        else:
            step = next(s for s in (0.5, 1, 2, 4, 8) if (high - low) / s <= 8)
            values = np.arange(np.ceil(low / step) * step, high + step / 2, step).tolist()
        inside = [v for v in values if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)]
        return {float(self.slider.position(v)): f"{v:g}" for v in inside}


class Raster(NamedTuple):
    """Values (up, across) in 0..2 or so, NaN where there is no such point or it diverged; the share that is computed;
    every other cell has the value of its nearest computed one."""

    values: np.ndarray
    done: float


def concerns(controls: Controls) -> tuple:
    """All that a diagram depends on: while this stays, the current point alone moves in it."""
    free = {controls.across, controls.up, "eps_test", "n_seeds"}
    held = replace(controls, n_seeds=min(controls.n_seeds, SEEDS)).as_dict()
    return tuple((name, value) for name, value in held.items() if name not in free - {"n_seeds"})


def compute(controls: Controls, going: Callable[[], bool]) -> Iterator[Raster]:
    """A picture after every pass; none after the first `going` that says no, which is asked between batches."""
    points = cells(controls)
    held, n = np.full((SIDE, SIDE), np.nan), iterations(controls)
    known, cache, states = np.zeros((SIDE, SIDE), bool), {}, {}
    for stride in STRIDES:
        first = stride // 2
        at = np.zeros((SIDE, SIDE), bool)
        at[first::stride, first::stride] = True
        todo = {}
        for i, j in np.argwhere(at & ~known):
            point = points[i][j]
            if point is not None and point not in cache:
                todo.setdefault(tuple(getattr(point, name) for name in SHAPE), {})[point] = None
        for shape, group in todo.items():
            if shape not in states:
                states[shape] = start_of(next(iter(group)))
            group = list(group)
            size = max(int(BATCH_WORK / (states[shape].n_runs * n * group[0].step_work)), 1)
            for begin in range(0, len(group), size):
                if not going():
                    return
                batch = group[begin : begin + size]
                cache |= dict(zip(batch, ends(batch, states[shape], n, controls)))
        for i, j in np.argwhere(at):
            held[i, j] = np.nan if points[i][j] is None else cache[points[i][j]]
        known |= at
        nearest = np.minimum(np.arange(SIDE) // stride * stride + first, SIDE - 1)
        yield Raster(np.where(known, held, held[np.ix_(nearest, nearest)]), known.mean())


class Spot(NamedTuple):
    """The fields of a cell's point that its recursion depends on."""

    n_classes: int
    n_neurons: int
    q: int
    patch_dim: int
    n_patches: int
    n_robust: int
    alpha: float
    beta: float
    rho: float
    init_std: float
    lr: float
    ascent_lr: float
    eps: float
    norm: str
    n_seeds: int

    @property
    def step_work(self) -> int:
        return step_work(self.n_classes, self.n_neurons)


def cells(controls: Controls) -> list[list[Spot | None]]:
    """Row by row from below; None where the fields contradict each other.  Within the sliders' ranges they can do so
    only by more robust patches than patches, and fewer dimensions than features."""
    base, across, up = _base(controls), DiagramAxis(controls.across), DiagramAxis(controls.up)
    rows = [[base._replace(**{across.name: x, up.name: y}) for x in across.values()] for y in up.values()]
    return [[c if c.n_robust <= c.n_patches and 2 * c.n_classes <= c.patch_dim else None for c in row] for row in rows]


def _base(controls: Controls) -> Spot:
    """The cell of the point itself."""
    return Spot(*(getattr(controls, name) for name in Spot._fields))._replace(n_seeds=min(controls.n_seeds, SEEDS))


def iterations(controls: Controls) -> int:
    return min(controls.n_iter, MOST_ITERATIONS)


def start_of(cell: Spot) -> State:
    """Of the cell's networks, which depends on its shape alone."""
    names = ("n_classes", "n_neurons", "q", "patch_dim", "n_seeds", "init_std")
    return start(Controls(n_iter=20, n_patches=2, **{name: getattr(cell, name) for name in names}).config())


def ends(batch: list[Spot], first: State, n_iter: int, controls: Controls) -> list[float]:
    """What the diagram shows of cells of one shape: the median over seeds and classes at the last iteration."""
    R, k, q = first.n_runs, batch[0].n_classes, batch[0].q
    fields = {name: np.repeat([float(getattr(c, name)) for c in batch], R) for name in Spot._fields if name != "norm"}
    phi, gram = (np.tile(a, (len(batch), *[1] * (a.ndim - 1))) for a in (first.phi, first.gram))
    state = State(phi, gram, first.n_orthogonal)
    extra = {}
    if controls.training == "adversarial":
        extra = {name: fields[name] for name in ("ascent_lr", "eps")}
        extra |= {"norm": controls.norm, "after_saturation": "continue"}
    with np.errstate(all="ignore"):
        found = simulate(
            state, types(fields, k), q=q, rho=fields["rho"], lr=fields["lr"], n_iter=n_iter,
            record_every=max(n_iter, 1), **extra,
        )  # fmt: skip
        A, B = (q_sum(C[-1], q).reshape(len(batch), -1) for C in (found.A, found.B))
        if controls.shown == "robust_share":
            values = robust_share(A, B)
        else:
            values = B / np.array([plateau(c.beta, c.q, c.rho, c.ascent_lr) for c in batch])[:, None]
        return np.median(values, axis=1).tolist()


def robust_share(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """A / (A + B) of strengths, 1/2 where a class has learned neither and both are 0."""
    both = A + B
    return np.where(both == 0, 0.5, A / np.where(both == 0, 1.0, both))


def types(fields: dict[str, np.ndarray], k: int) -> Types:
    """`population_types` of constant strengths, run by run, in one shape: a kind of patch that a run has none of
    stands there with a count of 0."""
    one = population_types(k, 2, 1, 1.0, 1.0)
    robust = one.feature < k
    column = {name: fields[name][:, None, None] for name in ("alpha", "beta", "n_robust", "n_patches")}
    strength = np.where(robust, column["alpha"], column["beta"])
    count = np.where(robust, column["n_robust"], column["n_patches"] - column["n_robust"])
    R = len(strength)
    whole = (np.broadcast_to(a, (R, *a.shape[1:])) for a in (one.y, one.weight, one.feature))
    return Types(*whole, np.where(count > 0, strength, 0.0), count)


# ------------------------------------------------------------------ what the theory says of it
class Edge(NamedTuple):
    """A predicted boundary: what it is, and its lines as positions (n, 2) within 0..1."""

    label: str
    lines: list[np.ndarray]


def boundaries(controls: Controls) -> list[Edge]:
    """Where the density ratio is 1; in adversarial training, where the radius is a non-robust patch's strength, and
    where the robust feature takes off at the diagram's last iteration; in standard training, where the first of both
    does."""
    across, up = DiagramAxis(controls.across), DiagramAxis(controls.up)
    at = np.linspace(0, 1, MESH)
    X, Y = np.meshgrid(across.slider.value(at), up.slider.value(at))
    fields = {name: float(getattr(controls, name)) for name in AXES} | {across.name: X, up.name: Y}
    f = {name: np.broadcast_to(value, X.shape) for name, value in fields.items()}
    late, who = _log_lateness(controls, f)
    wanted = [("c = 1", _log_density(f)), (f"{who} takes off at {iterations(controls):,}", late)]
    if controls.training == "adversarial":
        wanted.append(("ε = β", f["eps"] - f["beta"]))
    return [Edge(label, zeros(at, value)) for label, value in wanted]


def _log_density(f) -> np.ndarray:
    """log c, NaN where all patches are of one kind or there are more robust ones than patches."""
    n, P = f["n_robust"], f["n_patches"]
    there = (n > 0) & (n < P)
    n, P = np.where(there, n, 1), np.where(there, P, 2)
    with np.errstate(all="ignore"):
        c = np.vectorize(density, otypes=[float])(f["alpha"], f["beta"], P, n, f["q"])
        return np.where(there, np.log(c), np.nan)


def _log_lateness(controls: Controls, f) -> tuple[np.ndarray, str]:
    """log of the take-off time over the diagram's iterations, and of what; from the median class of the point's own
    networks."""
    phi, k = start_of(_base(controls)._replace(init_std=1.0)).phi, controls.n_classes
    own = np.arange(k)
    with np.errstate(all="ignore"):
        logs = []
        for strength, n, first in (("alpha", f["n_robust"], 0), ("beta", f["n_patches"] - f["n_robust"], k)):
            x0 = f["init_std"] * np.median(phi[:, own, :, first + own].max(axis=-1))
            numbers = (f[name] for name in ("n_classes", "q", "rho", "lr"))
            rate = log_growth_rate(f[strength], np.maximum(n, 0), *numbers)
            logs.append(np.where(x0 > 0, log_flow_time(x0, TAKE_OFF * x0, rate, f["q"]), np.inf))
        late, who = (logs[0], "robust") if controls.training == "adversarial" else (np.minimum(*logs), "one")
        return np.clip(late - np.log(iterations(controls)), -1e3, 1e3), who


def zeros(at: np.ndarray, value: np.ndarray) -> list[np.ndarray]:
    """The lines of zero of values (up, across) on positions `at` of both axes; none beside a NaN or an infinity."""
    return contour_generator(at, at, np.ma.masked_invalid(value)).lines(0.0)
