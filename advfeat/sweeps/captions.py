"""What a picture of a sweep shows, in words, and how the measured numbers stand to the predictions."""

import numpy as np

from .catalogue import CLAIMS
from .claims import claim_shares, share_of_points
from .drawing import short
from .predictions import AT_EPS_TEST, WORDS, curve, predicted_metric, window_ends
from .selection import EVERY, NEVER, NO_VALUE, SKIPPED, Selection, predicted_centre

NAMES = {
    "strength_ratio": "alpha / beta", "robust_share": "n_robust / n_patches", "noise_to_signal": "noise_std / beta",
    "eps_over_beta": "eps / beta", "density_ratio": "density ratio c",
}  # fmt: skip


def caption(selection: Selection, entries=()) -> str:
    """One paragraph: what is drawn over which axes, how seeds are put together, what is predicted, what is missing.

    `entries`: the texts of the figure's legend, which say what was predicted.
    """
    request, n = selection.request, selection.values.shape[1]
    axes = " and ".join(NAMES.get(request[key], request[key]) for key in ("x", "y") if key in request)
    axes = "every axis of the sweep" if axes == EVERY else axes
    fixed = ", ".join(f"{name} = {short(value)}" for name, value in request.get("at", {}).items())
    if selection.metric == "claims":
        along = f" along {axes}, in bins of equal counts where there are many values" if axes else ""
        return _sentences(
            f"Share of {len(selection.points)} points at which the claims of Theorems 4.3 and 4.4 hold{along}",
            f"at {fixed}" if fixed else "",
            f"The {n} seeds of a point are not independent of each other, so a point counts once, by its mean over "
            "seeds, and the Wilson 95% intervals are over points",
        )
    engine = "network beside recursion" if selection.engine == "both" else f"{selection.engine} engine"
    how = {"share": "mean", "time": "median (an event that never came counts as later than all others)"}
    predicted = [words for label, words in WORDS.items() if any(label in entry for entry in entries)]
    return _sentences(
        f"{selection.info.label[0].upper()}{selection.info.label[1:]}: {selection.training} training, {engine}, over "
        f"{axes}" + (f", apart for each {request['facet']}" if "facet" in request else ""),
        f"At {fixed}" if fixed else "",
        f"At iteration {request['iteration']}" if "iteration" in request else "",
        f"Each point is the {how.get(selection.info.kind, 'median')} over {n} seeds" if n > 1 else "One seed",
        f"Predicted: {'; '.join(predicted)}" if predicted else "",
        *_missing(selection),
    )


def _sentences(*parts) -> str:
    return " ".join(f"{part}." for part in parts if part)


def _missing(selection):
    words = {NEVER: "the event never came in at least half of the seeds", NO_VALUE: "no run has a value",
             SKIPPED: "no configuration is possible (skipped)"}  # fmt: skip
    for kind, text in words.items():
        n = int((selection.state == kind).sum())
        if n:
            yield f"At {n} of {len(selection.state)} points {text}"


# ------------------------------------------------------------------ numbers
def numbers(selection: Selection) -> list[str]:
    """Sentences that hold the picture's measured numbers against the predictions, at the points themselves."""
    if selection.metric == "claims":
        return []
    values = selection.centre[np.isfinite(selection.centre)]
    if not len(values):
        return ["No point has a number."]
    low, high = short(values.min()), short(values.max())
    mean = f", mean {short(values.mean())}" if selection.info.kind == "share" else ""
    text = f"{low} at all {len(values)} points" if low == high else (
        f"{low} to {high} at {len(values)} points, median {short(np.median(values))}{mean}"
    )  # fmt: skip
    return [f"Measured: {text}.", *_winner(selection), *_window(selection), *_ratio(selection)]


def _winner(selection):
    """robust_wins of standard training: is the winner the feature that the density ratio names?"""
    if selection.metric != "robust_wins" or selection.training != "standard":
        return
    c, share = selection.field("density_ratio"), selection.centre
    right = np.where(c > 1, share > 0.5, share < 0.5)
    far = (c > 1.2) | (c < 1 / 1.2)
    for what, some in (("", c != 1), (" with c more than 20% off 1", far)):
        some = some & np.isfinite(share)
        if some.any():
            yield (
                f"Of the {some.sum()} points{what}, {right[some].sum()} ({100 * right[some].mean():.1f}%) have the "
                "winner that the density ratio predicts, in most of their runs' classes."
            )


def _window(selection):
    """Accuracies at eps_test inside and outside the window, and where there is none, for eps >= beta and below."""
    if selection.metric not in AT_EPS_TEST:
        return
    fields, value, eps_test = _AtPoints(selection), selection.centre, selection.field("eps_test")
    low, high = window_ends(fields, selection.strength)
    stopped = selection.field("eps") >= selection.field("beta")
    parts = {
        "inside the window": (low < eps_test) & (eps_test < high), "below the window": eps_test <= low,
        "above the window": eps_test >= high, "where there is no window": np.isnan(low),
    }  # fmt: skip
    for where, some in parts.items():
        for eps, chosen in (("eps >= beta", stopped), ("eps < beta", ~stopped)):
            held = value[some & chosen & np.isfinite(value)]
            if len(held):
                yield (
                    f"{where[0].upper()}{where[1:]}, {eps}: median over {len(held)} points {short(np.median(held))} "
                    f"({short(held.min())} to {short(held.max())})."
                )
    yield from _premises(selection, fields, low)


def _premises(selection, fields, low):
    """Why there is no window, where there is none, and whether its premise on A was measured."""
    shown = np.isfinite(selection.centre)
    other, plain = selection.field("norm") != "linf", window_ends(fields)[0]
    reasons = {
        "it is one of l_inf balls": other, "eps_lo >= eps_hi": np.isnan(plain) & ~other,
        "A (alpha - eps_lo) > rho": np.isnan(low) & ~np.isnan(plain),
    }  # fmt: skip
    told = [f"{reason} at {int((some & shown).sum())}" for reason, some in reasons.items() if (some & shown).any()]
    if told:
        yield f"No window at {int((np.isnan(low) & shown).sum())} of {int(shown.sum())} points: {', '.join(told)}."
    if selection.strength is None and (~np.isnan(low) & shown).any():
        yield "The window holds where A (alpha - eps_lo) <= rho; A (A_max of adversarial training) was not measured."


def _ratio(selection):
    """Measured over predicted, of times and of the plateau."""
    name, what = predicted_metric(selection.metric), "predicted time"
    if name and selection.results.ways(name):
        predicted = predicted_centre(selection, name)
    else:
        predicted, what = curve(selection.metric, selection.training, _AtPoints(selection)), "predicted plateau"
    if predicted is None:
        return
    ratio = selection.centre / predicted
    ratio = ratio[np.isfinite(ratio)]
    if len(ratio):
        low, middle, high = np.percentile(ratio, (5, 50, 95))
        yield (
            f"Measured / {what} at {len(ratio)} points: median {middle:.3f}, 90% of them between {low:.3f} and "
            f"{high:.3f}."
        )


class _AtPoints:
    """`predictions.Fields` at the points of a selection: every field is known there."""

    def __init__(self, selection):
        self._field = selection.field

    def __getitem__(self, name):
        return self._field(name)


def claims_rows(selection: Selection) -> tuple[list[str], list[list[str]]]:
    """The claims' table: share of points, Wilson interval, points."""
    rows = []
    for name, shares in claim_shares(selection.values).items():
        share, low, high, n = share_of_points(shares)
        text = CLAIMS[name].statement if name in CLAIMS else name
        rows.append([f"{name.removeprefix('claim_')} {text}" if name in CLAIMS else text, f"{share:.3f}",
                     f"{low:.3f} to {high:.3f}", n])  # fmt: skip
    return ["claim", "share of points", "Wilson 95%", "points"], rows
