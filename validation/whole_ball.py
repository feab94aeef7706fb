"""Which networks can be robust on the whole l_inf ball (docs/robust-window.md): the window, and the contradiction."""

from __future__ import annotations

from itertools import permutations
from typing import NamedTuple

import numpy as np

from ..patches.certify import interval_margin
from ..patches.data import PatchData, PatchDistribution
from ..patches.network import PatchCNN
from ..reporting.style import ACCURACY, CERTIFIED, NON_ROBUST, PAPER, ROBUST
from ..theory.window import contradiction, density_ratio, robust_window
from .ledger import Assumption, Judgement, entry
from .minima import robust_radius
from .statistics import shortfall

CLOSE = 1e-3
SCALE = 0.5  # of rho, the largest preactivation of the window's networks: the polynomial part


class Numbers(NamedTuple):
    """Everything that robustness on the whole ball depends on."""

    alpha: float
    beta: float
    n_patches: int
    n_robust: int
    q: int

    def sample(self, k: int, d: int | None = None) -> PatchData:
        """One noiseless sample per class."""
        strengths = {"alpha": self.alpha, "beta": self.beta}
        patches = {"n_patches": self.n_patches, "n_robust": self.n_robust}
        law = PatchDistribution(n_classes=k, patch_dim=d or 2 * k, **strengths, **patches)
        return law.sample(k, 0, balanced=True)


# ------------------------------------------------------------------ the window
def along_patches(config, n_points: int) -> list[Numbers]:
    """The default strengths with 2 to 2048 patches, the default's own number among them."""
    patches = {config.n_patches, *np.geomspace(2, 2048, n_points).round().astype(int).tolist()}
    return [Numbers(config.alpha, config.beta, P, config.n_robust, config.q) for P in sorted(patches)]


def drawn(n: int) -> list[Numbers]:
    """Settings without a pattern: strengths in [0.5, 5], 2 to 200 patches, q in 2..5."""
    rng, found = np.random.default_rng(9), []
    for _ in range(n):
        P = int(rng.integers(2, 200))
        robust = int(rng.integers(1, 2 + P // 8))
        found.append(Numbers(*rng.uniform(0.5, 5, 2), P, robust, int(rng.integers(2, 6))))
    return found


def radii(numbers: Numbers, k: int = 2, n_neurons: int = 2) -> list[tuple[float, float]]:
    """Measured radius of w = B v_i and of w = A u_i, each with the certificate's margin just below the prediction."""
    data, found = numbers.sample(k), []
    low, high = robust_window(*numbers)
    for kind, predicted, strength in (("nonrobust", low, numbers.beta), ("robust", high, numbers.alpha)):
        make = getattr(PatchCNN, f"{kind}_minimum")
        net = make(SCALE / strength, data.features, n_neurons, q=numbers.q)
        batch = net.with_weights(net.W[None])
        radius = robust_radius(batch, data, kind, strength, 32).min()
        below = interval_margin(net, data.X, data.y, eps=predicted * (1 - CLOSE)).min()
        found.append((float(radius), float(below)))
    return found


@entry(
    "window",
    "global minima",
    "Window of test radii",
    statement="In the polynomial part, w = B v_i breaks at eps_lo and w = A u_i holds up to eps_hi, so that radii in "
    "between tell the two apart (ours, not the paper's).",
    formula="eps_lo = beta / (1 + (P / P_NR)^(1/q)), eps_hi = alpha / (1 + (P / P_R)^(1/q))",
    rule=f"radii of networks under the exact attack within {CLOSE:g} of the prediction, and certified just below it; "
    "margin: decades below, or -1 where a certificate is missing",
)
class PolynomialWindow:
    def measure(lab):
        c = lab.config()
        line, others = along_patches(c, 12 if lab.quick else 40), drawn(12 if lab.quick else 60)
        settings = line + others
        found = np.array([radii(numbers) for numbers in settings])
        return {
            "setting": np.array(settings, float),
            "line": len(line),
            "predicted": np.array([robust_window(*numbers) for numbers in settings]),
            "measured": found[..., 0],
            "certificate": found[..., 1],
            "density": np.array([density_ratio(*numbers) for numbers in settings]),
            "default": np.array([*c.window().ends, c.eps_test]),
            "beta": c.beta,
        }

    def judge(m):
        error = np.abs(m["measured"] / m["predicted"] - 1)
        lacking = int((m["certificate"] <= 0).sum())
        dense, empty = m["density"] < 1, m["measured"][:, 0] >= m["measured"][:, 1]
        high = m["measured"][dense, 1] / m["setting"][dense, 1]
        low, high_default, test = m["default"]
        return Judgement(
            f"default window ({low:.3f}, {high_default:.3f}) around eps_test = {test:g}; eps_hi < beta where c < 1",
            f"largest relative deviation {error.max():.1e} over {error.size} radii, {lacking} without a certificate "
            f"just below; where c < 1 ({dense.sum()} settings) eps_hi is at most {high.max():.3f} beta, and the window "
            f"is empty in {(dense & empty).sum()}",
            -1.0 if lacking else shortfall(error, CLOSE),
        )

    def draw(axis, m):
        line = slice(0, m["line"])
        P, low, high = m["setting"][line, 2], *m["predicted"][line].T
        axis.fill_between(P, low, high, where=high > low, color=CERTIFIED, alpha=0.15, lw=0, label="window")
        axis.plot(P, high, color=ROBUST, lw=1.2, label=r"$\epsilon_{hi}$, predicted")
        axis.plot(P, low, color=NON_ROBUST, lw=1.2, label=r"$\epsilon_{lo}$, predicted")
        axis.plot(P, m["measured"][line, 1], "o", color=ROBUST, ms=4, label=r"$w = A u_i$ breaks")
        axis.plot(P, m["measured"][line, 0], "s", color=NON_ROBUST, ms=4, label=r"$w = B v_i$ breaks")
        axis.axhline(m["beta"], color="0.4", ls="--", lw=1, label=r"$\beta$")
        alpha, beta, _, n_robust, q = m["setting"][0]
        axis.axvline(n_robust * (1 + (alpha / beta) ** q), color=PAPER, ls=":", lw=1.2, label="c < 1 to the right")
        axis.set_xscale("log", base=2)
        axis.set_xlabel(r"patches P, one of them robust ($\alpha$, $\beta$, q of the default)")
        axis.set_ylabel(r"radius $\epsilon$")


# ------------------------------------------------------------------ the contradiction
#: Where it applies (c < 1, eps >= beta), and where it is silent.
APPLIES = {(4.0, 1.0, 66, 1, 3): 1.0, (3.0, 1.0, 32, 1, 3): 1.0, (2.0, 0.8, 10, 2, 2): 1.0}
SILENT = {(9.0, 1.0, 10, 2, 2): 1.0, (4.0, 1.0, 21, 1, 3): 1.0}
COUNTED = np.arange(4)


def proof_points(numbers: Numbers, eps: float, k: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """The perturbed samples of the proof, (2 k (k-1), P, d) and labels: per ordered pair of classes, one hides v_y, and
    one hides v_y and u_y and shows the rival's u_j on all other patches.  All lie in the ball."""
    data, X, y = numbers.sample(k, d), [], []
    u, v = data.features
    for own, rival in permutations(range(k), 2):
        clean, robust = data.X[data.y == own][0], data.robust[data.y == own][0][:, None]
        for hide, show in ((0.0, 0.0), (min(numbers.alpha, eps), eps)):
            X.append(clean + np.where(robust, -hide * u[own], show * u[rival] - numbers.beta * v[own]))
            y.append(own)
        assert np.abs(X[-1] - clean).max() <= eps
    return np.array(X), np.array(y)


def robust_classes(net: PatchCNN, X, y) -> np.ndarray:
    """Classes that a network has right at all their points, (R,): an upper bound on its robust classes."""
    right = net.margin(X, y) > 0
    return np.sum([right[:, y == i].all(axis=1) for i in range(net.shape[0])], axis=0)


def searched(numbers: Numbers, eps: float, runs: int, k: int = 3, d: int = 8, n_neurons: int = 4) -> np.ndarray:
    """Most classes ever right, (runs,), of random and diagonal-plus-noise networks that are trained on the points of
    the proof themselves, held in the polynomial part by a threshold that they never reach."""
    X, y = proof_points(numbers, eps, k, d)
    rng, rho, most = np.random.default_rng(0), 1e3, 0
    W = rng.standard_normal((runs, k, n_neurons, d)) * 10.0 ** rng.uniform(-1, 0, (runs, 1, 1, d))
    W[: runs // 2, np.arange(k), :, np.arange(k)] += 2 * rng.uniform(size=(k, runs // 2, n_neurons))
    for _ in range(40):
        F = PatchCNN(W, numbers.q, rho).logits(X)
        W *= (20 / np.abs(F).max(axis=(1, 2)))[:, None, None, None] ** (1 / numbers.q)
        net = PatchCNN(W, numbers.q, rho)
        assert numbers.alpha * W[..., :k].max() <= rho
        most = np.maximum(most, robust_classes(net, X, y))
        gradient = net.loss_and_grad(X, y)[1]
        W = W - 0.05 * gradient / np.sqrt((gradient**2).sum(axis=(1, 2, 3), keepdims=True) + 1e-300)
    return most


def rivals(features, n: int, a: float, b: float) -> np.ndarray:
    """Class i: n neurons a u_i and one b u_l for every l != i; W (k, n + k - 1, d)."""
    u = features[0]
    return np.stack([np.concatenate([[a * u[i]] * n, b * np.delete(u, i, axis=0)]) for i in range(len(u))])


def counterexample(n_patches: int) -> tuple[float, float]:
    """Smallest margin found by attack, and the proven one, of eight neurons 0.2 u_i and one 0.4 u_l per rival with
    alpha = 4, beta = eps = rho = 1, q = 3: phi(t) = 8 sigma(0.2 t) - sigma(0.4 t) is 0 up to t = 2.5 and rises then."""
    data = Numbers(4.0, 1.0, n_patches, 1, 3).sample(2)
    net = PatchCNN(rivals(data.features, 8, 0.2, 0.4), 3, 1.0)
    u, rng = data.features[0], np.random.default_rng(2)
    corners = [data.X + s * u[data.y][:, None] + t * u[1 - data.y][:, None] for s in (-1, 0, 1) for t in (-1, 0, 1)]
    corners += [data.X + rng.choice([-1.0, 0.0, 1.0], data.X.shape) for _ in range(100)]
    margins = [net.margin(X, data.y) for X in corners]
    sigma = net.activation
    return float(np.min(margins)), float(8 * sigma(0.2 * 3.0) - sigma(0.4 * 3.0))


def trained(lab, adversarial: bool) -> dict:
    """The default's networks, noisy ones at the end and noiseless ones half-way and at the end: classes right at the
    points of the proof, and alpha max <w, u> / rho, at most 1 in the polynomial part."""
    story, exact = lab.story(adversarial), lab.exact(adversarial)
    c = story.config
    numbers = Numbers(c.alpha, c.beta, c.n_patches, c.n_robust, c.q)
    X, y = proof_points(numbers, c.eps, c.n_classes, c.patch_dim)
    middle, end = exact.weights[len(exact.weights) // 2], exact.weights[-1]
    W = np.concatenate([story.net.weights, middle, end])
    return {
        "classes": robust_classes(PatchCNN(W.astype(np.float64), c.q, c.rho), X, y),
        "reach": c.alpha * (W @ story.data.features[0].T).max(axis=(1, 2, 3)) / c.rho,
        "applies": contradiction(c.alpha, c.beta, c.eps, *numbers[2:]),
    }


@entry(
    "contradiction",
    "global minima",
    "In the polynomial part, at most one class is robust",
    statement="At eps >= beta and density ratio c < 1, whatever the weights, at most one class is robust on the whole "
    "ball while activations stay in the polynomial part; beyond it all can be (ours, not the paper's).",
    formula="P_R (alpha - eps)_+^q <= P_NR eps^q, eps >= beta, alpha <w_{i,r}, u_l> <= rho  =>  at most one "
    "robust class",
    rule="no network, trained on the proof's own points or a trained story, has two classes right at them; the same "
    "search finds two where the conditions fail, and the network built beyond the polynomial part withstands every "
    "attack; margin: 1.5 - classes, or -1 where one of the controls fails",
)
class Contradiction:
    def measure(lab):
        runs = 100 if lab.quick else 400
        found = {}
        for name, cases in (("applies", APPLIES), ("silent", SILENT)):
            counts = [searched(Numbers(*case), eps, runs) for case, eps in cases.items()]
            found[name] = np.array(counts)
            found[f"{name}_conditions"] = [contradiction(*case[:2], eps, *case[2:]) for case, eps in cases.items()]
        patches = np.array([66, 500, 5000])
        built = np.array([counterexample(int(P)) for P in patches])
        covered = [contradiction(4.0, 1.0, 1.0, int(P), 1, 3) for P in patches]
        return found | {"patches": patches, "built": built, "covered": covered, "trained": {
            "standard": trained(lab, False), "adversarial": trained(lab, True)}}  # fmt: skip

    def judge(m):
        inside = {name: t["classes"][t["reach"] <= 1] for name, t in m["trained"].items()}
        beyond = np.concatenate([t["classes"][t["reach"] > 1] for t in m["trained"].values()])
        most = max(int(np.max(c, initial=0)) for c in [m["applies"], *inside.values()])
        controls = (m["silent"].max(axis=1) >= 2).all() and (m["built"][:, 0] > 0).all()
        reach = max(t["reach"].max() for t in m["trained"].values())
        told = ", ".join(f"{name} {np.max(c, initial=0)} in {len(c)}" for name, c in inside.items())
        conditions = [*m["applies_conditions"], *m["covered"], *(t["applies"] for t in m["trained"].values())]
        silent = not any(m["silent_conditions"])
        return Judgement(
            f"at most 1 class where it applies; beyond the polynomial part margin {m['built'][0, 1]:.4f} for any P",
            f"searched networks {m['applies'].max()} in {m['applies'].size}, trained ones (most classes in networks): "
            f"{told}, beyond the polynomial part (alpha max <w, u> up to {reach:.2f} rho) "
            f"{np.max(beyond, initial=0)} in {len(beyond)}; where it is silent the search finds {m['silent'].max()}; "
            f"built network: smallest margin {m['built'][:, 0].min():.4f} at up to {m['patches'].max()} patches",
            1.5 - most if controls else -1.0,
            [
                Assumption("conditions in the tried settings", f"{sum(conditions)} of {len(conditions)}", "all",
                           all(conditions)),
                Assumption("conditions in the silent settings", f"{sum(m['silent_conditions'])} met", "none", silent),
            ],
        )  # fmt: skip

    def draw(axis, m):
        stories = [t["classes"][t["reach"] <= 1] for t in m["trained"].values()]
        groups = (
            ("searched, conditions met", m["applies"], NON_ROBUST),
            ("standard training", stories[0], ACCURACY),
            ("adversarial training", stories[1], ROBUST),
            ("searched, conditions not met", m["silent"], PAPER),
        )
        for i, (name, counts, color) in enumerate(groups):
            share = [(np.ravel(counts) == n).mean() for n in COUNTED]
            axis.bar(COUNTED + 0.2 * (i - 1.5), share, 0.18, color=color, label=f"{name} ({np.size(counts)})")
        axis.axvspan(1.5, 3.5, color="0.93", zorder=0)
        axis.text(2.5, 1.02, "excluded where the conditions are met", ha="center", fontsize=7)
        axis.set_xticks(COUNTED)
        axis.set_ylim(0, 1.1)
        axis.set_xlabel(r"classes right at all points of the proof, $\epsilon \geq \beta$")
        axis.set_ylabel("share of networks")
