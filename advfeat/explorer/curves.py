"""The curves of Figure 3 at a point: both trainings by the exact recursion, and what is drawn of them."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from ..experiments.configuration import Figure3Config
from ..experiments.figure3 import TRAININGS
from ..patches.features import normalized, q_sum
from ..theory import Recursion, State, population_types, simulate
from .controls import Controls

LINES = ("A_normalized", "B_normalized", "A_strength", "B_strength")
PARTS = ("low", "middle", "high", "after")  # the band's ends, its median while it is exact and afterwards
LARGEST = 1e100  # beyond it nothing can be drawn


def start(config: Figure3Config) -> State:
    """The state of the networks that the configuration trains, of its own seeds.

    Their parts orthogonal to the features are forgotten but for their products, which the recursion needs: following
    them takes longer, only to see a saturation itself instead of by its probability.
    """
    return replace(State.from_weights(config.network().W, config.distribution().features), orthogonal=None)


def compute(controls: Controls, state: State | None = None) -> dict[str, Recursion]:
    """Both trainings at the network's own record points, beyond a saturation as an approximation."""
    c = controls.config()
    state = start(c) if state is None else state
    types = population_types(c.n_classes, c.n_patches, c.n_robust, c.alpha, c.beta)
    common = {name: getattr(c, name) for name in ("q", "rho", "lr", "n_iter", "record_every")}
    ascent = {name: getattr(c, name) for name in ("ascent_lr", "eps", "norm", "objective", "n_ascent")}
    extra = {"standard": {}, "adversarial": {**ascent, "after_saturation": "continue"}}

    def one(name):
        with np.errstate(all="ignore"):  # a run that diverges says so itself
            return simulate(state, types, **common, **extra[name])

    with ThreadPoolExecutor(len(TRAININGS)) as pool:  # up to eight runs of a training are one thread's
        return dict(zip(TRAININGS, pool.map(one, TRAININGS)))


def band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Smallest, median and largest of values (T, ...) over everything but the first axis, NaN where all are NaN."""
    flat = values.reshape(len(values), -1)
    flat = np.where(np.abs(flat) <= LARGEST, flat, np.nan)
    known = ~np.isnan(flat).all(axis=1)
    out = np.full((3, len(flat)), np.nan)
    some = flat[known]
    out[:, known] = np.nanmin(some, axis=1), np.nanmedian(some, axis=1), np.nanmax(some, axis=1)
    return tuple(out)


def strengths(held: Mapping, q: int) -> dict[str, np.ndarray]:
    """The lines' values of a history with A, B (T, R, k, m) and norm, as in the report's figure: normalised
    correlations (T, R), and strengths in the logit (T, R, k)."""
    with np.errstate(all="ignore"):
        both = [(f"{f}_normalized", normalized(held[f], held["norm"])) for f in "AB"]
        return dict(both + [(f"{f}_strength", q_sum(held[f], q)) for f in "AB"])


def columns(found: Recursion, q: int) -> dict[str, np.ndarray]:
    """What is drawn of a training: "iteration", and LINE_PART for all `LINES` and `PARTS`."""
    exact = found.exact.all(axis=1)
    last = int(exact.sum()) - 1  # exact records come first
    out = {"iteration": found.iteration.astype(float)}
    for line, values in strengths(as_history(found), q).items():
        low, middle, high = band(values)
        out |= {f"{line}_low": low, f"{line}_high": high, f"{line}_middle": np.where(exact, middle, np.nan)}
        after = np.arange(len(middle)) >= (len(middle) if exact.all() else last)
        out[f"{line}_after"] = np.where(after, middle, np.nan)
    return out


def network_columns(history: Mapping, q: int) -> dict[str, np.ndarray]:
    """The medians of a trained network's curves, to be laid over the recursion's."""
    lines = strengths(history, q)
    found = {line: band(values)[1] for line, values in lines.items()}
    return {"iteration": np.asarray(history["iteration"], float)} | found


def as_history(found: Recursion) -> dict[str, np.ndarray]:
    return {"iteration": found.iteration, "A": found.A, "B": found.B, "norm": found.norm}


def first_saturation(found: Recursion) -> float:
    """The iteration at which the first run saturates an axis, NaN where none does."""
    at = found.saturated_at[~np.isnan(found.saturated_at)]
    return float(at.min()) if len(at) else float("nan")
