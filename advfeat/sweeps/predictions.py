"""What the theory predicts for a plot: boundaries and curves over the axes drawn (theory of Secs. 2, 4 and 5)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..core import checks
from ..theory import plateau
from ..theory.window import density, window_of
from .catalogue import METRICS
from .results import RATIOS


class Unknown(Exception):
    """A field that the axes drawn leave open."""


class Fields:
    """Fields over a mesh of the axes drawn.

    Parameters
    ----------
    drawn : axis (a field or a derived axis) -> its values on the mesh
    constant : field -> its value, for every field that is not swept, or fixed in the plot
    strength : the measured size A of the robust feature after adversarial training, on the mesh; None: not measured

    ``fields[name]`` is the mesh of an axis drawn, a constant, or what follows from them: a derived axis of known
    fields, and a field of a derived axis drawn whose other half is constant.  Raises `Unknown` for all others.
    """

    def __init__(self, drawn: dict[str, np.ndarray], constant: dict, strength: np.ndarray | None = None):
        self.drawn, self.constant, self.strength = drawn, constant, strength

    def __getitem__(self, name: str):
        if name in self.drawn:
            return self.drawn[name]
        if name in self.constant:
            return self.constant[name]
        if name in RATIOS:
            above, below = RATIOS[name]
            return self[above] / self[below]
        for ratio, (above, below) in RATIOS.items():
            if ratio in self.drawn and name == above and below in self.constant:
                return self.drawn[ratio] * self.constant[below]
            if ratio in self.drawn and name == below and above in self.constant:
                return self.constant[above] / self.drawn[ratio]
        raise Unknown(name)


def _log_density(f):
    if "density_ratio" in f.drawn:
        return np.log(f["density_ratio"])
    share = np.asarray(f["robust_share"], float)
    share = np.where((share >= 0) & (share < 1), share, np.nan)  # cells reach beyond the values at their centres
    with np.errstate(divide="ignore"):
        return np.log(np.vectorize(density, otypes=[float])(f["strength_ratio"], 1.0, 1.0, share, f["q"]))


def window_ends(fields, strength=None) -> tuple[np.ndarray, np.ndarray]:
    """eps_lo and eps_hi of `theory.find_window`, field by field; NaN where there is no window.

    `fields[name]` as in `Fields`; `strength` broadcasts against them, None where it was not measured.
    """
    P, n = np.asarray(fields["n_patches"]), np.asarray(fields["n_robust"])
    n = np.where((n >= 0) & (n <= P), n, np.nan)  # cells reach beyond the values at their centres
    q = np.minimum(fields["q"], checks.LARGEST_DEGREE)

    def ends(*numbers):
        *numbers, norm, size = numbers
        return tuple(window_of(*numbers, norm, size).ends or (np.nan, np.nan))

    rho = np.nan if strength is None else fields["rho"]  # without A it does not matter
    numbers = (fields["alpha"], fields["beta"], P, n, q, rho, fields["norm"], strength)
    with np.errstate(invalid="ignore"):  # comparisons with NaN
        return np.vectorize(ends, otypes=[float, float])(*numbers)


def _window(side):
    return lambda f: f["eps_test"] - window_ends(f, f.strength)[side]


@dataclass(frozen=True)
class Boundary:
    """Where `value` of the fields is 0.  `trainings` and `metrics`: of which plots it speaks; `words`: for captions."""

    name: str
    label: str
    words: str
    style: object
    value: Callable
    metrics: tuple[str, ...]
    trainings: tuple[str, ...] = ("standard", "adversarial")


AT_EPS_TEST = ("robust_accuracy", "certified_accuracy", "train_robust_accuracy", "claim_4.4.1", "claim_4.4.3")
_WHICH_FEATURE = (
    "A", "B", "A_max", "B_max", "robust_wins", "crossing", "robust_feature_accuracy", "non_robust_feature_accuracy",
    "swap_accuracy", "claims", *(name for name in METRICS if name.startswith("claim_")), *AT_EPS_TEST[:3],
)  # fmt: skip
_STOPPED = ("B", "B_max", "B_over_plateau", "phase_two", "robust_wins", "crossing", *_WHICH_FEATURE[6:])

BOUNDARIES = (
    Boundary(
        "density_ratio", "density ratio $c$ = 1",
        "c = n_robust alpha^q / ((n_patches - n_robust) beta^q) = 1, where the robust feature becomes the denser one",
        "-", _log_density, _WHICH_FEATURE,
    ),
    Boundary(
        "eps_lo", r"window, $\epsilon_{test} = \epsilon_{lo}$",
        "eps_test = eps_lo, from which on networks of the non-robust features break (drawn where there is a window)",
        "--", _window(0), AT_EPS_TEST,
    ),
    Boundary(
        "eps_hi", r"window, $\epsilon_{test} = \epsilon_{hi}$",
        "eps_test = eps_hi, up to which networks of the robust features of size A hold if A (alpha - eps_lo) <= rho",
        (0, (6, 1.5, 1, 1.5)), _window(1), AT_EPS_TEST,
    ),
    Boundary(
        "eps_is_beta", r"$\epsilon = \beta$", "eps = beta, from which on an ascent step can cancel a non-robust patch",
        ":", lambda f: np.log(f["eps_over_beta"]), _STOPPED, ("adversarial",),
    ),
)  # fmt: skip
PLATEAU = r"predicted plateau $B^*$"
#: part of a legend's entry -> what it means, for captions
WORDS = {one.label: one.words for one in BOUNDARIES} | {
    PLATEAU: "the plateau B* at which an ascent step cancels a non-robust patch (drawn where eps >= beta)",
    "predicted, median over seeds": "the median over seeds of each run's own predicted time, from its initial weights",
    "predicted, the same levels": "levels of the prediction, dashed, beside the same levels of the measurement, white",
}


def boundaries(metric: str, training: str, fields: Fields) -> list[tuple[Boundary, np.ndarray]]:
    """The boundaries that cross the mesh, with their values on it."""
    found = []
    for one in BOUNDARIES:
        if metric not in one.metrics or training not in one.trainings:
            continue
        try:
            value = np.asarray(one.value(fields), float)
        except (Unknown, TypeError):  # TypeError: a field without numbers, such as a norm, is an axis of the plot
            continue
        finite = value[np.isfinite(value)]
        if value.ndim and finite.size and finite.min() < 0 <= finite.max():
            found.append((one, value))
    return found


def crossings(x: np.ndarray, value: np.ndarray) -> list[float]:
    """The zeros of `value` along x, between neighbouring points linearly; none beside a NaN."""
    known = ~np.isnan(value[:-1]) & ~np.isnan(value[1:])
    at = np.flatnonzero(((value[:-1] < 0) != (value[1:] < 0)) & known)
    with np.errstate(invalid="ignore"):
        share = value[at] / (value[at] - value[at + 1])
    return [float(z) for z in x[at] + np.where(np.isfinite(share), share, 0.5) * (x[at + 1] - x[at])]


def curve(metric: str, training: str, fields: Fields) -> np.ndarray | float | None:
    """The plateau B* in the units of `metric` (1 for B / B*), NaN where eps < beta or beyond the polynomial part.

    None where the metric is no B, the training is standard, or the axes leave it open.
    """
    if metric not in ("B", "B_max", "B_over_plateau") or training != "adversarial":
        return None
    try:
        beta, q, rho, rate, eps = (fields[name] for name in ("beta", "q", "rho", "ascent_lr", "eps"))
        level = np.vectorize(plateau, otypes=[float])(beta, np.minimum(q, checks.LARGEST_DEGREE), rho, rate)
    except (Unknown, TypeError):
        return None
    level = np.where((np.asarray(eps) >= beta) & (beta * level <= rho), level, np.nan)
    return np.where(np.isnan(level), np.nan, 1.0) if metric == "B_over_plateau" else level


def predicted_metric(metric: str) -> str | None:
    """The metric that holds the prediction of another, run by run."""
    name = f"{metric}_predicted"
    return name if name in METRICS else None
