"""Standard training against its exact recursion: Lemma 5.1, D.2-D.4, and how far D.4 carries with noise."""

from dataclasses import replace

import numpy as np
from scipy import stats

from ..patches.data import PatchData, PatchDistribution
from ..patches.network import PatchCNN
from ..reporting.pictures import CERTIFIED, NON_ROBUST, PAPER, ROBUST, Picture, line, mark, points
from ..theory import State, gaussian_maximum, population_types, simulate
from ..training.configuration import TrainConfig
from ..training.loop import train
from .lab import features_of, recursion_types, shared
from .ledger import EXACT, Check, Entry, Judgement, exact, exponent
from .statistics import fit_exponent, fit_paired, spread

GROUP = "standard training"


def relative(network: np.ndarray, recursion: np.ndarray) -> np.ndarray:
    """Largest deviation at each record (T,), relative to the largest of the network's numbers; NaN counts as one."""
    apart = np.abs(network - recursion).reshape(len(network), -1).max(axis=1)
    return np.where(np.isfinite(apart), apart, np.inf) / np.abs(network).max()


def compared(pair) -> dict:
    """Both sides' correlations of one (seed, class, neuron) each, and the deviation at every record."""
    found = pair.recursion
    return {
        "iteration": pair.iteration, "network": pair.phi, "recursion": found.phi,
        "saturated_at": found.saturated_at, "noise_std": pair.config.noise_std,
    }  # fmt: skip


def judge_exactness(m, what: str = "the network's correlations") -> Judgement:
    """`what` is equal to the recursion at every record that is not flagged as behind a saturation."""
    late = np.nanmin(np.append(m["saturated_at"], np.inf))
    kept = m["iteration"] <= late
    t, error = m["iteration"][kept], relative(m["network"][kept], m["recursion"][kept])
    at = "deviation " + ", ".join(f"{error[i]:.1e} at t = {t[i]}" for i in sorted({0, len(t) // 2, len(t) - 1}))
    saturated = [Check("iteration at which orthogonal axes saturate", late, ">", 0)] if np.isfinite(late) else []
    rule = f"largest deviation of {what} over {len(t)} records, of the largest"
    return Judgement([exact(rule, error)], at, [Check("noise", m["noise_std"], "==", 0), *saturated])


def draw_exactness(m):
    """Network against recursion: every correlation at the first, middle and last record, on the diagonal."""
    k, T, layers = m["network"].shape[-1] // 2, len(m["iteration"]), []
    for t, marker in zip(sorted({0, T // 2, T - 1}), "osD"):
        for part, color, label in ((slice(0, k), ROBUST, "robust"), (slice(k, None), NON_ROBUST, "non-robust")):
            x, y = m["recursion"][t][..., part], m["network"][t][..., part]
            layers.append(points(x, y, f"{label}, t = {m['iteration'][t]}", color, marker, alpha=0.4))
    ends = np.nanmin(m["network"]), np.nanmax(m["network"])
    linear = 10 ** np.ceil(np.log10(np.nanmedian(np.abs(m["network"]))))
    layers.append(line(ends, ends, None, "0.6", lw=0.8))
    return Picture("recursion's <w, f>", "network's <w, f>", layers, symlog={"x": linear, "y": linear})


# ------------------------------------------------------------------ 5.1
def own_features(lab):
    pair = lab.exact(False)
    k = pair.config.n_classes
    own = np.arange(k)

    def sequences(phi):
        parts = [np.moveaxis(phi[:, :, own, :, own + shift], 0, 2) for shift in (0, k)]
        return np.concatenate(parts, axis=-1)

    return compared(pair) | {"network": sequences(pair.phi), "recursion": sequences(pair.recursion.phi)}


def slowest(m) -> int:
    """The class of the first run whose strongest correlation is smallest at the end."""
    return int(m["network"][-1, 0].max(axis=-1).argmin())


# ------------------------------------------------------------------ D.2
@shared
def rotated_basis(lab, noise_std: float = 0.0) -> dict:
    """A network on features that are no axes, random strengths, beside its recursion: what D.2 compares."""
    k, d, n_iter, every = 3, 40, 400, 20
    rng = np.random.default_rng(lab.seed(0))
    f = np.linalg.qr(rng.standard_normal((d, 2 * k)))[0].T
    law = PatchDistribution(
        n_classes=k, patch_dim=d, n_patches=8, n_robust=2, features=(f[:k], f[k:]),
        alpha=stats.uniform(1.5, 1), beta=stats.uniform(0.5, 1), noise_std=noise_std,
    )  # fmt: skip
    data, net, looks = law.sample(12, rng), PatchCNN.init(k, 5, d, rng=rng, rho=3.0), []
    training = TrainConfig(lr=0.5, n_iter=n_iter, record_every=every)
    train(net, data, training, metrics=lambda n, _: looks.append(n.W.copy()) or {})
    options = {"q": net.q, "rho": net.rho, "lr": 0.5, "n_iter": n_iter, "record_every": every}
    found = simulate(State.from_weights(net.W, (f[:k], f[k:])), recursion_types(data, k), **options)
    return decomposition(np.stack(looks)[:, None], f, found)


def decomposition(W, f, found) -> dict:
    """Weights (T, R, k, m, d): how far their orthogonal parts moved, and w rebuilt from the recursion, per record."""
    orthogonal = W - (W @ f.T) @ f
    rebuilt = orthogonal[:1] + found.phi @ f
    largest = np.abs(W).reshape(len(W), -1).max(axis=1)
    apart = [np.abs(x).reshape(len(W), -1).max(axis=1) for x in (orthogonal - orthogonal[:1], W - rebuilt)]
    return {
        "iteration": found.iteration,
        "moved": apart[0] / np.abs(orthogonal[0]).max(),
        "rebuilt": apart[1] / largest,
        "grown": np.abs(W @ f.T).max() / np.abs(W[0] @ f.T).max(),
    }


def decompositions(lab):
    pair = lab.exact(False)
    return {
        "default, axis-parallel features": decomposition(pair.weights, features_of(pair.config), pair.recursion),
        "rotated features, random strengths": rotated_basis(lab),
    }


def judge_decompositions(m):
    moved, rebuilt, grown = (np.array([np.max(run[name]) for run in m.values()]) for name in
                             ("moved", "rebuilt", "grown"))  # fmt: skip
    return Judgement(
        [exact("largest motion of P_orth w at any record, of max |P_orth w^(0)|", moved),
         exact("largest |w - w rebuilt from the recursion's correlations|, of max |w|", rebuilt)],
        assumptions=[Check("training moves w: growth of correlations", grown.min(), ">=", 1.5)],
    )  # fmt: skip


# ------------------------------------------------------------------ D.3
SIZES = {  # (k, m, d) of D.3, by what is changed
    "sigma_0": [(5, 20, d) for d in (64, 256, 1024, 10**5, 10**7)],
    "m": [(5, m, 256) for m in (5, 20, 80, 320)],
    "k": [(k, 20, 256) for k in (2, 10, 20)],
}
DRAWN = 2000  # from this d on correlations are drawn without weights (State.draw), below from a network's


def initial_maxima(k, m, d, seeds) -> np.ndarray:
    """max_s <w_{i,s}, f> sqrt(d) at t = 0, (seeds, k, 2k), sigma_0 = 1/sqrt(d)."""
    rng = [np.random.default_rng([seed, k, m, d]) for seed in seeds]
    if d >= DRAWN:
        phi = State.draw(k, m, d, rng=rng).phi
    else:
        phi = PatchCNN.init(k, m, d, rng=rng).W[..., : 2 * k]
    return np.sqrt(d) * phi.max(axis=2)


def initial_correlations(lab):
    drawn = {size: initial_maxima(*size, lab.seeds) for sizes in SIZES.values() for size in sizes}
    rows = []
    for (k, m, d), M in drawn.items():
        test = stats.kstest(gaussian_maximum.cdf(M.ravel(), m), "uniform")
        rows.append({"k": k, "m": m, "d": d, "n": M.size, "distance": test.statistic, "range": [M.min(), M.max()]})
    return {
        "n_seeds": lab.n_draws,
        "rows": rows,
        "sigma_0": np.array([d**-0.5 for *_, d in SIZES["sigma_0"]]),
        "maxima": np.stack([drawn[size].mean(axis=(1, 2)) / np.sqrt(size[2]) for size in SIZES["sigma_0"]]),
        "over_m": {m: drawn[k, m, d].ravel() for k, m, d in SIZES["m"]},
    }


def judge_initial_correlations(m):
    fit = fit_exponent(np.broadcast_to(m["sigma_0"][:, None], m["maxima"].shape), m["maxima"])
    distance = [row["distance"] * np.sqrt(row["n"]) for row in m["rows"]]
    low, high = (f([row["range"][j] for row in m["rows"]]) for j, f in ((0, min), (1, max)))
    return Judgement(
        [Check("Kolmogorov-Smirnov distance to Phi^m times sqrt(n), every (k, m, d)", distance, "<=", 1.95, "share"),
         exponent("mean over (class, feature), exponent in sigma_0", fit, 1, 0.05)],
        f"1.95 is the distance's 0.1% point; max_s <w, f> / sigma_0 from {low:.2f} to {high:.2f}",
        [Check("seeds", m["n_seeds"], ">=", 16)],
    )  # fmt: skip


# ------------------------------------------------------------------ D.4 with noise
NOISY = {"n_classes": 3, "n_patches": 8, "n_robust": 1, "alpha": 1.5, "beta": 1.0}  # density ratio 0.48
NOISY_NET = {"n_neurons": 5, "patch_dim": 40, "rho": 10.0, "lr": 1.0, "n_iter": 600, "early": 20}
LEVELS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
FITTED = 4  # of these levels; beyond them sigma_n |w| is no longer small beside the correlations


def noisy_runs(n_train: int, levels, seeds, n_iter: int) -> dict:
    """Networks with noise beside the noiseless recursion from their weights; the same noise, scaled, at all levels.

    -> "deviation" (T, levels, seeds), root mean square over all correlations; "first_order" likewise, its prediction;
    "iteration" (T,); "moved" (T,), the recursion's largest step from its start, relative to the largest there.
    """
    c, k = NOISY_NET, NOISY["n_classes"]
    law = PatchDistribution(**NOISY, patch_dim=c["patch_dim"], noise_std=1.0)
    drawn = [law.sample(n_train, 1000 + seed, balanced=True) for seed in seeds]
    clean = [data.signal() for data in drawn]
    data = PatchData.stack([replace(d, X=s + level * (d.X - s)) for level in levels for d, s in zip(drawn, clean)])
    net = PatchCNN.init(k, c["n_neurons"], c["patch_dim"], rng=list(seeds), rho=c["rho"])
    f, looks = np.concatenate(law.features), []
    every = c["early"]
    train(
        net.with_weights(np.tile(net.W, (len(levels), 1, 1, 1))), data,
        TrainConfig(lr=c["lr"], n_iter=n_iter, record_every=every),
        metrics=lambda n, _: looks.append(n.W @ f.T) or {},
    )  # fmt: skip
    options = {"q": net.q, "rho": net.rho, "lr": c["lr"], "n_iter": n_iter, "record_every": every}
    found = simulate(State.from_weights(net.W, law.features), population_types(**NOISY), **options)
    phi = np.stack(looks).reshape(-1, len(levels), *found.phi.shape[1:])
    first = first_order(net, f) * c["lr"] / np.sqrt(n_train * k) * found.iteration[:, None, None]
    return {
        "iteration": found.iteration,
        "level": np.array(levels),
        "deviation": np.sqrt(np.mean((phi - found.phi[:, None]) ** 2, axis=(3, 4, 5))),
        "first_order": first * np.array(levels)[:, None],
        "moved": np.abs(found.phi - found.phi[0]).max(axis=(1, 2, 3, 4)) / np.abs(found.phi[0]).max(),
    }


def first_order(net, f) -> np.ndarray:
    """Root mean square over correlations of what unit noise adds to one gradient's own, times sqrt(N k): (R,).

    A patch s f_g + xi moves <w, f> by (eta/N) e (sigma'(z) <xi, f> + 1{f = f_g} sigma''(z) <w, xi> s), z = s <w,
    f_g>, to first order in xi, where e = 1{y=i} - 1/k; its variance, summed over the N/k samples of every class.
    """
    k, q, rho, W = NOISY["n_classes"], net.q, net.rho, net.W
    phi, square = W @ f.T, (W**2).sum(axis=-1)[..., None]
    n_patches = np.repeat([NOISY["n_robust"], NOISY["n_patches"] - NOISY["n_robust"]], k)
    strength = np.repeat([NOISY["alpha"], NOISY["beta"]], k)
    z = np.maximum(strength * phi, 0) / rho
    slope, bend = z ** (q - 1), (q - 1) * z ** (q - 2) / rho * strength
    e2 = (np.eye(k) - 1 / k) ** 2
    e2 = np.concatenate([e2, e2], axis=1)[None, :, None]  # (1, k, 1, 2k): class i against the patch's feature
    everywhere = (e2 * n_patches * slope**2).sum(axis=-1, keepdims=True)
    own = e2 * n_patches * (2 * slope * bend * phi + bend**2 * square)
    return np.sqrt((everywhere + own).mean(axis=(1, 2, 3)))


def with_noise(lab):
    short = {n: noisy_runs(n, LEVELS[2:3], lab.seeds, NOISY_NET["early"]) for n in (12, 48, 192)}
    return noisy_runs(12, LEVELS, lab.seeds, NOISY_NET["n_iter"]) | {
        "n_train": np.array(list(short)),
        "early_rms": np.array([np.sqrt(np.mean(run["deviation"][1] ** 2)) for run in short.values()]),
        "early_first_order": np.array([np.sqrt(np.mean(run["first_order"][1] ** 2)) for run in short.values()]),
    }


def judge_with_noise(m):
    fits = [fit_paired(m["level"][:FITTED], m["deviation"][t, :FITTED]) for t in (1, -1)]
    ratio, when = m["early_rms"] / m["early_first_order"], (m["iteration"][1], m["iteration"][-1])
    ratios = ", ".join(f"{r:.2f} at N = {n}" for r, n in zip(ratio, m["n_train"]))
    largest = m["deviation"][-1, -1] / m["level"][-1] / (m["deviation"][-1, 0] / m["level"][0])
    rule = f"deviation at t = {{}}, exponent in sigma_n over {m['level'][0]:g} to {m['level'][FITTED - 1]:g}"
    return Judgement(
        [exponent(rule.format(t), fit, 1, 0.1) for t, fit in zip(when, fits)]
        + [Check("|log(early deviation / first order)|", np.abs(np.log(ratio)), "<=", np.log(1.3), "share", ratios)],
        f"at sigma_n = {m['level'][-1]:g} the end's deviation is {spread(largest)} of linear",
        [Check("early: correlations moved, of the largest", float(m["moved"][1]), "<=", 0.2)],
    )


L51 = Entry(
    "5.1", GROUP, "Feature learning iteration, own features",
    "Without noise the sequences A = <w_{i,r}, u_i> and B = <w_{i,r}, v_i> of every neuron follow their own "
    "recursion: a gain (1 - logit) times the activation's slope, summed over the patches that hold the feature.",
    "A_{i,r} += eta E[1{y=i} (1 - logit_i) sum_{J_R} sigma'(alpha_p A_{i,r}) alpha_p]; B_{i,r} += eta E[1{y=i} (1 - "
    "logit_i) sum_{J_NR} sigma'(beta_p B_{i,r}) beta_p]",
    own_features, lambda m: judge_exactness(m, "A and B"),
    lambda m: Picture("iteration", "<w, u>, <w, v> of the slowest class's neurons", [
        line(m["iteration"], values[:, 0, slowest(m)][..., part], label, color, style, lw=width, alpha=alpha)
        for values, part, label, color, style, width, alpha in (
            (m["network"], slice(m["network"].shape[-1] // 2, None), "B, network", NON_ROBUST, "-", 1.6, 0.6),
            (m["network"], slice(m["network"].shape[-1] // 2), "A, network", ROBUST, "-", 1.6, 0.6),
            (m["recursion"], slice(None), "recursion", "k", "--", 0.7, 1))
    ], symlog={"y": 0.1}),
)  # fmt: skip
D2 = Entry(
    "D.2", GROUP, "Weight decomposition",
    "Without noise every weight is a combination of the 2k features plus its initial orthogonal part, which never "
    "moves; our reading: the coefficients are the recursion's correlations, for any orthonormal basis.",
    "w_{i,r}^(t) = sum_j (<w_{i,r}^(t), u_j> u_j + <w_{i,r}^(t), v_j> v_j) + P_orth w_{i,r}^(0)",
    decompositions, judge_decompositions,
    lambda m: Picture("iteration / last iteration", "relative deviation (0 drawn at 1e-18)", [
        *(line(run["iteration"] / run["iteration"][-1], np.maximum(run[part], 1e-18), f"{what}; {name}", color, style)
          for (name, run), style in zip(m.items(), ("-", ":"))
          for part, color, what in (("moved", ROBUST, "P_orth w moved"), ("rebuilt", NON_ROBUST, "rebuilt - w"))),
        mark(y=EXACT, label="allowed"),
    ], "y", ylim=(3e-19, 1e-5)),
)  # fmt: skip
D3 = Entry(
    "D.3", GROUP, "Initial correlations",
    "At initialisation the largest correlation of a class's m neurons with any feature is of the order sigma_0 up "
    "to logarithms; our reading: it has the exact law of Lemma B.1, the largest of m normal numbers.",
    "max_s <w_{i,s}, f> = Theta~(sigma_0), P[max_s <w_{i,s}, f> <= t] = Phi(t/sigma_0)^m, sigma_0 = d^{-1/2}",
    initial_correlations, judge_initial_correlations,
    lambda m: Picture("max_s <w, f> / sigma_0 at t = 0", "share of (seed, class, feature)", [
        layer for (n, M), color in zip(m["over_m"].items(), (ROBUST, CERTIFIED, NON_ROBUST, PAPER)) for layer in (
            line(np.sort(M), np.arange(1, len(M) + 1) / len(M), f"m = {n}", color, lw=2, alpha=0.5),
            line(np.linspace(-1, 5, 400), gaussian_maximum.cdf(np.linspace(-1, 5, 400), int(n)), "Phi^m", "k", "--"),
            mark(x=gaussian_maximum.asymptote(int(n)), label="sqrt(2 log m)", color=color, ymax=0.06, style="-"))
    ], xlim=(-1, 5)),
)  # fmt: skip
D4 = Entry(
    "D.4", GROUP, "Feature learning iteration",
    "Without noise all 2k correlations of every neuron follow a recursion of their own, free of d and N.",
    "A_{i,r} += eta E[1{y=i} (1 - logit_i) sum_{J_R} sigma'(alpha_p A_{i,r}) alpha_p], B with beta_p on J_NR; "
    "<w_{i,r}, u_j> -= eta E[1{y=j} logit_i sum_{J_R} sigma'(alpha_p <w_{i,r}, u_j>) alpha_p], v_j likewise",
    lambda lab: compared(lab.exact(False)), judge_exactness, draw_exactness,
)  # fmt: skip
D4_NOISE = Entry(
    "D.4 (noise)", GROUP, "Feature learning iteration with noise",
    "With noise the correlations leave the noiseless recursion from the same weights in proportion to sigma_n, by "
    "the first-order average of N samples' noise in early training, and still in proportion at the end.",
    "<w_{i,r}, f>_network - <w_{i,r}, f>_recursion = sigma_n g_t + O(sigma_n^2); early: rms g_t = eta t (mean over "
    "(i,r,f) of 1/(N k) sum_y (1{y=i} - 1/k)^2 sum_p |sigma'(z_p) f + 1{f=f_p} sigma''(z_p) s_p w|^2)^(1/2)",
    with_noise, judge_with_noise, lambda m: Picture("sigma_n", "rms of <w, f> - recursion's", [
        *(points(m["level"], m["deviation"][t], f"t = {m['iteration'][t]}, a run each", color, alpha=0.7)
          for t, color in ((1, ROBUST), (-1, NON_ROBUST))),
        *(line(m["level"], stats.gmean(m["deviation"][t, 0]) * m["level"] / m["level"][0], "proportional", "0.5")
          for t in (1, -1)),
        line(m["level"], m["first_order"][1].mean(axis=-1), "first order, predicted", "k", "--", lw=1),
    ], "xy"), "ours",
)  # fmt: skip
