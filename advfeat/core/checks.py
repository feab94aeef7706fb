"""Checks of what users pass in: every message names the parameter, its value and the rule."""

import difflib
import os
from collections.abc import Hashable
from numbers import Integral, Real
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ..kernels import CROSS_ENTROPY, L2, LINF, MARGIN, NEG_LABEL_LOGIT

AscentObjective = Literal["neg_label_logit", "margin", "cross_entropy"]
AscentNorm = Literal["linf", "l2"]
OBJECTIVES: dict[str, int] = {"neg_label_logit": NEG_LABEL_LOGIT, "margin": MARGIN, "cross_entropy": CROSS_ENTROPY}
NORMS: dict[str, int] = {"linf": LINF, "l2": L2}
LARGEST = float(np.finfo(np.float64).max)
SEQUENCES = (list, tuple, range, np.ndarray)  # of generators or seeds: one per run
LARGEST_DEGREE = 100  # of the activation, q
MOST = 10**12  # of anything counted: years of iterations, terabytes of numbers
LONGEST = 100  # characters of a value in a message
MOST_TOLD = 24  # names in a message that offers them
MOST_STEPS = 10_000  # of an ascent on one sample
Augmentation = Literal["none", "crop", "crop_flip"]  # of images
Partition = Literal["uniform", "fixed", "bernoulli"]
AUGMENTATIONS: tuple[Augmentation, ...] = get_args(Augmentation)
PARTITIONS: tuple[Partition, ...] = get_args(Partition)


def shown(value) -> str:
    """`repr` of a value, or how it begins and ends, in one short line."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # an integer of more than 4300 digits, or what holds one
        return f"an integer of {value.bit_length():,} bits" if isinstance(value, int) else f"a {type(value).__name__}"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 20]} ... {text[-15:]}"


def bounds(low=None, above=None, high=None) -> str:
    """As " >= 2 and <= 100"; "" without any."""
    signs = {">=": low, ">": above, "<=": high}
    return " and".join(f" {sign} {value:,}" for sign, value in signs.items() if value is not None)


def integer(name: str, value, low: int | None = None, high: int | None = None) -> int:
    """An integer, >= `low` and <= `high` where given."""
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_integer or (low is not None and value < low) or (high is not None and value > high):
        raise ValueError(f"{name} = {shown(value)}: must be an integer{bounds(low, high=high)}")
    return int(value)


def degree(value, low: int = 2) -> int:
    """The activation's q, an integer >= `low`: beyond 100 powers overflow, and sigma hardly changes any more."""
    return integer("q", value, low, LARGEST_DEGREE)


def small_degree(value) -> None:
    """Refuse a q > 100 where a formula takes any real number or an array; NaN passes."""
    if np.any(np.greater(value, LARGEST_DEGREE)):
        raise ValueError(f"q = {shown(value)}: must be <= {LARGEST_DEGREE}")


def threshold(value, dtype) -> float:
    """The activation's rho > 0, with a finite 1 / rho in `dtype`."""
    value = number("rho", value, above=0)
    in_dtype("rho", value, dtype, above=0)
    with np.errstate(over="ignore"):
        if not np.isfinite(1 / np.dtype(dtype).type(value)):
            rule = f"1 / rho must be finite in {np.dtype(dtype)}, rho at least {1 / np.finfo(dtype).max:.3g}"
            raise ValueError(f"rho = {shown(value)}: {rule}")
    return value


def ascent_steps(value) -> int:
    """n_ascent, the steps of one ascent."""
    return integer("n_ascent", value, 1, MOST_STEPS)


def number(name: str, value, *, above: float | None = None, low: float | None = None) -> float:
    """A finite number, > `above` or >= `low` where given."""
    with np.errstate(over="ignore"):  # a float32 is compared in float32, where LARGEST is infinite
        is_number = isinstance(value, Real) and not isinstance(value, bool) and abs(value) <= LARGEST
    if not is_number or (above is not None and value <= above) or (low is not None and value < low):
        rule = bounds(low, above)
        raise ValueError(f"{name} = {shown(value)}: must be a number, finite{rule and f' and{rule}'}")
    return float(value)


def numbers(name: str, value, *, above: float | None = None, low: float | None = None, high: float | None = None,
            whole: bool = False) -> np.ndarray:  # fmt: skip
    """A number or an array, finite, > `above` or >= `low`, integers (<= `high`) if `whole` -> float64 array."""
    held = array(name, value)
    if held.dtype.kind not in ("iu" if whole else "iuf"):
        held = np.asarray(value, dtype=object)
        for item in held.ravel():
            integer(name, item, low, high) if whole else number(name, item, above=above, low=low)
    held = held.astype(np.float64)
    wrong = ~np.isfinite(held)
    wrong |= (held <= above) if above is not None else (held < low) if low is not None else False
    wrong |= held > (np.inf if high is None else high)
    if wrong.any():
        first = held[wrong].ravel()[0].item()
        integer(name, int(first), low, high) if whole else number(name, first, above=above, low=low)
    return held


def per_run(name: str, value, n_runs: int, *, above: float | None = None, low: float | None = None, dtype=None):
    """One number, or one per run -> float64 (R,); with a `dtype`, numbers that `in_dtype` takes."""
    values = np.atleast_1d(array(name, value, object))
    if values.shape not in ((1,), (n_runs or 1,)):
        rule = "must be one number or one per run" + f" ({n_runs},)" * (n_runs > 0)
        raise ValueError(f"{name} has shape {values.shape}: {rule}")
    held = [number(name, v, above=above, low=low) for v in values.tolist()]
    if dtype is not None:
        for one in held:
            in_dtype(name, one, dtype, above=above)
    return np.broadcast_to(held, (n_runs,)).copy()


def in_dtype(name: str, value: float, dtype, *, above: float | None = None) -> None:
    """Refuse a number that is infinite in `dtype`, or that must be > 0 (`above` = 0) and is 0 there."""
    with np.errstate(over="ignore", under="ignore"):
        held = np.dtype(dtype).type(value)
    if not np.isfinite(held):
        limit = f"{np.finfo(dtype).max:.3g} in magnitude in {held.dtype}"
        raise ValueError(f"{name} = {shown(value)}: must be at most {limit}")
    if above == 0 and held <= 0:
        rule = f"at least {np.finfo(dtype).smallest_subnormal:.3g}"
        raise ValueError(f"{name} = {shown(value)}: must be > 0 in {held.dtype}, {rule}")


def array(name: str, value, kind=None) -> np.ndarray:
    """What NumPy makes an array of, as it is or of the dtype `kind`; TypeError where that cannot be."""
    try:
        return np.asarray(value, kind)
    except (TypeError, ValueError):
        raise TypeError(f"{name} = {shown(value)}: must be an array of numbers, its rows of one length") from None


def float64(name: str, value) -> np.ndarray:
    """An array of real numbers -> float64; TypeError for complex numbers, texts and objects."""
    held = array(name, value)
    if held.dtype.kind not in "biuf":
        raise TypeError(f"{name} has dtype {held.dtype}: must be real numbers")
    return held.astype(np.float64, copy=False)


def floats(name: str, value) -> np.ndarray:
    """An array of float32 or float64; TypeError for any other dtype (integers, complex numbers, objects)."""
    held = array(name, value)
    if held.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name} has dtype {held.dtype}: must be float32 or float64")
    return held


def cast(name: str, value: np.ndarray, dtype) -> np.ndarray:
    """A contiguous array of `dtype`, every entry finite there; ValueError where one is not, or was not before."""
    with np.errstate(over="ignore", under="ignore"):
        held = np.ascontiguousarray(value, dtype)
    if not np.isfinite(held).all():
        if not np.isfinite(value).all():
            what = "weight" if name == "W" else "entry"
            raise ValueError(f"{name} holds NaN or infinite values: every {what} must be finite")
        first = np.asarray(value)[~np.isfinite(held)].ravel()[0]
        limit = f"at most {np.finfo(dtype).max:.3g} in magnitude in {held.dtype}"
        raise ValueError(f"{name} holds {first:.6g}: every entry must be {limit}")
    return held


def seeds(value, n_runs: int, name: str = "seed") -> list[int]:
    """One seed for all runs, or one per run; integers >= 0."""
    held = np.atleast_1d(array(name, value))
    if held.shape not in ((1,), (n_runs or 1,)) or not np.issubdtype(held.dtype, np.integer) or (held < 0).any():
        rule = "must be an integer >= 0, or one per run" + f" ({n_runs},)" * (n_runs > 0)
        raise ValueError(f"{name} = {shown(value)}: {rule}")
    return np.broadcast_to(held, (n_runs,)).tolist()


def nearest(name: str, options) -> str:
    """' Did you mean ...?' or the list, the whole one where it is short, for messages about unknown names."""
    known = {str(option).lower(): str(option) for option in options}
    text = name if isinstance(name, str) else shown(name)
    close = difflib.get_close_matches(text.lower(), list(known), n=1, cutoff=0.5)
    if close:
        return f"did you mean {known[close[0]]!r}?"
    told = list(map(repr, options))
    more = f" and {len(told) - MOST_TOLD} more" if len(told) > MOST_TOLD else ""
    return f"choose from {', '.join(told[:MOST_TOLD])}{more}"


def choice(name: str, value, options):
    try:
        fits = isinstance(value, Hashable) and value in options
    except (TypeError, ValueError):  # a tuple of lists, which has no hash either; an array, which has no one truth
        fits = False
    if not fits:
        raise ValueError(f"{name} = {shown(value)}: unknown; {nearest(value, options)}")
    return value


def truth(name: str, value) -> bool:
    """True or False, of Python or NumPy, and no number that is equal to one of them."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} = {shown(value)}: must be True or False")
    return bool(value)


def instance(name: str, value, kind, what: str):
    """A value of a class, `what` in words; TypeError for any other."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} = {shown(value)}: must be {what}")
    return value


def sequence(name: str, value, kind) -> list:
    """A list or a tuple, not empty, of instances of a class."""
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(one, kind) for one in value):
        raise TypeError(f"{name} = {shown(value)}: must be a sequence of one {kind.__name__} or more")
    return list(value)


def callback(name: str, value):
    """What can be called."""
    if not callable(value):
        raise TypeError(f"{name} = {shown(value)}: must be a function")
    return value


def box(value) -> tuple[float, float]:
    """(lo, hi), finite, lo < hi."""
    if not isinstance(value, SEQUENCES) or len(value) != 2:
        raise ValueError(f"box = {shown(value)}: must be a pair (lo, hi)")
    lo, hi = (number("box", side) for side in value)
    if not lo < hi:
        raise ValueError(f"box = {shown(value)}: must have lo < hi")
    return lo, hi


def precision(value, name: str = "dtype") -> np.dtype:
    """float32 or float64, by name or as NumPy has it."""
    try:
        held = np.dtype(value) if value is not None else None
    except (TypeError, ValueError):
        held = None
    if held not in (np.float32, np.float64):
        raise ValueError(f"{name} = {shown(value)}: unknown; choose from 'float32', 'float64'")
    return held


def path(name: str, value) -> Path:
    """A path, by its text or as an object."""
    if not isinstance(value, (str, os.PathLike)) or "\0" in str(value):
        raise TypeError(f"{name} = {shown(value)}: must be a path")
    return Path(value)


def generators(rng) -> list[np.random.Generator]:
    """One generator, or one per entry of a list, tuple, range or array of generators and seeds."""
    many = list(rng) if isinstance(rng, SEQUENCES) else [rng]
    try:
        if not many or any(one is None or isinstance(one, (bool, np.bool_)) for one in many):
            raise TypeError
        return [np.random.default_rng(one) for one in many]
    except (TypeError, ValueError):
        rule = "must be a Generator or a seed (an integer >= 0), or one per run"
        raise ValueError(f"rng = {shown(rng)}: {rule}") from None


def generator(rng) -> np.random.Generator:
    """One generator, or its seed."""
    if isinstance(rng, SEQUENCES) and len(rng) == 0:
        raise ValueError(f"rng = {shown(rng)}: must be a Generator or a seed (an integer >= 0)")
    return generators([rng])[0]


def strengths(name: str, value):
    """A positive number, or a frozen scipy.stats law on (0, inf) with finite mean."""
    if not hasattr(value, "rvs"):
        return number(name, value, above=0)
    try:
        low, _ = value.support()
        fine = low >= 0 and value.cdf(0) == 0 and np.isfinite(value.mean())
    except TypeError:
        raise ValueError(f"{name} = {shown(value)}: must be a number or a law with its parameters (frozen)") from None
    if not fine:
        raise ValueError(f"{name} has support from {low:g}: must be a law on (0, inf) with finite mean")
    return value


def pair(name: str, value, k: int | None = None, d: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(u, v), each (k, d) float64; any k and d without them."""
    try:
        u, v = (np.array(f, dtype=np.float64) for f in value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} = {shown(value)}: must be a pair (u, v) of arrays") from None
    k, d = (u.shape if u.ndim == 2 else ("k", "d")) if k is None else (k, d)
    if u.shape != (k, d) or v.shape != (k, d):
        raise ValueError(f"{name} have shapes {u.shape} and {v.shape}: must both be ({k}, {d})")
    return u, v


def features(value, k: int | None = None, d: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(u, v), each (k, d) float64, together orthonormal to 1e-8."""
    u, v = pair("features", value, k, d)
    both = np.concatenate([u, v])
    error = np.abs(both @ both.T - np.eye(len(both))).max()
    if not error <= 1e-8:
        raise ValueError(f"features: must be orthonormal to 1e-8, but <f_i, f_j> is off by {error:.2g}")
    return u, v


def samples(X, n_runs: int, batched: bool, shape: tuple, dtype) -> np.ndarray:
    """X (N, *shape), or of a batched model also (R, N, *shape) -> contiguous (1 or R, N, *shape) of `dtype`, finite.

    None in `shape` is an axis of any length.
    """
    X = floats("X", X)
    given, runs = X.shape, X.ndim == len(shape) + 2
    fits = len(X) in (1, n_runs) and batched if runs else X.ndim == len(shape) + 1
    X = X if runs else X[None]
    if not fits or any(size not in (None, n) for size, n in zip(shape, X.shape[2:])):
        axes = ", ".join("P" if size is None else str(size) for size in shape)
        wanted = f"(N, {axes})" + (f" or ({n_runs}, N, {axes})" if batched else "")
        raise ValueError(f"X has shape {given}: must be {wanted}")
    if 0 in given:
        raise ValueError(f"X has shape {given}: no axis may be empty")
    return cast("X", X, dtype)


def labels(y, X: np.ndarray, n_classes: int) -> np.ndarray:
    """y (N,) or (R, N), integers in [0, k) -> int64 (1 or R, N), for X as `samples` returns it."""
    y = array("y", y)
    if not np.issubdtype(y.dtype, np.integer):
        raise TypeError(f"y has dtype {y.dtype}: must be integers")
    shape = y.shape
    if y.ndim == 1:
        y = y[None]
    if y.ndim != 2 or y.shape[1] != X.shape[1] or len(y) not in (1, len(X)):
        raise ValueError(f"y has shape {shape}: must hold one label for each of the {X.shape[1]} samples of X")
    if y.size and (y.min() < 0 or y.max() >= n_classes):
        wrong = y[(y < 0) | (y >= n_classes)][0]
        raise ValueError(f"y holds {wrong}: labels must be in 0..{n_classes - 1}")
    return np.ascontiguousarray(y, np.int64)
