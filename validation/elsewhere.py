"""Predicted times on settings that no rule was made on: the default's networks with noise, its larger sibling, q = 2
with few patches, and q = 5 where every direction is a feature."""

from functools import partial

import numpy as np

from ..patches.features import q_sum
from ..reporting.pictures import NON_ROBUST, ROBUST, Picture, diagonal, points
from ..theory import LeadingOrder, plateau
from ..theory.events import crossing
from ..training.loop import train
from .adversarial_stages import MOST, TYPICAL
from .lab import SMALL_RHO, shared
from .ledger import Check, Entry, Judgement
from .preliminaries import SIBLING
from .statistics import spread

NEAR_PLATEAU = 0.05
#: Of simulations; lr so that the flow from 1.5 sigma_0 takes off at iteration 400, as in `configurations`.
SETTINGS = {
    "q = 2": SMALL_RHO.but(q=2),
    "q = 5": SMALL_RHO.but(q=5, alpha=1.5, init_std=0.04, patch_dim=2 * SMALL_RHO.n_classes),
}


def leading_order(c, n_nonrobust: int) -> LeadingOrder:
    """Of anything with the numbers of a setting as attributes."""
    names = ("n_classes", "alpha", "beta", "n_robust", "q", "rho", "lr", "ascent_lr", "eps")
    return LeadingOrder(n_nonrobust=n_nonrobust, **{name: getattr(c, name) for name in names})


def compared(c, t, A, B) -> dict:
    """Take-off, max_s B = B*/2, and Phase II, sum_s (B_s)_+^q = (B*)^q / 2, of every class (R, k): measured between
    records of A, B (T, R, k, m), by the flow and in closed form; and (sum_s (B_s)_+^q)^(1/q) / B* at the end."""
    lead, star = leading_order(c, c.n_patches - c.n_robust), plateau(c.beta, c.q, c.rho, c.ascent_lr)
    top, total = B.max(axis=-1), q_sum(B, c.q) / star
    start, x0, n = (A[0].astype(float), B[0].astype(float)), top[0].astype(float), top[0].shape
    return {
        "plateau": total[-1], "last": int(t[-1]),
        "leads": lead.take_off_time("B", x0, star / 2) < lead.take_off_time("A", start[0].max(-1), c.rho / c.alpha),
        "measured": np.stack([crossing(t, x, np.full(n, y)) for x, y in ((top, star / 2), (total, 0.5 ** (1 / c.q)))]),
        "flow": np.stack([lead.passage_time(*start, "B", star / 2, rtol=1e-6), lead.phase_two_time(*start, rtol=1e-6)]),
        "closed form": np.stack([lead.take_off_time("B", x0, star / 2), lead.phase_two_estimate(start[1])]),
    }  # fmt: skip


@shared
def of_networks(lab) -> dict:
    """The default's adversarial story, and its larger sibling trained likewise."""
    story, c = lab.story(True), lab.config(**SIBLING | {"n_seeds": 2})
    h = story.history
    found = {"default": compared(story.config, h["iteration"], h["A"], h["B"])}
    h = train(c.network(), c.data("train"), c.training(True)).history
    return found | {"larger sibling": compared(c, h["iteration"], h["A"], h["B"])}


def of_setting(name, lab) -> dict:
    c = SETTINGS[name]
    typical, level = np.float64(1.5 * c.init_std), c.plateau / 2
    c = c.but(lr=float(c.lr * c.leading_order.take_off_time("B", typical, level) / 400))
    found = c.simulate(c.start(lab.seeds), 4000, 2, ascent_lr=c.ascent_lr, eps=c.eps)
    return {name: compared(c, found.iteration, found.A, found.B)}


def error(run, of: str, event: int) -> np.ndarray:
    """predicted / measured - 1 of the classes whose B leads and in which it happens, not at the start; 1 where it never
    should."""
    seen = run["leads"] & (run["measured"][event] > 0)
    predicted = run[of][event][seen]
    return np.where(np.isfinite(predicted), predicted / run["measured"][event][seen] - 1, 1.0)


def judge(m) -> Judgement:
    checks, told = [], []
    for name, run in m.items():
        for event, what in enumerate(("take-off", "Phase II")):
            off, closed = (error(run, of, event) for of in ("flow", "closed form"))
            sizes = np.quantile(np.abs(off), (0.5, 0.9)) if off.size else [np.nan] * 2
            text = f"relative error of the flow's time of {what}, {name}, all classes whose B leads"
            checks += [Check(f"{text}: median", sizes[0], "<=", TYPICAL, "share", f"{sizes[0]:.3f} ({spread(off)})"),
                       Check(f"{text}: nine in ten", sizes[1], "<=", MOST, "share")]  # fmt: skip
            told.append(f"{name}, {what}: closed form off by {spread(closed)}")
        seen = np.isfinite(run["measured"]).all(axis=0)[run["leads"]]
        told.append(f"{name}: {seen.sum()} of {seen.size} such classes get there")
        checks.append(Check(f"|(sum_s (B_s)_+^q)^(1/q) / B* - 1| at the end, {name}, those", np.abs(
            run["plateau"][run["leads"]][seen] - 1), "<=", NEAR_PLATEAU, "share",
            spread(run["plateau"][run["leads"]][seen])))  # fmt: skip
    return Judgement(checks, "; ".join(told))


def draw(m) -> Picture:
    layers = []
    for (name, run), marker in zip(m.items(), "os"):
        for what, color, *times in zip(("take-off", "Phase II"), (NON_ROBUST, ROBUST), *(
                run[part] for part in ("measured", "closed form", "flow"))):  # fmt: skip
            measured, closed, flow = times
            layers += [points(measured, closed, "closed form", "0.4", "."),
                       points(measured, flow, f"{what}, {name}", color, marker)]  # fmt: skip
    seen = np.concatenate([run["measured"].ravel() for run in m.values()])
    ends = diagonal(np.nanmin(seen), np.nanmax(seen), None, MOST)
    return Picture("measured, iterations", "predicted, iterations", [*ends, *layers], "xy")


def entry(label, title, statement, measure):
    return Entry(label, "times", title, statement, "flow of A, B as in 5.2; closed forms as in times (take-off), "
                 "times (phase two)", measure, judge, draw, "ours")  # fmt: skip


DEFAULT = entry(
    "times (default)", "Take-off, Phase II and plateau of the default's networks",
    "On networks with noise, the default's and its larger sibling's, the non-robust feature takes off, Phase II starts "
    "and B stops when and where the flow says.", of_networks,
)  # fmt: skip
Q2 = entry(
    "times (q = 2)", "Take-off, Phase II and plateau at q = 2",
    "At q = 2, where growth is exponential, the non-robust feature takes off, Phase II starts and B stops when and "
    "where the flow says.", partial(of_setting, "q = 2"),
)  # fmt: skip
Q5 = entry(
    "times (q = 5)", "Take-off, Phase II and plateau at q = 5 and d = 2k",
    "At q = 5 and d = 2k, where all of a weight is features, the non-robust feature takes off, Phase II starts and B "
    "stops when and where the flow says, whatever it neglects.", partial(of_setting, "q = 5"),
)  # fmt: skip
