"""Arrays that lie in memory in other ways give the same bits; those of foreign byte order are refused by name."""

import numpy as np
import pytest
from refusals import faults

import advfeat as af
from advfeat import images, theory
from advfeat.images import data as image_data

RNG = np.random.default_rng(0)
DIST = af.PatchDistribution(n_classes=2, patch_dim=6, n_patches=4, n_robust=1, alpha=2.0, beta=1.0, noise_std=0.3)
DATA = DIST.sample(9, 0)
W = RNG.standard_normal((2, 3, 6))
NET = af.PatchCNN(W)
LAYERS = images.ConvNet(2, (1, 8, 8))
PICTURES, DIGITS = RNG.random((4, 1, 8, 8)).astype(np.float32), np.array([0, 1, 2, 9])
ORDER = theory.LeadingOrder(n_classes=2, n_robust=1, n_nonrobust=3, alpha=2.0, beta=1.0, q=3, rho=1.0, lr=0.1)
A0 = np.abs(RNG.standard_normal((4, 3)))
THREAT = af.ThreatModel("linf", 0.3)
BATCH = {"X": DATA.X, "y": DATA.y}


def attacked(attack):
    return lambda X, y: attack(NET, (X, y), THREAT).X_adv


def patches(X, y, robust, strength):
    return af.PatchData(X, y, robust, strength, DATA.features)


PARTS = {name: getattr(DATA, name) for name in ("X", "y", "robust", "strength")}
#: What is called with arrays by name, and those arrays.
CALLS = {
    "weights": (lambda W: af.PatchCNN(W).logits(DATA.X), {"W": W}),
    "weights of runs": (lambda W: af.PatchCNN(W).logits(DATA.X), {"W": np.stack([W, -W])}),
    "logits": (NET.logits, {"X": DATA.X}),
    "predict": (NET.predict, {"X": DATA.X}),
    "loss": (NET.loss, BATCH),
    "loss_and_grad": (NET.loss_and_grad, BATCH),
    "margin": (NET.margin, BATCH),
    "input_grad": (NET.input_grad, BATCH),
    "pull_back": (NET.pull_back, {"X": DATA.X, "C": RNG.standard_normal((9, 2))}),
    "correlations": (lambda u, v: [*af.correlations(NET, (u, v)).values()], dict(zip("uv", DATA.features))),
    "feature learning": (lambda **parts: af.feature_learning_accuracy(NET, patches(**parts), "robust"), PARTS),
    "feature swap": (lambda **parts: af.feature_swap(patches(**parts), eps=0.3), PARTS),
    "signal": (lambda **parts: patches(**parts).signal(), PARTS),
    "one_step_ascent": (lambda X, y: af.one_step_ascent(NET, X, y, lr=1.0, eps=0.3), BATCH),
    **{type(one).__name__: (attacked(one), BATCH) for one in (
        af.PGD(n_restarts=2), af.APGD(n_steps=5), af.FGSM(), af.Square(n_steps=9), af.Aligned(), af.Rescue())},
    "radii": (lambda eps: af.PGD()(NET, DATA, af.ThreatModel("linf", eps)).X_adv, {"eps": RNG.random(9)}),
    "targets": (lambda targets: af.PGD()(NET, DATA, af.ThreatModel("linf", 0.3, targets=targets)).X_adv,
                {"targets": 1 - DATA.y}),
    "active": (lambda active: af.PGD()(NET, DATA, THREAT, active=active).X_adv, {"active": DATA.y > 0}),
    "interval_margin": (lambda X, y: af.interval_margin(NET, X, y, eps=0.1), BATCH),
    "certify": (lambda X, y: af.certify(NET, X, y, 0.1).lower, BATCH),
    "robust_radius": (lambda X, y: af.robust_radius(NET, X, y, rtol=0.1).certified, BATCH),
    "robust_accuracy": (lambda X, y: af.robust_accuracy(NET, (X, y), eps=0.2).standing, BATCH),
    "train": (lambda X, y: af.train(NET, (X, y), af.TrainConfig(lr=0.1, n_iter=3, batch_size=4)).net.W, BATCH),
    "rates of runs": (lambda lr: af.train(af.PatchCNN(np.stack([W, -W])), DATA, af.TrainConfig(lr=lr,
     n_iter=3)).net.W,
                      {"lr": np.array([0.1, 0.2])}),
    "decompose": (lambda W0, X, y: theory.decompose(W0, X, y, q=3, rho=1.0, lr=0.1, n_iter=3).a, {"W0": W, **BATCH}),
    "noise_update": (lambda W, signal: theory.noise_update(W, DATA.X, signal, DATA.y, q=3, rho=1.0, lr=0.1).total,
                     {"W": W, "signal": DATA.signal()}),
    "State": (lambda W: theory.State.from_weights(W, DATA.features).gram, {"W": W}),
    "empirical_types": (lambda y, robust, strength: [*theory.empirical_types(y, robust, strength, 2)],
                        {name: PARTS[name] for name in ("y", "robust", "strength")}),
    "rates": (lambda A, B: np.stack(ORDER.rates(A, B)), {"A": A0, "B": A0 / 2}),
    "growth_rate": (lambda strength: theory.growth_rate(strength, 3, 2, 3, 1.0, 0.1), {"strength": A0}),
    "phase_two_started": (lambda B: theory.phase_two_started(B, 1.0, 3, 1.0, 40.0), {"B": A0}),
    "standard_error": (theory.standard_error, {"values": A0}),
    "layers": (LAYERS.logits, {"X": PICTURES}),
    "gradient of layers": (lambda X, y: [*LAYERS.loss_and_grad(X, y)[1].values()], {"X": PICTURES, "y": DIGITS}),
    "pulled back": (LAYERS.pull_back, {"X": PICTURES, "C": RNG.standard_normal((4, 10))}),
    "certified": (lambda X, y: af.robust_accuracy(LAYERS, (X, y), eps=0.01, certificate="linear").certified,
                  {"X": PICTURES, "y": DIGITS}),
    "augmented": (lambda X: image_data.augmented(X, np.random.default_rng(0), "crop_flip"), {"X": PICTURES}),
    "split": (lambda X, y: image_data.split(X, y, 1, 0, "float32")[0].X, {"X": PICTURES, "y": DIGITS}),
}  # fmt: skip


def spaced(a):
    """Every second entry of an array that is twice as long along each axis."""
    wide = np.zeros([2 * n for n in a.shape], a.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in a.shape)]
    view[...] = a
    return view


def frozen(a):
    held = a.copy()
    held.flags.writeable = False
    return held


def unaligned(a):
    held = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    held[...] = a
    return held


WAYS = {
    "Fortran": np.asfortranarray, "spaced": spaced, "reversed": lambda a: a[::-1].copy()[::-1], "read-only": frozen,
    "not aligned": unaligned, "subclass": lambda a: a.view(type("Mine", (np.ndarray,), {})),
    "small labels": lambda a: a.astype(np.uint8) if a.dtype.kind == "i" else a,
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CALLS)
def test_arrays_that_lie_otherwise_give_the_same_bits(name, way):
    call, arrays = CALLS[name]
    held = {key: WAYS[way](a) for key, a in arrays.items()}
    before = {key: a.tobytes() for key, a in held.items()}
    wanted, found = call(**arrays), call(**held)
    both = zip(wanted, found) if isinstance(wanted, (list, tuple)) else [(wanted, found)]
    for one, other in both:
        assert np.asarray(one).dtype == np.asarray(other).dtype
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
    assert before == {key: a.tobytes() for key, a in held.items()}  # nobody has written into it


FLOATS = [(name, key) for name, (_, arrays) in CALLS.items() for key in arrays if key in ("W", "W0", "X")]


@pytest.mark.parametrize(("name", "key"), [one for one in FLOATS if one[0] not in ("signal", "feature learning")])
def test_arrays_of_foreign_byte_order_are_taken_right_or_refused(name, key):
    call, arrays = CALLS[name]
    swapped = arrays[key].astype(arrays[key].dtype.newbyteorder())
    said = faults(lambda: call(**arrays | {key: swapped}), key, swapped)
    if said == ["is taken"]:
        wanted, found = call(**arrays), call(**arrays | {key: swapped})
        np.testing.assert_array_equal(wanted, found)
    else:
        assert said == []
