"""Which networks can be robust on the whole l_inf ball (docs/robust-window.md): the window, and the contradiction."""

from itertools import permutations
from typing import NamedTuple

import numpy as np

from ..patches.certify import interval_margin
from ..patches.data import PatchData, PatchDistribution
from ..patches.network import PatchCNN
from ..reporting.pictures import ACCURACY, NON_ROBUST, PAPER, ROBUST, Picture, line, mark, points
from ..theory.window import contradiction, density_ratio, robust_window
from .ledger import Check, Entry, Judgement, exact
from .minima import GROUP, robust_radius, worst_margin

CLOSE = 1e-3
SCALE = 0.5  # of rho, the largest preactivation of the window's networks: the polynomial part


class Numbers(NamedTuple):
    """Everything that robustness on the whole ball depends on."""

    alpha: float
    beta: float
    n_patches: int
    n_robust: int
    q: int

    @classmethod
    def of(cls, c):
        return cls(c.alpha, c.beta, c.n_patches, c.n_robust, c.q)

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
    return [Numbers.of(config)._replace(n_patches=P) for P in sorted(patches)]


def drawn(n: int, seed: int) -> list[Numbers]:
    """Settings without a pattern: strengths in [0.5, 5], 2 to 200 patches, q in 2..5."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(n):
        P = int(rng.integers(2, 200))
        robust = int(rng.integers(1, 2 + P // 8))
        found.append(Numbers(*rng.uniform(0.5, 5, 2), P, robust, int(rng.integers(2, 6))))
    return found


def radii(numbers: Numbers, k: int = 2, n_neurons: int = 2) -> list[tuple[float, float]]:
    """Measured radius of w = B v_i and of w = A u_i, each with the certificate's margin just below the prediction and
    the margin under the exact attack just above."""
    data, found = numbers.sample(k), []
    low, high = robust_window(*numbers)
    for kind, predicted, strength in (("nonrobust", low, numbers.beta), ("robust", high, numbers.alpha)):
        make = getattr(PatchCNN, f"{kind}_minimum")
        net = make(SCALE / strength, data.features, n_neurons, q=numbers.q)
        net = net.with_weights(net.W[None])
        radius, above = (robust_radius(net, data, kind, strength, 32).min(),
                         worst_margin(net, data, kind, predicted * (1 + CLOSE)).max())  # fmt: skip
        below = interval_margin(net, data.X, data.y, eps=predicted * (1 - CLOSE)).min()
        found.append((float(radius), float(below), float(above)))
    return found


def windows(lab):
    c = lab.config()
    line, others = along_patches(c, 12 if lab.quick else 40), drawn(12 if lab.quick else 60, lab.seed(9))
    settings = line + others
    found = np.array([radii(numbers) for numbers in settings])
    return {
        "setting": np.array(settings, float), "line": len(line),
        "predicted": np.array([robust_window(*numbers) for numbers in settings]),
        "measured": found[..., 0], "certificate": found[..., 1], "attacked": found[..., 2],
        "density": np.array([density_ratio(*numbers) for numbers in settings]),
        "default": np.array([*c.window().ends, c.eps_test]), "beta": c.beta,
    }  # fmt: skip


def judge_windows(m):
    dense, empty = m["density"] < 1, m["measured"][:, 0] >= m["measured"][:, 1]
    high = m["measured"][dense, 1] / m["setting"][dense, 1]
    low, high_default, test = m["default"]
    return Judgement(
        [exact("radii under the exact attack / predicted, less 1", np.abs(m["measured"] / m["predicted"] - 1), CLOSE),
         Check("radii without a certificate just below", (m["certificate"] <= 0).sum(), "<=", 0, "flag"),
         Check("radii without a successful attack just above", (m["attacked"] > 0).sum(), "<=", 0, "flag")],
        f"default window ({low:.3f}, {high_default:.3f}) around eps_test = {test:g}; where c < 1 ({dense.sum()} "
        f"settings) eps_hi is at most {high.max():.3f} beta, and the window is empty in {(dense & empty).sum()}",
    )  # fmt: skip


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


def searched(numbers: Numbers, eps: float, runs: int, seed: int, k: int = 3, d: int = 8, m: int = 4) -> np.ndarray:
    """Most classes ever right, (runs,), of random and diagonal-plus-noise networks that are trained on the points of
    the proof themselves, held in the polynomial part by a threshold that they never reach."""
    X, y = proof_points(numbers, eps, k, d)
    rng, rho, most = np.random.default_rng(seed), 1e3, 0
    W = rng.standard_normal((runs, k, m, d)) * 10.0 ** rng.uniform(-1, 0, (runs, 1, 1, d))
    W[: runs // 2, np.arange(k), :, np.arange(k)] += 2 * rng.uniform(size=(k, runs // 2, m))
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
    margins, sigma = [net.margin(X, data.y) for X in corners], net.activation
    return float(np.min(margins)), float(8 * sigma(0.2 * 3.0) - sigma(0.4 * 3.0))


def trained(lab, adversarial: bool) -> dict:
    """The default's networks, noisy ones at the end and noiseless ones half-way and at the end: classes right at the
    points of the proof, and alpha max <w, u> / rho, at most 1 in the polynomial part."""
    story, weights = lab.story(adversarial), lab.exact(adversarial).weights
    c = story.config
    X, y = proof_points(Numbers.of(c), c.eps, c.n_classes, c.patch_dim)
    W = np.concatenate([story.net.weights, weights[len(weights) // 2], weights[-1]])
    return {
        "classes": robust_classes(PatchCNN(W.astype(np.float64), c.q, c.rho), X, y),
        "reach": c.alpha * (W @ story.data.features[0].T).max(axis=(1, 2, 3)) / c.rho,
        "applies": contradiction(c.alpha, c.beta, c.eps, c.n_patches, c.n_robust, c.q),
    }


def contradictions(lab):
    found, patches = {}, np.array([66, 500, 5000])
    for name, cases in (("applies", APPLIES), ("silent", SILENT)):
        runs = 100 if lab.quick else 400
        found[name] = np.array([searched(Numbers(*case), eps, runs, lab.first) for case, eps in cases.items()])
        found[f"{name}_conditions"] = [contradiction(*case[:2], eps, *case[2:]) for case, eps in cases.items()]
    return found | {
        "patches": patches, "built": np.array([counterexample(int(P)) for P in patches]),
        "covered": [contradiction(4.0, 1.0, 1.0, int(P), 1, 3) for P in patches],
        "trained": {"standard": trained(lab, False), "adversarial": trained(lab, True)},
    }  # fmt: skip


def judge_contradictions(m):
    inside = {name: t["classes"][t["reach"] <= 1] for name, t in m["trained"].items()}
    beyond = np.concatenate([t["classes"][t["reach"] > 1] for t in m["trained"].values()])
    most = max(int(np.max(c, initial=0)) for c in [m["applies"], *inside.values()])
    reach = max(t["reach"].max() for t in m["trained"].values())
    told = ", ".join(f"{name} {np.max(c, initial=0)} in {len(c)}" for name, c in inside.items())
    conditions = [*m["applies_conditions"], *m["covered"], *(t["applies"] for t in m["trained"].values())]
    return Judgement(
        [Check("classes right at the proof's points in a network trained on them or in a story", most, "<", 1.5),
         Check("control: the same search where the conditions fail finds", m["silent"].max(axis=1), ">=", 2, "flag"),
         Check("control: margin of the network built beyond the polynomial part", m["built"][:, 0], ">", 0, "flag")],
        f"searched networks {m['applies'].max()} in {m['applies'].size}, trained ones (most classes in networks): "
        f"{told}, beyond the polynomial part (alpha max <w, u> up to {reach:.2f} rho) {np.max(beyond, initial=0)} "
        f"in {len(beyond)}; built network: {m['built'][0, 1]:.4f} predicted for any P, seen at up to "
        f"{m['patches'].max()} patches",
        [Check("settings that meet the conditions, of those tried", sum(conditions), ">=", len(conditions)),
         Check("silent settings that meet them", sum(m["silent_conditions"]), "<=", 0)],
    )  # fmt: skip


WINDOW = Entry(
    "window", GROUP, "Window of test radii",
    "In the polynomial part, w = B v_i breaks at eps_lo and w = A u_i holds up to eps_hi, so that radii in between "
    "tell the two apart.",
    "eps_lo = beta / (1 + (P / P_NR)^(1/q)), eps_hi = alpha / (1 + (P / P_R)^(1/q))",
    windows, judge_windows,
    lambda m: Picture(r"patches P, one of them robust ($\alpha$, $\beta$, q of the default)", r"radius $\epsilon$", [
        *(layer for row, color, name, kind, marker in (
            (1, ROBUST, "hi", "A u_i", "o"), (0, NON_ROBUST, "lo", "B v_i", "s")) for layer in (
            line(m["setting"][: m["line"], 2], m["predicted"][: m["line"], row], f"eps_{name}, predicted", color),
            points(m["setting"][: m["line"], 2], m["measured"][: m["line"], row], f"{kind} breaks", color, marker))),
        mark(y=m["beta"], label=r"$\beta$"),
        mark(x=m["setting"][0, 3] * (1 + (m["setting"][0, 0] / m["beta"]) ** m["setting"][0, 4]), label="c < 1 beyond",
             color=PAPER),
    ], "x"), "ours",
)  # fmt: skip
CONTRADICTION = Entry(
    "contradiction", GROUP, "In the polynomial part, at most one class is robust",
    "At eps >= beta and density ratio c < 1, whatever the weights, at most one class is robust on the whole ball "
    "while activations stay in the polynomial part; beyond it all can be.",
    "P_R (alpha - eps)_+^q <= P_NR eps^q, eps >= beta, alpha <w_{i,r}, u_l> <= rho  =>  at most one robust class",
    contradictions, judge_contradictions,
    lambda m: Picture(r"classes right at all points of the proof, $\epsilon \geq \beta$", "share of networks", [
        *(points(COUNTED, [(np.ravel(counts) == n).mean() for n in COUNTED], f"{name} ({np.size(counts)})", color,
                 marker, 6, 0.8) for name, counts, color, marker in (
              ("searched, conditions met", m["applies"], NON_ROBUST, "o"),
              *((f"{name} training", t["classes"][t["reach"] <= 1], color, marker)
                for (name, t), color, marker in zip(m["trained"].items(), (ACCURACY, ROBUST), "s^")),
              ("searched, conditions not met", m["silent"], PAPER, "D"))),
        mark(x=(1.5, 3.5), label="excluded where the conditions are met"),
    ], ylim=(-0.05, 1.1), ticks={"x": (COUNTED, COUNTED)}), "ours",
)  # fmt: skip
