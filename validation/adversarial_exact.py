"""Adversarial training without noise, its exact recursion: D.16-D.18."""

import numpy as np

from ..experiments.configuration import Figure3Config
from ..patches.attacks import one_step_ascent
from ..patches.network import PatchCNN
from ..reporting.pictures import NON_ROBUST, ROBUST, Picture, diagonal, mark, matrix, points
from ..theory import State
from ..theory.events import first_time
from ..theory.outputs import ascended, patch_kinds
from ..theory.recursion import orthogonal_map
from .adversarial import GROUP
from .lab import beside_recursion, features_of, recursion_types, shared, simulated
from .ledger import Check, Entry, Judgement, exact
from .standard import compared, draw_exactness, judge_exactness
from .statistics import spread


# ------------------------------------------------------------------ D.16
@shared
def few_neurons(lab):
    """5 neurons a class: 25 orthogonal parts in 90 dimensions; the default's 100 would span all of them."""
    config = lab.config(noise_std=0.0, dtype="float64", n_seeds=2, n_neurons=5)
    return beside_recursion(config, True, config.n_iter // 2)


def orthogonal_parts(lab):
    pair = few_neurons(lab)
    f = features_of(pair.config)
    W = pair.weights - (pair.weights @ f.T) @ f
    W = W.reshape(*W.shape[:2], -1, W.shape[-1])
    basis = np.linalg.svd(W[0], full_matrices=False)[2]
    c, types = pair.config, recursion_types(pair.data, pair.config.n_classes)
    rates = {"q": c.q, "rho": c.rho, "lr": c.lr, "ascent_lr": c.ascent_lr, "eps": c.eps}
    M = np.stack([orthogonal_map(pair.state, types, n_iter=int(t), **rates) for t in pair.iteration])
    apart = {"outside": W - (W @ basis.swapaxes(-1, -2)) @ basis, "apart": W - M @ W[0], "moved": W - W[0]}
    largest = np.abs(W).max(axis=(1, 2, 3))
    return {
        "iteration": pair.iteration,
        "span": [int(basis.shape[-2]), int((f == 0).all(axis=0).sum())],
        **{name: np.abs(x).max(axis=(1, 2, 3)) / largest for name, x in apart.items()},
        "M": M[-1, 0],
    }


def judge_orthogonal_parts(m):
    (parts, free), moved = m["span"], float(m["moved"].max())
    return Judgement(
        [exact("W_orth outside the initial one's span, of its largest entry, at t = 0, mid-run, end", m["outside"]),
         exact("W_orth beside M_t W_orth(0), likewise", m["apart"])],
        "in standard training W_orth never moves",
        [Check("orthogonal parts K, or they span all d - 2k", parts, "<", free),
         Check("W_orth moves, of its largest entry", moved, ">=", 0.01)],
    )  # fmt: skip


# ------------------------------------------------------------------ D.17
def predicted_perturbation(W, features, data, c) -> tuple[np.ndarray, np.ndarray]:
    """delta (R, N, P, d) by the lemma, from Phi and W_orth, and whether a coordinate is clipped."""
    W = np.asarray(W)
    phi, flat = W @ features.T, W.reshape(len(W), -1, W.shape[-1])
    orthogonal = flat - (flat @ features.T) @ features
    parts, far = [], []
    for strength, _, column in patch_kinds(c):
        _, gamma, delta = ascended(phi, c, strength, column)
        free = c.ascent_lr * gamma @ orthogonal
        parts.append(delta @ features + free)
        far.append((np.abs(delta) >= c.eps) @ (features != 0) | (np.abs(free) > c.eps))
    run, kind = np.arange(len(W))[:, None, None], np.where(data.robust, 0, 1)
    return tuple(np.stack(found)[kind, run, data.y[..., None]] for found in (parts, far))


def perturbations(lab):
    pair, rows = lab.exact(True), []
    c, last, f = pair.config, len(pair.iteration) - 1, features_of(pair.config)
    on = (f != 0).any(axis=0)
    for t in (0, last // 2, last):
        net = PatchCNN(pair.weights[t], c.q, c.rho)
        found = one_step_ascent(net, pair.data.X, pair.data.y, lr=c.ascent_lr, eps=c.eps) - pair.data.X
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
    return {"rows": rows, "eps": c.eps}


def judge_perturbations(m):
    error, largest, clipped, saturated = ([float(row[name]) for row in m["rows"]] for name in
                                          ("error", "largest", "clipped_features", "clipped_orthogonal"))  # fmt: skip
    return Judgement(
        [exact("an ascent step on the network less the formula, of the largest coordinate, at t = 0, mid-run, end",
               error, shown=", ".join(f"{e:.1e} at t = {row['iteration']}" for e, row in zip(error, m["rows"])))],
        f"largest coordinate {', '.join(f'{x:.3g}' for x in largest)} of eps = {m['eps']:g}; share of features "
        "clipped "
        + ", ".join(f"{x:.2%}" for x in clipped),
        [Check("share of orthogonal axes saturated", max(saturated), "<=", 0)],
    )  # fmt: skip


# ------------------------------------------------------------------ D.18
SATURATING = {
    "n_classes": 3, "n_neurons": 4, "patch_dim": 20, "n_patches": 7, "n_robust": 2, "noise_std": 0.0, "n_train": 6,
    "rho": 2.0, "init_std": 0.1, "lr": 0.2, "ascent_lr": 12.0, "eps": 0.4, "n_iter": 60, "n_records": 60,
    "dtype": "float64",
}  # fmt: skip


def first_clip(pair) -> np.ndarray:
    """First recorded iteration at which the network's ascent passes eps on an orthogonal axis, (R,), NaN if never."""
    c, off = pair.config, (features_of(pair.config) == 0).all(axis=0)
    clips = []
    for W in pair.weights:
        step = c.ascent_lr * PatchCNN(W, c.q, c.rho).input_grad(pair.data.X, pair.data.y, "neg_label_logit")
        clips.append((np.abs(step[..., off]) > c.eps).any(axis=(1, 2, 3)))
    return first_time(pair.iteration, np.array(clips))


def saturation(lab):
    config = Figure3Config(n_seeds=lab.n_draws, first_seed=lab.first, **SATURATING)
    pair = beside_recursion(config, True, 1)
    blind = State(pair.state.phi, pair.state.gram, pair.state.n_orthogonal)
    bound = simulated(config, blind, recursion_types(pair.data, config.n_classes), True, 1)
    kept = pair.recursion.exact[..., None, None, None]
    apart = np.where(kept, np.abs(pair.recursion.phi - pair.phi), 0).max(axis=(0, 2, 3, 4))
    return {
        "clipped": first_clip(pair), "flag": pair.recursion.saturated_at, "bound": bound.saturated_at,
        "error": apart / np.abs(pair.phi).max(), "n_iter": config.n_iter,
    }  # fmt: skip


def judge_saturation(m):
    never = {name: np.nan_to_num(m[name], nan=np.inf) for name in ("clipped", "flag", "bound")}
    some = np.isfinite(m["clipped"])
    return Judgement(
        [exact("deviation from the network up to the flag, of the largest correlation", m["error"]),
         Check("runs whose flag is not the first clip", (never["flag"] != never["clipped"]).sum(), "<=", 0, "flag"),
         Check("runs whose bound is later than that", (never["bound"] > never["clipped"]).sum(), "<=", 0, "flag")],
        f"first clip at iteration {spread(m['clipped'])} in {some.sum()} of {len(some)} runs, bound "
        f"{spread((m['clipped'] - m['bound'])[some])} iterations earlier",
        [Check("runs that saturate after the start", (m["clipped"] > 0).sum(), ">=", 8)],
    )  # fmt: skip


D16 = Entry(
    "D.16", GROUP, "Weight decomposition",
    "Every weight stays a combination of the 2k features and the initial orthogonal parts of all neurons; our "
    "reading: W_orth(t) = M_t W_orth(0) with a matrix M_t that the recursion knows from (Phi, H) alone.",
    "P_orth w_a^(t) = sum_b (M_t)_ab P_orth w_b^(0), M <- (1 + Q) M, Q = eta eta~ E[(e sigma'(z~)) gamma^T]",
    orthogonal_parts, judge_orthogonal_parts, lambda m: Picture("initial orthogonal part of neuron b", "neuron a", [
        matrix(m["M"] - np.eye(len(m["M"])), "$|M_T - 1|$ (1: erased)", 1e-6, 1)]),
)  # fmt: skip
D17 = Entry(
    "D.17", GROUP, "Time-variant adversarial examples",
    "The perturbation of a patch is a combination of the features, each clipped at eps, and of the orthogonal parts "
    "of the class's neurons, the latter unclipped as long as no orthogonal axis saturates.",
    "x~_p - x_p = sum_f clip_eps(eta~ gamma Phi_f) f + eta~ gamma W_orth, gamma_(y,r) = -sigma'(<w_(y,r), x_p>)",
    perturbations, judge_perturbations,
    lambda m: Picture("coordinate of the perturbation, network (dashed: eps)", "formula", [
        *(points(*row[part], f"{part}, t = {row['iteration']}", color, marker, rasterized=True)
          for row, marker in zip(m["rows"], "osD") for part, color in (("orthogonal", "0.6"), ("features", ROBUST))),
        *diagonal(-m["eps"], m["eps"]), mark(x=-m["eps"], lw=0.8), mark(x=m["eps"], lw=0.8),
    ], symlog={"x": 1e-4, "y": 1e-4}),
)  # fmt: skip
D18 = Entry(
    "D.18", GROUP, "Feature learning iteration",
    "Without noise the correlations of adversarial training follow a recursion of their own in Phi and the Gram "
    "matrix H of the orthogonal parts, free of d and N, until an orthogonal axis saturates.",
    "z~_a = s Phi_af + Phi_a . delta_F + eta~ (H gamma)_a; Phi_a += eta E[e_i sigma'(z~_a) (s e_f + delta_F)]; H <- "
    "(1 + Q) H (1 + Q)^T, Q = eta eta~ E[(e sigma'(z~)) gamma^T]",
    lambda lab: compared(lab.exact(True)), judge_exactness, draw_exactness,
)  # fmt: skip
D18_SATURATION = Entry(
    "D.18 (saturation)", GROUP, "When the recursion ends",
    "The recursion is exact until the ascent first clips an orthogonal axis; it says when, exactly where W_orth is "
    "known, and never too late, by a bound on the probability, where only its Gram matrix is.",
    "flag: |eta~ (gamma W_orth)_j| > eps for a j; bound: eta~ (gamma H gamma^T)^(1/2) > eps and sum of (d - 2k) "
    "P[|theta_1| > eps / length] > 1e-9, theta uniform on the sphere",
    saturation, judge_saturation,
    lambda m: Picture("network: first clip of an orthogonal axis", "recursion: flagged at iteration", [
        *diagonal(0, 1.1 * np.nanmax(m["clipped"])),
        points(m["clipped"], m["flag"], "flag, W_orth known", ROBUST, size=6, alpha=1, mfc="none"),
        points(m["clipped"], m["bound"], "probability bound, H known", NON_ROBUST, "v", 5, 1)]), "ours",
)  # fmt: skip
