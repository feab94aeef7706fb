"""Experiments of the entries with noise: books, sizes of noise correlations, terms of a step, early and late stages.

The small configuration NOISY is float64, with noise of |xi| = 0.28 on patches of strength 1 and 1.8; features take
off within its iterations, and adversarial training goes on until the robust ones are learned.  The default
configuration is that of Figure 3, float32.
"""

from dataclasses import dataclass, replace

import numpy as np

from ..patches.data import PatchData, PatchDistribution
from ..patches.network import PatchCNN
from ..theory import LeadingOrder
from ..theory.noise import decompose, noise_update
from ..training.configuration import TrainConfig
from ..training.loop import train
from .lab import Setting, features_of, shared
from .statistics import order_of


@dataclass(frozen=True)
class NoisySetting(Setting):
    """A setting with noise; `init_std` None is 1/sqrt(d)."""

    n_classes: int = 3
    n_neurons: int = 4
    patch_dim: int = 32
    alpha: float = 1.8
    rho: float = 10.0
    init_std: float | None = None
    lr: float = 2.0
    ascent_lr: float = 10.0
    noise_std: float = 0.05
    n_train: int = 24

    def options(self, adversarial: bool) -> dict:
        return {name: getattr(self, name) for name in (("lr", "ascent_lr", "eps") if adversarial else ("lr",))}

    @property
    def start_std(self) -> float:
        return self.init_std or self.patch_dim**-0.5


NOISY = NoisySetting()
NOISY_ITERATIONS = {False: 300, True: 600}
#: The threshold at which features stay O(1), the size sigma_0 sqrt(d) of the weights at the start.
FEATURES_OF_ORDER_ONE = {"rho": 1.0, "lr": 0.02}
#: What is changed, one at a time, and to which values; sigma_0 = 1/sqrt(d) where it is not changed itself.
SWEEPS = {
    "noise_std": (0.0125, 0.025, 0.05),
    "init_std": (32**-0.5 / 2, 32**-0.5, 32**-0.5 * 2),
    "patch_dim": (16, 32, 64),
    "n_train": (12, 24, 36),
    "n_patches": (12, 16, 24),
}
KINDS = ("orthogonal", "whole")


def noisy(seeds, **changes) -> tuple[NoisySetting, PatchCNN, PatchData, np.ndarray]:
    """NOISY with changes, float64; networks and data of `seeds`, one run each; features (2k, d)."""
    c = replace(NOISY, **changes)
    names = ("n_classes", "patch_dim", "n_patches", "n_robust", "alpha", "beta", "noise_std")
    law = PatchDistribution(**{name: getattr(c, name) for name in names})
    data = PatchData.stack([law.sample(c.n_train, 1000 + s, balanced=True) for s in seeds])
    shape = c.n_classes, c.n_neurons, c.patch_dim
    net = PatchCNN.init(*shape, rng=list(seeds), init_std=c.init_std, q=c.q, rho=c.rho)
    return c, net, data, np.concatenate(law.features)


def noises(data: PatchData, features) -> dict[str, np.ndarray]:
    """xi and its part orthogonal to every feature, (R, N P, d)."""
    noise = (data.X - data.signal()).reshape(len(data.X), -1, data.X.shape[-1])
    return {"orthogonal": noise - noise @ features.T @ features, "whole": noise}


def largest(W, noise) -> np.ndarray:
    """max |<w_{i,s}, xi_{n,p}>| of weights (R, k, m, d) over neurons and patches -> (R,)."""
    return np.abs(W.reshape(len(W), -1, W.shape[-1]) @ noise.swapaxes(1, 2)).max(axis=(1, 2))


def scales(c, std: float) -> tuple[dict, float]:
    """std sigma_n sqrt(dimensions) L by kind, about the largest of k m N P Gaussians, and L = sqrt(2 log kmNP)."""
    logarithm = np.sqrt(2 * np.log(c.n_classes * c.n_neurons * c.n_train * c.n_patches))
    dimensions = zip(KINDS, (c.patch_dim - 2 * c.n_classes, c.patch_dim))
    return {kind: std * c.noise_std * np.sqrt(n) * logarithm for kind, n in dimensions}, logarithm


# ------------------------------------------------------------------ sizes (Lemma E.3, E.10)
def sizes(adversarial: bool, seeds, slower: float = 1.0, **changes) -> dict:
    """Largest noise correlations over a whole training: (R,) each, "history" (T, R) for every kind.

    "scale" as in `scales`; "feature_noise" is max(A, B) sigma_n sqrt(2 log(k m N P)) at the end.
    """
    c, net, data, f = noisy(seeds, **changes)
    xi, n_iter = noises(data, f), int(NOISY_ITERATIONS[adversarial] * slower)
    training = TrainConfig(
        n_iter=n_iter, record_every=n_iter // 20, adversarial=adversarial, **c.options(adversarial)
    )  # fmt: skip
    h = train(net, data, training, metrics=lambda n, _: {kind: largest(n.W, xi[kind]) for kind in KINDS}).history
    scale, logarithm = scales(c, c.start_std)
    own = np.maximum(h["A"], h["B"])
    return {
        "iteration": h["iteration"], "scale": scale,
        "history": {kind: h[kind] for kind in KINDS}, "initial": {kind: h[kind][0] for kind in KINDS},
        "largest": {kind: h[kind].max(axis=0) for kind in KINDS}, "features": own[-1].max(axis=(1, 2)),
        "feature_noise": own[-1].max(axis=(1, 2)) * c.noise_std * logarithm,
        "grown": own[-1].max(axis=2) / np.maximum(own[0].max(axis=2), 1e-300),
    }  # fmt: skip


@shared
def base_sizes(lab, adversarial: bool) -> dict:
    return sizes(adversarial, lab.seeds)


@shared
def swept(lab, adversarial: bool) -> dict:
    """`sizes` over SWEEPS, of features of order one, and the default configuration's start and end."""

    def one(name, value):
        changes, base = {name: value}, NOISY.start_std if name == "init_std" else getattr(NOISY, name)
        if value == base:
            return base_sizes(lab, adversarial)
        slower = {"init_std": base / value, "patch_dim": (value / base) ** 0.5}.get(name, 1.0)  # sigma_0 = 1/sqrt(d)
        if name == "n_patches":  # the same kappa_B
            changes["lr"] = NOISY.lr * (base - 1) / (value - 1)
        return sizes(adversarial, lab.seeds, slower, **changes)

    return {
        "sweeps": {name: [one(name, v) for v in values] for name, values in SWEEPS.items()},
        "order one": sizes(adversarial, lab.seeds, **FEATURES_OF_ORDER_ONE),
        "default": default_sizes(lab, adversarial),
    }


@shared
def default_sizes(lab, adversarial: bool) -> dict:
    """Noise correlations of the default configuration at its start and end, (R,) each, and their scale."""
    story = lab.story(adversarial)
    c, W0, xi = story.config, story.config.network().W, noises(story.data, features_of(story.config))
    return {
        "scale": scales(c, c.init_std)[0],
        "initial": {kind: largest(W0, xi[kind]) for kind in KINDS},
        "end": {kind: largest(story.net.W, xi[kind]) for kind in KINDS},
    }


# ------------------------------------------------------------------ books (Lemma E.2, E.9)
@shared
def books(lab, adversarial: bool, n_looks: int = 20) -> dict:
    """`decompose` beside `train`, one run; the books are carried from look to look.

    "deviation" (T,): largest difference of the network's weights and W(0) + features + noise + D, relative to the
    largest weight; "parts" {name: (T,)}: length (over all neurons) of each part; "orthogonal": what the parts of the
    end make of <w, xi_perp>, (4, K N P): start, self, other noise, perturbations.
    """
    c, net, data, f = noisy([lab.first])
    X, y, signal = data.X[0], data.y[0], data.signal()[0]
    every, looks, options = NOISY_ITERATIONS[adversarial] // n_looks, [], c.options(adversarial)
    training = TrainConfig(n_iter=every * n_looks, record_every=every, adversarial=adversarial, **options)
    train(net, data, training, metrics=lambda n, _: looks.append(n.W[0].copy()) or {})
    W0, W = net.W[0], net.W[0]
    k, m, d = W0.shape
    noise, pair = X - signal, (f[:k], f[k:])
    book = {"feature": np.zeros((k, m, 2 * k)), "noise": np.zeros((k, m, *y.shape, c.n_patches)), "D": W0 * 0}
    deviation, parts = [], []
    for t, network in enumerate(looks):
        if t:
            found = decompose(W, X, y, q=c.q, rho=c.rho, n_iter=every, signal=signal, features=pair, **options)
            W = found.weights
            for name, held in zip(book, (found.feature_coefficients, found.noise_coefficients, found.perturbation)):
                book[name] = book[name] + held
        part = {
            "features": book["feature"] @ f,
            "noise": np.einsum("isnp,npj->isj", book["noise"], noise),
            "perturbations": book["D"],
        }
        deviation.append(np.abs(W0 + sum(part.values()) - network).max() / np.abs(network).max())
        parts.append({name: np.linalg.norm(value) for name, value in part.items()})
    xi = noises(data, f)["orthogonal"][0]
    a = book["noise"].reshape(k * m, -1)
    own = a * (xi**2).sum(axis=1)
    toward = [W0.reshape(-1, d) @ xi.T, own, a @ noise.reshape(-1, d) @ xi.T - own, book["D"].reshape(-1, d) @ xi.T]
    return {
        "iteration": every * np.arange(n_looks + 1), "deviation": np.array(deviation),
        "parts": {name: np.array([row[name] for row in parts]) for name in parts[0]},
        "start": np.linalg.norm(W0), "orthogonal": np.stack([x.ravel() for x in toward]),
    }  # fmt: skip


# ------------------------------------------------------------------ terms (Lemma E.4)
TERMS = ("self", "noise", "feature", "perturbation")


def terms(adversarial: bool, seed: int, n_looks: int = 12, **changes) -> dict:
    """One step's change of <w, xi> in its terms along a training, one run.

    "error" (T,): their sum against the change of the network's own step, relative to the largest change; "size"
    {term: (T,)}, root mean squares; "ratio" {term: (T,)}: size over what the predicted scale of the inner products
    makes of the step's coefficients g; "sign": share of self terms of own and other classes with the sign of e;
    of the <w, xi> with a self term "follows", the share that the step moves with that sign, and "dominates", the share
    whose other terms together are no larger.
    """
    c, net, data, _ = noisy([seed], **changes)
    X, y, signal, looks, options, nets = data.X[0], data.y[0], data.signal()[0], [], c.options(adversarial), []
    every = int(NOISY_ITERATIONS[adversarial] * (c.patch_dim / NOISY.patch_dim) ** 0.5) // n_looks
    training = TrainConfig(n_iter=every * n_looks, record_every=every, adversarial=adversarial, **options)
    train(net, data, training, metrics=lambda n, _: nets.append(n.run(0)) or {})
    noise, d = X - signal, X.shape[-1]
    flat, own = noise.reshape(-1, d), (np.arange(c.n_classes)[:, None] == y)[:, None, :, None]
    for net in nets:
        found = noise_update(net.W, X, signal, y, q=c.q, rho=c.rho, **options)
        after = train(net, (X, y), replace(training, n_iter=1, record_every=1)).net
        step = (after.W - net.W).reshape(-1, d)
        change = step @ flat.T
        held = dict(zip(TERMS, (found.self_term, found.noise_term, found.feature_term, found.perturbation_term)))
        g = (held["self"] / (noise**2).sum(axis=-1)).reshape(len(step), -1)
        moved = {  # root mean square over neurons of what g makes of the other factor of the inner products
            "self": np.sqrt((g**2).mean()),
            "noise": np.sqrt((g**2).sum(axis=1).mean()),
            "feature": np.sqrt(((g @ signal.reshape(-1, d)) ** 2).sum(axis=1).mean()),
            "perturbation": np.sqrt(((step - g @ X.reshape(-1, d)) ** 2).sum(axis=1).mean()),
        }
        scale = found.predicted | {"perturbation": found.predicted["feature"]}
        size, total = {term: np.sqrt((value**2).mean()) for term, value in held.items()}, found.total
        looks.append({
            "error": np.abs(found.total.reshape(change.shape) - change).max() / np.abs(change).max(),
            "follows": (np.where(own, total, -total) > 0)[held["self"] != 0].mean(),
            "dominates": (np.abs(total - held["self"]) <= np.abs(held["self"]))[held["self"] != 0].mean(),
            "sign": np.where(own, held["self"] >= 0, held["self"] <= 0).mean(),
            "size": size,
            "ratio": {t: size[t] / (moved[t] * scale[t]) if size[t] else 1.0 for t in TERMS},
            "gain": {t: size[t] / moved[t] if size[t] else 0.0 for t in TERMS},
        })  # fmt: skip
    gathered = {name: np.array([look[name] for look in looks]) for name in ("error", "sign", "follows", "dominates")}
    gathered |= {n: {t: np.array([look[n][t] for look in looks]) for t in TERMS} for n in ("size", "ratio", "gain")}
    return gathered | {"iteration": every * np.arange(n_looks + 1)}


# ------------------------------------------------------------------ the default configuration's early stage
def leading_order(c) -> LeadingOrder:
    """Of a configuration, standard training."""
    names = ("n_classes", "alpha", "beta", "q", "rho", "lr", "n_robust")
    return LeadingOrder(n_nonrobust=c.n_patches - c.n_robust, **{name: getattr(c, name) for name in names})


def early(lab) -> dict:
    """Standard training of the default configuration until features take off; a look every 20 steps.

    Per look, seed and class, for the neuron with the largest B: "step", the coming step's change of B by the network's
    gradient; "leading", (eta/N) sum_n (1 - logit_i) rho^(1-q) P_NR beta^q B^(q-1), with the network's own logits and
    sigma' polynomial; "derivative" and "logit": smallest 1 - logit_i and largest F_i of the class's samples.
    """
    c = lab.config()
    net, data, v = c.network(), c.data("train"), features_of(c)[c.n_classes :]
    mine = data.y[..., None] == np.arange(c.n_classes)  # (R, N, k)
    X = data.X.astype(net.dtype)

    def look(n, _):
        F = n.logits(X)
        wrong = 1 - np.exp(F - np.logaddexp.reduce(F, axis=-1, keepdims=True))
        dW = -c.lr * n.loss_and_grad(X, data.y)[1]
        B, step = (np.einsum("rism,im->ris", w.astype(float), v) for w in (n.W, dW))
        top = B.argmax(axis=-1)[..., None]
        B, step = (np.take_along_axis(x, top, -1)[..., 0] for x in (B, step))
        total = np.where(mine, wrong, 0).sum(axis=1) * (c.n_patches - c.n_robust) / c.n_train
        leading = c.lr * total * c.rho ** (1 - c.q) * c.beta**c.q * np.maximum(B, 0) ** (c.q - 1)
        return {
            "top": B, "step": step, "leading": leading, "derivative": np.where(mine, wrong, 1).min(axis=1),
            "logit": np.where(mine, F, -np.inf).max(axis=1),
        }  # fmt: skip

    h = train(net, data, replace(c.training(False), n_iter=400, record_every=20), metrics=look).history
    names = ("iteration", "top", "step", "leading", "derivative", "logit")
    return {name: h[name] for name in names} | {
        "n_classes": c.n_classes,
        "noise_std": c.noise_std,
        "order": order_of(c),
    }
