"""The data: Assumption 2.3, the separation of Sec. 2.5, the choice of hyperparameters B.3."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import stats

from ..experiments.configuration import Figure3Config
from ..patches.data import PatchDistribution
from ..reporting.style import ACCURACY, NON_ROBUST, PAPER, ROBUST
from ..theory.gaussian_maximum import mean as mean_maximum
from ..theory.window import density_ratio
from .lab import SMALL_RHO
from .ledger import Assumption, Judgement, entry
from .statistics import spread, wilson

ALMOST_ALL = 0.98  # "with high probability": the lower limit of the share's interval
KEPT = 0.99  # of the samples, Assumption 2.3


def narrow_law(config: Figure3Config, **changes) -> PatchDistribution:
    """The data of `config` with patch_dim = 2k: the features' axes, all that a correlation with a feature sees."""
    return replace(config, **({"patch_dim": 2 * config.n_classes} | changes)).distribution()


# ------------------------------------------------------------------ Assumption 2.3
def seen_strengths(law: PatchDistribution, n: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """<x_p, f> with the patch's own feature, noise included, and whether it is robust; both (n, P)."""
    data = law.sample(n, rng)
    u, v = data.features
    own = np.where(data.robust[..., None], u[data.y][:, None], v[data.y][:, None])
    return (data.X * own).sum(axis=-1), data.robust


def seen_density(strength, robust, exponent):
    """sum_{J_R} strength^a / sum_{J_NR} strength^a per sample; negative strengths count as zero."""
    powers = np.maximum(strength, 0) ** exponent
    return (powers * robust).sum(axis=-1) / (powers * ~robust).sum(axis=-1)


@entry(
    "2.3",
    "data",
    "Robust is stronger, non-robust is denser",
    statement="In almost every sample each robust patch is stronger than each non-robust one, and the non-robust ones "
    "outweigh them in sum (our reading: the exponent a is the activation's q, and 'much' means a factor above 1).",
    formula="min_{J_R} alpha_p / max_{J_NR} beta_p > 1 and c = sum_{J_R} alpha_p^q / sum_{J_NR} beta_p^q < 1",
    rule=f"{KEPT:.0%} of the samples keep both ratios, strengths as seen through the noise; "
    "margin: natural logarithm of the factor by which they keep the worse one",
)
class Assumption23:
    def measure(lab):
        c = lab.config()
        shape = c.alpha, c.beta, c.n_patches, c.n_robust
        strength, robust = seen_strengths(narrow_law(c), 1000, 23)
        ratio = np.where(robust, strength, np.inf).min(axis=-1) / np.where(robust, -np.inf, strength).max(axis=-1)
        exponents, alphas = np.linspace(1, 6, 11), c.alpha * np.array([2, 3, 4]) / 3
        seen = []
        for alpha in alphas:
            sample = seen_strengths(narrow_law(c, alpha=alpha), 200, 24)
            seen.append([np.quantile(seen_density(*sample, a), (0.005, 0.5, 0.995)) for a in exponents])
        mixed, which = seen_strengths(narrow_law(c, partition="bernoulli"), 1000, 25)
        number, share = np.arange(c.n_patches + 1), c.n_robust / c.n_patches
        denser = number * c.alpha**c.q < (c.n_patches - number) * c.beta**c.q
        return {
            "q": c.q,
            "ratio": ratio,
            "density": seen_density(strength, robust, c.q),
            "predicted_ratio": c.alpha / c.beta,
            "predicted_density": density_ratio(*shape, c.q),
            "turns_at": np.log(c.n_patches / c.n_robust - 1) / np.log(c.alpha / c.beta),
            "exponents": exponents,
            "alphas": alphas,
            "seen": np.array(seen),
            "predicted": np.array([[density_ratio(a, *shape[1:], e) for e in exponents] for a in alphas]),
            "bernoulli": float((seen_density(mixed, which, c.q) < 1).mean()),
            "bernoulli_predicted": float(stats.binom.pmf(number, c.n_patches, share)[denser].sum()),
        }

    def judge(m):
        factor = np.minimum(m["ratio"], 1 / m["density"])
        return Judgement(
            f"noiseless: strength ratio {m['predicted_ratio']:.3g}, density ratio c = {m['predicted_density']:.3g} at "
            f"a = q = {m['q']}; c < 1 for a < {m['turns_at']:.2f}; patches robust by independent draws: c < 1 in "
            f"{m['bernoulli_predicted']:.1%} of the samples",
            f"strength ratio {spread(m['ratio'])}, c {spread(m['density'])} over {len(factor)} samples; "
            f"independent draws: c < 1 in {m['bernoulli']:.1%}",
            float(np.log(np.quantile(factor, 1 - KEPT))),
        )

    def draw(axis, m):
        for i, (alpha, color) in enumerate(zip(m["alphas"], (NON_ROBUST, ACCURACY, ROBUST))):
            low, middle, high = m["seen"][i].T
            axis.plot(m["exponents"], m["predicted"][i], color=color, lw=1, label=rf"$\alpha$ = {alpha:g}: predicted")
            bars = [middle - low, high - middle]
            axis.errorbar(m["exponents"], middle, bars, fmt="o", color=color, ms=3, lw=1)
        axis.plot([], [], "ok", ms=3, label="samples: median, 99% of them")
        axis.axhline(1, color="0.4", ls="--", lw=1)
        axis.axvline(m["q"], color=PAPER, lw=1, label="a = q")
        axis.set_yscale("log")
        axis.set_xlabel("exponent a")
        axis.set_ylabel("density ratio c (below 1: denser)")


# ------------------------------------------------------------------ Sec. 2.5, separation
def distances(law: PatchDistribution, n: int, rng, chunk: int = 125) -> tuple[np.ndarray, np.ndarray]:
    """||X - X'||_inf of n disjoint pairs of samples, and whether their labels are equal."""
    rng, found, same = np.random.default_rng(rng), [], []
    for start in range(0, n, chunk):
        data = law.sample(2 * min(chunk, n - start), rng)
        found.append(np.abs(data.X[::2] - data.X[1::2]).max(axis=(1, 2)))
        same.append(data.y[::2] == data.y[1::2])
    return np.concatenate(found), np.concatenate(same)


def separation_cdf(t, law: PatchDistribution) -> np.ndarray:
    """P[||X - X'||_inf <= t] for different labels, exactly: 2 P_R coordinates differ by alpha, 2 P_NR by beta (at
    different places, since the labels differ), all others by 0, each with noise N(0, 2 noise_std^2) of its own."""
    P, R, scale = law.n_patches, law.n_robust, np.sqrt(2) * law.noise_std
    total = np.zeros(np.shape(t))
    for strength, number in ((law.alpha, 2 * R), (law.beta, 2 * (P - R)), (0.0, P * (law.patch_dim - 2))):
        within = stats.norm.cdf((t - strength) / scale) - stats.norm.cdf((-t - strength) / scale)
        with np.errstate(divide="ignore"):
            total = total + number * np.log(np.maximum(within, 0))
    return np.exp(total)


@entry(
    "2.5",
    "data",
    "Samples of different labels are far apart",
    statement="Two samples of different labels are at least 2 eps apart in the maximum norm, with high probability "
    "(our reading: eps of order beta, alpha >= 2 eps).",
    formula="||X - X'||_inf >= 2 eps; noiseless max(alpha, beta); with noise P[<= t] = G_alpha^(2 P_R) G_beta^(2 P_NR) "
    "G_0^(P (d - 2)), G_s(t) = P[|s + sqrt(2) sigma_n g| <= t]",
    rule=f"lower end of the share's Wilson interval >= {ALMOST_ALL}, and distances follow the exact law (p >= 1e-4); "
    "margin: the smaller of the two excesses",
)
class Separation:
    def measure(lab):
        c = lab.config()
        law = c.distribution()
        distance, same = distances(law, 750 if lab.quick else 3000, 25)
        apart = distance[~same]
        ratios, patches, shares = np.linspace(0.9, 1.1, 9), (2 * c.n_robust, c.n_patches), []
        for P in patches:
            for ratio in ratios:
                near = narrow_law(c, n_patches=P, alpha=2 * c.eps * ratio)
                d, equal = distances(near, 250, 26)
                share = float((d[~equal] >= 2 * c.eps).mean()), float(1 - separation_cdf(2 * c.eps, near))
                shares.append((P, ratio, *share))
        grid = np.linspace(0, 1.25 * distance.max(), 400)
        return {
            "alpha": c.alpha,
            "beta": c.beta,
            "eps": c.eps,
            "distance": distance,
            "same": same,
            "p": float(stats.kstest(apart, lambda t: separation_cdf(t, law)).pvalue),
            "beyond": float(separation_cdf(2 * c.eps, law)),
            "grid": grid,
            "density": np.gradient(separation_cdf(grid, law), grid),
            "near": np.array(shares),
        }

    def judge(m):
        apart, equal = m["distance"][~m["same"]], m["distance"][m["same"]]
        far = int((apart >= 2 * m["eps"]).sum())
        low, _ = wilson(far, len(apart))
        error = np.abs(m["near"][:, 2] - m["near"][:, 3]).max()
        return Judgement(
            f"noiseless distance max(alpha, beta) = {max(m['alpha'], m['beta']):g}; P[< 2 eps] = {m['beyond']:.1e}",
            f"{far} of {len(apart)} pairs at least 2 eps = {2 * m['eps']:g} apart, distances {spread(apart)} (exact "
            f"law: p = {m['p']:.2f}); pairs of one label are no closer: {spread(equal)}; near alpha = 2 eps the share "
            f"is the predicted one within {error:.2f}, at {m['near'][0, 0]:g} and {m['near'][-1, 0]:g} patches alike",
            min(low - ALMOST_ALL, m["p"] - 1e-4),
            [Assumption("alpha / (2 eps)", f"{m['alpha'] / (2 * m['eps']):.3g}", ">= 1", m["alpha"] >= 2 * m["eps"])],
        )

    def draw(axis, m):
        bins = np.linspace(0, m["grid"][-1], 90)
        for which, color, label in ((m["same"], "0.6", "same label"), (~m["same"], ROBUST, "different labels")):
            weights = np.full(which.sum(), 1 / (which.sum() * (bins[1] - bins[0])))
            axis.hist(m["distance"][which], bins, weights=weights, color=color, alpha=0.6, label=label)
        axis.plot(m["grid"], m["density"], color="k", lw=0.9, label="different: exact law")
        axis.axvline(2 * m["eps"], color=NON_ROBUST, ls="--", lw=1.2, label=r"2$\epsilon$")
        axis.set_xlabel(r"$\|X - X'\|_\infty$")
        axis.set_ylabel("density")
        inner = axis.inset_axes([0.2, 0.16, 0.36, 0.36])
        for P, color, style in zip(np.unique(m["near"][:, 0]), (PAPER, ROBUST), ("-", "--")):
            _, ratio, share, exact = m["near"][m["near"][:, 0] == P].T
            inner.plot(ratio, exact, style, color=color, lw=1, label=f"inset: P = {P:g}")
            inner.plot(ratio, share, "o", color=color, ms=2.5)
        inner.set_xlabel(r"$\alpha\,/\,2\epsilon$", fontsize=7, labelpad=1)
        inner.set_title(r"share $\geq 2\epsilon$", fontsize=7, pad=2)
        inner.tick_params(labelsize=6)


# ------------------------------------------------------------------ Assumption B.3
#: The larger configuration in which the story of Figure 3 is seen too.
SIBLING = {"n_classes": 10, "n_neurons": 10, "n_train": 40, "lr": 25.0, "n_iter": 2000}


def relations(c: Figure3Config) -> dict[str, float]:
    """What B.3 asks for, each as a number that its reading wants above 1 (or, named '=', equal to 1)."""
    start = c.init_std * mean_maximum(c.n_neurons)  # of the strongest correlation
    rate = c.lr / c.n_classes * (1 - 1 / c.n_classes) * c.rho ** (1 - c.q) * (c.n_patches - c.n_robust) * c.beta**c.q
    noise = c.noise_std * np.sqrt(2 * np.log(c.n_patches * c.patch_dim))
    return {
        "d / 2k: room for the features": c.patch_dim / (2 * c.n_classes),
        "m / log k: mild width": c.n_neurons / np.log(c.n_classes),
        "= σ₀ √d: initial scale": c.init_std * np.sqrt(c.patch_dim),
        "α / β: stronger": c.alpha / c.beta,
        "1 / c: denser (needs P large)": 1 / density_ratio(c.alpha, c.beta, c.n_patches, c.n_robust, c.q),
        "= ε / β: radius": c.eps / c.beta,
        "α / 2ε: separation": c.alpha / (2 * c.eps),
        "β / largest noise": c.beta / noise if noise else np.inf,
        "1 / first step's growth: small η": 1 / (rate * start ** (c.q - 2)),
        "η̃ / η: fast ascent": c.ascent_lr / c.lr,
    }


def slack(name: str, value) -> np.ndarray:
    """Decades on the right side of a relation; a relation '= 1' may be off by a factor of two."""
    with np.errstate(divide="ignore"):
        decades = np.log10(value)
    return np.log10(2) - np.abs(decades) if name.startswith("=") else decades


@entry(
    "B.3",
    "data",
    "The choice of hyperparameters",
    statement="All hyperparameters are polynomial or polylogarithmic in k, with few patches, strengths in favour of "
    "the robust feature, small noise and steps, and an ascent much faster than the descent (our reading of a display "
    "whose exponents are lost).",
    formula="d = poly(k), m = polylog(k), sigma_0^2 = 1/d, alpha >> beta, c < 1, eps ~ beta, alpha > 2 eps, "
    "sigma_n << beta, eta << 1 << eta~ / eta",
    rule="each relation on its side of 1 (equalities within a factor of 2) in the default configuration and its larger "
    "sibling; margin: decades by which the tightest keeps its side",
)
class Hyperparameters:
    def measure(lab):
        aside = {"small ρ, noiseless": SMALL_RHO | {"noise_std": 0.0}}  # made for the linear part, not after B.3
        named = {"default": {}, "larger sibling": SIBLING} | aside
        found = {name: relations(lab.config(**changes)) for name, changes in named.items()}
        return {
            "relation": list(found["default"]),
            "configuration": list(found),
            "held": [name not in aside for name in named],
            "sizes": [lab.config(**changes).n_classes for name, changes in named.items() if name not in aside],
            "value": np.array([[*values.values()] for values in found.values()]),  # (configuration, relation)
        }

    def judge(m):
        left = np.array([[slack(name, v) for name, v in zip(m["relation"], row)] for row in m["value"]])
        others = left[~np.array(m["held"])]
        left = left[m["held"]]
        where, which = np.unravel_index(left.argmin(), left.shape)
        departs = [name.split(":")[0] for name, less in zip(m["relation"], others.T) if (less < 0).any()]
        sizes = len(set(m["sizes"]))
        lost = f"the exponents of B.3 are lost, and {sizes} sizes of k show values, no power of k: it takes three"
        return Judgement(
            "every relation on its side of 1",
            f"tightest: {m['relation'][which]} ({m['value'][where, which]:.3g}, {m['configuration'][where]}); "
            "default: "
            + ", ".join(f"{name.split(':')[0]}: {v:.3g}" for name, v in zip(m["relation"], m["value"][0]))
            + (f"; the configuration of the linear part departs from {', '.join(departs)}" if departs else ""),
            float(left.min()),
            untestable=lost if sizes < 3 else "",
        )

    def draw(axis, m):
        rows = np.arange(len(m["relation"]))[::-1]
        marks = zip(m["configuration"], m["value"], "osD", (ROBUST, PAPER, NON_ROBUST), (0.2, 0, -0.2))
        for name, values, marker, color, offset in marks:
            axis.plot(values, rows + offset, marker, color=color, ms=4, label=name)
        axis.axvline(1, color="0.3", lw=1)
        for row, name, value in zip(rows, m["relation"], m["value"][0]):
            low, high = (0.5, 2) if name.startswith("=") else (1, 1e9)
            axis.barh(row, high - low, left=low, height=0.9, color="0.93", zorder=0)
            axis.text(1.01, row, f"{value:.3g}", transform=axis.get_yaxis_transform(), va="center", fontsize=7)
        axis.set_xscale("log")
        finite = m["value"][np.isfinite(m["value"])]
        axis.set_xlim(0.3, 3 * finite.max())
        axis.set_ylim(-0.6, len(rows) - 0.4)
        axis.set_yticks(rows, m["relation"], fontsize=7)
        axis.grid(False, axis="y")
        axis.set_xlabel("value (shaded: the side asked for; right: default)")
