"""Adversarial training without noise, its exact recursion: D.16-D.18."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LogNorm

from ..experiments.configuration import Figure3Config
from ..kernels import get_engine
from ..kernels.recursion import Watch
from ..patches.attacks import one_step_ascent
from ..patches.network import PatchCNN
from ..reporting.style import ACCURACY, NON_ROBUST, PAPER, ROBUST
from ..theory import State, simulate
from .adversarial import GROUP, ascended, dense, patch_kinds
from .lab import beside_recursion, recursion_types
from .ledger import Assumption, Judgement, entry
from .standard import EXACT, compared, draw_exactness, exactness
from .statistics import shortfall, spread


# ------------------------------------------------------------------ D.16
def transfer(pair, n_iter: int) -> np.ndarray:
    """M of W_orth(n_iter) = M W_orth(0), (R, K, K), from the recursion alone: it starts from M = 1, knows no W_orth."""
    c, (R, k, m, f) = pair.config, pair.state.phi.shape
    phi, gram = pair.state.phi.reshape(R, k * m, f).copy(), pair.state.gram.copy()
    watch = Watch(np.tile(np.eye(k * m), (R, 1, 1)), np.full(R, float(k * m)), np.zeros(R), np.inf, True)
    types = recursion_types(pair.data, k)
    rates = [np.full(R, value) for value in (c.rho, c.lr, c.ascent_lr, c.eps)]
    linf, neg_label_logit = 0, 0
    get_engine("numba").recursion(
        phi, gram, types, watch, c.q, rates[0], rates[1], n_iter, neg_label_logit, rates[2], rates[3], linf, 1
    )
    return watch.orthogonal


@entry(
    "D.16",
    GROUP,
    "Weight decomposition",
    statement="Every weight stays a combination of the 2k features and the initial orthogonal parts of all neurons; "
    "our reading: W_orth(t) = M_t W_orth(0) with a matrix M_t that the recursion knows from (Phi, H) alone.",
    formula="P_orth w_a^(t) = sum_b (M_t)_ab P_orth w_b^(0), M <- (1 + Q) M, Q = eta eta~ E[(e sigma'(z~)) gamma^T]",
    rule="at t = 0, mid-run and end the network's W_orth lies in the span of the initial one and equals M_t "
    f"W_orth(0), both to {EXACT:g} of its largest entry; margin: decades below that",
)
class AdversarialDecomposition:
    def measure(lab):
        # 5 neurons a class: 25 orthogonal parts in 90 dimensions; the default's 100 would span all of them
        config = lab.config(noise_std=0.0, dtype="float64", n_seeds=2, n_neurons=5)
        pair = lab.once(("few neurons",), lambda: beside_recursion(config, True, config.n_iter // 2))
        f = np.concatenate(config.distribution().features)
        W = pair.weights - (pair.weights @ f.T) @ f
        W = W.reshape(*W.shape[:2], -1, W.shape[-1])
        basis = np.linalg.svd(W[0], full_matrices=False)[2]
        M = np.stack([transfer(pair, int(t)) for t in pair.iteration])
        outside, apart, moved = W - (W @ basis.swapaxes(-1, -2)) @ basis, W - M @ W[0], W - W[0]
        largest = np.abs(W).max(axis=(1, 2, 3))
        relative = {"outside": outside, "apart": apart, "moved": moved}
        return {
            "iteration": pair.iteration,
            "span": [int(basis.shape[-2]), int((f == 0).all(axis=0).sum())],
            **{name: np.abs(x).max(axis=(1, 2, 3)) / largest for name, x in relative.items()},
            "M": M[-1, 0],
        }

    def judge(m):
        (parts, free), moved = m["span"], float(m["moved"].max())
        listed = ", ".join(f"{x:.1e}" for x in m["apart"])
        return Judgement(
            "in the span; = M_t W_orth(0)",
            f"outside the span {m['outside'].max():.1e}, beside M_t W_orth(0) {listed} (relative); W_orth itself moved "
            f"by {moved:.2g}, which it never does in standard training",
            shortfall(np.concatenate([m["outside"], m["apart"]]), EXACT),
            [
                Assumption("orthogonal parts K", str(parts), f"< d - 2k = {free}, or they span all", parts < free),
                Assumption("W_orth moves", f"{moved:.2g}", ">= 0.01", moved >= 0.01),
            ],
        )

    def draw(axis, m):
        change = np.abs(m["M"] - np.eye(len(m["M"])))
        shown = axis.imshow(change, cmap="Blues", norm=LogNorm(1e-6, 1), interpolation="nearest")
        axis.figure.colorbar(shown, ax=axis, label=r"$|M_T - 1|$ (1: erased)")
        axis.set_xlabel("initial orthogonal part of neuron b")
        axis.set_ylabel("neuron a")
        axis.grid(False)


# ------------------------------------------------------------------ D.17
def predicted_perturbation(W, features, data, c: dict) -> tuple[np.ndarray, np.ndarray]:
    """delta (R, N, P, d) by the lemma, from Phi and W_orth, and whether a coordinate is clipped."""
    W = np.asarray(W)
    phi, flat = W @ features.T, W.reshape(len(W), -1, W.shape[-1])
    orthogonal = flat - (flat @ features.T) @ features
    parts, far = [], []
    for strength, _, column in patch_kinds(c):
        _, gamma, delta = ascended(phi, c, strength, column)
        free = c["ascent_lr"] * gamma @ orthogonal
        parts.append(delta @ features + free)
        far.append((np.abs(delta) >= c["eps"]) @ (features != 0) | (np.abs(free) > c["eps"]))
    run, kind = np.arange(len(W))[:, None, None], np.where(data.robust, 0, 1)
    return tuple(np.stack(found)[kind, run, data.y[..., None]] for found in (parts, far))


@entry(
    "D.17",
    GROUP,
    "Time-variant adversarial examples",
    statement="The perturbation of a patch is a combination of the features, each clipped at eps, and of the "
    "orthogonal parts of the class's neurons, the latter unclipped as long as no orthogonal axis saturates.",
    formula="x~_p - x_p = sum_f clip_eps(eta~ gamma Phi_f) f + eta~ gamma W_orth, gamma_(y,r) = "
    "-sigma'(<w_(y,r), x_p>)",
    rule=f"one ascent step on the network = formula from (Phi, W_orth), at t = 0, mid-run and end, to {EXACT:g} of the "
    "largest coordinate there; margin: decades below that",
)
class AdversarialExamples:
    def measure(lab):
        pair = dense(lab)
        c, last = pair.config.as_dict(), len(pair.iteration) - 1
        f = np.concatenate(pair.config.distribution().features)
        on = (f != 0).any(axis=0)
        rows = []
        for t in (0, last // 2, last):
            net = PatchCNN(pair.weights[t], c["q"], c["rho"])
            found = one_step_ascent(net, pair.data.X, pair.data.y, lr=c["ascent_lr"], eps=c["eps"]) - pair.data.X
            said, clipped = predicted_perturbation(pair.weights[t], f, pair.data, c)
            shown = found[0, :, :4].reshape(-1, len(on)), said[0, :, :4].reshape(-1, len(on))
            rows.append({
                "iteration": int(pair.iteration[t]),
                "error": np.abs(found - said).max() / np.abs(found).max(),
                "largest": np.abs(found).max(),
                "clipped_features": clipped[..., on].mean(),
                "clipped_orthogonal": clipped[..., ~on].mean(),
                "features": np.stack([x[:, on] for x in shown]),
                "orthogonal": np.stack([x[:, ~on] for x in shown]),
            })  # fmt: skip
        return {"rows": rows, "eps": c["eps"]}

    def judge(m):
        rows = m["rows"]
        saturated = max(float(row["clipped_orthogonal"]) for row in rows)
        listed = ", ".join(f"{row['error']:.1e} at t = {row['iteration']}" for row in rows)
        share = ", ".join(f"{row['clipped_features']:.2%}" for row in rows)
        return Judgement(
            "perturbation = formula",
            f"relative deviation {listed}; largest coordinate " + ", ".join(f"{row['largest']:.3g}" for row in rows)
            + f" of eps = {m['eps']:g}; share clipped: features {share}, orthogonal axes {saturated:.2%}",
            shortfall([row["error"] for row in rows], EXACT),
            [Assumption("orthogonal axes saturated", f"{saturated:.2%}", "0", saturated == 0)],
        )  # fmt: skip

    def draw(axis, m):
        for row, marker in zip(m["rows"], "osD"):
            for part, color in (("orthogonal", "0.6"), ("features", ROBUST)):
                axis.plot(*row[part].reshape(2, -1), marker, color=color, ms=3, alpha=0.5, mew=0, rasterized=True,
                          label=f"{part}, t = {row['iteration']}")  # fmt: skip
        axis.plot([-m["eps"], m["eps"]], [-m["eps"], m["eps"]], color=ACCURACY, lw=0.7, zorder=0)
        for side in (-1, 1):
            axis.axvline(side * m["eps"], color=PAPER, ls="--", lw=0.8)
        axis.set_xscale("symlog", linthresh=1e-4)
        axis.set_yscale("symlog", linthresh=1e-4)
        axis.set_xlabel(r"coordinate of the perturbation, network (dashed: $\pm\varepsilon$)")
        axis.set_ylabel("formula")


# ------------------------------------------------------------------ D.18
@entry(
    "D.18",
    GROUP,
    "Feature learning iteration",
    statement="Without noise the correlations of adversarial training follow a recursion of their own in Phi and the "
    "Gram matrix H of the orthogonal parts, free of d and N, until an orthogonal axis saturates.",
    formula="z~_a = s Phi_af + Phi_a . delta_F + eta~ (H gamma)_a; Phi_a += eta E[e_i sigma'(z~_a) (s e_f + delta_F)]; "
    "H <- (1 + Q) H (1 + Q)^T, Q = eta eta~ E[(e sigma'(z~)) gamma^T]",
    rule=f"largest deviation over 41 records <= {EXACT:g} of the largest correlation; margin: decades below that",
)
class AdversarialFeatureLearning:
    def measure(lab):
        return compared(dense(lab))

    def judge(m):
        return exactness(m, "network's correlations")

    draw = draw_exactness


SATURATING = {
    "n_classes": 3, "n_neurons": 4, "patch_dim": 20, "n_patches": 7, "n_robust": 2, "noise_std": 0.0, "n_train": 6,
    "rho": 2.0, "init_std": 0.1, "lr": 0.2, "ascent_lr": 12.0, "eps": 0.4, "n_iter": 60, "n_records": 60,
    "dtype": "float64",
}  # fmt: skip


def first_clip(pair) -> np.ndarray:
    """First recorded iteration at which the network's ascent passes eps on an orthogonal axis, (R,), NaN if never."""
    c, off = pair.config, (np.concatenate(pair.config.distribution().features) == 0).all(axis=0)
    clips = []
    for W in pair.weights:
        step = c.ascent_lr * PatchCNN(W, c.q, c.rho).input_grad(pair.data.X, pair.data.y, "neg_label_logit")
        clips.append((np.abs(step[..., off]) > c.eps).any(axis=(1, 2, 3)))
    clips = np.array(clips)
    return np.where(clips.any(axis=0), pair.iteration[clips.argmax(axis=0)], np.nan)


@entry(
    "D.18 (saturation)",
    GROUP,
    "When the recursion ends",
    statement="Ours: the recursion is exact until the ascent first clips an orthogonal axis; it says when, exactly "
    "where W_orth is known, and never too late, by a bound on the probability, where only its Gram matrix is.",
    formula="flag: |eta~ (gamma W_orth)_j| > eps for a j; bound: eta~ (gamma H gamma^T)^(1/2) > eps and sum of "
    "(d - 2k) P[|theta_1| > eps / length] > 1e-9, theta uniform on the sphere",
    rule=f"flag = first clip of the network in every run, bound <= flag, deviation <= {EXACT:g} up to the flag; "
    "margin: decades of the deviation below that, -1 if a flag is wrong",
)
class Saturation:
    def measure(lab):
        config = Figure3Config(n_seeds=lab.n_draws, **SATURATING)
        pair = beside_recursion(config, True, 1)
        blind = State(pair.state.phi, pair.state.gram, pair.state.n_orthogonal)
        options = {"q": config.q, "rho": config.rho, "lr": config.lr, "n_iter": config.n_iter, "record_every": 1}
        types = recursion_types(pair.data, config.n_classes)
        bound = simulate(blind, types, ascent_lr=config.ascent_lr, eps=config.eps, **options)
        found = pair.recursion
        kept = found.exact[..., None, None, None]
        apart = np.where(kept, np.abs(found.phi - pair.phi), 0).max(axis=(0, 2, 3, 4))
        return {
            "clipped": first_clip(pair),
            "flag": found.saturated_at,
            "bound": bound.saturated_at,
            "error": apart / np.abs(pair.phi).max(),
            "n_iter": config.n_iter,
        }

    def judge(m):
        right = np.array_equal(m["flag"], m["clipped"], equal_nan=True)
        late = (np.nan_to_num(m["bound"], nan=np.inf) > np.nan_to_num(m["clipped"], nan=np.inf)).any()
        some, n = np.isfinite(m["clipped"]), int((m["clipped"] > 0).sum())
        return Judgement(
            "flag = first clip, bound <= flag",
            f"first clip at iteration {spread(m['clipped'])} in {some.sum()} of {len(some)} runs, flag equal in "
            f"{(m['flag'] == m['clipped']).sum()}, bound {spread((m['clipped'] - m['bound'])[some])} iterations "
            f"earlier; deviation up to the flag {m['error'].max():.1e}",
            shortfall(m["error"], EXACT) if right and not late else -1.0,
            [Assumption("runs that saturate after the start", f"{n}", ">= 8", n >= 8)],
        )

    def draw(axis, m):
        top = 1.1 * np.nanmax(m["clipped"])
        axis.plot([0, top], [0, top], color="0.6", lw=0.8)
        axis.plot(m["clipped"], m["flag"], "o", color=ROBUST, ms=6, mfc="none", label="flag, W_orth known")
        axis.plot(m["clipped"], m["bound"], "v", color=NON_ROBUST, ms=5, label="probability bound, H known")
        axis.set_xlabel("network: first iteration with a clipped orthogonal axis")
        axis.set_ylabel("recursion: flagged at iteration")
