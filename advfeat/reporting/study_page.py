"""The page of a study: by how much more of D_NR than of D_R standard learners have learned, against what the inversions
reached; and its claims, each a difference with its interval."""

from __future__ import annotations

from html import escape
from pathlib import Path

from matplotlib.ticker import NullFormatter

from ..core import store
from ..experiments.study import KINSHIP, Study, contrasts
from .feature_attack_page import TOLD
from .image_page import picture_of, write_page
from .page import table
from .style import ACCURACY, CERTIFIED, NON_ROBUST, PAPER, ROBUST, legend_below, save, styled, subplots

COLOURS = dict(zip(KINSHIP, (ACCURACY, PAPER, ROBUST, CERTIFIED, NON_ROBUST)))
TOLD = TOLD | {"kin-epoch": "kin from the second epoch on", "kin-half": "kin from the second half on"}
TICKS = [digit * 10**power for power in range(-4, 1) for digit in (1, 2, 3, 5, 7)]
MARKS = {"image": "o", "noise": "s"}
NOTE = ("Feature learning accuracy of standard learners on D_NR less that on D_R, both references of one seed; the "
        "paper's order is above 0. Intervals of 95 % are over seeds and images. Hollow: at least one reference did not "
        "pass its gate. Crosses at the edge: not measured.")  # fmt: skip


def interval(row: dict) -> str:
    low_high = "" if row["low"] is None else f" ({row['low']:+.2f} to {row['high']:+.2f})"
    return f"{row['value']:+.2f}{low_high}"


def cell_rows(study: Study):
    rows = []
    for cell in study.plan.cells:
        found, recipe = study.result(cell), cell.recipe
        what = "cross" if recipe.steps else f"{recipe.factor} {'' if recipe.value is None else recipe.value}".strip()
        head = [what, recipe.start, str(cell.steps or ""), TOLD[cell.kinship]]
        if found is None:
            rows.append([*head, "not measured", "", "", "", ""])
            continue
        passed = [f"{sum(found[name]['passed'])} of {len(found[name]['passed'])}" for name in ("D_NR", "D_R")]
        rows.append([*head, f"{found['D_NR']['value']:.2f}", f"{found['D_R']['value']:.2f}",
                     interval(found["difference"]), f"{found['D_R']['median']:.3f} ({found['D_R']['p90']:.3f})",
                     ", ".join(passed)])  # fmt: skip
    return ["recipe", "start", "steps", "learner is", "on D_NR", "on D_R", "difference", "distance of D_R (p90)",
            "gates passed, D_NR and D_R"], rows  # fmt: skip


def claim_rows(rows: list[dict]):
    def verdict(row):
        if row["low"] is None:
            return "too few seeds"
        return "more D_NR" if row["low"] > 0 else "less D_NR" if row["high"] < 0 else "not told apart"

    return ["what is changed", "where", "changes the difference by", "so", "representatives"], [
        [row["claim"], row["where"], interval(row), verdict(row), "" if row["converged"] else "not converged"]
        for row in rows]  # fmt: skip


def figure(study: Study):
    """The difference against the median distance of D_R, the cross on the left, the factors on the right."""
    with styled():
        fig, axes = subplots(1, 2, figsize=(11, 4.6), sharex=True, sharey=True)
        missing = [0, 0]
        for cell in study.plan.cells:
            found, crossed = study.result(cell), bool(cell.recipe.steps)
            ax, colour = axes[int(not crossed)], COLOURS[cell.kinship]
            if found is None:
                ax.plot(0.02 + 0.015 * missing[int(not crossed)], 0.02, "x", color=colour, ms=5, transform=ax.transAxes)
                missing[int(not crossed)] += 1
                continue
            aside = 1 + 0.015 * (list(KINSHIP).index(cell.kinship) - 2)  # so that kinships do not hide each other
            x, row = found["D_R"]["median"] * aside, found["difference"]
            passed = all(found["D_NR"]["passed"] + found["D_R"]["passed"])
            mark = MARKS[cell.recipe.start]
            if row["low"] is not None:
                ax.plot([x, x], [row["low"], row["high"]], color=colour, lw=0.8, alpha=0.6)
            ax.plot([x], [row["value"]], mark, color=colour, mfc=colour if passed else "white", ms=5)
            if not crossed and cell.kinship == "stranger":
                name = cell.recipe.factor.replace("_of_inversion", "")
                what = name if cell.recipe.value is None else f"{name} {cell.recipe.value}"
                ax.annotate(what, (x, row["value"]), (4, 3), textcoords="offset points", fontsize=7)
        for ax, title in zip(axes, ("one descent, read on its way", "the default and one factor at a time")):
            ax.axhline(0, color="0.4", lw=0.8)
            ax.set(title=title, xlabel="distance of D_R, median")
        if len(axes[0].lines) + len(axes[1].lines) > 2 + sum(missing):  # a logarithm needs something to show
            axes[0].set_xscale("log")
            low, high = axes[0].get_xlim()
            axes[0].set_xticks([tick for tick in TICKS if low <= tick <= high])
            axes[0].xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes[0].xaxis.set_minor_formatter(NullFormatter())
        axes[0].set_ylabel("accuracy on D_NR less that on D_R")
        for kinship in study.plan.kinship:
            axes[0].plot([], [], "o", color=COLOURS[kinship], label=TOLD[kinship])
        for start in study.plan.starts:
            axes[0].plot([], [], MARKS[start], color="0.5", label=f"from {start}")
        legend_below(fig)
        return fig


def write_report(study: Study, title: str) -> tuple[Path, dict]:
    """study.png and .pdf, study.json and study.html in the study's folder; the page and its numbers."""
    out, claims = store.make_folder(study.path), contrasts(study)
    save(figure(study), out / "study")
    found = {"cells": {cell.name: study.result(cell) for cell in study.plan.cells}, "contrasts": claims}
    store.save_json(out / "study.json", found)
    done = sum(one is not None for one in found["cells"].values())
    body = [f"<h1>What carries the order: {escape(title)}</h1>", f"<p class=note>{NOTE}</p>",
            f"<p>{done} of {len(found['cells'])} cells are measured.</p>", picture_of(out / "study.png"),
            "<h2>What changes it</h2>", table(*claim_rows(claims)), "<h2>All cells</h2>", table(*cell_rows(study)),
            "<h2>Base configuration</h2>", table(["key", "value", "default", "unit", "meaning"],
                                                 [list(row) for row in study.plan.base.rows()])]  # fmt: skip
    return write_page(out / "study.html", title, body), found
