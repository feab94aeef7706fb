"""Two halves, one picture: the patch network's features with the theory's phases, beside those on images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..core import store
from ..experiments.phases import GROWTH, RESTRAINED
from .figures import correlations_of
from .image_page import picture_of, write_page
from .page import table
from .style import ACCURACY, NON_ROBUST, ROBUST, legend_below, save, styled, subplots

NOTE = (f"Phase I is seen where robustness begins later than learning, D_NR is learned by {GROWTH} at least, and half "
        f"of that by then; Phase II where from then on D_R grows by {GROWTH} and D_NR by less than {RESTRAINED:.0%} of "
        "as much. Dotted: learning and robustness begin (medians over seeds). Thin lines are seeds; the features are "
        "those of other seeds' references.")  # fmt: skip


def figure(patches, found: dict[str, list[dict]]):
    """Left the patch network's correlations by `figures.figure3`'s rules, then one column for every experiment on
    images; standard training above, adversarial below."""
    with styled():
        fig, axes = subplots(2, 1 + len(found), figsize=(3.6 * (1 + len(found)) + 0.6, 5.6), squeeze=False)
        for line, arm in zip(axes, ("standard", "adversarial")):
            correlations_of(line[0], *patches, arm)
            line[0].set_title(f"patches, {arm} training", pad=16 if arm == "adversarial" else None)
            line[0].set_xlabel("iteration")
            for ax, (title, rows) in zip(line[1:], found.items()):
                mine = [row for row in rows if row["arm"] == arm]
                for name, colour in (("D_NR", NON_ROBUST), ("D_R", ROBUST), ("accuracy", ACCURACY), ("robust", "0.6")):
                    for row in mine:
                        ax.plot(row["iteration"], row[name], color=colour, lw=0.6, alpha=0.5)
                    told = {"accuracy": "validation accuracy", "robust": "under PGD"}.get(name, f"features, {name}")
                    mean = np.mean([row[name] for row in mine], axis=0)
                    style = "--" if name in ("accuracy", "robust") else "-"
                    ax.plot(mine[0]["iteration"], mean, style, color=colour, label=told, lw=1.6)
                for when in ("learning", "robustness") if arm == "adversarial" else ():
                    ax.axvline(np.median([row[when] for row in mine]), color="0.4", lw=0.9, ls=":")
                ax.set(title=f"{title}, {arm} training", xlabel="iteration", ylim=(-0.02, 1.04))
        for ax in axes[:, 0]:
            ax.set_ylabel("normalised correlation")
        legend_below(fig)
        return fig


def phase_rows(found: dict[str, list[dict]]):
    said = {True: "seen", False: "not seen", None: ""}
    rows = [[title, row["network"], f"{row['learning']:.0f}", f"{row['robustness']:.0f}", said[row["phase_1"]],
             said[row["phase_2"]], *(f"{row[name]:+.2f}" for name in ("growth_D_R", "growth_D_NR"))]
            for title, rows in found.items() for row in rows if row["phase_1"] is not None]  # fmt: skip
    return ["experiment", "network", "learning begins", "robustness begins", "Phase I", "Phase II", "then D_R grows",
            "and D_NR"], rows  # fmt: skip


def write_report(patches, found: dict[str, list[dict]], out) -> Path:
    """phases.png and .pdf, phases.json and phases.html in the folder `out`."""
    out = store.make_folder(out)
    save(figure(patches, found), out / "phases")
    store.save_json(out / "phases.json", found)
    body = ["<h1>Phases on patches and on images</h1>", f"<p class=note>{NOTE}</p>", picture_of(out / "phases.png"),
            table(*phase_rows(found))]  # fmt: skip
    return write_page(out / "phases.html", "Phases", body)
