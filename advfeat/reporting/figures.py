"""Figures 2 and 3 of the paper, drawn from data and runs of this library."""

import numpy as np
from matplotlib.figure import Figure

from ..experiments.configuration import Figure3Config
from ..experiments.figure3 import TRAININGS, interval_key, phase_two
from ..patches.attacks import feature_swap
from ..patches.data import PatchData
from ..patches.features import normalized, q_sum
from ..patches.network import PatchCNN
from ..training import History
from .style import ACCURACY, CERTIFIED, GAP, NON_ROBUST, PAPER, ROBUST, legend_below, styled, subplots


def _band(axis, x, values, color, label, style="-"):
    """Median and range of values (T, ...) over everything but the first axis."""
    flat = values.reshape(len(values), -1)
    axis.fill_between(x, np.nanmin(flat, axis=1), np.nanmax(flat, axis=1), color=color, alpha=0.16, lw=0)
    dashes = {"ls": style} if isinstance(style, tuple) else {}
    axis.plot(x, np.nanmedian(flat, axis=1), *(() if dashes else (style,)), color=color, label=label, lw=1.7, **dashes)


def _theory(axis, time, values, exact, label):
    """Median of the recursion over the network's band, dashed; dotted where a run has saturated."""
    flat = np.nanmedian(values.reshape(len(values), -1), axis=1)
    sure = exact.all(axis=1)
    for where, style in ((sure, (0, (4, 3))), (~sure, (0, (1, 2)))):
        if where.any():
            axis.plot(time[where], flat[where], ls=style, color="k", lw=0.9, label=label if where is sure else None)


def figure3(histories: dict[str, History], config: Figure3Config, theory: dict | None = None) -> Figure:
    """Feature learning in standard beside adversarial training (the paper's Figure 3).

    Top: normalised correlations mean_i max_s <w, f_i>/|w| (Sec. 6.1).  Middle: strength (sum_s <w, f_i>_+^q)^(1/q) of
    the features in their class's logit, with the predicted plateau B*.  Bottom: accuracies.  Lines are medians, bands
    the range over seeds (middle: seeds and classes).  `theory` (`experiment.recursions`) adds the exact recursion of
    noiseless training, dashed; dotted where an orthogonal axis has saturated and it is an approximation.
    """
    with styled():
        figure, axes = subplots(3, 2, figsize=(10, 8.6), sharex=True, sharey="row")
        for column, name in enumerate(TRAININGS):
            h, (top, middle, bottom) = histories[name], axes[:, column]
            time = h["iteration"]
            top.set_title(f"{name.capitalize()} training", fontweight="bold", pad=16)
            correlations_of(top, histories, config, name)
            for key, color in (("A", ROBUST), ("B", NON_ROBUST)):
                _band(middle, time, q_sum(h[key], config.q), color, None)
            for n, key in enumerate("AB" if theory else ""):
                found, label = theory[name], None if n else "exact recursion, no noise"
                _theory(top, time, normalized(getattr(found, key), found.norm), found.exact, label)
                _theory(middle, time, q_sum(getattr(found, key), config.q), found.exact, label)
            _band(bottom, time, h["test_accuracy"], ACCURACY, "test accuracy")
            where, value = h.at("robust_accuracy")
            _band(bottom, where, value, ROBUST, "robust accuracy: worst of all attacks", "o-")
            where, value = h.at("under_pgd_cross_entropy")
            _band(bottom, where, value, PAPER, "cross-entropy PGD alone (the paper's metric)", "--")
            _certified(bottom, h)
            for line in bottom.lines[1:]:
                line.set_markersize(3.2)
            bottom.set_xlabel("iteration")
            bottom.set_ylim(-0.04, 1.06)
            if name == "adversarial":
                _plateau(middle, config.plateau())
                _mark_phases(axes[1:, column], h, config)
        axes[0, 0].set_ylabel("normalised correlation")
        axes[1, 0].set_ylabel("feature strength in the logit")
        axes[2, 0].set_ylabel(rf"accuracy, $\epsilon_{{test}}$ = {config.eps_test:g} ({_norm(config)})")
        legend_below(figure)
        return figure


def _plateau(axis, value: float):
    """The predicted plateau; where it lies so high that it would squash the curves, the legend alone has it."""
    highest, label = axis.dataLim.y1, f"predicted plateau $B^*$ = {value:.2f}"
    if value <= 1.5 * highest:
        axis.axhline(value, color=NON_ROBUST, ls="--", lw=1, label=label)
    else:
        axis.plot([], [], color=NON_ROBUST, ls="--", lw=1, label=f"{label}, above the axis")


def correlations_of(axis, histories: dict[str, History], config: Figure3Config, name: str) -> None:
    """A training's normalised correlations with both features; the theory's phases, of adversarial training."""
    h = histories[name]
    for key, color, label in (("A", ROBUST, "robust, $u$"), ("B", NON_ROBUST, "non-robust, $v$")):
        _band(axis, h["iteration"], normalized(h[key], h["norm"]), color, label)
    if name == "adversarial":
        _mark_phases([axis], h, config, named=True)


def _certified(axis, history):
    """The sandwich's lower side, the gap to its upper side shaded, and what intervals alone certify."""
    where, value = history.at("certified_accuracy")
    _band(axis, where, value, CERTIFIED, "certified", (0, (4, 2)))
    robust = history["robust_accuracy"]
    middle = np.median(robust, axis=1), np.median(value, axis=1)
    axis.fill_between(where, *middle, color=GAP, alpha=0.6, lw=0, label="gap: undecided")
    where, value = history.at(interval_key(history))
    axis.plot(where, np.median(value, axis=1), ":", color=ACCURACY, lw=1, label="certified by intervals alone")


def _norm(config):
    return r"$\ell_\infty$" if config.norm == "linf" else r"$\ell_2$ per patch"


def _mark_phases(axes, history, config, named: bool = False):
    """Phase II begins, at the median over seeds and classes, when an ascent step halves a non-robust patch."""
    begins = phase_two(history, config)
    if np.isnan(begins).all():
        return
    begin = np.nanmedian(begins)
    for axis in axes:
        axis.axvspan(0, begin, color="0.5", alpha=0.12, lw=0)
        axis.axvline(begin, color="0.45", lw=0.9, ls=(0, (2, 2)))
    for x, side, text in () if not named else ((begin, "right", "Phase I "), (begin, "left", " Phase II")):
        axes[0].text(x, 1.02, text, transform=axes[0].get_xaxis_transform(), ha=side, va="bottom", color="0.35")


def figure2(data: PatchData, eps: float, net: PatchCNN | None = None, sample: int = 0) -> Figure:
    """One sample's patches, its swap perturbation, and its robust and non-robust representatives (Figure 2).

    Patches are columns, correlations <x_p, f> with the 2k features are rows.  With `net`, titles say what it predicts.
    """
    features, P = np.concatenate(data.features), data.X.shape[-2]
    k = len(features) // 2
    delta = feature_swap(data, eps=eps)[sample] - data.X[sample]
    panels = [
        (f"sample $X$ of class {data.y[sample]}", data.X[sample], True),
        (rf"swap perturbation $\delta$ (Thm. 4.3, $\epsilon$ = {eps:g})", delta, False),
        (r"perturbed sample $X + \delta$", data.X[sample] + delta, True),
        ("robust representative", data.representative("robust").X[sample], True),
        ("non-robust representative", data.representative("non_robust").X[sample], True),
    ]
    top = max(float(np.abs(X @ features.T).max()) for _, X, _ in panels)
    with styled(**{"axes.grid": False}):
        figure, axes = subplots(len(panels), 1, figsize=(8.5, 9), sharex=True)
        for axis, (title, X, classified) in zip(axes, panels):
            shown = features @ X.T
            image = axis.imshow(shown, cmap="RdBu_r", vmin=-top, vmax=top, aspect="auto", interpolation="nearest")
            if net is not None and classified:
                predicted = int(net.predict(X[None])[0])
                title += f": predicted {'nothing (a tie)' if predicted < 0 else f'class {predicted}'}"
            axis.set_title(title, loc="left")
            axis.set_yticks([(k - 1) / 2, k + (k - 1) / 2], ["robust $u_i$", "non-robust $v_i$"])
            axis.axhline(k - 0.5, color="0.3", lw=0.8)
            for p in np.flatnonzero(data.robust[sample]):
                axis.axvline(p, color=ROBUST, lw=0.8, ls=":", ymin=0.5)
        axes[-1].set_xlabel(f"patch $p$ of {P}; dotted: carries the robust feature ($J_R$)")
        figure.colorbar(image, ax=axes, label="correlation with the feature", aspect=50, pad=0.01)
        return figure
