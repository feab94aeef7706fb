"""The data: Assumption 2.3, the separation of Sec. 2.5, the choice of hyperparameters B.3, and one perturbation against
many networks that know nothing of each other."""

from dataclasses import replace

import numpy as np
from scipy import stats

from ..experiments.configuration import Figure3Config
from ..patches.attacks import feature_swap
from ..patches.data import PatchData, PatchDistribution
from ..patches.network import PatchCNN
from ..reporting.pictures import ACCURACY, NON_ROBUST, PAPER, ROBUST, Picture, interval, level, line, mark, points
from ..theory.gaussian_maximum import mean as mean_maximum
from ..theory.window import density_ratio
from .lab import SMALL_RHO
from .ledger import Check, Entry, Judgement, sure
from .statistics import spread, wilson

GROUP = "data"
ALMOST_ALL = 0.98  # "with high probability": the lower limit of the share's interval
CENTRAL = (0.005, 0.5, 0.995)  # quantiles: the median and 99%


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


def ratios(lab):
    c = lab.config()
    shape = c.alpha, c.beta, c.n_patches, c.n_robust
    strength, robust = seen_strengths(narrow_law(c), 1000, lab.seed(23))
    ratio = np.where(robust, strength, np.inf).min(axis=-1) / np.where(robust, -np.inf, strength).max(axis=-1)
    exponents, alphas = np.linspace(1, 6, 11), c.alpha * np.array([2, 3, 4]) / 3
    samples = [seen_strengths(narrow_law(c, alpha=alpha), 200, lab.seed(24)) for alpha in alphas]
    mixed, which = seen_strengths(narrow_law(c, partition="bernoulli"), 1000, lab.seed(25))
    number = np.arange(c.n_patches + 1)
    denser = number * c.alpha**c.q < (c.n_patches - number) * c.beta**c.q
    return {
        "q": c.q, "n_classes": c.n_classes, "ratio": ratio, "density": seen_density(strength, robust, c.q),
        "predicted_ratio": c.alpha / c.beta, "predicted_density": density_ratio(*shape, c.q),
        "turns_at": np.log(c.n_patches / c.n_robust - 1) / np.log(c.alpha / c.beta),
        "exponents": exponents, "alphas": alphas,
        "seen": np.array([[np.quantile(seen_density(*s, a), CENTRAL) for a in exponents] for s in samples]),
        "predicted": np.array([[density_ratio(a, *shape[1:], e) for e in exponents] for a in alphas]),
        "bernoulli": float((seen_density(mixed, which, c.q) < 1).mean()),
        "bernoulli_predicted": float(stats.binom.pmf(number, c.n_patches, c.n_robust / c.n_patches)[denser].sum()),
    }  # fmt: skip


def judge_ratios(m):
    much = np.log(m["n_classes"])
    return Judgement(
        [sure("samples whose weakest robust patch is log k times their strongest other one", m["ratio"] >= much,
              ALMOST_ALL), sure("samples with c <= 1 / log k", m["density"] <= 1 / much, ALMOST_ALL)],
        f"strength ratio {spread(m['ratio'])} ({m['predicted_ratio']:.3g} without noise), c {spread(m['density'])} "
        f"({m['predicted_density']:.3g} at a = q = {m['q']}) over {len(m['ratio'])} samples; c < 1 for a < "
        f"{m['turns_at']:.2f}; patches robust by independent draws: c < 1 in {m['bernoulli']:.1%} of the samples, "
        f"{m['bernoulli_predicted']:.1%} predicted",
    )  # fmt: skip


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


def separation(lab):
    c = lab.config()
    law = c.distribution()
    distance, same = distances(law, 750 if lab.quick else 3000, lab.seed(25))
    shares = []
    for P in (2 * c.n_robust, c.n_patches):
        for ratio in np.linspace(0.9, 1.1, 9):
            near = narrow_law(c, n_patches=P, alpha=2 * c.eps * ratio)
            d, equal = distances(near, 250, lab.seed(26))
            seen, exact = float((d[~equal] >= 2 * c.eps).mean()), float(1 - separation_cdf(2 * c.eps, near))
            shares.append((P, ratio, seen, exact, (~equal).sum()))
    grid = np.linspace(0, 1.25 * distance.max(), 400)
    return {
        "alpha": c.alpha, "beta": c.beta, "eps": c.eps, "distance": distance, "same": same,
        "p": float(stats.kstest(distance[~same], lambda t: separation_cdf(t, law)).pvalue),
        "beyond": float(separation_cdf(2 * c.eps, law)),
        "grid": grid, "density": np.gradient(separation_cdf(grid, law), grid), "near": np.array(shares),
    }  # fmt: skip


def judge_separation(m):
    apart, equal = m["distance"][~m["same"]], m["distance"][m["same"]]
    *_, seen, law, n = m["near"].T
    error = np.abs(seen - law)
    return Judgement(
        [sure("pairs of different labels at least 2 eps apart", apart >= 2 * m["eps"], ALMOST_ALL),
         Check("their distances follow the exact law: p of Kolmogorov and Smirnov's test", m["p"], ">=", 0.01),
         Check("share of them near alpha = 2 eps, from the law's, in standard errors, 18 settings",
               error / np.sqrt(np.maximum(law * (1 - law), 1 / n) / n), "<=", 4)],
        f"noiseless distance {max(m['alpha'], m['beta']):g}, P[< 2 eps] = {m['beyond']:.1e}, measured "
        f"{spread(apart)}; pairs of one label are no closer: {spread(equal)}; near alpha = 2 eps the share is the "
        f"predicted one within {error.max():.2f}, at {m['near'][0, 0]:g} and {m['near'][-1, 0]:g} patches alike",
        [Check("alpha / (2 eps)", m["alpha"] / (2 * m["eps"]), ">=", 1)],
    )  # fmt: skip


def draw_separation(m):
    layers = [line(m["grid"], m["density"], "different: exact law", "k", lw=0.9),
              mark(x=2 * m["eps"], label=r"2$\epsilon$", color=NON_ROBUST)]  # fmt: skip
    for which, color, label in ((m["same"], "0.6", "same label"), (~m["same"], ROBUST, "different labels")):
        height, edges = np.histogram(m["distance"][which], np.linspace(0, m["grid"][-1], 90), density=True)
        layers.append(line(edges[:-1], height, label, color, ds="steps-post"))
    return Picture(r"$\|X - X'\|_\infty$", "density", layers)


# ------------------------------------------------------------------ Assumption B.3
#: The larger configuration in which the story of Figure 3 is seen too.
SIBLING = {"n_classes": 10, "n_neurons": 10, "n_train": 40, "lr": 25.0, "n_iter": 2000}
ASIDE = "small ρ, noiseless"  # made for the linear part, not after B.3


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


def hyperparameters(lab):
    aside = {name: getattr(SMALL_RHO, name) for name in vars(SMALL_RHO)} | {"noise_std": 0.0}
    configs = {"default": lab.config(), "larger sibling": lab.config(**SIBLING), ASIDE: lab.config(**aside)}
    found = {name: relations(c) for name, c in configs.items()}
    return {
        "relation": list(found["default"]), "configuration": list(found), "held": [name != ASIDE for name in found],
        "sizes": [c.n_classes for name, c in configs.items() if name != ASIDE],
        "value": np.array([[*values.values()] for values in found.values()]),  # (configuration, relation)
    }  # fmt: skip


def judge_hyperparameters(m):
    left = np.array([[slack(name, v) for name, v in zip(m["relation"], row)] for row in m["value"]])
    others, left = left[~np.array(m["held"])], left[m["held"]]
    where, which = np.unravel_index(left.argmin(), left.shape)
    departs = [name.split(":")[0] for name, less in zip(m["relation"], others.T) if (less < 0).any()]
    sizes = len(set(m["sizes"]))
    lost = f"the exponents of B.3 are lost, and {sizes} sizes of k show values, no power of k: it takes three"
    tightest = f"{m['relation'][which]} ({m['value'][where, which]:.3g}, {m['configuration'][where]})"
    return Judgement(
        [Check("decades by which a relation keeps its side of 1 (equalities: of a factor of 2), default and sibling",
               left, ">=", 0, shown=f"tightest: {tightest}")],
        "default: " + ", ".join(f"{name.split(':')[0]}: {v:.3g}" for name, v in zip(m["relation"], m["value"][0]))
        + (f"; the configuration of the linear part departs from {', '.join(departs)}" if departs else ""),
        untestable=lost if sizes < 3 else "",
    )  # fmt: skip


A23 = Entry(
    "2.3", GROUP, "Robust is stronger, non-robust is denser",
    "In almost every sample each robust patch is stronger than each non-robust one, and the non-robust ones "
    "outweigh them in sum (our reading: the exponent a is the activation's q, and 'much' means log k, the least that "
    "grows with k).",
    "min_{J_R} alpha_p / max_{J_NR} beta_p >= log k and c = sum_{J_R} alpha_p^q / sum_{J_NR} beta_p^q <= 1 / log k",
    ratios, judge_ratios, lambda m: Picture("exponent a", "density ratio c (below 1: denser)", [
        *(line(m["exponents"], predicted, rf"$\alpha$ = {alpha:g}: predicted", color, lw=1)
          for predicted, alpha, color in zip(m["predicted"], m["alphas"], (NON_ROBUST, ACCURACY, ROBUST))),
        *(interval(m["exponents"], *seen.T[[1, 0, 2]], "samples: median, 99% of them", color)
          for seen, color in zip(m["seen"], (NON_ROBUST, ACCURACY, ROBUST))),
        mark(y=1), mark(x=m["q"], label="a = q", color=PAPER, style="-"),
    ], "y"),
)  # fmt: skip
S25 = Entry(
    "2.5", GROUP, "Samples of different labels are far apart",
    "Two samples of different labels are at least 2 eps apart in the maximum norm, with high probability (our "
    "reading: eps of order beta, alpha >= 2 eps).",
    "||X - X'||_inf >= 2 eps; noiseless max(alpha, beta); with noise P[<= t] = G_alpha^(2 P_R) G_beta^(2 P_NR) "
    "G_0^(P (d - 2)), G_s(t) = P[|s + sqrt(2) sigma_n g| <= t]",
    separation, judge_separation, draw_separation,
)  # fmt: skip
B3 = Entry(
    "B.3", GROUP, "The choice of hyperparameters",
    "All hyperparameters are polynomial or polylogarithmic in k, with few patches, strengths in favour of the "
    "robust feature, small noise and steps, and an ascent much faster than the descent (our reading of a display "
    "whose exponents are lost).",
    "d = poly(k), m = polylog(k), sigma_0^2 = 1/d, alpha >> beta, c < 1, eps ~ beta, alpha > 2 eps, sigma_n << "
    "beta, eta << 1 << eta~ / eta",
    hyperparameters, judge_hyperparameters,
    lambda m: Picture("value; the line, or half to twice it for =, is what is asked for", "", [
        mark(x=1, color="0.3", style="-"),
        *(points(values, np.arange(len(values))[::-1] + offset, name, color, marker, 4, 1)
          for name, values, marker, color, offset in zip(
              m["configuration"], m["value"], "osD", (ROBUST, PAPER, NON_ROBUST), (0.2, 0, -0.2))),
    ], "x", ticks={"y": (np.arange(len(m["relation"]))[::-1], m["relation"])}),
)  # fmt: skip


MANY, FEW = 0.9, 0.1  # of a network's correct samples
N_TEST = 150


def broken(net: PatchCNN, X: np.ndarray, data: PatchData) -> np.ndarray:
    """Share of each network's correct samples that X brings to an error, and its Wilson interval, (R, 3)."""
    correct = net.margin(data.X, data.y) > 0
    lost = correct & (net.margin(X, data.y) <= 0)
    counts = zip(lost.sum(axis=-1), correct.sum(axis=-1))
    return np.array([(a / n, *wilson(a, n)) if n else (np.nan, 0.0, 1.0) for a, n in counts])


def perturbed(lab):
    stories = {"standard": lab.story(False), "adversarial": lab.story(True)}
    c = stories["standard"].config
    test = replace(c, n_seeds=1, n_test=N_TEST).data("test")
    test = PatchData(test.X[0], test.y[0], test.robust[0], test.strength[0], test.features)
    signs, radius = np.random.default_rng(lab.seed(11)).choice([-1.0, 1.0], test.X.shape), (c.eps, c.eps_test)
    nets = {name: story.net.astype(np.float64) for name, story in stories.items()}
    shown = {"swap": [feature_swap(test, eps=eps, rng=lab.seed(0)) for eps in radius],
             "signs": [test.X + eps * signs for eps in radius]}  # fmt: skip
    return {
        "radius": radius, "beta": c.beta,
        "accuracy": {name: net.accuracy(test.X, test.y) for name, net in nets.items()},
        **{attack: {name: np.array([broken(net, X, test) for X in each]) for name, net in nets.items()}
           for attack, each in shown.items()},
    }  # fmt: skip


def judge_perturbed(m):
    eps, other = m["radius"]
    what = "share of each network's correct samples that {} of radius eps break after {} training, Wilson's {} end"
    cases = (("swap", "standard", 1, ">=", MANY), ("swap", "adversarial", 2, "<=", FEW),
             ("signs", "standard", 2, "<=", FEW))  # fmt: skip
    return Judgement(
        [Check(what.format({"swap": "swaps", "signs": "random signs"}[attack], training, ("lower", "upper")[end - 1]),
               m[attack][training][0][:, end], op, bound) for attack, training, end, op, bound in cases],
        f"{len(m['swap']['standard'][0])} networks; at eps = {other:g} " + ", ".join(
            f"{attack} after {name} training {spread(shares[1, :, 0])}"
            for attack in ("swap", "signs") for name, shares in m[attack].items()),
        [Check("eps / beta", eps / m["beta"], ">=", 1),
         Check("clean accuracy", min(np.min(a) for a in m["accuracy"].values()), ">=", MANY)],
    )  # fmt: skip


TRANSFER = Entry(
    "transfer", "data", "One swap breaks them all",
    "The swap of non-robust features, drawn once and without any network, breaks every network that standard "
    "training made from its own seed and data, and no adversarially trained one: such features belong to the data, "
    "not to a network.",
    "delta_p = clip_eps(beta_p (v_y' - v_y)) on J_NR, 0 on J_R, one y' per sample for all networks",
    perturbed, judge_perturbed,
    lambda m: Picture("network: its own seed, its own training data", "share of test samples broken", [
        *(interval(np.arange(len(m[attack][name][j])) + 0.1 * (2 * i + j - 3.5), *m[attack][name][j].T,
                   f"{attack}, {name} training, eps = {eps:g}", color, marker, mfc=color if j == 0 else "white")
          for i, (attack, name, color, marker) in enumerate((
              ("swap", "standard", NON_ROBUST, "s"), ("signs", "standard", "0.5", "v"),
              ("swap", "adversarial", ROBUST, "o"), ("signs", "adversarial", PAPER, "^")))
          for j, eps in enumerate(m["radius"])),
        level(MANY, None), level(FEW, None),
    ], ylim=(-0.05, 1.05)), "ours",
)  # fmt: skip
