"""Global minima made by hand: Prop. 3.1 and Thm. C.1, w = gamma v_i; Prop. 3.2 and Thm. C.2, w = gamma u_i.

Diagonal networks see only the 2k axes of the features, so the data are drawn with patch_dim = 2k.
"""

from dataclasses import dataclass

import numpy as np

from ..experiments.configuration import Figure3Config
from ..patches.attacks import feature_swap
from ..patches.certify import interval_margin
from ..patches.data import PatchData, PatchDistribution
from ..patches.network import PatchCNN, SmoothedReLU
from ..reporting.pictures import CERTIFIED, NON_ROBUST, PAPER, ROBUST, Picture, interval, line, mark, points
from ..theory import density_ratio, robust_window
from .ledger import Check, Entry, Judgement, exact
from .preliminaries import narrow_law
from .statistics import spread, wilson

GROUP = "global minima"
ALMOST_ALL = 0.99
LIMIT = 1e8  # the gamma that stands for infinity
EDGE = 1e-3
TENS = ["-1e6", "-100", "0", "100", "1e6"]


def minima(kind: str, gammas, law: PatchDistribution, c: Figure3Config, n_neurons: int = 1) -> PatchCNN:
    """One network of `kind` "robust" or "nonrobust" per gamma, as a batch."""
    make = getattr(PatchCNN, f"{kind}_minimum")
    return PatchCNN(np.stack([make(g, law.features, n_neurons).W for g in gammas]), c.q, c.rho)


def risk(net: PatchCNN, data: PatchData) -> np.ndarray:
    """Cross-entropy log(1 + sum_{j != y} exp(F_j - F_y)), averaged, (R,); precise down to 1e-300."""
    F = net.logits(data.X)
    own = np.arange(F.shape[-1]) == data.y[:, None]
    gap = F - F[:, own][..., None]
    return np.log1p(np.where(own, 0, np.exp(np.minimum(gap, 700))).sum(axis=-1)).mean(axis=-1)


# ------------------------------------------------------------------ the exact attack on diagonal networks
def worst_margin(net: PatchCNN, data: PatchData, kind: str, eps) -> np.ndarray:
    """min over the whole l_inf ball of F_y - max_j F_j, exactly, for a diagonal network on axis-parallel features.

    Every neuron sees one coordinate, so the attacker takes eps f_y away from every patch and adds eps f_j to it, for
    the best target j.  `eps` is a number or (R, N); returns (R, N).
    """
    f, y, k = data.features[kind == "nonrobust"], data.y, net.shape[0]
    eps = np.asarray(eps)[..., None, None]
    targets = ((y + step) % k for step in range(1, k))
    return np.min([net.margin(data.X + eps * (f[j] - f[y])[:, None], y) for j in targets], axis=0)


def turning_point(stands, high, n_steps: int = 40) -> np.ndarray:
    """The radius in [0, `high`] (an array) up to which `stands(radius)`, by bisection; 0 where it never does."""
    low = np.zeros(high.shape)
    for _ in range(n_steps):
        middle = (low + high) / 2
        on = stands(middle)
        low, high = np.where(on, middle, low), np.where(on, high, middle)
    return low


def robust_radius(net: PatchCNN, data: PatchData, kind: str, high: float, n_steps: int = 40) -> np.ndarray:
    """The radius (R, N) at which `worst_margin` turns; 0 where the clean sample is wrong."""
    ends = np.full((net.n_runs, len(data)), high)
    return turning_point(lambda eps: worst_margin(net, data, kind, eps) > 0, ends, n_steps)


def share_wrong(margin: np.ndarray) -> tuple[float, float, float]:
    """Share of samples with margin <= 0 and its Wilson interval."""
    wrong, n = int((margin <= 0).sum()), margin.size
    return wrong / n, *wilson(wrong, n)


# ------------------------------------------------------------------ 3.1
def nonrobust_margin(gamma, c: Figure3Config, eps=0.0):
    """Noiseless margin of w = gamma v_i after the swap of radius eps, which takes from v_y what it gives to v_y'."""
    sigma, moved = SmoothedReLU(c.q, c.rho), np.minimum(eps, c.beta)
    return c.n_neurons * (c.n_patches - c.n_robust) * (sigma(gamma * (c.beta - moved)) - sigma(gamma * moved))


def nonrobust_minimum(lab):
    c = lab.config()
    law, gammas = narrow_law(c), np.append(np.geomspace(0.5, 20, 15), (100, 1000))
    data, net = law.sample(1000, lab.seed(31)), minima("nonrobust", gammas, law, c, c.n_neurons)
    swapped = [net.margin(feature_swap(data, eps=e, rng=lab.seed(0)), data.y) for e in (c.eps, c.eps_test)]
    found = zip(("standard", "swapped", "at_test_radius"), (net.margin(data.X, data.y), *swapped))
    return {
        "gamma": gammas, "risk": risk(net, data),
        "predicted": np.log1p((c.n_classes - 1) * np.exp(-nonrobust_margin(gammas, c))),
        **{name: np.array([share_wrong(margin) for margin in margins]) for name, margins in found},
        "eps": c.eps, "eps_test": c.eps_test, "beta": c.beta,
    }  # fmt: skip


def falls(risk):
    """The risk at each gamma, of that at the one before, as long as float64 can tell it from 0."""
    return (risk[1:] / np.maximum(risk[:-1], 1e-300))[risk[:-1] > 1e-16]


# ------------------------------------------------------------------ C.1
def nonrobust_margins(lab):
    c = lab.config()
    gammas, radii = np.geomspace(0.1, 1e5, 13), np.array([0, 0.25, 0.5, 0.75, 1.0, 2.0]) * c.beta
    law, noisy = narrow_law(c, noise_std=0.0), narrow_law(c).sample(500, lab.seed(32))
    data = law.sample(2 * c.n_classes, lab.seed(33), balanced=True)
    net = minima("nonrobust", gammas, law, c, c.n_neurons)
    measured = [net.margin(feature_swap(data, eps=e, rng=lab.seed(1)), data.y) for e in radii]
    seen = [net.margin(feature_swap(noisy, eps=e, rng=lab.seed(1)), noisy.y) for e in (0, c.beta)]
    return {
        "gamma": gammas, "radius": radii, "beta": c.beta,
        "predicted": np.array([nonrobust_margin(gammas, c, e) for e in radii]),
        "measured": np.array([[[values.min(), values.max()] for values in margin] for margin in measured]),
        "noisy": np.quantile(seen, (0, 0.5, 1), axis=-1),
        "wrong": float(max((seen[0] <= 0).mean(), (seen[1] >= 0).mean())),
    }  # fmt: skip


def judge_nonrobust_margins(m):
    error = np.abs(m["measured"] - m["predicted"][..., None]).max(axis=(0, 2)) / m["predicted"][0]
    noisy = m["noisy"][:, 0] / m["predicted"][0], m["noisy"][:, 1] / m["predicted"][0]
    return Judgement(
        [exact("noiseless margins less the formula at every radius and gamma, of its largest term", error),
         Check("share of noisy samples with a margin of the other sign at eps >= beta", m["wrong"], "<=", 0, "flag")],
        f"from +-{m['predicted'][0, 0]:.2g} at gamma = {m['gamma'][0]:g} to +-{m['predicted'][0, -1]:.2g} at "
        f"{m['gamma'][-1]:g}; with noise the clean margin is {spread(noisy[0])} and the swapped one "
        f"{spread(noisy[1])} of the clean formula",
    )  # fmt: skip


# ------------------------------------------------------------------ w = gamma u_i
@dataclass(frozen=True)
class Ball:
    """What Prop. 3.2 speaks of, data and a radius, and eps* = alpha P_R / (P + P_R), where P_R (alpha - eps) = P eps:
    the radius of w = gamma u_i as gamma grows."""

    n_patches: int
    n_robust: int
    alpha: float
    beta: float
    eps: float
    edge: float
    density: float

    @classmethod
    def of(cls, c: Figure3Config, eps: float):
        density = density_ratio(c.alpha, c.beta, c.n_patches, c.n_robust, c.q)
        return cls(c.n_patches, c.n_robust, c.alpha, c.beta, eps, linear_edge(c), density)

    @property
    def assumed(self) -> list[Check]:
        """What the paper assumes; at eps >= beta no data with c < 1 meet the premise below."""
        return [Check("density ratio c", self.density, "<", 1), Check("eps / beta", self.eps / self.beta, ">=", 1)]

    @property
    def premise(self) -> Check:
        left, right = self.n_robust * (self.alpha - self.eps), self.n_patches * self.eps
        return Check("P_R (alpha - eps), against P eps", left, ">", right)


def linear_edge(c) -> float:
    return c.alpha * c.n_robust / (c.n_patches + c.n_robust)


def diagonal_radius(gamma, c: Figure3Config) -> np.ndarray:
    """The noiseless robust radius of w = gamma u_i at every scale: P_R sigma(gamma (alpha - e)) = P sigma(gamma e)."""
    sigma, gamma, P, R = SmoothedReLU(c.q, c.rho), np.asarray(gamma, float), c.n_patches, c.n_robust
    stands = lambda e: R * sigma(gamma * (c.alpha - e)) > P * sigma(gamma * e)  # noqa: E731
    return turning_point(stands, np.full(gamma.shape, c.alpha), 60)


def robust_minimum(lab):
    c = lab.config()
    law, gammas = narrow_law(c), np.append(np.geomspace(1, 1e6, 13), LIMIT)
    data, net = law.sample(60, lab.seed(34)), minima("robust", gammas, law, c)
    more, last = law.sample(500, lab.seed(35)), minima("robust", gammas[-1:], law, c)
    scale = c.rho / c.alpha  # the largest in the polynomial part
    early = minima("robust", [scale], law, c)
    lost = share_wrong(worst_margin(early, more, "robust", c.eps_test))[0]
    return {
        "gamma": gammas, "setting": Ball.of(c, c.eps), "eps_test": c.eps_test, "risk": float(risk(last, more)[0]),
        "error": np.array([share_wrong(worst_margin(last, more, "robust", e)) for e in (c.eps, c.eps_test)]),
        "early": [scale, float(risk(early, more)[0]), lost],
        "radius": np.quantile(robust_radius(net, data, "robust", c.alpha, 30), (0, 0.5, 1), axis=1),
        "fine": np.geomspace(1, LIMIT, 200), "predicted": diagonal_radius(np.geomspace(1, LIMIT, 200), c),
        "polynomial": robust_window(c.alpha, c.beta, c.n_patches, c.n_robust, c.q)[1],
    }  # fmt: skip


def judge_robust_minimum(m):
    c, (at_eps, at_test), (scale, early_risk, lost) = m["setting"], m["error"], m["early"]
    return Judgement(
        [Check("risk at the largest gamma", m["risk"], "<=", 0.01),
         Check("error under the exact attack of radius eps, Wilson's upper end", at_eps[2], "<=", 0.01)],
        f"as gamma -> infinity robust below eps* = {c.edge:.3g} only; in the polynomial part, gamma (alpha - eps) "
        f"<= rho, below eps_hi = {m['polynomial']:.3g}; with c < 1 both are below beta; error {at_eps[0]:.3f} at "
        f"eps = {c.eps:g}, {at_test[0]:.3f} at {m['eps_test']:g}; median radius {m['radius'][1, 0]:.3f} at gamma = "
        f"{m['gamma'][0]:g}, {m['radius'][1, -1]:.3f} at {m['gamma'][-1]:.0e}; at a finite gamma = {scale:.3g}, "
        f"risk {early_risk:.1e} and error {lost:.3f} at eps = {m['eps_test']:g}",
        c.assumed,
    )  # fmt: skip


# ------------------------------------------------------------------ C.2
def robust_margins(lab):
    c = lab.config()
    law, gammas = narrow_law(c, noise_std=0.0), np.append(np.geomspace(1, 1e6, 13), LIMIT)
    data, net = law.sample(2 * c.n_classes, lab.seed(39), balanced=True), minima("robust", gammas, law, c)
    sigma = net.activation
    return {
        "gamma": gammas, "setting": Ball.of(c, c.eps), "clean": net.margin(data.X, data.y).min(axis=1),
        "margin": np.sort(worst_margin(net, data, "robust", c.eps))[:, [0, -1]],
        "predicted": c.n_robust * sigma(gammas * (c.alpha - c.eps)) - c.n_patches * sigma(gammas * c.eps),
    }  # fmt: skip


def judge_robust_margins(m):
    error = np.abs(m["margin"] - m["predicted"][:, None]).max(axis=1) / m["clean"]
    c, left = m["setting"], m["margin"][:, 0] / m["clean"]
    return Judgement(
        [exact("least margin on the ball less the formula at every gamma, of the clean margin", error),
         Check("least margin on the ball at the largest gamma, of the clean margin", left[-1], ">", 0)],
        f"of the clean margin {left[0]:.3g} at gamma = {m['gamma'][0]:g}; c = {c.density:.2g}, eps* = {c.edge:.3g}",
        c.assumed,
    )  # fmt: skip


# ------------------------------------------------------------------ where the premise is met
#: Few patches: eps* = 0.6 lies above the default's test radius.  The default data: eps* = 0.046.
BALLS = {"few patches": ({"n_patches": 8, "n_robust": 2}, 0.5), "default": ({}, 0.02)}


def premise_met(lab):
    found = {}
    for name, (changes, eps) in BALLS.items():
        c = lab.config(**changes)
        law, clean = narrow_law(c), narrow_law(c, noise_std=0.0)
        data, net = law.sample(1000, lab.seed(36)), minima("robust", [LIMIT], law, c)
        one = clean.sample(c.n_classes, lab.seed(37), balanced=True)
        found[name] = {
            "setting": Ball.of(c, eps), "risk": float(risk(net, data)[0]),
            "error": share_wrong(worst_margin(net, data, "robust", eps)),
            "not_certified": share_wrong(interval_margin(net, data.X, data.y, eps=eps)),
            "edge": float(np.median(robust_radius(net, one, "robust", c.alpha))),
            "radius": np.sort(robust_radius(net, law.sample(200, lab.seed(38)), "robust", c.alpha)[0]),
        }  # fmt: skip
    return found


def judge_premise_met(m):
    checks, notes = [], []
    for name, found in m.items():
        c = found["setting"]
        checks += [
            Check(f"{name}: risk", found["risk"], "<=", 0.01),
            Check(f"{name}: error under the exact attack, eps = {c.eps:g}, upper end", found["error"][2], "<=", 0.01),
            Check(f"{name}: not certified, upper end", found["not_certified"][2], "<=", 1 - ALMOST_ALL),
            Check(f"{name}: noiseless radius / eps*, less 1", abs(found["edge"] / c.edge - 1), "<=", EDGE),
        ]
        notes.append(f"{name}: c = {c.density:.2g}, eps* = {c.edge:.4f}, radius with noise {spread(found['radius'])}")
    return Judgement(checks, "; ".join(notes), [found["setting"].premise for found in m.values()])


P31 = Entry(
    "3.1", GROUP, "Non-robust global minima exist",
    "The network w_{i,r} = gamma v_i fits the data ever better as gamma grows, and one swap of non-robust features "
    "turns its error to 1 (noisy samples).",
    "L = log(1 + (k-1) exp(-m P_NR sigma(gamma beta))) -> 0 without noise; error 1 under delta_p = clip_eps(beta_p "
    "(v_y' - v_y)) on J_NR",
    nonrobust_minimum,
    lambda m: Judgement(
        [Check("error under the swap at every gamma, Wilson's lower end", m["swapped"][:, 1], ">=", ALMOST_ALL),
         Check("standard error at the largest gamma, upper end", m["standard"][-1, 2], "<=", 0.01),
         Check("risk at the largest gamma", m["risk"][-1], "<=", 0.01, shown=f"{m['risk'][-1]:.1e}"),
         Check("risk at a gamma, of that at the one before, until it is below 1e-16", falls(m["risk"]), "<", 1)],
        f"risk {m['risk'][0]:.2f} at gamma = {m['gamma'][0]:g}, {m['predicted'][0]:.2f} predicted; error at eps = "
        f"{m['eps_test']:g}, where the swap only ties, {spread(m['at_test_radius'][:, 0])}",
        [Check("eps / beta", m["eps"] / m["beta"], ">=", 1)]),
    lambda m: Picture(r"scale $\gamma$", "risk, share of errors", [
        line(m["gamma"], np.maximum(m["predicted"], 1e-30), "risk, predicted (no noise)", lw=1),
        points(m["gamma"], np.where(m["risk"] > 1e-16, m["risk"], np.nan), "risk, noisy samples", size=4, alpha=1),
        interval(m["gamma"], *m["swapped"].T, rf"error, swap of $\epsilon$ = {m['eps']:g}", NON_ROBUST, "s"),
        interval(m["gamma"], *m["at_test_radius"].T, rf"error, swap of $\epsilon$ = {m['eps_test']:g}", PAPER, "d"),
    ], "xy", ylim=(1e-13, 20)),
)  # fmt: skip
C1 = Entry(
    "C.1", GROUP, "Margins of the non-robust minima",
    "Clean and swapped margins of w_{i,r} = gamma v_i have opposite signs and one size, which grows without bound "
    "in gamma.",
    "F_y - F_j = m P_NR sigma(gamma beta); after the swap of radius eps m P_NR [sigma(gamma (beta - e)) - "
    "sigma(gamma e)], e = min(eps, beta)",
    nonrobust_margins, judge_nonrobust_margins, lambda m: Picture(r"scale $\gamma$", r"margin $F_y - \max_j F_j$", [
        *(layer for name, row, color in (("clean", 0, ROBUST), (r"swapped, $\epsilon \geq \beta$", 4, NON_ROBUST),
                                       (r"swapped, $\epsilon = \beta/4$", 1, PAPER)) for layer in (
            line(m["gamma"], m["predicted"][row], f"{name}: formula", color, lw=1),
            points(m["gamma"], m["measured"][row, :, 0], f"{name}: network, no noise", color, size=4, alpha=1))),
        *(interval(m["gamma"] * 1.15, *m["noisy"][[1, 0, 2], i], "noisy samples, all", "0.5", "_") for i in (0, 1)),
    ], "x", symlog={"y": 1e-3}, ticks={"y": ([-1e6, -1e2, 0, 1e2, 1e6], TENS)}),
)  # fmt: skip
P32 = Entry(
    "3.2", GROUP, "Robust global minima exist",
    "The network w_{i,r} = gamma u_i fits the data ever better as gamma grows and keeps its predictions on the "
    "whole ball (our reading: eps >= beta, gamma to infinity, the data of the other statements).",
    "L -> 0; F_y(X + delta) > F_j(X + delta) for ||delta||_inf <= eps, which as gamma -> infinity is P_R (alpha - "
    "eps) > P eps",
    robust_minimum, judge_robust_minimum,
    lambda m: Picture(r"scale $\gamma$", r"radius at which $w = \gamma u_i$ breaks", [
        line(m["fine"], m["predicted"], "predicted, no noise", ROBUST),
        interval(m["gamma"], *m["radius"][[1, 0, 2]], "noisy samples, all", ROBUST),
        mark(y=m["setting"].eps, label=r"training radius $\epsilon$", color=NON_ROBUST, style="-"),
        mark(y=m["eps_test"], label=r"test radius $\epsilon_{test}$", color=PAPER, style="-"),
        mark(y=m["polynomial"], label=r"edge of the polynomial part, $\epsilon_{hi}$"),
        mark(y=m["setting"].edge, label=r"edge of the linear part, $\epsilon^*$", style=":"),
    ], "xy"),
)  # fmt: skip
C2 = Entry(
    "C.2", GROUP, "Margins of the robust minima",
    "The least margin of w_{i,r} = gamma u_i on the whole ball of radius eps (our reading: eps = beta, the data of the "
    "other statements) grows without bound in gamma.",
    "min_delta F_y - F_j = m [P_R sigma(gamma (alpha - eps)) - P sigma(gamma eps)] -> infinity; positive as gamma -> "
    "infinity iff eps < eps* = alpha P_R / (P + P_R)",
    robust_margins, judge_robust_margins, lambda m: Picture(r"scale $\gamma$", r"margin $F_y - \max_j F_j$", [
        line(m["gamma"], m["clean"], "clean", ROBUST),
        line(m["gamma"], m["predicted"], r"whole ball, $\epsilon = \beta$: formula", "k", lw=1),
        points(m["gamma"], m["margin"][:, 0], "exact attack", NON_ROBUST, size=4, alpha=1), mark(y=0),
    ], "x", symlog={"y": 1e-3}, ticks={"y": ([-1e6, -1e2, 0, 1e2, 1e6], TENS)}),
)  # fmt: skip
P32_MET = Entry(
    "3.2 (premise met)", GROUP, "Robust global minima exist where P_R (alpha - eps) > P eps",
    "Where P_R (alpha - eps) > P eps, the risk of w_{i,r} = gamma u_i vanishes and its error on the whole ball of "
    "radius eps is o(1); here with few patches at c = 9, against Assumption 2.3, and on the default data at eps = "
    "beta/50.",
    "min_delta F_y - F_j = m [P_R sigma(gamma (alpha - eps)) - P sigma(gamma eps)] > 0 as gamma -> infinity iff eps "
    "< eps* = alpha P_R / (P + P_R)",
    premise_met, judge_premise_met,
    lambda m: Picture(r"radius $\epsilon$", r"robust accuracy, $\gamma = 10^8$", [
        layer for (name, found), color in zip(m.items(), (ROBUST, PAPER)) for layer in (
            line(np.append(0.005, found["radius"]), np.linspace(1, 0, 201), f"{name}: exact attack", color),
            mark(x=found["setting"].edge, label=rf"{name}: $\epsilon^*$ = {found['setting'].edge:.3g}", color=color),
            points([found["setting"].eps], [1 - found["not_certified"][0]], "certified there", CERTIFIED, "D", 5, 1))
    ], "x", xlim=(0.01, 1.2), ylim=(-0.04, 1.06)), "ours", weaker_than="3.2",
)  # fmt: skip
