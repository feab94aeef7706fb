"""Standard training without noise, after the non-robust feature has reached the linear part (D.10, D.11)."""

from __future__ import annotations

import numpy as np

from ..kernels import formulas
from ..reporting.style import ACCURACY, CERTIFIED, NON_ROBUST, PAPER, ROBUST
from .lab import SMALL_RHO, at, first_record
from .ledger import Judgement, entry
from .standard import GROUP, fit_paired, smallest, within
from .standard_bounds import outputs
from .standard_stages import ORDER, SHARP, ahead, described, over_init, own_output, premise, races
from .statistics import spread


def late_bound(A, gained, setting) -> np.ndarray:
    """The most that max_s A can be when max_s B, in the linear part, has gained `gained` since A stood at `A`.

    There B gains (eta/k)(1 - logit) P_NR beta a step, while A gains at most (eta/k)(1 - logit) rho^(1-q) P_R alpha^q
    A^(q-1).  As A^(2-q) is convex, A(t)^(2-q) >= A^(2-q) - (q-2) rho^(1-q) P_R alpha^q gained / (P_NR beta).
    """
    q, others = setting["q"], setting["n_patches"] - setting["n_robust"]
    rate = setting["rho"] ** (1 - q) * setting["n_robust"] * setting["alpha"] ** q / (others * setting["beta"])
    return np.maximum(A ** (2.0 - q) - (q - 2) * rate * gained, 0) ** (-1 / (q - 2))


def duration_bound(F1, setting) -> np.ndarray:
    """T2 - T1 - 1 is less than this where F_y = F1 < 2 log k at T1; T2 = T1 elsewhere.

    One neuron in the linear part adds (eta/k)(1 - logit)(P_NR beta)^2 to F_y a step, and 1 - logit is at least
    (k-1)/(k-1+k^2) while F_y < 2 log k.
    """
    k = setting["n_classes"]
    slope = (setting["n_patches"] - setting["n_robust"]) * setting["beta"]
    return np.maximum(2 * np.log(k) - F1, 0) / (setting["lr"] / k * (k - 1) / (k - 1 + k**2) * slope**2)


def growth(runs, start, end) -> tuple[np.ndarray, np.ndarray]:
    """A's growth from "A1" on to `end` ("A2", "A_end") over its bound, and the growth itself, pairs of all runs."""
    grown, limit = [], []
    for run in runs.values():
        A, B, later, gained = (ahead(run, name) for name in ("A" + start, "B" + start, "A" + end, "B" + end))
        grown.append(later / A)
        limit.append(late_bound(A, gained - B, run["setting"]) / A)
    grown = np.concatenate(grown)
    return grown, grown / np.concatenate(limit)


@entry(
    "D.10",
    GROUP,
    "Non-robust feature learning arrives at the linear region",
    statement="From T1 on the class's output reaches the order log k within a time that does not depend on sigma_0, "
    "while the robust feature stays of the order sigma_0; our reading: T2 is the first t >= T1 with F_y >= 2 log k.",
    formula="T2 - T1 - 1 <= (2 log k - F_y^(T1)) k / (eta (P_NR beta)^2 (k-1)/(k-1+k^2)) = O~(k^2/eta); A(T2)^{2-q} >= "
    "A(T1)^{2-q} - (q-2) rho^{1-q} P_R alpha^q (B(T2) - B(T1)) / (P_NR beta), so A(T2) = O~(sigma_0)",
    rule=f"both bounds (A's + {SHARP:.0%}) for every pair with the premise, in every k, m, sigma_0, P; exponents in "
    f"sigma_0 within -1 +- {ORDER:g} for T1, 0 +- {ORDER:g} for T2 - T1, 1 +- {ORDER:g} for A(T2), intervals and all; "
    f"margin: the smallest of 1 - (T2-T1-1)/bound, 1 - (growth/bound - 1)/{SHARP:g}, 1 - |exponent's error|/{ORDER:g}",
)
class LinearRegion:
    def measure(lab):
        return {"runs": races(lab)}

    def fits(m):
        x, found = over_init(m["runs"], [lambda p: p["T1"], lambda p: p["T2"] - p["T1"], lambda p: p["A2"]])
        return [fit_paired(x, y) for y in found]

    def judge(m):
        runs, fits = m["runs"], LinearRegion.fits(m)
        took = np.concatenate([ahead(run, "T2") - ahead(run, "T1") for run in runs.values()])
        limit = np.concatenate([duration_bound(ahead(run, "F1"), run["setting"]) for run in runs.values()])
        T1 = np.concatenate([ahead(run, "T1") for run in runs.values()])
        steps = np.where(took > 0, (took - 1) / np.maximum(limit, 1e-300), 0)
        grown, share = growth(runs, "1", "2")
        return Judgement(
            "T2 - T1 and A(T2) below their bounds; exponents -1 (T1), 0 (T2 - T1), 1 (A(T2)) in sigma_0",
            f"T2 - T1 {spread(took)} iterations, {spread(took / T1, 2)} of T1, (T2 - T1 - 1)/bound "
            f"{spread(steps)}; A(T2)/A(T1) {spread(grown, 4)}; exponents {fits[0]}, {fits[1]}, {fits[2]}; "
            f"over {described(runs)}",
            smallest(
                1 - steps,
                1 - (share - 1) / SHARP,
                *(within(fit, expected, ORDER) for fit, expected in zip(fits, (-1, 0, 1))),
            ),
            [premise(runs)],
        )

    def draw(axis, m):
        """T1 and T2 - T1 of every pair over sigma_0, with their predicted powers, and the bound of T2 - T1."""
        x, (T1, took, limit) = over_init(
            m["runs"],
            [lambda p: p["T1"], lambda p: p["T2"] - p["T1"], lambda p: 1 + duration_bound(p["F1"], SMALL_RHO)],
        )
        jitter = np.geomspace(0.94, 1.06, T1.shape[1])
        for y, power, color, name in ((T1, -1, NON_ROBUST, "T1"), (took, 0, PAPER, "T2 - T1")):
            axis.plot((x[:, None] * jitter).ravel(), y.ravel(), "o", color=color, ms=2.5, mew=0, alpha=0.5, label=name)
            middle = np.nanmedian(y, axis=1)
            line = middle[1] * (x / x[1]) ** power
            axis.plot(x, line, color=color, lw=1, label=f"sigma_0^{power}" if power else "constant")
        axis.plot(x, np.nanmax(limit, axis=1), "k--", lw=1, label="bound of T2 - T1")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("sigma_0 (a point per seed and class)")
        axis.set_ylabel("iterations")


# ------------------------------------------------------------------ D.11
LATE = 10  # dF_y/dlog t is taken LATE times e^F(T2)/c after T2, when it is 1 up to 1/(LATE + 1) in the bound
SLOPE = 0.1  # how far dF_y / dlog t may be from 1 in the median; more while another neuron joins


def after(setting, recursion) -> dict:
    """F_y and max_s B of every class from its first record with F_y >= 2 log k on, and F_y's logarithmic bound.

    A step adds at most (eta/k)(1 - logit) G to F_y, where G = (P_NR beta)^2 sum_s sigma'(beta B_s)^2 + (P_R alpha)^2
    sum_s sigma'(alpha A_s)^2 at the end (slopes only rise), and 1 - logit <= (k-1) e^(tau - F_y).  With c = (eta/k)
    (k-1) e^tau G and e^x <= 1 + x e^x:  e^F(t) <= e^F(T2) + c e^(c e^-F(T2)) (t - T2).
    """
    k, q, rho = setting["n_classes"], setting["q"], setting["rho"]
    t, F = recursion.iteration[:, None, None], own_output(recursion.phi, setting)
    others = outputs(recursion.phi[0], setting) * (1 - np.eye(k))
    G = 0.0
    for C, strength, count in (
        (recursion.A[-1], setting["alpha"], setting["n_robust"]),
        (recursion.B[-1], setting["beta"], setting["n_patches"] - setting["n_robust"]),
    ):
        G = G + (count * strength) ** 2 * (formulas.sigma_prime(strength * C, q, rho) ** 2).sum(axis=-1)
    c = setting["lr"] / k * (k - 1) * np.exp(others.max(axis=-1)) * G
    index = first_record(recursion.iteration, 2 * np.log(k) <= F)
    F2, T2 = at(F, index), recursion.iteration[index].astype(float)
    held = (index >= 0) & (t >= T2)
    since = np.where(held, t - T2, np.nan)
    limit = np.log(np.exp(F2) + c * np.exp(c * np.exp(-F2)) * since)
    return {
        "since": since,
        "F": np.where(held, F, np.nan),
        "B": np.where(held, recursion.B.max(axis=-1), np.nan),
        "limit": limit,
        "reached": index >= 0,
        "scale": np.exp(F2) / c,
    }


def log_slopes(m) -> np.ndarray:
    """dF_y / dlog(t - T2) of each class from LATE of its own time scales after T2 on, where it has had that long."""
    since, F = (m["after"][name].reshape(len(m["after"]["F"]), -1).T for name in ("since", "F"))
    slopes = []
    for x, y, scale in zip(since, F, m["after"]["scale"].ravel()):
        late = x >= LATE * scale
        if late.sum() >= 50:
            slopes.append(np.polyfit(np.log(x[late]), y[late], 1)[0])
    return np.array(slopes)


@entry(
    "D.11",
    GROUP,
    "After the linear region is reached",
    statement="For all later times the correlations grow logarithmically at most: max_s B = O~(1), and the robust "
    "feature stays of the order sigma_0 to the end where B began ahead.",
    formula="e^{F_y(t)} <= e^{F_y(T2)} + c e^{c e^{-F_y(T2)}} (t - T2), c = (eta/k)(k-1) e^tau G; beta max_s B <= "
    "(1 - 1/q) rho + F_y/P_NR; A(T)^{2-q} >= A(T1)^{2-q} - (q-2) rho^{1-q} P_R alpha^q (B(T) - B(T1))/(P_NR beta)",
    rule=f"F_y and max_s B below their bounds + {SHARP:g} at every record after T2 of every class, whichever feature "
    f"it learned; median dF_y/dlog t late in training within 1 +- {SLOPE:g}; A(T) <= its bound + {SHARP:.0%} for pairs "
    f"with the premise, its exponent in sigma_0 within 1 +- {ORDER:g}; margin: the smallest of 1 - excess/allowed",
)
class LateTimes:
    def measure(lab):
        found = lab.small(False)
        return {
            "runs": races(lab),
            "after": after(SMALL_RHO, found),
            "n_iter": int(found.iteration[-1]),
        }

    def judge(m):
        runs, late = m["runs"], m["after"]
        excess = np.nanmax(late["F"] - late["limit"])
        q, rho, beta = (SMALL_RHO[name] for name in ("q", "rho", "beta"))
        P_NR = SMALL_RHO["n_patches"] - SMALL_RHO["n_robust"]
        B_excess = np.nanmax(beta * late["B"] - (1 - 1 / q) * rho - late["F"] / P_NR)
        slopes = log_slopes(m)
        grown, share = growth(runs, "1", "_end")
        x, (A,) = over_init(runs, [lambda p: p["A_end"]])
        fit = fit_paired(x, A)
        constants = [np.median(ahead(run, "A_end")) / run["setting"]["init_std"] for run in runs.values()]
        return Judgement(
            "F_y ~ log t below its bound; A(T) ~ sigma_0",
            f"F_y - bound at most {excess:.3f} over {int(late['reached'].sum())} classes, dF_y/dlog t {spread(slopes)} "
            f"of {len(slopes)}, max_s B {spread(late['B'][-1])} at t = {m['n_iter']}; A(T)/A(T1) {spread(grown, 4)}, "
            f"exponent {fit}, median A(T)/sigma_0 {spread(constants)} over {described(runs)}",
            smallest(
                1 - excess / SHARP,
                1 - B_excess / SHARP,
                1 - abs(np.median(slopes) - 1) / SLOPE if len(slopes) else np.nan,
                1 - (share - 1) / SHARP,
                within(fit, 1, ORDER),
            ),
            [premise(runs)],
        )

    def draw(axis, m):
        """F_y of every class after its T2 on logarithmic time, by the feature that it learned, and the bounds."""
        late = m["after"]
        pairs = m["runs"]["", 0]["pairs"]
        robust = pairs["A_end"] >= SMALL_RHO["rho"] / SMALL_RHO["alpha"]
        since, F, limit = (late[name] for name in ("since", "F", "limit"))
        since, bounds = np.where(since > 0, since, np.nan), "bound of the median class"
        for chosen, color, name in ((~robust, NON_ROBUST, "learned v alone"), (robust, ROBUST, "learned u, or both")):
            for r, i in np.argwhere(chosen & late["reached"]):
                axis.plot(since[:, r, i], F[:, r, i], color=color, lw=0.8, alpha=0.5, label=name)
                name = None
            middle = np.where(chosen & late["reached"], late["F"][-1], np.nan)
            if np.isfinite(middle).any():
                r, i = np.unravel_index(np.nanargmin(np.abs(middle - np.nanmedian(middle))), robust.shape)
                axis.plot(since[:, r, i], limit[:, r, i], "--", color=CERTIFIED, lw=1.2, label=bounds)
                bounds = None
        x = np.geomspace(200, np.nanmax(since), 20)
        axis.plot(x, np.nanmin(F[-1]) - 0.5 + np.log(x / x[-1]), color=ACCURACY, lw=1, label="slope 1 in log t")
        axis.set_xscale("log")
        axis.set_xlabel("iterations since T2")
        axis.set_ylabel("F_y on a clean sample")
