"""Table 2 on a page: classes turned into each other by features, and what success costs in distance."""

from __future__ import annotations

from pathlib import Path

from ..core import store
from ..experiments.feature_attacks import ATTACKS
from .image_page import picture_of, write_page
from .page import table
from .style import NON_ROBUST, ROBUST, legend_below, save, styled, subplots

LINES = {"stranger": "-", "kin": "--", "itself": ":"}
COLOURS = {"standard": NON_ROBUST, "adversarial": ROBUST}
TOLD = {"itself": "the reference itself", "kin": "kin", "stranger": "strangers", "architecture": "other architecture"}
NOTE = ("An attack moves an image's representation by a reference towards that of an image of the target class, and "
        "never asks the network that it is for. It succeeds where that network says the target class. NRF-PGD: the "
        "reference was trained normally; RF-PGD: adversarially. After ± the standard deviation over victims' seeds, "
        "in brackets intervals of 95 % over seeds and images. The confusion is the share of images that are taken for "
        "the target class as they are.")  # fmt: skip


def label(row: dict) -> str:
    """The attack's name, with the radius of a reference that was trained at another one."""
    other = "" if row["kind"] == "own" else f", reference at {row['kind'].removeprefix('eps-')}"
    return ATTACKS[row["reference"]] + other


def percent(found: dict | None) -> str:
    if found is None:
        return ""
    spread = "" if found["std"] is None else f" ± {100 * found['std']:.1f}"
    low_high = "" if found["low"] is None else f" ({100 * found['low']:.0f} to {100 * found['high']:.0f})"
    return f"{100 * found['value']:.1f}{spread}{low_high}"


def table_rows(found: dict, pairs: bool = True):
    """Every pair of classes, or all as one, at the trainings' radius; with the paper's numbers where it has some."""
    paper = {(source, target): values for source, target, *values in found["paper"]}
    rows = []
    for r in found["table"] if pairs else [r for r in found["curves"] if r["scale"] == 1]:
        theirs = paper.get(tuple(r["pair"] or ()), ())
        own = r["kind"] == "own" and r["learner"] == "standard" and r["relation"] in ("kin", "stranger")
        said = f"{theirs[list(ATTACKS).index(r['reference'])]:.1f}" if theirs and own else ""
        rows.append([" to ".join(r["pair"] or ["all"]), label(r), TOLD[r["relation"]], r["learner"], percent(r["all"]),
                     percent(r["correct"]), percent(r["clean"]), f"{r['before']:.2f}, {r['distance']:.2f}",
                     *[said] * bool(paper)])  # fmt: skip
    return ["classes", "attack", "victim is", "victim", "success %", "of correct ones", "confusion %",
            "distance, before and after", *["the paper's"] * bool(paper)], rows  # fmt: skip


def equal_rows(found: dict):
    """Both attacks where as large a share of the distance is left; references that came closer are not among them."""
    rows = []
    for r in found["equal"]:
        low, high, value = (r["difference"][name] for name in ("low", "high", "value"))
        inside = "" if low is None else f" ({100 * low:.0f} to {100 * high:.0f})"
        both = (f"{100 * r[name]['value']:.1f}" for name in ("RF-PGD", "NRF-PGD"))
        radius = f"{found['radii'][found['scales'].index(r['scale'])]:.3g}"
        rows.append([radius, r["references"], f"{100 * r['left']:.0f} %", *both, f"{100 * value:+.1f}{inside}"])
    return ["radius of RF-PGD", "references", "distance left", "RF-PGD success %", "NRF-PGD at as much",
            "difference"], rows  # fmt: skip


def figure(found: dict):
    """Success of each attack over the radius, and over the share of the distance that is left."""
    arms = [arm for arm in ATTACKS if any(r["learner"] == arm for r in found["curves"])]
    with styled():
        fig, axes = subplots(2, len(arms), figsize=(4.5 * len(arms), 6.6), sharey=True, squeeze=False)
        for column, arm in enumerate(arms):
            groups = {}
            for r in found["curves"]:
                if r["learner"] == arm and r["relation"] in LINES:
                    groups.setdefault((r["relation"], r["reference"], r["kind"]), []).append(r)
            for (how, reference, kind), rows in groups.items():
                if kind != "own" and how != "stranger":
                    continue
                others = sorted({r["kind"] for r in found["curves"] if r["kind"] != "own"})
                style = {"color": COLOURS[reference], "ls": LINES[how],
                         "marker": "o" if kind == "own" else "^sDv"[others.index(kind) % 4], "ms": 4,
                         "alpha": 1.0 if kind == "own" else 0.6,
                         "label": f"{label(rows[0])}, {TOLD[how]}"}  # fmt: skip
                success = [r["all"]["value"] for r in rows]
                for ax, x in ((axes[0, column], [found["radii"][found["scales"].index(r["scale"])] for r in rows]),
                              (axes[1, column], [r["left"] for r in rows])):  # fmt: skip
                    ax.plot(x, success, **style)
                    low = [r["all"]["value"] if r["all"]["low"] is None else r["all"]["low"] for r in rows]
                    high = [r["all"]["value"] if r["all"]["high"] is None else r["all"]["high"] for r in rows]
                    if how == "stranger":
                        ax.fill_between(x, low, high, color=COLOURS[reference], alpha=0.12, lw=0)
            axes[0, column].set(title=f"{arm} victims", xlabel="radius", ylim=(-0.02, 1.02))
            axes[1, column].set(xlabel="share of the distance that is left")
            axes[1, column].invert_xaxis()
        for ax in axes[:, 0]:
            ax.set_ylabel("success")
        legend_below(fig)
        return fig


def section(found: dict, folder: Path) -> list[str]:
    """The page's part, its picture saved in the folder."""
    save(figure(found), folder / "table2")
    parts = [f"<p class=note>{NOTE}</p>", table(*table_rows(found, pairs=False)), picture_of(folder / "table2.png"),
             "<details><summary>Pair by pair</summary>", table(*table_rows(found)), "</details>"]  # fmt: skip
    if found["equal"]:
        title = "At equal distance, standard strangers, intervals over seeds alone"
        parts += [f"<h3>{title}</h3>", table(*equal_rows(found))]
    return parts


def write_report(dataset: str, found: dict, folder: Path) -> Path:
    """table2.png and .pdf, table2.json and table2.html in the folder."""
    body = [f"<h1>Classes of {dataset} turned into each other by features (Table 2)</h1>", *section(found, folder)]
    store.save_json(folder / "table2.json", found)
    return write_page(folder / "table2.html", f"Table 2 on {dataset}", body)
