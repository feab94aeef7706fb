"""Standard training with noise beside the noiseless recursion: how far D.4 carries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import stats

from ..patches.data import PatchData, PatchDistribution
from ..patches.network import PatchCNN
from ..reporting.style import NON_ROBUST, ROBUST
from ..theory import State, population_types, simulate
from ..training.configuration import TrainConfig
from ..training.loop import train
from .ledger import Assumption, Judgement, entry
from .standard import GROUP, fit_paired, smallest, within
from .statistics import spread

NOISY = {"n_classes": 3, "n_patches": 8, "n_robust": 1, "alpha": 1.5, "beta": 1.0}  # density ratio 0.48
NOISY_NET = {"n_neurons": 5, "patch_dim": 40, "rho": 10.0, "lr": 1.0, "n_iter": 600, "early": 20}
LEVELS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
FITTED = 4  # of these levels; beyond them sigma_n |w| is no longer small beside the correlations


def noisy_runs(n_train: int, levels, n_seeds: int, n_iter: int) -> dict:
    """Networks with noise beside the noiseless recursion from their weights; the same noise, scaled, at all levels.

    -> "deviation" (T, levels, seeds), root mean square over all correlations; "first_order" likewise, its prediction;
    "iteration" (T,); "moved" (T,), the recursion's largest step from its start, relative to the largest there.
    """
    c, k, seeds = NOISY_NET, NOISY["n_classes"], range(n_seeds)
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

    A patch s f_g + xi moves <w, f> by (eta/N) e (sigma'(z) <xi, f> + 1{f = f_g} sigma''(z) <w, xi> s), z = s <w, f_g>,
    to first order in xi, where e = 1{y=i} - 1/k; its variance, summed over the N/k samples of every class.
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


@entry(
    "D.4 (noise)",
    GROUP,
    "Feature learning iteration with noise",
    statement="Ours: with noise the correlations leave the noiseless recursion from the same weights in proportion to "
    "sigma_n, by the first-order average of N samples' noise in early training, and still in proportion at the end.",
    formula="<w_{i,r}, f>_network - <w_{i,r}, f>_recursion = sigma_n g_t + O(sigma_n^2); early: rms g_t = eta t "
    "(mean over (i,r,f) of 1/(N k) sum_y (1{y=i} - 1/k)^2 sum_p |sigma'(z_p) f + 1{f=f_p} sigma''(z_p) s_p w|^2)^(1/2)",
    rule="exponent in sigma_n over 1e-4..3e-3 within 1 +- 0.1, interval and all, early and at the end; early deviation "
    "/ first order within 1.3 both ways for every N; margin: the smallest of 1 - |exponent - 1|/0.1 and "
    "1 - |log(deviation/first order)|/log 1.3",
)
class WithNoise:
    def measure(lab):
        long = noisy_runs(12, LEVELS, 16, NOISY_NET["n_iter"])
        short = {n: noisy_runs(n, LEVELS[2:3], 16, NOISY_NET["early"]) for n in (12, 48, 192)}
        return long | {
            "n_train": np.array(list(short)),
            "early_rms": np.array([np.sqrt(np.mean(run["deviation"][1] ** 2)) for run in short.values()]),
            "early_first_order": np.array([np.sqrt(np.mean(run["first_order"][1] ** 2)) for run in short.values()]),
        }

    def fits(m):
        return [fit_paired(m["level"][:FITTED], m["deviation"][t, :FITTED]) for t in (1, -1)]

    def judge(m):
        fits, moved = WithNoise.fits(m), float(m["moved"][1])
        ratio = m["early_rms"] / m["early_first_order"]
        ratios = ", ".join(f"{r:.2f} at N = {n}" for r, n in zip(ratio, m["n_train"]))
        largest = m["deviation"][-1, -1] / m["level"][-1] / (m["deviation"][-1, 0] / m["level"][0])
        return Judgement(
            "exponent 1 in sigma_n; early deviation = first order",
            f"exponent {fits[0]} at t = {m['iteration'][1]}, {fits[1]} at t = {m['iteration'][-1]}; early deviation / "
            f"first order {ratios}; at sigma_n = {m['level'][-1]:g} the end's deviation is {spread(largest)} of linear",
            smallest(*(within(fit, 1, 0.1) for fit in fits), 1 - np.abs(np.log(ratio)) / np.log(1.3)),
            [Assumption("early", f"correlations moved by {moved:.2f} of the largest", "<= 0.2", moved <= 0.2)],
        )

    def draw(axis, m):
        for t, color in ((1, ROBUST), (-1, NON_ROBUST)):
            points = axis.loglog(m["level"], m["deviation"][t], "o", ms=3.5, color=color, mew=0, alpha=0.7)
            points[0].set_label(f"t = {m['iteration'][t]}, a run each")
            linear = stats.gmean(m["deviation"][t, 0]) * m["level"] / m["level"][0]
            axis.plot(m["level"], linear, color=color, lw=0.8, label="proportional to sigma_n")
        axis.plot(m["level"], m["first_order"][1].mean(axis=-1), "k--", lw=1, label="first order, predicted")
        axis.set_xlabel("sigma_n")
        axis.set_ylabel("rms of <w, f> - recursion's")
