"""Global minima made by hand: Prop. 3.1 and Thm. C.1, w = gamma v_i; Prop. 3.2 and Thm. C.2, w = gamma u_i.

Diagonal networks see only the 2k axes of the features, so the data are drawn with patch_dim = 2k.
"""

from __future__ import annotations

import numpy as np

from ..experiments.configuration import Figure3Config
from ..patches.attacks import feature_swap
from ..patches.certify import interval_margin
from ..patches.data import PatchData, PatchDistribution
from ..patches.network import PatchCNN, SmoothedReLU
from ..reporting.style import ACCURACY, CERTIFIED, NON_ROBUST, PAPER, ROBUST
from ..theory import density_ratio, robust_window
from .ledger import Assumption, Judgement, entry
from .preliminaries import narrow_law
from .statistics import shortfall, spread, wilson

ALMOST_ALL = 0.99
LIMIT = 1e8  # the gamma that stands for infinity
EXACT = 1e-10
EDGE = 1e-3


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


def robust_radius(net: PatchCNN, data: PatchData, kind: str, high: float, n_steps: int = 40) -> np.ndarray:
    """The radius (R, N) at which `worst_margin` turns, by bisection on [0, high]; 0 where the clean sample is wrong."""
    low = np.zeros((net.n_runs, len(data)))
    high = np.full(low.shape, high)
    for _ in range(n_steps):
        middle = (low + high) / 2
        stands = worst_margin(net, data, kind, middle) > 0
        low, high = np.where(stands, middle, low), np.where(stands, high, middle)
    return low


def share_wrong(margin: np.ndarray) -> tuple[float, float, float]:
    """Share of samples with margin <= 0 and its Wilson interval."""
    wrong, n = int((margin <= 0).sum()), margin.size
    return wrong / n, *wilson(wrong, n)


# ------------------------------------------------------------------ w = gamma v_i
def nonrobust_margin(gamma, c: Figure3Config, eps=0.0):
    """Noiseless margin of w = gamma v_i after the swap of radius eps, which takes from v_y what it gives to v_y'."""
    sigma, moved = SmoothedReLU(c.q, c.rho), np.minimum(eps, c.beta)
    number = c.n_neurons * (c.n_patches - c.n_robust)
    return number * (sigma(gamma * (c.beta - moved)) - sigma(gamma * moved))


@entry(
    "3.1",
    "global minima",
    "Non-robust global minima exist",
    statement="The network w_{i,r} = gamma v_i fits the data ever better as gamma grows, and one swap of non-robust "
    "features turns its error to 1.",
    formula="L = log(1 + (k-1) exp(-m P_NR sigma(gamma beta))) -> 0 without noise; error 1 under "
    "delta_p = clip_eps(beta_p (v_y' - v_y)) on J_NR",
    rule="noisy samples: risk and upper end of the standard error <= 0.01 at the largest gamma, lower end of the error "
    f"under the swap >= {ALMOST_ALL} at every gamma (Wilson); margin: the smallest slack, in shares",
)
class NonRobustMinimum:
    def measure(lab):
        c = lab.config()
        law, gammas = narrow_law(c), np.append(np.geomspace(0.5, 20, 15), (100, 1000))
        data = law.sample(1000, 31)
        net = minima("nonrobust", gammas, law, c, c.n_neurons)
        swapped = [net.margin(feature_swap(data, eps=e, rng=0), data.y) for e in (c.eps, c.eps_test)]
        clean = net.margin(data.X, data.y)
        return {
            "gamma": gammas,
            "risk": risk(net, data),
            "predicted": np.log1p((c.n_classes - 1) * np.exp(-nonrobust_margin(gammas, c))),
            "standard": np.array([share_wrong(margin) for margin in clean]),
            "swapped": np.array([share_wrong(margin) for margin in swapped[0]]),
            "at_test_radius": np.array([share_wrong(margin) for margin in swapped[1]]),
            "eps": c.eps,
            "eps_test": c.eps_test,
            "beta": c.beta,
        }

    def judge(m):
        slack = m["swapped"][:, 1].min() - ALMOST_ALL, 0.01 - m["standard"][-1, 2], 0.01 - m["risk"][-1]
        return Judgement(
            f"risk log(1 + (k-1) e^-F), {m['predicted'][0]:.2f} at gamma = {m['gamma'][0]:g}; error 1 at eps >= beta",
            f"risk {m['risk'][0]:.2f} at gamma = {m['gamma'][0]:g}, {m['risk'][-1]:.1e} at {m['gamma'][-1]:g}; error "
            f"under the swap of eps = {m['eps']:g} at least {m['swapped'][:, 0].min():.3f} "
            f"[{m['swapped'][:, 1].min():.3f}, 1] at every gamma; at eps = {m['eps_test']:g}, where it only ties, "
            f"{spread(m['at_test_radius'][:, 0])}",
            float(min(slack)),
            [Assumption("eps / beta", f"{m['eps'] / m['beta']:g}", ">= 1", m["eps"] >= m["beta"])],
        )

    def draw(axis, m):
        shown = m["risk"] > 1e-16
        predicted = np.maximum(m["predicted"], 1e-30)
        axis.plot(m["gamma"], predicted, color=ACCURACY, lw=1, label="risk, predicted (no noise)")
        axis.plot(m["gamma"][shown], m["risk"][shown], "o", color=ACCURACY, ms=4, label="risk, noisy samples")
        for key, color, marker, e in (("swapped", NON_ROBUST, "s", "eps"), ("at_test_radius", PAPER, "d", "eps_test")):
            share, low, high = m[key].T
            label, bars = rf"error under the swap, $\epsilon$ = {m[e]:g}", [share - low, high - share]
            axis.errorbar(m["gamma"], share, bars, fmt=marker, color=color, ms=3, lw=1, label=label)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_ylim(1e-13, 20)
        axis.set_xlabel(r"scale $\gamma$")
        axis.set_ylabel("risk, share of errors")


@entry(
    "C.1",
    "global minima",
    "Margins of the non-robust minima",
    statement="Clean and swapped margins of w_{i,r} = gamma v_i have opposite signs and one size, which grows without "
    "bound in gamma.",
    formula="F_y - F_j = m P_NR sigma(gamma beta); after the swap of radius eps "
    "m P_NR [sigma(gamma (beta - e)) - sigma(gamma e)], e = min(eps, beta)",
    rule=f"noiseless margins equal the formula within {EXACT:g} of its largest term, and no noisy sample has a margin "
    "of the other sign at eps >= beta; margin: decades below, or minus the share of wrong signs",
)
class NonRobustMargins:
    def measure(lab):
        c = lab.config()
        gammas, radii = np.geomspace(0.1, 1e5, 13), np.array([0, 0.25, 0.5, 0.75, 1.0, 2.0]) * c.beta
        law, noisy = narrow_law(c, noise_std=0.0), narrow_law(c).sample(500, 32)
        data, net = law.sample(2 * c.n_classes, 33, balanced=True), minima("nonrobust", gammas, law, c, c.n_neurons)
        measured = [net.margin(feature_swap(data, eps=e, rng=1), data.y) for e in radii]
        seen = [net.margin(feature_swap(noisy, eps=e, rng=1), noisy.y) for e in (0, c.beta)]
        return {
            "gamma": gammas,
            "radius": radii,
            "beta": c.beta,
            "predicted": np.array([nonrobust_margin(gammas, c, e) for e in radii]),
            "measured": np.array([[[values.min(), values.max()] for values in margin] for margin in measured]),
            "noisy": np.quantile(seen, (0, 0.5, 1), axis=-1),
            "wrong": float(max((seen[0] <= 0).mean(), (seen[1] >= 0).mean())),
        }

    def judge(m):
        error = np.abs(m["measured"] - m["predicted"][..., None]).max(axis=(0, 2)) / m["predicted"][0]
        noisy = m["noisy"][:, 0] / m["predicted"][0], m["noisy"][:, 1] / m["predicted"][0]
        return Judgement(
            f"+-{m['predicted'][0, 0]:.2g} at gamma = {m['gamma'][0]:g} to +-{m['predicted'][0, -1]:.2g} at "
            f"{m['gamma'][-1]:g}",
            f"noiseless relative deviation {error.max():.1e} at {len(m['gamma'])} scales and {len(m['radius'])} radii; "
            f"with noise the clean margin is {spread(noisy[0])} and the swapped one {spread(noisy[1])} of the clean "
            f"formula; share of wrong signs {m['wrong']:.2g}",
            -m["wrong"] if m["wrong"] else shortfall(error, EXACT),
        )

    def draw(axis, m):
        for name, row, sign in (("clean", 0, 1), (r"swapped, $\epsilon \geq \beta$", 4, -1)):
            color = ROBUST if sign > 0 else NON_ROBUST
            axis.plot(m["gamma"], m["predicted"][row], color=color, lw=1, label=f"{name}: formula")
            axis.plot(m["gamma"], m["measured"][row, :, 0], "o", color=color, ms=4, label=f"{name}: network, no noise")
            low, middle, high = m["noisy"][:, row // 4]
            bars = [middle - low, high - middle]
            axis.errorbar(m["gamma"] * 1.15, middle, bars, fmt="_", color=color, ms=4, lw=1, alpha=0.6)
        label = r"swapped, $\epsilon = \beta/4$: formula"
        axis.plot(m["gamma"], m["predicted"][1], ":", color=PAPER, lw=1, label=label)
        axis.plot(m["gamma"], m["measured"][1, :, 0], "d", color=PAPER, ms=3)
        axis.errorbar([], [], [], fmt="_", color="0.5", ms=4, label="noisy samples, all")
        axis.axhline(0, color="0.3", lw=0.8)
        axis.set_xscale("log")
        axis.set_yscale("symlog", linthresh=1e-3)
        axis.set_yticks([-1e6, -1e2, 0, 1e2, 1e6])
        axis.set_xlabel(r"scale $\gamma$")
        axis.set_ylabel(r"margin $F_y - \max_j F_j$")


# ------------------------------------------------------------------ w = gamma u_i
def linear_edge(c: Figure3Config) -> float:
    """eps* = alpha P_R / (P + P_R), where P_R (alpha - eps) = P eps: the radius of w = gamma u_i as gamma grows."""
    return c.alpha * c.n_robust / (c.n_patches + c.n_robust)


def diagonal_radius(gamma, c: Figure3Config, n_steps: int = 60) -> np.ndarray:
    """The noiseless robust radius of w = gamma u_i at every scale: P_R sigma(gamma (alpha - e)) = P sigma(gamma e)."""
    sigma, gamma = SmoothedReLU(c.q, c.rho), np.asarray(gamma, float)
    low, high = np.zeros(gamma.shape), np.full(gamma.shape, c.alpha)
    for _ in range(n_steps):
        e = (low + high) / 2
        stands = c.n_robust * sigma(gamma * (c.alpha - e)) > c.n_patches * sigma(gamma * e)
        low, high = np.where(stands, e, low), np.where(stands, high, e)
    return low


def premise(c: dict) -> Assumption:
    """P_R (alpha - eps) > P eps, of the numbers in `c`."""
    left, right = c["n_robust"] * (c["alpha"] - c["eps"]), c["n_patches"] * c["eps"]
    return Assumption("P_R (alpha - eps) against P eps", f"{left:.3g} against {right:.3g}", "larger", left > right)


def numbers(c: Figure3Config, eps: float) -> dict:
    """What `premise` and a page say of a configuration."""
    kept = {name: getattr(c, name) for name in ("n_patches", "n_robust", "alpha", "beta")}
    return kept | {"eps": eps, "edge": linear_edge(c), "density": density_ratio(**kept, exponent=c.q)}


@entry(
    "3.2",
    "global minima",
    "Robust global minima exist",
    statement="The network w_{i,r} = gamma u_i fits the data ever better as gamma grows and keeps its predictions on "
    "the whole ball (our reading: eps >= beta, gamma to infinity, the data of the other statements).",
    formula="L -> 0; F_y(X + delta) > F_j(X + delta) for ||delta||_inf <= eps, which as gamma -> infinity is "
    "P_R (alpha - eps) > P eps",
    rule="at the largest gamma, risk and upper end of the error under the exact attack of radius eps <= 0.01 (Wilson); "
    "margin: the smaller slack, in shares",
)
class RobustMinimum:
    def measure(lab):
        c = lab.config()
        law, gammas = narrow_law(c), np.append(np.geomspace(1, 1e6, 13), LIMIT)
        data, net = law.sample(60, 34), minima("robust", gammas, law, c)
        more, last = law.sample(500, 35), minima("robust", gammas[-1:], law, c)
        scale = c.rho / c.alpha  # the largest in the polynomial part
        early = minima("robust", [scale], law, c)
        lost = share_wrong(worst_margin(early, more, "robust", c.eps_test))[0]
        return {
            "gamma": gammas,
            "setting": numbers(c, c.eps),
            "eps_test": c.eps_test,
            "risk": float(risk(last, more)[0]),
            "error": np.array([share_wrong(worst_margin(last, more, "robust", e)) for e in (c.eps, c.eps_test)]),
            "early": [scale, float(risk(early, more)[0]), lost],
            "radius": np.quantile(robust_radius(net, data, "robust", c.alpha, 30), (0, 0.5, 1), axis=1),
            "fine": np.geomspace(1, LIMIT, 200),
            "predicted": diagonal_radius(np.geomspace(1, LIMIT, 200), c),
            "polynomial": robust_window(c.alpha, c.beta, c.n_patches, c.n_robust, c.q)[1],
        }

    def judge(m):
        c, (at_eps, at_test) = m["setting"], m["error"]
        return Judgement(
            f"as gamma -> infinity robust below eps* = alpha P_R / (P + P_R) = {c['edge']:.3g} only; in the polynomial "
            f"part, gamma (alpha - eps) <= rho, below eps_hi = {m['polynomial']:.3g}; with c < 1 both are below beta",
            f"risk {m['risk']:.1e}; error under the exact attack {at_eps[0]:.3f} [{at_eps[1]:.3f}, {at_eps[2]:.3f}] at "
            f"eps = {c['eps']:g} and {at_test[0]:.3f} at {m['eps_test']:g}; median radius {m['radius'][1, 0]:.3f} at "
            f"gamma = {m['gamma'][0]:g}, {m['radius'][1, -1]:.3f} at {m['gamma'][-1]:.0e}; at a finite gamma = "
            f"{m['early'][0]:.3g}, risk {m['early'][1]:.1e} and error {m['early'][2]:.3f} at eps = {m['eps_test']:g}",
            float(min(0.01 - m["risk"], 0.01 - at_eps[2])),
            [premise(c)],
        )

    def draw(axis, m):
        low, middle, high = m["radius"]
        axis.plot(m["fine"], m["predicted"], color=ROBUST, lw=1.2, label="predicted, no noise")
        bars = [middle - low, high - middle]
        axis.errorbar(m["gamma"], middle, bars, fmt="o", color=ROBUST, ms=3.5, lw=1, label="noisy samples, all")
        lines = (
            (m["setting"]["eps"], NON_ROBUST, "-", r"training radius $\epsilon$"),
            (m["eps_test"], PAPER, "-", r"test radius $\epsilon_{test}$"),
            (m["polynomial"], "0.4", "--", r"edge of the polynomial part, $\epsilon_{hi}$"),
            (m["setting"]["edge"], "0.4", ":", r"edge of the linear part, $\epsilon^*$"),
        )
        for value, color, style, label in lines:
            axis.axhline(value, color=color, ls=style, lw=1, label=label)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel(r"scale $\gamma$")
        axis.set_ylabel(r"radius at which $w = \gamma u_i$ breaks")


@entry(
    "C.2",
    "global minima",
    "Margins of the robust minima, where the premise is met",
    statement="Where P_R (alpha - eps) > P eps, the risk of w_{i,r} = gamma u_i vanishes and its error on the whole "
    "ball of radius eps is o(1); here with few patches, and on the default data at a radius far below beta.",
    formula="min_delta F_y - F_j = m [P_R sigma(gamma (alpha - eps)) - P sigma(gamma eps)] > 0 as gamma -> infinity "
    "iff eps < eps* = alpha P_R / (P + P_R)",
    rule="in both settings: risk and upper end of the error under the exact attack <= 0.01, certified share's lower "
    f"end >= {ALMOST_ALL} (Wilson), noiseless radius within {EDGE:g} of eps*; margin: the smallest slack",
)
class RobustMargins:
    #: Few patches: eps* = 0.6 lies above the default's test radius.  The default data: eps* = 0.046.
    SETTINGS = {"few patches": ({"n_patches": 8, "n_robust": 2}, 0.5), "default": ({}, 0.02)}  # noqa: RUF012

    def measure(lab):
        found = {}
        for name, (changes, eps) in RobustMargins.SETTINGS.items():
            c = lab.config(**changes)
            law, clean = narrow_law(c), narrow_law(c, noise_std=0.0)
            data, net = law.sample(1000, 36), minima("robust", [LIMIT], law, c)
            one = clean.sample(c.n_classes, 37, balanced=True)
            certified = interval_margin(net, data.X, data.y, eps=eps) <= 0
            radius = robust_radius(net, law.sample(200, 38), "robust", c.alpha)[0]
            found[name] = {
                "setting": numbers(c, eps),
                "risk": float(risk(net, data)[0]),
                "error": share_wrong(worst_margin(net, data, "robust", eps)),
                "not_certified": [float(certified.mean()), *wilson(certified.sum(), certified.size)],
                "edge": float(np.median(robust_radius(net, one, "robust", c.alpha))),
                "radius": np.sort(radius),
            }
        return found

    def judge(m):
        slack, parts, assumptions = [], [], []
        for name, found in m.items():
            c = found["setting"]
            off = abs(found["edge"] / c["edge"] - 1)
            slack += [0.01 - found["risk"], 0.01 - found["error"][2], EDGE - off]
            slack.append(1 - ALMOST_ALL - found["not_certified"][2])
            parts.append(
                f"{name} (density ratio {c['density']:.2g}): error {found['error'][0]:.3f} [{found['error'][1]:.3f}, "
                f"{found['error'][2]:.3f}] at eps = {c['eps']:g}, {found['not_certified'][0]:.3f} not certified; "
                f"noiseless radius {found['edge']:.4f} (eps* = {c['edge']:.4f}), with noise {spread(found['radius'])}"
            )
            assumptions.append(premise(c))
        return Judgement(
            "robust below eps*, broken above; eps* < beta whenever c < 1",
            "; ".join(parts),
            float(min(slack)),
            assumptions,
        )

    def draw(axis, m):
        for (name, found), color in zip(m.items(), (ROBUST, PAPER)):
            c, radius = found["setting"], np.asarray(found["radius"])
            x = np.repeat(radius, 2)
            y = 1 - np.repeat(np.arange(len(radius) + 1), 2)[1:-1] / len(radius)
            axis.plot(np.append(0.005, x), np.append(1, y), color=color, lw=1.5, label=f"{name}: exact attack")
            axis.axvline(c["edge"], color=color, ls="--", lw=1, label=rf"{name}: $\epsilon^*$ = {c['edge']:.3g}")
            share = 1 - found["not_certified"][0]
            axis.plot(c["eps"], share, "o", color=CERTIFIED, ms=5)
        axis.plot([], [], "o", color=CERTIFIED, ms=5, label=r"certified at the entry's $\epsilon$")
        axis.set_xscale("log")
        axis.set_xlim(0.01, 1.2)
        axis.set_ylim(-0.04, 1.06)
        axis.set_xlabel(r"radius $\epsilon$")
        axis.set_ylabel(r"robust accuracy, $\gamma = 10^8$")
