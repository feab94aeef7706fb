"""Robust accuracy against the radius, between certificates and attacks, and the worst adversarial example found."""

import numpy as np
from matplotlib.figure import Figure

from ..experiments.configuration import Figure3Config
from ..patches.data import PatchData
from ..patches.network import PatchCNN
from ..robustness.catalogue import LABELS
from ..robustness.curves import Sandwich
from .style import ACCURACY, CERTIFIED, GAP, NON_ROBUST, PAPER, ROBUST, styled, subplots

#: Colour and line style of the attacks that have a curve.
LINES = {
    "feature_swap": (NON_ROBUST, ":"),
    "one_step": ("#e69f00", "--"),
    "fgsm": ("#56b4e9", "-."),
    "aligned": (CERTIFIED, "-"),
    "pgd_cross_entropy": (PAPER, "--"),
    "pgd_margin": (ROBUST, "-"),
}
NORMS = {"linf": r"$\ell_\infty$", "l2": r"$\ell_2$ per patch", "l1": r"$\ell_1$ per patch"}
MARKERS = "osD^vP"


def _lines(axis, x, values, color, label, style="-", **options):
    """Median over seeds of values (G, R) as a line, their range as a band."""
    axis.fill_between(x, values.min(axis=1), values.max(axis=1), color=color, alpha=0.14, lw=0)
    axis.plot(x, np.median(values, axis=1), style, color=color, label=label, **options)


def robustness_figure(found: dict[str, Sandwich], config: Figure3Config, strength: float | None = None) -> Figure:
    """Accuracy against eps for each network of a run (columns).

    Top: both bounds, the gap between them shaded, counted from every sample's two radii and so drawn at every eps; the
    interval certificate beside them; inset: the fall alone.  Middle: each attack alone, at the radii of the
    grid.  Bottom: what the bounds leave open, in percentage points.  Lines are medians over seeds, bands their range;
    the window of `advfeat.theory.find_window` is shaded where it stands, by the `strength` that it takes.
    """
    with styled():
        figure, axes = subplots(
            3, len(found), figsize=(11.5, 8.4), sharex=True, sharey="row", squeeze=False,
            gridspec_kw={"height_ratios": (3, 3, 2)},
        )  # fmt: skip
        for column, (name, s) in zip(axes.T, found.items()):
            column[0].set_title(f"{name.capitalize()} training", fontweight="bold")
            _bounds(column[0], s)
            _enlarge(column[0], s)
            _alone(column[1], s)
            _gaps(column[2], s)
            window = config.window(strength, s.norm)
            for axis in column:
                if window.stands:
                    label = r"window of $\epsilon$ (theory)"
                    axis.axvspan(*window.ends, color="0.5", alpha=0.16, lw=0, label=label)
                axis.margins(x=0.02)
            column[-1].set_xlabel(rf"radius $\epsilon$ ({NORMS[s.norm]})")
        for axis, label in zip(axes[:, 0], ("accuracy", "accuracy under one attack", "undecided samples, %")):
            axis.set_ylabel(label)
        for axis in axes[:2, 0]:
            axis.set_ylim(-0.04, 1.04)
        for axis in axes[:, -1]:
            axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)
        return figure


def _fine(s):
    return np.union1d(np.linspace(s.eps[0], s.eps[-1], 3001), s.eps)


def _bounds(axis, s, x=None):
    x = _fine(s) if x is None else x
    above, below = s.robust_accuracy(x), s.certified_accuracy(x)
    _lines(axis, x, above, ROBUST, "best attack", lw=1.6)
    _lines(axis, x, below, CERTIFIED, "certified", "--", lw=1.6)
    _lines(axis, x, s.interval_accuracy(x), ACCURACY, "certified by intervals alone", ":", lw=1.2)
    middle = np.median(above, axis=1), np.median(below, axis=1)
    axis.fill_between(x, *middle, color=GAP, alpha=0.55, lw=0, label="gap: undecided")


def _enlarge(axis, s):
    """The fall of the curve again, where its radii lie close together, in the corner that all curves leave free."""
    radii = s.broken[s.correct & np.isfinite(s.broken)]
    if not len(radii):
        return
    low, high = min(radii.min(), s.certified[s.correct].min()), radii.max()
    pad = 0.06 * (high - low) + 1e-3
    x = _fine(s)
    standing, any_left = s.interval_accuracy(x).min(axis=1) >= 0.95, s.robust_accuracy(x).max(axis=1) > 0.05
    full = x[: np.argmin(standing)] if not standing.all() else x  # all curves are at the top up to here
    none = x[np.flatnonzero(any_left)[-1] + 1 :] if any_left.any() else x  # and at the bottom from here on
    left, right = (np.ptp(part) / np.ptp(x) if len(part) else 0.0 for part in (full, none))
    if max(left, right) < 0.48:
        return
    inset = axis.inset_axes((0.08 if left > right else 0.61, 0.16, 0.37, 0.66))
    _bounds(inset, s, np.linspace(max(low - pad, 0), high + pad, 1501))
    inset.set_xlim(max(low - pad, 0), high + pad)
    inset.tick_params(labelsize=7)
    inset.set_title("the fall, enlarged", fontsize=8)


def _alone(axis, s):
    for marker, name in zip(MARKERS, s.alone):
        color, style = LINES[name]
        label = LABELS[name]
        value = np.median(s.under(name), axis=1)
        axis.plot(s.eps, value, style, color=color, label=label, lw=1.3, marker=marker, ms=3.6, mfc="none", mew=0.9)
    axis.plot(s.eps, np.median(s.robust_accuracy(), axis=1), color="k", lw=0.9, label="best attack")


def _gaps(axis, s):
    x = _fine(s)
    above = s.robust_accuracy(x)
    _lines(axis, x, 100 * (above - s.interval_accuracy(x)), ACCURACY, "by intervals alone", ":", lw=1.2)
    _lines(axis, x, 100 * (above - s.certified_accuracy(x)), CERTIFIED, "by all certificates", lw=1.6)
    axis.set_ylim(-4, 104)


# ------------------------------------------------------------------ the worst example
def worst_example(found: dict[str, Sandwich], nets: dict[str, PatchCNN], data: PatchData, seeds) -> Figure:
    """Per network (columns) the right sample that the smallest perturbation breaks.

    Rows: X, the perturbation delta and X + delta, patches by coordinates in the basis of the data's features: the 2k
    features to the left, u_i and then v_i, and, as coordinates, what is orthogonal to them to the right; a dot marks
    the patches that carry the robust feature.  Last row: the logits before and after.
    """
    with styled(**{"axes.grid": False}):
        figure = Figure(figsize=(11.5, 10), layout="constrained")
        for part, (name, s) in zip(np.atleast_1d(figure.subfigures(1, len(found), wspace=0.03)), found.items()):
            where, title = s.weakest(), f"{name.capitalize()} training"
            if where is None:
                part.suptitle(f"{title}: no sample was broken", fontweight="bold")
                continue
            r = where[0]
            _example(part, title, s, nets[name].astype(np.float64).run(r), data, where, seeds[r])
        return figure


def _example(part, title, s, net, data, where, seed):
    X, X_adv, y = data.X[where], s.X_adv[where], int(s.y[where])
    before, after = net.logits(np.stack([X, X_adv]))
    part.suptitle(
        f"{title}: sample {where[1]} of seed {seed}, class {y}\nbroken at $\\epsilon$ = {s.broken[where]:.4f}, "
        f"certified to {s.certified[where]:.4f}",
        fontweight="bold", fontsize=10,
    )  # fmt: skip
    features, k = np.concatenate(data.features), len(before)
    axes = part.subplots(4, 2, gridspec_kw={"width_ratios": (1, 1), "height_ratios": (3, 3, 3, 2)})
    panels = {"clean $X$": X, r"perturbation $\delta$": X_adv - X, r"$X + \delta$": X_adv}
    for row, (label, values) in zip(axes, panels.items()):
        along = values @ features.T
        rest = values - along @ features
        if np.isin(features, (0, 1)).all():  # axis-parallel: leave the features' own coordinates out
            rest = rest[:, ~features.any(axis=0)]
        # the few large features would leave the rest white: the perturbation has its own scale
        top = max(np.abs(X_adv - X).max(), 1e-12) if values is panels[r"perturbation $\delta$"] else np.abs(X).max()
        for axis, shown in zip(row, (along, rest)):
            image = axis.imshow(shown, cmap="RdBu_r", vmin=-top, vmax=top, aspect="auto", interpolation="nearest")
        part.colorbar(image, ax=list(row), label="coordinate", pad=0.02)
        _mark_features(row[0], k)
        row[0].plot(np.full(data.robust[where].sum(), -0.9), np.flatnonzero(data.robust[where]), ">", color=ROBUST,
                    ms=5, clip_on=False)  # fmt: skip
        row[0].set_ylabel("patch")
        row[0].set_title(label, loc="left", fontsize=9)
        row[1].set_yticks([])
    axes[2, 1].set_xlabel("coordinates orthogonal to the features")
    for axis in axes[3]:
        axis.remove()
    _logits(part.add_subplot(axes[3, 0].get_gridspec()[3, :]), before, after, y)


def _mark_features(axis, k):
    axis.axvline(k - 0.5, color="0.3", lw=0.8)
    labels = [f"${f}_{{{i}}}$" for f in "uv" for i in range(k)]
    axis.set_xticks(range(2 * k), labels, fontsize=7 if k <= 6 else 4)
    axis.tick_params(axis="x", length=2)


def _logits(axis, before, after, y):
    at = np.arange(len(before))
    axis.bar(at - 0.2, before, 0.38, color="0.65", label="$F_i(X)$")
    axis.bar(at + 0.2, after, 0.38, color=NON_ROBUST, label=r"$F_i(X + \delta)$")
    axis.set_xticks(at, [f"{i} (label)" if i == y else i for i in at], fontsize=8)
    axis.set_xlabel("class")
    axis.set_ylabel("logit")
    rivals = np.delete(after, y)
    axis.set_title(
        f"margin {before[y] - np.delete(before, y).max():.3g} before, {after[y] - rivals.max():.2g} after",
        loc="left", fontsize=9,
    )  # fmt: skip
    axis.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, fontsize=8, borderaxespad=0.2)


