"""Pages of the experiment on representatives: Figures 1, 4 and 5, Table 1, gates, controls and the transfer matrix."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np
from matplotlib.patches import Rectangle

from ..core import store
from ..experiments.feature_learning import Evidence
from ..experiments.feature_table import PLACES, SETS, WHEN
from ..experiments.representatives import Experiment
from ..experiments.representatives_configuration import ARMS
from ..images.data import DATA_SETS
from .feature_attack_page import TOLD, section
from .image_page import percent, picture_of, write_page
from .page import table
from .style import NON_ROBUST, ROBUST, legend_below, save, styled, subplots

COLUMNS = 10  # of Figure 1
COLOURS = {"standard": NON_ROBUST, "adversarial": ROBUST}  # of D_NR and D_R
SMOKE = ("Digits of 8 x 8 pixels are a smoke test: on them adversarial training hardly suppresses D_NR, and nothing "
         "said here carries over to images.")  # fmt: skip


# ------------------------------------------------------------------ numbers in words
def interval(row: dict) -> str:
    """A share with its interval; of representatives that did not converge, with what they reached."""
    said = f"{row['value']:.2f}" + ("" if row["low"] is None else f" ({row['low']:.2f} to {row['high']:.2f})")
    if row["converged"]:
        return said
    return f"not converged: {said}; distance {row['median']:.3f}, p90 {row['p90']:.3f}"


def network_rows(found: dict):
    """Accuracies by arm and kind, the mean and the range over seeds."""

    def spread(values):
        low, high = min(values), max(values)
        return percent(np.mean(values)) + f" ({100 * low:.1f} to {100 * high:.1f})" * (high > low)

    rows = []
    for kind in ("own", "kin", "other"):
        for arm in ARMS:
            for when in WHEN:
                some = [r for r in found["networks"] if (r["kind"], r["arm"], r["when"]) == (kind, arm, when)]
                if some:
                    rows.append([arm, {"own": "", "kin": "kin", "other": "other architecture"}[kind], when,
                                 spread([r["accuracy"] for r in some]), spread([r["pgd"] for r in some])])  # fmt: skip
    return ["network", "", "", "test accuracy", f"under PGD-20, eps = {found['eps']:g}"], rows


def cell_rows(found: dict, when: str = "last"):
    """Table 1's right half by start and relation, with the paper's numbers beside it."""
    rows = []
    for start in found["starts"]:
        for how, told in TOLD.items():
            for learner in ARMS:
                held = {r["set"]: interval(r) for r in found["cells"] if (r["start"], r["relation"], r["learner"],
                        r["when"]) == (start, how, learner, when)}  # fmt: skip
                if held:
                    paper = [f"{p[2] / 100:.2f} / {p[3] / 100:.2f}" for name, p in found["paper"].items()
                             if name == learner]  # fmt: skip
                    rows.append([start, told, learner, *(held.get(name, "") for name in SETS.values()), *paper])
    return ["start", "learner is", "learner", "on D_NR", "on D_R", *["the paper's"] * bool(found["paper"])], rows


def difference_rows(found: dict):
    rows = [[r["start"], TOLD[r["relation"]], r["difference"], r["verdict"], "" if r["converged"] else "not converged"]
            for r in found["differences"]]  # fmt: skip
    return ["start", "learner is", "difference", "found (95 % interval)", "representatives"], rows


def gate_rows(found: dict):
    rows = [[r["set"], "passed" if r["passed"] else "not converged", f"{r['accuracy']:.3f}", f"{r['own_accuracy']:.3f}",
             f"{r['own_nearest']:.3f}", f"{r['median']:.3f}", f"{r['p90']:.3f}", f"{r['spacing']:.3f}"]
            for r in found["gates"]]  # fmt: skip
    return ["representatives", "gate", "accuracy on x", "on x_r", "own target nearest", "median distance", "p90",
            "spacing of a class"], rows  # fmt: skip


def control_rows(found: dict):
    rows = [[r["control"], SETS.get(r["reference"], "untrained"), r["learner"], interval(r)] for r in found["controls"]]
    return ["counted as learned", "representatives", "learner", "share"], rows


def transfer_rows(found: dict):
    rows = []
    for place in PLACES:
        held = {(r["learner"], r["learner_kind"]): interval(r) for r in found["transfer"]
                if (r["reference"], r["reference_kind"]) == place}  # fmt: skip
        rows.append([_place(place), *(held.get(column, "") for column in PLACES)])
    return ["reference", *(f"{_place(column)} learner" for column in PLACES)], rows


def _place(place) -> str:
    arm, kind = place
    return "other architecture" if kind == "other" else arm


# ------------------------------------------------------------------ pictures
def figure1(evidence: Evidence, sources, classes, start: str):
    """The images `sources`, and their non-robust and robust representatives of the first seed (Figure 1)."""
    chosen = {one.reference.arm: held for one, held in evidence.sets.values()
              if one.start == start and one.part == "test" and one.reference.kind == "own" and one.reference.arm in ARMS
              and one.reference.seed == evidence.seed}  # fmt: skip
    first = chosen["standard"]
    columns = [np.flatnonzero(first.y == label)[0] for label in np.unique(first.y)][:COLUMNS]
    rows = [("x", sources), *((f"{name} of x", chosen[arm].X) for arm, name in SETS.items())]
    with styled(**{"axes.spines.left": False, "axes.spines.bottom": False}):
        figure, axes = subplots(3, len(columns), figsize=(0.95 * len(columns) + 0.8, 3.4), squeeze=False)
        for (label, X), line in zip(rows, axes):
            for ax, i in zip(line, columns):
                ax.imshow(X[i][0] if len(X[i]) == 1 else np.moveaxis(X[i], 0, -1), cmap="gray", vmin=0, vmax=1)
                ax.set(xticks=[], yticks=[])
                ax.grid(False)
            line[0].set_ylabel(label, fontsize=9)
        for ax, i in zip(axes[0], columns):
            ax.set_title(classes[first.y[i]], fontsize=8)
        return figure


def figure4(evidence: Evidence, start: str, paper: dict):
    """Feature learning accuracy along the trainings (Figures 4 and 5): of strangers, every learner and their mean; of
    kin dashed; the paper's last values as marks."""
    with styled():
        figure, axes = subplots(1, 2, figsize=(9, 3.8), sharey=True)
        for ax, arm in zip(axes, ARMS):
            for column, (reference, name) in enumerate(SETS.items()):
                colour = COLOURS[reference]
                for how, kind, line in (("stranger", "own", "-"), ("kin", "kin", "--")):
                    some = [one for one in evidence.answers if (one.network.arm, one.network.kind) == (arm, kind)]
                    curves = [evidence.curve(one, reference, start, how) for one in some]
                    held = [(one.iteration, curve) for one, curve in zip(some, curves) if curve is not None]
                    for clock, curve in held if how == "stranger" else ():
                        ax.plot(clock, curve, color=colour, lw=0.7, alpha=0.45)
                    if held:
                        label = f"{name}, {TOLD[how]}"
                        ax.plot(held[0][0], np.mean([curve for _, curve in held], axis=0), line, color=colour,
                                label=label)  # fmt: skip
                if arm in paper and ax.lines:
                    end = 1.03 * max(line.get_xdata()[-1] for line in ax.lines if len(line.get_xdata()) > 1)
                    ax.plot([end], [paper[arm][2 + column] / 100], "o", mfc="none", color=colour)
            ax.set(title=f"{arm} training", xlabel="iteration", ylim=(0, 1.02))
        axes[0].set_ylabel("feature learning accuracy")
        legend_below(figure)
        return figure


def transfer_picture(found: dict):
    """References x learners as a picture; representatives that did not converge are hatched."""
    names = [_place(place) for place in PLACES]
    with styled(**{"axes.grid": False}):
        figure, ax = subplots(figsize=(6.2, 4.4))
        values = np.full((len(PLACES), len(PLACES)), np.nan)
        for r in found["transfer"]:
            i = PLACES.index((r["reference"], r["reference_kind"]))
            j = PLACES.index((r["learner"], r["learner_kind"]))
            values[i, j] = r["value"]
            text = interval(r | {"converged": True}).replace(" (", "\n").rstrip(")")
            ax.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if r["value"] > 0.5 else "#222")
            if not r["converged"]:
                box = {"fill": False, "hatch": "///", "ec": "0.6", "lw": 0}
                ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, **box))
        image = ax.imshow(values, cmap="Blues", vmin=0, vmax=1)
        figure.colorbar(image, ax=ax, label="feature learning accuracy")
        ax.set(xticks=range(len(names)), yticks=range(len(names)), xlabel="learner", ylabel="reference")
        ax.set_xticklabels(names, fontsize=8)
        ax.set_yticklabels(names, fontsize=8)
        ax.spines[:].set_visible(False)
        return figure


# ------------------------------------------------------------------ the page
def write_report(experiment: Experiment, evidence: Evidence, found: dict) -> Path:
    """figure1, figure4 of every start and transfer as .png and .pdf, table.json, and report.html."""
    out, starts = experiment.path, found["starts"]
    sources = experiment.config.selection(starts[0]).X
    save(figure1(evidence, sources, DATA_SETS[found["dataset"]].classes, starts[0]), out / "figure1")
    for start in starts:
        save(figure4(evidence, start, found["paper"]), out / f"figure4-{start}")
    save(transfer_picture(found), out / "transfer")
    store.save_json(out / "table.json", found)
    first, pictures = starts[0], [f"<h3>From {'an image of another class' if s == 'image' else 'noise'}</h3>"
                                  + picture_of(out / f"figure4-{s}.png") for s in starts]  # fmt: skip
    note = (f"{len(found['seeds'])} networks of each kind, {found['images']} test images represented. "
            "Intervals of 95 % are over seeds (jackknife, Student's t) and images (bootstrap). A learner is the "
            "reference itself, its kin (the same initial weights, another order of batches), a stranger, or of another "
            "architecture; these are never mixed. Where representatives did not converge, cells say so.")  # fmt: skip
    body = [f"<h1>Representatives of {escape(found['dataset'])}</h1>", f"<p class=note>{note}</p>",
            f"<p><b>{SMOKE}</b></p>" * (found["dataset"] == "digits"),
            "<h2>Networks</h2>", table(*network_rows(found)),
            "<h2>Feature learning accuracy of the last networks (Table 1)</h2>", table(*cell_rows(found)),
            "<h2>What the paper states, as differences</h2>", table(*difference_rows(found)),
            "<h2>Along the trainings (Figures 4 and 5)</h2>", *pictures,
            "<p class=note>Circles: the last values of the paper's Table 1, whoever its learners are.</p>"
            * bool(found["paper"]),
            f"<h2>Images and representatives of the first seed, from {first} (Figure 1)</h2>",
            picture_of(out / "figure1.png"),
            "<h2>References and learners</h2>", picture_of(out / "transfer.png"),
            "<p class=note>Learners that did not begin with the reference's weights; hatched where representatives did "
            "not converge.</p>",
            *(["<h2>Classes turned into each other by features (Table 2)</h2>", *section(found["table2"], out)]
              if "table2" in found else ()),
            "<h2>Controls</h2>", table(*control_rows(found)),
            "<h2>Gates</h2>", table(*gate_rows(found)),
            "<details><summary>The best networks instead of the last</summary>", table(*cell_rows(found, "best")),
            "</details><h2>Configuration</h2>", table(["key", "value", "default", "unit", "meaning"],
                                                      [list(row) for row in experiment.config.rows()])]  # fmt: skip
    return write_page(out / "report.html", f"Representatives of {found['dataset']}", body)
