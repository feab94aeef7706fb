"""Standard training without noise against its exact recursion: Lemma 5.1, D.2-D.4."""

from __future__ import annotations

import numpy as np
from scipy import stats

from ..patches.data import PatchDistribution
from ..patches.network import PatchCNN
from ..reporting.style import ACCURACY, CERTIFIED, NON_ROBUST, PAPER, ROBUST
from ..theory import State, gaussian_maximum, simulate
from ..training.configuration import TrainConfig
from ..training.loop import train
from .lab import recursion_types
from .ledger import Assumption, Judgement, entry
from .statistics import Exponent, fit_exponent, shortfall

EXACT = 1e-10  # of the largest correlation, float64, after 4000 iterations
GROUP = "standard training"


def dense(lab):
    """`lab.exact`, standard."""
    return lab.exact(False)


def relative(network: np.ndarray, recursion: np.ndarray) -> np.ndarray:
    """Largest deviation at each record (T,), relative to the largest of the network's numbers; NaN counts as one."""
    apart = np.abs(network - recursion).reshape(len(network), -1).max(axis=1)
    return np.where(np.isfinite(apart), apart, np.inf) / np.abs(network).max()


def compared(pair) -> dict:
    """Both sides' correlations of one (seed, class, neuron) each, and the deviation at every record."""
    found = pair.recursion
    return {
        "iteration": pair.iteration,
        "network": pair.phi,
        "recursion": found.phi,
        "saturated_at": found.saturated_at,
        "noise_std": pair.config.noise_std,
    }


def exactness(m: dict, what: str) -> Judgement:
    """`what` is equal to the recursion at every record that is not flagged as behind a saturation."""
    late = np.nanmin(np.append(m["saturated_at"], np.inf))
    kept = m["iteration"] <= late
    t, error = m["iteration"][kept], relative(m["network"][kept], m["recursion"][kept])
    shown = sorted({0, len(t) // 2, len(t) - 1})
    assumptions = [Assumption("noise", f"{m['noise_std']:g}", "0", m["noise_std"] == 0)]
    if np.isfinite(late):
        assumptions.append(Assumption("orthogonal axes", f"saturate at iteration {late:g}", "none before", late > 0))
    return Judgement(
        f"{what} equal to the recursion",
        "relative deviation " + ", ".join(f"{error[i]:.1e} at t = {t[i]}" for i in shown)
        + (f"; largest of {len(t)} records {error.max():.1e}" if len(t) > len(shown) else ""),
        shortfall(error, EXACT),
        assumptions,
    )  # fmt: skip


def draw_exactness(axis, m):
    """Network against recursion: every correlation at the first, middle and last record, on the diagonal."""
    k, T = m["network"].shape[-1] // 2, len(m["iteration"])
    for t, marker in zip(sorted({0, T // 2, T - 1}), "osD"):
        for part, color, label in ((slice(0, k), ROBUST, "robust"), (slice(k, None), NON_ROBUST, "non-robust")):
            x, y = m["recursion"][t][..., part].ravel(), m["network"][t][..., part].ravel()
            axis.plot(x, y, marker, color=color, ms=3, alpha=0.4, mew=0, label=f"{label}, t = {m['iteration'][t]}")
    ends = np.nanmin(m["network"]), np.nanmax(m["network"])
    axis.plot(ends, ends, color="0.6", lw=0.8, zorder=0)
    linear = 10 ** np.ceil(np.log10(np.nanmedian(np.abs(m["network"]))))
    axis.set_xscale("symlog", linthresh=linear)
    axis.set_yscale("symlog", linthresh=linear)
    axis.set_xlabel("recursion's <w, f>")
    axis.set_ylabel("network's <w, f>")


def fit_paired(x, y) -> Exponent:
    """Exponent common to all columns of y (n, ...) over x (n,), each column with a constant of its own.

    Columns share their draws from row to row, so their constants carry no information on the exponent.  Columns with a
    NaN are left out; NaN where none is left.
    """
    y = np.asarray(y).reshape(len(x), -1)
    y = y[:, np.isfinite(y).all(axis=0)]
    if y.size < 3:
        return Exponent(*4 * [np.nan])
    return fit_exponent(np.broadcast_to(np.asarray(x, float)[:, None], y.shape), y / stats.gmean(y, axis=0))


def smallest(*margins) -> float:
    """The smallest of several margins, numbers or arrays; NaN if one of them is, or is an empty array."""
    return float(np.min([np.min(margin) if np.size(margin) else np.nan for margin in margins]))


def within(fit: Exponent, expected: float, tolerance: float) -> float:
    """1 where the interval is `expected` alone, 0 where its farther end is `tolerance` away, negative beyond."""
    return 1 - max(abs(fit.low - expected), abs(fit.high - expected)) / tolerance


@entry(
    "5.1",
    GROUP,
    "Feature learning iteration, own features",
    statement="Without noise the sequences A = <w_{i,r}, u_i> and B = <w_{i,r}, v_i> of every neuron follow their own "
    "recursion: a gain (1 - logit) times the activation's slope, summed over the patches that hold the feature.",
    formula="A_{i,r} += eta E[1{y=i} (1 - logit_i) sum_{J_R} sigma'(alpha_p A_{i,r}) alpha_p]; "
    "B_{i,r} += eta E[1{y=i} (1 - logit_i) sum_{J_NR} sigma'(beta_p B_{i,r}) beta_p]",
    rule=f"largest deviation of A and B over 41 records <= {EXACT:g} of the largest; margin: decades below that",
)
class OwnFeatures:
    def measure(lab):
        pair = dense(lab)
        k = pair.config.n_classes
        own = np.arange(k)

        def sequences(phi):
            parts = [np.moveaxis(phi[:, :, own, :, own + shift], 0, 2) for shift in (0, k)]
            return np.concatenate(parts, axis=-1)

        return compared(pair) | {"network": sequences(pair.phi), "recursion": sequences(pair.recursion.phi)}

    def judge(m):
        return exactness(m, "A and B")

    def draw(axis, m):
        """All neurons of the run's slowest class: A and B over time, with the recursion dashed on top."""
        n = m["network"].shape[-1] // 2
        i = int(m["network"][-1, 0].max(axis=-1).argmin())
        for part, color, name in ((slice(n, None), NON_ROBUST, "B, network"), (slice(0, n), ROBUST, "A, network")):
            lines = axis.plot(m["iteration"], m["network"][:, 0, i, part], color=color, lw=1.6, alpha=0.6)
            lines[0].set_label(name)
        dashed = axis.plot(m["iteration"], m["recursion"][:, 0, i], color="k", lw=0.7, ls=(0, (4, 4)))
        dashed[0].set_label("recursion")
        axis.set_yscale("symlog", linthresh=0.1)
        axis.set_xlabel("iteration")
        axis.set_ylabel(f"<w, u>, <w, v> of class {i + 1}'s neurons")


def rotated_basis(noise_std: float = 0.0) -> dict:
    """A network on features that are no axes, random strengths, beside its recursion: what D.2 compares."""
    k, d, n_iter, every = 3, 40, 400, 20
    rng = np.random.default_rng(0)
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


@entry(
    "D.2",
    GROUP,
    "Weight decomposition",
    statement="Without noise every weight is a combination of the 2k features plus its initial orthogonal part, which "
    "never moves; our reading: the coefficients are the recursion's correlations, for any orthonormal basis.",
    formula="w_{i,r}^(t) = sum_j (<w_{i,r}^(t), u_j> u_j + <w_{i,r}^(t), v_j> v_j) + P_orth w_{i,r}^(0)",
    rule=f"|P_orth (w^(t) - w^(0))| <= {EXACT:g} max|P_orth w^(0)|, and w rebuilt from the recursion's correlations "
    f"differs from w by <= {EXACT:g} max|w|, at every record; margin: decades below that",
)
class StandardDecomposition:
    def measure(lab):
        pair = dense(lab)
        f = np.concatenate(pair.config.distribution().features)
        return {
            "default, axis-parallel features": decomposition(pair.weights, f, pair.recursion),
            "rotated features, random strengths": lab.once(("rotated",), rotated_basis),
        }

    def judge(m):
        worst = {part: max(float(np.max(run[part])) for run in m.values()) for part in ("moved", "rebuilt")}
        grown = min(float(run["grown"]) for run in m.values())
        return Judgement(
            "orthogonal part constant; w = rebuilt w",
            f"orthogonal part moved by {worst['moved']:.1e}, rebuilt w off by {worst['rebuilt']:.1e} (relative), "
            f"while correlations grew {grown:.3g}-fold and more",
            smallest(*(shortfall(error, EXACT) for error in worst.values())),
            [Assumption("training moves w", f"correlations grew {grown:.3g}-fold", ">= 1.5", grown >= 1.5)],
        )

    def draw(axis, m):
        for (name, run), ls in zip(m.items(), ("-", ":")):
            share = run["iteration"] / run["iteration"][-1]
            for part, color, what in (("moved", ROBUST, "P_orth w moved"), ("rebuilt", NON_ROBUST, "rebuilt - w")):
                axis.semilogy(share, np.maximum(run[part], 1e-18), ls, color=color, label=f"{what}; {name}")
        axis.axhline(EXACT, color=ACCURACY, ls="--", lw=1)
        axis.annotate("allowed", (0.01, EXACT), textcoords="offset points", xytext=(0, 3), fontsize=7)
        axis.set_ylim(3e-19, 1e-5)
        axis.set_xlabel("iteration / last iteration")
        axis.set_ylabel("relative deviation (0 drawn at 1e-18)")


SIZES = {  # (k, m, d) of D.3, by what is changed
    "sigma_0": [(5, 20, d) for d in (64, 256, 1024, 10**5, 10**7)],
    "m": [(5, m, 256) for m in (5, 20, 80, 320)],
    "k": [(k, 20, 256) for k in (2, 10, 20)],
}
DRAWN = 2000  # from this d on correlations are drawn without weights (State.draw), below from a network's


def initial_maxima(k, m, d, n_seeds) -> np.ndarray:
    """max_s <w_{i,s}, f> sqrt(d) at t = 0, (n_seeds, k, 2k), sigma_0 = 1/sqrt(d)."""
    rng = [np.random.default_rng([seed, k, m, d]) for seed in range(n_seeds)]
    if d >= DRAWN:
        phi = State.draw(k, m, d, rng=rng).phi
    else:
        phi = PatchCNN.init(k, m, d, rng=rng).W[..., : 2 * k]
    return np.sqrt(d) * phi.max(axis=2)


@entry(
    "D.3",
    GROUP,
    "Initial correlations",
    statement="At initialisation the largest correlation of a class's m neurons with any feature is of the order "
    "sigma_0 up to logarithms; our reading: it has the exact law of Lemma B.1, the largest of m normal numbers.",
    formula="max_s <w_{i,s}, f> = Theta~(sigma_0), P[max_s <w_{i,s}, f> <= t] = Phi(t/sigma_0)^m, sigma_0 = d^{-1/2}",
    rule="Kolmogorov-Smirnov distance to Phi^m <= its 0.1% point 1.95/sqrt(n) for every (k, m, d); exponent of the "
    "mean over (class, feature) in sigma_0 within 1 +- 0.05, interval and all; margin: the smaller of "
    "1 - distance/point and 1 - |exponent - 1|/0.05",
)
class InitialCorrelations:
    def measure(lab):
        drawn = {size: initial_maxima(*size, lab.n_draws) for sizes in SIZES.values() for size in sizes}
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

    def judge(m):
        fit = fit_exponent(np.broadcast_to(m["sigma_0"][:, None], m["maxima"].shape), m["maxima"])
        distance = max(row["distance"] * np.sqrt(row["n"]) for row in m["rows"])
        low, high = (f([row["range"][j] for row in m["rows"]]) for j, f in ((0, min), (1, max)))
        return Judgement(
            "law Phi(t / sigma_0)^m, exponent 1 in sigma_0",
            f"largest Kolmogorov-Smirnov distance {distance:.2f}/sqrt(n) over {len(m['rows'])} (k, m, d); exponent "
            f"{fit}; max_s <w, f> / sigma_0 from {low:.2f} to {high:.2f}",
            smallest(1 - distance / 1.95, within(fit, 1, 0.05)),
            [Assumption("seeds", str(m["n_seeds"]), ">= 16", m["n_seeds"] >= 16)],
        )

    def draw(axis, m):
        t = np.linspace(-1, 5, 400)
        for (n, M), color in zip(m["over_m"].items(), (ROBUST, CERTIFIED, NON_ROBUST, PAPER)):
            axis.step(np.sort(M), np.arange(1, len(M) + 1) / len(M), color=color, lw=2, alpha=0.5, label=f"m = {n}")
            axis.plot(t, gaussian_maximum.cdf(t, int(n)), "k", lw=0.7, ls="--", label="Phi^m" if n == 320 else None)
            axis.axvline(gaussian_maximum.asymptote(int(n)), ymax=0.06, color=color, lw=1.5)
        axis.set_xlim(-1, 5)
        axis.set_xlabel("max_s <w, f> / sigma_0 at t = 0; ticks below: sqrt(2 log m)")
        axis.set_ylabel("share of (seed, class, feature)")


@entry(
    "D.4",
    GROUP,
    "Feature learning iteration",
    statement="Without noise all 2k correlations of every neuron follow a recursion of their own, free of d and N.",
    formula="A_{i,r} += eta E[1{y=i} (1 - logit_i) sum_{J_R} sigma'(alpha_p A_{i,r}) alpha_p], B with beta_p on J_NR; "
    "<w_{i,r}, u_j> -= eta E[1{y=j} logit_i sum_{J_R} sigma'(alpha_p <w_{i,r}, u_j>) alpha_p], v_j likewise",
    rule=f"largest deviation over 41 records <= {EXACT:g} of the largest correlation; margin: decades below that",
)
class StandardFeatureLearning:
    def measure(lab):
        return compared(dense(lab))

    def judge(m):
        return exactness(m, "network's correlations")

    draw = draw_exactness
