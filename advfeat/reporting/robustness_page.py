"""What `advfeat robustness` leaves behind: two figures, a self-contained page, and every number as JSON and NPZ."""

import base64
from html import escape
from pathlib import Path

import numpy as np

from ..core import store
from ..experiments.configuration import Figure3Config
from ..patches.data import PatchData
from ..patches.features import correlations
from ..robustness.catalogue import LABELS
from ..robustness.curves import SHARE, Sandwich, per_class, summary
from .page import PAGE, table
from .robustness_figures import robustness_figure, worst_example
from .style import save

#: What `write` leaves behind, in this order.
FILES = ("robustness.png", "robustness.pdf", "worst_example.png", "worst_example.pdf", "robustness.npz",
         "robustness.json", "robustness.html")  # fmt: skip
BALL = {"linf": "l_inf", "l2": "patch-wise l_2", "l1": "patch-wise l_1"}


def write(
    found: dict[str, Sandwich], nets: dict, data: PatchData, seeds, config: Figure3Config, out, environment: dict,
    identity: dict | None = None,
) -> Path:  # fmt: skip
    """Write everything into the folder `out`, with `identity`, what `found` was made of; returns the page's path."""
    out = Path(out)
    trained = nets.get("adversarial")
    strength = None if trained is None else float(correlations(trained, data.features)["A"].max())
    save(robustness_figure(found, config, strength), out / "robustness")
    save(worst_example(found, nets, data, seeds), out / "worst_example")
    arrays = {f"{name}/{key}": a for name, s in found.items() for key, a in _arrays(s).items()}
    store.save_npz(out / "robustness.npz", seeds=seeds, **arrays)
    numbers = {name: _numbers(s, seeds, config) for name, s in found.items()}
    head = {"environment": environment, "config": config.as_dict(), "seeds": list(seeds)}
    window = config.window(strength, next(iter(found.values())).norm)
    head |= {"window": window.ends, "window_premise": window.failed or window.premise}
    store.save_json(out / "robustness.json", head | {"networks": numbers, "identity": identity})
    rows = radii_rows({name: held["seeds"] for name, held in numbers.items()})
    body = _body(found, rows, seeds, config, window, out, environment)
    page = PAGE.format(title="advfeat: robust accuracy", body=body)
    store.write(out / "robustness.html", lambda file: file.write(page), "w")
    return out / "robustness.html"


def _arrays(s: Sandwich) -> dict:
    names = ("eps", "y", "correct", "certified", "broken", "interval", "found_by")
    arrays = {name: getattr(s, name) for name in names}
    arrays |= {f"alone/{name}": radius for name, radius in s.alone.items()}
    arrays |= {name: getattr(s, name)() for name in ("robust_accuracy", "certified_accuracy", "interval_accuracy")}
    where = s.weakest()
    return arrays if where is None else arrays | {"worst/index": np.array(where), "worst/X_adv": s.X_adv[where]}


def _numbers(s: Sandwich, seeds, config) -> dict:
    curves = ("robust_accuracy", "certified_accuracy", "interval_accuracy")
    return {
        "seeds": summary(s, seeds),
        "eps": s.eps.tolist(),
        **{name: getattr(s, name)().T.tolist() for name in curves},
        "under": {name: s.under(name).T.tolist() for name in s.alone},
        "per_class": {"eps": config.eps_test, "classes": per_class(s, config.eps_test, config.n_classes)},
    }


# ------------------------------------------------------------------ tables
def _number(value, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _quartiles(q: dict, digits: int = 4) -> str:
    return f"{_number(q['median'], digits)} ({_number(q['q1'], digits)}, {_number(q['q3'], digits)})"


def _at(gap: dict) -> str:
    return f"{100 * gap['widest']:.1f} at {gap['eps']:.4g}" if gap["widest"] else "0"


def radii_rows(numbers: dict[str, list[dict]]) -> tuple[list[str], list[list[str]]]:
    """Radii, their ratio and the widest gap over all radii, per network and seed, from `curves.summary`; for the page
    and the terminal."""

    def widest(row):
        return _at({"widest": row["gap_anywhere"], "eps": row["gap_anywhere_eps"]})

    rows = [
        [
            name, row["seed"], f"{row['accuracy']:.2f}", _quartiles(row["radius"]["certified"]),
            _quartiles(row["radius"]["broken"]), _number(row["ratio"]["median"]),
            _number(row["interval_ratio"]["median"]),
            widest(row), f"{100 * row['gap_outside_fall']:.1f}", _at(row["interval_gap"]),
        ]
        for name, held in numbers.items()
        for row in held
    ]  # fmt: skip
    head = [
        "network", "seed", "accuracy", "certified radius", "broken radius", "ratio", "intervals' ratio",
        "widest gap, %", "off the fall", "intervals' gap, %",
    ]  # fmt: skip
    return head, rows


def curve_rows(s: Sandwich) -> tuple[list[str], list[list[str]]]:
    """Shares of all seeds' samples at every radius of the grid."""
    names = [LABELS[name] for name in s.alone]
    curves = [s.certified_accuracy(), s.robust_accuracy(), s.interval_accuracy(), *(s.under(name) for name in s.alone)]
    means = np.array([curve.mean(axis=1) for curve in curves])
    rows = [[f"{e:.3g}", *(f"{v:.3f}" for v in values)] for e, values in zip(s.eps, means.T)]
    return ["eps", "certified", "best attack", "intervals", *names], rows


def _class_table(s, config) -> str:
    rows = [
        [
            f"class {row['class']}", row["samples"], f"{row['accuracy']:.2f}", f"{row['certified']:.2f}",
            f"{row['robust']:.2f}", f"{row['interval']:.2f}", _quartiles(row["certified_radius"]),
            _quartiles(row["broken_radius"]),
        ]
        for row in per_class(s, config.eps_test, config.n_classes)
    ]  # fmt: skip
    head = ["", "samples", "accuracy", "certified", "best attack", "intervals", "certified radius", "broken radius"]
    return table(head, rows)


def _finders(found) -> str:
    """Which attack reached the smallest broken radius of how many samples."""
    counts = {name: s.found_by[s.correct] for name, s in found.items()}
    used = [a for a in LABELS if any((c == a).any() for c in counts.values())]
    rows = [[LABELS[a], *(int((c == a).sum()) for c in counts.values())] for a in used]
    rows.append(["never broken", *(int((c == "").sum()) for c in counts.values())])
    return table(["smallest broken radius reached by", *found], rows)


def _verdict(name, s, seeds) -> str:
    """One sentence per network, from its numbers."""
    row, fall = summary(s, seeds)[-1], ""
    if row["fall"] is not None:
        low, high = row["fall"]
        fall = f" (from {low:.3g} to {high:.3g})" if high > low else f" (at {low:.3g})"
    missed = row["never_broken"]
    return (
        f"{name.capitalize()} training: over the {len(s.eps)} radii the two bounds differ by at most "
        f"{100 * row['gap']['widest']:.2f} percentage points"
        + (f", at eps = {row['gap']['eps']:.3g}" if row["gap"]["widest"] else "")
        + f"; off the fall of the curve{fall} by at most {100 * row['gap_outside_fall']:.2f}. "
        + f"Over all radii they differ by at most {100 * row['gap_anywhere']:.1f}"
        + (f", at eps = {row['gap_anywhere_eps']:.4g}. " if row["gap_anywhere"] else ". ")
        + f"The median of certified over broken radius is {_number(row['ratio']['median'])}, with intervals alone "
        f"{_number(row['interval_ratio']['median'])}; intervals alone leave up to "
        f"{100 * row['interval_gap']['widest']:.1f} percentage points open."
        + (f" {missed} right samples were broken at no radius that was searched." if missed else "")
    )


def _body(found, radii, seeds, config, window, out, environment) -> str:
    def picture(name, alt):
        return f'<img alt="{alt}" src="data:image/png;base64,{base64.b64encode((out / name).read_bytes()).decode()}">'

    first = next(iter(found.values()))
    classes = "".join(
        f"<h3>{name.capitalize()} training</h3>{_class_table(s, config)}" for name, s in found.items()
    )
    curves = "".join(
        f"<details><summary>{name.capitalize()} training, every radius</summary>{table(*curve_rows(s))}</details>"
        for name, s in found.items()
    )
    return f"""
<h1>Robust accuracy between certificates and attacks</h1>
<p class="note">{len(seeds)} seed{"s" * (len(seeds) != 1)}, {first.y.shape[-1]} test samples each,
{BALL[first.norm]} balls of radius {first.eps[0]:.3g} to {first.eps[-1]:.3g}. The truth lies between the two curves:
every certified sample is proved right on the whole ball, for every broken one a perturbation was found that makes the
network err.</p>
{picture("robustness.png", "Robust accuracy against the radius")}
<p class="note">Lines are medians over seeds, bands the whole range. Top and bottom are counted from two radii per
sample, the largest certified and the smallest broken one; a certificate holds at every smaller radius, an adversarial
example at every larger one. Best attack is the worst, sample by sample, of all attacks and of the search of branch and
bound. In the middle every attack is run at each radius of the grid, on all samples that are not certified
there. {escape(window.sentence(config.eps_test))}.</p>
<ul>{"".join(f"<li>{escape(_verdict(name, s, seeds))}</li>" for name, s in found.items())}</ul>
<h2>Radii</h2>
{table(*radii)}
<p class="note">Median (quartiles) over the samples that are right when clean. Ratio: median of certified / broken
radius. Gaps: best attack minus certificate, where it is widest of all radii, intervals' of the grid's; off the fall:
where robust accuracy is within {SHARE:g} of clean accuracy or of 0.</p>
{_finders(found)}
{curves}
<h2>Classes at the configuration's test radius {config.eps_test:g}</h2>
{classes}
<h2>The worst example found</h2>
{picture("worst_example.png", "The worst adversarial example of each network")}
<p class="note">Of each network, the right sample that the smallest perturbation breaks. Left the coordinates of the
features u and v, right those orthogonal to them; the triangle marks patches with the robust feature.</p>
<h2>Configuration and versions</h2>
<details><summary>Configuration</summary>
{table(["key", "value"], [[k, repr(v)] for k, v in config.as_dict().items()])}</details>
<details><summary>Versions</summary>
{table(["part", "version"], [[k, v] for k, v in environment.items()])}</details>
"""
