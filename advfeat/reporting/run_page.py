"""report.html: one self-contained file with the figure, the numbers, what varies, configuration and versions."""

import base64
from html import escape
from pathlib import Path

import numpy as np

from ..core import store
from ..experiments.configuration import Figure3Config
from ..experiments.figure3 import TRAININGS, final_strength, summary
from ..patches.data import PatchData
from ..patches.features import smallest_gap
from ..robustness.evaluate import MEASURED_BY
from ..theory import Window
from ..theory.events import TAKE_OFF, deviation
from ..training import run_folder
from .page import PAGE, table

MOST_COMPARED = 2000  # samples whose pairwise distances `data_rows` takes: they need 32 MB, and 10,000 would need 800


def spread(values, digits: int = 2) -> str:
    """'median (min to max)' of what is not NaN, and how many are; iterations have 0 digits and may be "never"."""
    values = np.ravel(values).astype(float)
    found = values[~np.isnan(values)]
    if not len(found):
        return "never" if digits == 0 else "none"
    missing = f", {len(values) - len(found)} of {len(values)} never" if len(found) < len(values) else ""
    low, middle, high = (f"{x:.{digits}f}" for x in (found.min(), np.median(found), found.max()))
    return (middle if low == high else f"{middle} ({low} to {high})") + missing


def outcome(run: run_folder.Run, config: Figure3Config, theory: dict) -> dict:
    """`figure3.summary`, and per training and seed, where there is a `theory` (`figure3.recursions`): the largest and
    the last "deviation" of the correlations from the exact recursion, and the iteration "exact_until" which it is."""
    found = summary(run, config)
    for name in theory:
        apart = deviation(run.histories[name], theory[name])
        # exact records come first, so the last of them is behind all that are finite
        last = apart[np.isfinite(apart).sum(axis=0) - 1, np.arange(apart.shape[1])]
        found[name]["deviation"] = {"largest": np.nanmax(apart, axis=0), "last": last}
        found[name]["exact_until"] = theory[name].saturated_at
    return found


def outcome_rows(found: dict, noise_std: float) -> tuple[list[str], list[list[str]]]:
    """Final numbers per training, from `outcome`, for the report and the terminal: medians over seeds with their range.
    What parts a network from the exact recursion is the noise of its data, where there is any."""
    lines = [
        ("test accuracy", "accuracy", 2),
        ("robust accuracy, worst of all attacks", "robust", 2),
        ("certified accuracy", "certified", 2),
        ("certified by intervals alone", "interval", 2),
        *((f"accuracy under {attack.replace('_', ' ')} alone", f"under_{attack}", 2) for attack in MEASURED_BY[:-1]),
        ("accuracy on the robust feature alone", "robust_feature", 2),
        ("accuracy on the non-robust feature alone", "non_robust_feature", 2),
        ("iteration of test accuracy 0.95", "accuracy_time", 0),
        ("iteration of robust accuracy 0.95", "robust_time", 0),
    ]
    rows = [[label, *(spread(found[t][key], digits) for t in TRAININGS)] for label, key, digits in lines]
    if all("deviation" in found[t] for t in TRAININGS):
        for when in ("largest", "last"):
            cells = [f"{np.median(c):.1e} ({c.min():.1e} to {c.max():.1e})"
                     for c in (found[t]["deviation"][when] for t in TRAININGS)]  # fmt: skip
            why = f" (noise_std = {noise_std:g} is the reason)" if noise_std else ""
            rows.append([f"correlations, {when} deviation from the exact recursion{why}", *cells])
        if any(np.isfinite(found[t]["exact_until"]).any() for t in TRAININGS):
            until = [spread(found[t]["exact_until"], 0) for t in TRAININGS]
            rows.append(["recursion exact until (then an axis saturates)", *until])
    return ["median (range) over seeds", *TRAININGS], rows


def data_numbers(config: Figure3Config, data: PatchData, window: Window) -> dict:
    """What `advfeat data` says of a configuration and of one run's samples: Assumption 2.3, window, separation."""
    density, strength = config.distribution().assumption_2_3(config.q)
    n = min(len(data), MOST_COMPARED)
    return {
        "density_ratio": density,
        "strength_ratio": strength,
        "window": [window.low, window.high] if window.stands else None,
        "window_premise": window.failed or window.premise,
        "eps_test": config.eps_test,
        "eps_test_is": window.place(config.eps_test),
        "smallest_gap": {"value": smallest_gap(data.X[:n], data.y[:n]), "samples": n, "of": len(data)},
        "eps": config.eps,
    }


def data_rows(numbers: dict) -> tuple[list[str], list[list[str]]]:
    """`data_numbers` as a table."""
    density, strength, window = numbers["density_ratio"], numbers["strength_ratio"], numbers["window"]
    ends = "none" if window is None else f"({window[0]:.4g}, {window[1]:.4g})"
    rows = [
        ["density ratio c = P_R alpha^q / (P_NR beta^q)", f"{density:.4g}", f"{'' if density < 1 else 'NOT '}denser"],
        ["strength ratio alpha / beta", f"{strength:.4g}", f"{'' if strength > 1 else 'NOT '}stronger"],
        ["window of eps_test (diagonal networks)", ends, numbers["window_premise"]],
        ["eps_test", f"{numbers['eps_test']:g}", numbers["eps_test_is"]],
    ]
    gap, n, total = numbers["smallest_gap"].values()
    if np.isfinite(gap):
        part = "" if n == total else f", the first {n:,} of {total:,} samples"
        verdict = "holds" if gap >= 2 * numbers["eps"] else "does not hold"
        rows.append([f"smallest |X - X'|_inf between labels (Sec. 2.5){part}", f"{gap:.4g}", f">= 2 eps {verdict}"])
    return ["quantity", "value", ""], rows


def _class_tables(run, config) -> str:
    s, k, parts = summary(run, config), config.n_classes, []
    for name in TRAININGS:
        found = s[name]
        columns = [
            ("robust strength A", found["A"], 2),
            ("non-robust strength B", found["B"], 2),
            ("A > B from", found["crossing"], 0),
            ("robust accuracy", found["class_robust"], 2),
            ("certified", found["class_certified"], 2),
        ]
        if name == "adversarial":
            columns.insert(2, ("B / B*", found["B"] / config.plateau(), 3))
            columns.insert(3, ("Phase II begins", found["phase_two"], 0))
        rows = [
            [f"class {i}", *(spread(v[:, i], digits) for _, v, digits in columns)]
            for i in range(k)
        ]
        parts.append(f"<h3>{name.capitalize()} training</h3>" + table(["", *(c[0] for c in columns)], rows))
    return "".join(parts)


def _what_varies(run, config) -> str:
    """Sentences computed from the run."""
    s = summary(run, config)
    adversarial, standard = s["adversarial"], s["standard"]
    B = adversarial["B"][~np.isnan(adversarial["B_time"])] / config.plateau()

    def widest(key):
        values = adversarial[key]
        if np.isnan(values).all():
            return "does not happen in any class"
        known = ~np.isnan(values)
        seeds, classes = (
            np.max(values, axis=a, where=known, initial=0) - np.min(values, axis=a, where=known, initial=np.inf)
            for a in (0, 1)
        )
        return (
            f"lies at {spread(values, 0)} over seeds and classes; within one seed classes differ by up to "
            f"{classes.max():.0f} iterations, within one class seeds by up to {seeds.max():.0f}"
        )

    lines = [
        f"Standard training: final robust accuracy {spread(standard['robust'])} over {config.n_seeds} seeds, "
        f"test accuracy {spread(standard['accuracy'])}.",
        f"Adversarial training: final robust accuracy {spread(adversarial['robust'])}, certified "
        f"{spread(adversarial['certified'])}; the two bound the true value from above and below.",
        f"The non-robust feature took off (its class's strongest correlation grew {TAKE_OFF:g}-fold) in {len(B)} of "
        f"{adversarial['B'].size} (seed, class) pairs of adversarial training, at {spread(adversarial['B_time'], 0)}. "
        + (f"There its final strength is {spread(B, 3)} times the predicted plateau B*." if len(B) else ""),
        f"Phase II, an ascent step halving a non-robust patch, {widest('phase_two')}.",
        f"The robust feature overtaking the non-robust one for good, A &gt; B, {widest('crossing')}.",
    ]
    return "<ul>" + "".join(f"<li>{line}</li>" for line in lines) + "</ul>"


def _about_theory(config, theory) -> str:
    if not theory:
        return "The exact recursion is not drawn: it does not know minibatches."
    noise = "" if config.noise_std == 0 else (
        f" What parts them is the noise (noise_std = {config.noise_std:g}): it shifts take-off times and can change "
        "which neuron of a class learns."
    )
    return (
        "Dashed: the exact recursion of training without noise, from the same initial weights (Lemma 5.1, 5.2, "
        f"D.16-D.18), dotted where an orthogonal axis has saturated and it is an approximation.{noise}"
    )


def write_report(run: run_folder.Run, config: Figure3Config, figure: Path, path: Path, theory: dict) -> None:
    """Write the report of a finished run; `figure` is the PNG to embed, `theory` the recursions drawn in it."""
    picture = base64.b64encode(Path(figure).read_bytes()).decode()
    window = config.window(final_strength(run.histories["adversarial"]))
    head, rows = outcome_rows(outcome(run, config, theory), config.noise_std)
    body = f"""
<h1>Feature learning in standard and adversarial training</h1>
<p class="note">Figure 3 of Li &amp; Li (ICLR 2025), from trained networks: {config.n_seeds} seeds, {config.n_iter}
iterations, {escape(config.dtype)}, {escape(config.backend)} engine.</p>
<img alt="Figure 3" src="data:image/png;base64,{picture}">
<p class="note">Lines are medians, bands the whole range over seeds (middle row: over seeds and classes). Phase II
begins where, for the median seed and class, an ascent step takes away half of a non-robust patch. Robust accuracy is
the worst, sample by sample, over feature swap, one-step ascent, aligned attack, cross-entropy PGD and margin PGD
({config.pgd_steps} steps, {config.pgd_restarts} random start{"s" * (config.pgd_restarts > 1)} each) at radius
{config.eps_test:g}, and over the search of branch and bound on what still stands. Certified accuracy bounds it from
below, by branch and bound (intervals alone: the thin dotted line); the truth lies in the shaded gap. Cross-entropy PGD
alone, the paper's metric, can be masked and is drawn apart. {_about_theory(config, theory)}</p>
<h2>Outcome at iteration {config.n_iter}</h2>
{table(head, rows)}
<p class="note">Theory: {escape(window.sentence(config.eps_test))}; density ratio c =
{config.distribution().assumption_2_3(config.q)[0]:.3f} (&lt; 1: the non-robust feature is denser); predicted plateau
B* = {config.plateau():.3f}.</p>
<h2>What varies over seeds and classes</h2>
{_what_varies(run, config)}
{_class_tables(run, config)}
<p class="note">Strengths are
(&Sigma;<sub>s</sub> &lang;w<sub>i,s</sub>, f<sub>i</sub>&rang;<sub>+</sub><sup>q</sup>)<sup>1/q</sup>;
entries are medians (range) over seeds; times are the first recorded iteration.</p>
<h2>Configuration and versions</h2>
<details open><summary>Configuration</summary>
{table(["key", "value"], [[k, repr(v)] for k, v in config.as_dict().items()])}</details>
<details><summary>Versions</summary>
{table(["part", "version"], [[k, v] for k, v in run.environment.items()])}</details>
"""
    page = PAGE.format(title="advfeat: Figure 3", body=body)
    store.write(path, lambda file: file.write(page), "w")
