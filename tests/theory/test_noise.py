"""Weights as books of patches (Lemma E.2, E.9) and their meeting with the noise (Lemma E.3, E.4, E.10)."""

import numpy as np
import pytest
from tolerances import SIGMAS

from advfeat import PatchCNN, PatchDistribution, TrainConfig, correlations, one_step_ascent, train
from advfeat.theory.noise import decompose, noise_update

# The books against the engine's weights, relative to the largest weight: sums in another order, over some hundred steps
# of a dynamics that amplifies rounding a little.  Measured: 2e-15.
BOOKS = 1e-11
# One step's terms, or one sum of patches: the rounding of a few hundred products.
ONCE = 1e-13

k, m, d, P, N = 3, 4, 11, 5, 9
OPTIONS = {"q": 3, "rho": 2.0, "lr": 0.3}
LAW = PatchDistribution(n_classes=k, patch_dim=d, n_patches=P, n_robust=1, alpha=2.0, beta=1.0, noise_std=0.1)
DATA = LAW.sample(N, 10, balanced=True)
NET = PatchCNN.init(k, m, d, rng=20, init_std=0.3, q=3, rho=2.0)
KNOWN = {"signal": DATA.signal(), "features": LAW.features}
XI = DATA.X - DATA.signal()
F = np.concatenate(LAW.features)

ASCENT = {"ascent_lr": 0.5, "eps": 0.3}
TRAININGS = {"standard": {}} | {
    f"{objective}-{norm}-{n_ascent}": ASCENT | {"objective": objective, "norm": norm, "n_ascent": n_ascent}
    for objective in ("neg_label_logit", "margin", "cross_entropy")
    for norm, n_ascent in (("linf", 1), ("linf", 3), ("l2", 1), ("l2", 3))
}
every_training = pytest.mark.parametrize("ascent", TRAININGS.values(), ids=TRAININGS)
both_trainings = pytest.mark.parametrize("ascent", [{}, ASCENT], ids=["standard", "adversarial"])


def trained(net, data, n_iter, lr, ascent):
    return train(net, data, TrainConfig(lr=lr, n_iter=n_iter, adversarial=bool(ascent), **ascent)).net


def close(value, truth, tolerance, scale=None):
    scale = np.abs(truth).max() if scale is None else scale
    assert np.shape(value) == np.shape(truth)
    assert np.abs(value - truth).max() <= tolerance * scale


# ------------------------------------------------------------------ decomposition (Lemma E.2, E.9)
@every_training
def test_the_books_are_the_trained_weights(ascent):
    books = decompose(NET.W, DATA.X, DATA.y, n_iter=300, **OPTIONS, **ascent)
    truth = trained(NET, DATA, 300, 0.3, ascent).W
    assert np.abs(truth).max() > 2 * np.abs(NET.W).max()  # it went somewhere
    close(books.weights, truth, BOOKS)
    rebuilt = NET.W + np.einsum("isnp,npj->isj", books.a, DATA.X) + books.perturbation
    close(rebuilt, truth, BOOKS)
    if ascent:
        assert np.abs(books.perturbation).max() > 0.05 * np.abs(truth).max()
    else:
        assert not books.perturbation.any()


@pytest.mark.parametrize("q", [2, 4])
@both_trainings
def test_the_books_are_the_trained_weights_in_the_linear_part_too(q, ascent):
    net = PatchCNN(NET.W, q=q, rho=0.3)
    books = decompose(net.W, DATA.X, DATA.y, q=q, rho=0.3, lr=0.1, n_iter=200, **ascent)
    truth = trained(net, DATA, 200, 0.1, ascent).W
    assert (DATA.X @ truth.reshape(-1, d).T > 0.3).any()
    close(books.weights, truth, BOOKS)


def test_another_basis_of_features():
    """The books know no axes; the split into features follows the basis."""
    basis = np.linalg.qr(np.random.default_rng(4).standard_normal((d, d)))[0]
    u, v = basis[:k], basis[k : 2 * k]
    law = PatchDistribution(
        n_classes=k, patch_dim=d, n_patches=P, n_robust=1, alpha=2.0, beta=1.0, noise_std=0.1, features=(u, v)
    )  # fmt: skip
    data = law.sample(N, 3)
    books = decompose(
        NET.W, data.X, data.y, n_iter=50, signal=data.signal(), features=(u, v), **OPTIONS, **ASCENT
    )  # fmt: skip
    close(books.weights, trained(NET, data, 50, 0.3, ASCENT).W, BOOKS)
    check_split(books, data, (u, v))


def test_standard_training_knows_the_dimension_only_through_the_gram_matrix():
    """a alone, from Z(0) and X X^T; written without any of the module's parts."""
    X, steps, lr, q, rho = DATA.X.reshape(-1, d), 100, 0.3, 3, 2.0
    Z0, G, a = NET.W.reshape(-1, d) @ X.T, X @ X.T, np.zeros((k * m, N * P))
    for _ in range(steps):
        Z = (Z0 + a @ G).reshape(k, m, N, P)
        logits = NET.activation(Z).sum(axis=(1, 3)).T
        e = (np.arange(k) == DATA.y[:, None]) - np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        a += (lr / N * e.T[:, None, :, None] * NET.activation.derivative(Z)).reshape(a.shape)
    books = decompose(NET.W, DATA.X, DATA.y, q=q, rho=rho, lr=lr, n_iter=steps)
    close(books.a, a.reshape(k, m, N, P), BOOKS)


def check_split(books, data, features):
    """W = W(0) + features + noise + D, and how every correlation moves."""
    f, xi = np.concatenate(features), data.X - data.signal()
    noise = np.einsum("isnp,npj->isj", books.noise_coefficients, xi)
    close(NET.W + books.feature_coefficients @ f + noise + books.perturbation, books.weights, ONCE)
    by_hand = np.zeros((k, m, 2 * k))
    for n in range(N):
        for p in range(P):
            column = data.y[n] + (0 if data.robust[n, p] else k)
            by_hand[..., column] += data.strength[n, p] * books.a[:, :, n, p]
    close(books.feature_coefficients, by_hand, ONCE)
    moved = (books.weights - NET.W) @ f.T
    close(by_hand + (noise + books.perturbation) @ f.T, moved, ONCE)


@both_trainings
def test_the_split_into_features_noise_and_perturbations(ascent):
    books = decompose(NET.W, DATA.X, DATA.y, n_iter=100, **OPTIONS, **KNOWN, **ascent)
    check_split(books, DATA, LAW.features)
    assert np.array_equal(books.noise_coefficients, books.a)


def test_without_noise_the_feature_coefficients_are_the_change_of_the_correlations():
    law = PatchDistribution(n_classes=k, patch_dim=d, n_patches=P, n_robust=1, alpha=2.0, beta=1.0)
    data = law.sample(N, 1)
    books = decompose(
        NET.W, data.X, data.y, n_iter=200, signal=data.signal(), features=law.features, **OPTIONS
    )  # fmt: skip
    before, after = (correlations(net, law.features) for net in (NET, trained(NET, data, 200, 0.3, {})))
    own = np.arange(k)
    for name, start in (("A", 0), ("B", k)):
        change = books.feature_coefficients[own, :, start + own]
        close(change, after[name] - before[name], BOOKS)
        assert change.max() > 0.5
    assert not books.noise_coefficients.any()
    for name in ("own", "other", "own_orthogonal", "other_orthogonal"):
        assert not books.history[name].any(), name
    update = noise_update(NET.W, data.X, data.signal(), data.y, **OPTIONS, **ASCENT)
    assert not update.total.any()
    assert update.predicted == {"self": 0, "noise": 0, "feature": 0, "perturbation": 0}


# ------------------------------------------------------------------ history (Lemma E.3, E.10)
@both_trainings
def test_the_history_tells_own_from_other_neurons_and_whole_from_orthogonal_noise(ascent):
    books = decompose(NET.W, DATA.X, DATA.y, n_iter=40, record_every=15, **OPTIONS, **KNOWN, **ascent)
    assert books.history["iteration"].tolist() == [0, 15, 30, 40]
    for record, iteration in enumerate([0, 15, 30, 40]):
        W = trained(NET, DATA, iteration, 0.3, ascent).W if iteration else NET.W
        for ending, noise in (("", XI), ("_orthogonal", np.where(np.arange(d) < 2 * k, 0, XI))):
            found = {"own": 0, "other": 0}
            for n in range(N):
                for i in range(k):
                    side = "own" if i == DATA.y[n] else "other"
                    found[side] = max(found[side], np.abs(W[i] @ noise[n].T).max())
            for side, value in found.items():
                assert books.history[side + ending][record] == pytest.approx(value, rel=BOOKS), side + ending


def test_without_the_signal_only_iterations_are_recorded():
    books = decompose(NET.W, DATA.X, DATA.y, n_iter=7, **OPTIONS)
    assert books.history.keys() == {"iteration"}
    assert books.history["iteration"].tolist() == list(range(8))
    assert books.feature_coefficients is books.noise_coefficients is None


def test_no_iterations_leave_the_books_empty():
    before = NET.W.copy(), DATA.X.copy()
    books = decompose(NET.W, DATA.X, DATA.y, n_iter=0, **OPTIONS, **KNOWN, **ASCENT)
    assert np.array_equal(books.weights, NET.W)
    for book in (books.a, books.perturbation, books.feature_coefficients, books.noise_coefficients):
        assert not book.any()
    assert books.history["iteration"].tolist() == [0]
    decompose(NET.W, DATA.X, DATA.y, n_iter=3, **OPTIONS, **KNOWN, **ASCENT)
    assert np.array_equal(NET.W, before[0])  # and the arrays given are left alone
    assert np.array_equal(DATA.X, before[1])


# ------------------------------------------------------------------ one step (Lemma E.4)
@every_training
@pytest.mark.parametrize("part", ["whole", "orthogonal"])
def test_the_terms_add_up_to_the_measured_change(ascent, part):
    net = trained(NET, DATA, 30, 0.3, ascent)
    features = None if part == "whole" else LAW.features
    update = noise_update(net.W, DATA.X, DATA.signal(), DATA.y, features=features, **OPTIONS, **ascent)
    toward = XI if part == "whole" else np.where(np.arange(d) < 2 * k, 0, XI)
    change = np.einsum("isj,npj->isnp", trained(net, DATA, 1, 0.3, ascent).W - net.W, toward)
    size = np.abs(net.W).max() * np.abs(toward).max()  # W's own rounding is in the measured change
    close(update.total, change, ONCE, size)
    assert np.abs(change).max() > 1e-4 * size
    assert bool(ascent) == bool(update.perturbation_term.any())
    if part == "orthogonal":
        assert np.abs(update.feature_term).max() <= ONCE * size
    else:
        assert np.abs(update.feature_term).max() > 1e-4 * size


@both_trainings
def test_every_term_is_its_sum_over_pairs_of_patches(ascent):
    net = trained(NET, DATA, 30, 0.3, ascent)
    update = noise_update(net.W, DATA.X, DATA.signal(), DATA.y, **OPTIONS, **ascent)
    options = {"lr": 0.5, "eps": 0.3, "objective": "neg_label_logit"}
    X = one_step_ascent(net, DATA.X, DATA.y, **options) if ascent else DATA.X
    logits, slopes = net.logits(X), net.activation.derivative(np.einsum("isj,npj->isnp", net.W, X))
    e = (np.arange(k) == DATA.y[:, None]) - np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    g = 0.3 / N * np.einsum("ni,isnp->isnp", e, slopes)
    pairs = {"noise": XI, "feature": DATA.signal(), "perturbation": X - DATA.X}
    inner = {name: np.einsum("abj,npj->abnp", what, XI).reshape(N * P, N * P) for name, what in pairs.items()}
    own = np.diag(np.diag(inner["noise"]))
    for term, matrix in (
        (update.self_term, own),
        (update.noise_term, inner["noise"] - own),
        (update.feature_term, inner["feature"]),
        (update.perturbation_term, inner["perturbation"]),
    ):
        truth = (g.reshape(k * m, -1) @ matrix).reshape(k, m, N, P)
        close(term, truth, ONCE, np.abs(g).max())
    # the sign of the self term is that of e: up for the sample's own class, down for others
    of_own_class = np.broadcast_to((np.arange(k)[:, None] == DATA.y)[:, None, :, None], (k, m, N, P))
    assert (update.self_term[of_own_class] >= 0).all()
    assert (update.self_term[~of_own_class] <= 0).all()
    assert update.self_term.any()


@pytest.mark.parametrize("part", ["whole", "orthogonal"])
def test_predicted_sizes_are_those_of_the_inner_products(part):
    law = PatchDistribution(n_classes=2, patch_dim=60, n_patches=10, n_robust=2, alpha=2.0, beta=1.0, noise_std=0.2)
    data = law.sample(40, 7)
    net = PatchCNN.init(2, 2, 60, rng=1, init_std=0.3, q=3, rho=2.0)
    features = None if part == "whole" else law.features
    update = noise_update(net.W, data.X, data.signal(), data.y, features=features, **OPTIONS, ascent_lr=9.0, eps=0.1)
    xi = (data.X - data.signal()).reshape(-1, 60)[:, 0 if part == "whole" else 4 :]
    n, dims = xi.shape
    within = {"rel": SIGMAS / np.sqrt(n)}  # a mean over n independent patches or more
    entries = {"rel": SIGMAS / np.sqrt(2 * n * dims)}  # a standard deviation from n dims numbers
    gram = xi @ xi.T
    assert update.predicted["self"] == pytest.approx(np.diag(gram).mean(), rel=1e-12)
    assert update.predicted["self"] == pytest.approx(0.2**2 * dims, rel=2 * entries["rel"])
    off = gram[~np.eye(n, dtype=bool)]
    assert update.predicted["noise"] == pytest.approx(np.sqrt((off**2).mean()), **within)
    assert update.predicted["feature"] == pytest.approx(0.2, **entries)
    delta = one_step_ascent(net, data.X, data.y, lr=9.0, eps=0.1) - data.X
    length = np.sqrt((delta**2).sum(axis=-1).mean())
    assert length > 0.01
    assert update.predicted["perturbation"] == pytest.approx(0.2 * length, **entries)


# ------------------------------------------------------------------ errors
GOOD = {"W0": NET.W, "X": DATA.X, "y": DATA.y, "n_iter": 2} | OPTIONS
TILTED = LAW.features[0], LAW.features[1] + 0.1
BAD = {
    "W0 axes": ({"W0": NET.W[0]}, ValueError, r"W0 has shape \(4, 11\): must be \(k, m, d\)"),
    "W0 dtype": ({"W0": NET.W.astype(int)}, TypeError, "W0 has dtype int64"),
    "W0 NaN": ({"W0": NET.W * np.nan}, ValueError, "W0 holds NaN"),
    "X axes": ({"X": DATA.X[None]}, ValueError, r"X has shape \(1, 9, 5, 11\): must be \(N, P, 11\)"),
    "X dim": ({"X": DATA.X[..., 1:]}, ValueError, r"must be \(N, P, 11\)"),
    "y": ({"y": DATA.y + 1}, ValueError, r"y holds 3: labels must be in 0..2"),
    "q": ({"q": 1}, ValueError, "q = 1: must be an integer >= 2"),
    "rho": ({"rho": 0}, ValueError, "rho = 0: must be a number, finite and > 0"),
    "lr": ({"lr": -1.0}, ValueError, "lr = -1.0: must be a number, finite and > 0"),
    "n_iter": ({"n_iter": -1}, ValueError, "n_iter = -1: must be an integer >= 0"),
    "record_every": ({"record_every": 0}, ValueError, "record_every = 0: must be an integer >= 1"),
    "eps missing": ({"ascent_lr": 1.0}, ValueError, "ascent_lr = 1.0, eps = None: must be given together"),
    "ascent_lr missing": ({"eps": 1.0}, ValueError, "ascent_lr = None, eps = 1.0: must be given together"),
    "eps": (ASCENT | {"eps": -0.1}, ValueError, "eps = -0.1: must be a number, finite and >= 0"),
    "ascent_lr": (ASCENT | {"ascent_lr": 0.0}, ValueError, "ascent_lr = 0.0: must be a number, finite and > 0"),
    "objective": ({"objective": "margn"}, ValueError, "did you mean 'margin'"),
    "norm": ({"norm": "l1"}, ValueError, "norm = 'l1': unknown"),
    "n_ascent": ({"n_ascent": 0}, ValueError, "n_ascent = 0: must be an integer >= 1"),
    "signal alone": ({"signal": DATA.signal()}, ValueError, "features = None: signal and features must be given"),
    "features alone": ({"features": LAW.features}, ValueError, "signal = None: signal and features must be given"),
    "signal shape": (KNOWN | {"signal": DATA.signal()[1:]}, ValueError, r"signal has shape \(8, 5, 11\)"),
    "signal NaN": (KNOWN | {"signal": DATA.signal() * np.nan}, ValueError, "signal holds NaN"),
    "signal outside": (KNOWN | {"signal": DATA.X}, ValueError, "signal: must lie in the span of the features"),
    "features shape": (KNOWN | {"features": (F, F)}, ValueError, r"features have shapes \(6, 11\) and \(6, 11\)"),
    "features pair": (KNOWN | {"features": 1.0}, ValueError, r"features = 1.0: must be a pair \(u, v\)"),
    "features tilted": (KNOWN | {"features": TILTED}, ValueError, "features: must be orthonormal"),
}


@pytest.mark.parametrize(("values", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_named(values, error, message):
    with pytest.raises(error, match=message):
        decompose(**GOOD | values)


def test_bad_input_of_one_step_is_named():
    with pytest.raises(ValueError, match=r"W has shape \(4, 11\)"):
        noise_update(NET.W[0], DATA.X, DATA.signal(), DATA.y, **OPTIONS)
    with pytest.raises(ValueError, match=r"signal has shape \(8, 5, 11\): must be \(9, 5, 11\), like X"):
        noise_update(NET.W, DATA.X, DATA.signal()[1:], DATA.y, **OPTIONS)
    with pytest.raises(ValueError, match="W: too large, a logit is not finite"):
        noise_update(1e307 * NET.W, 1e9 * DATA.X, DATA.signal(), DATA.y, **OPTIONS)


@pytest.mark.parametrize(("lr", "n_iter", "iteration"), [(1e308, 1, 0), (1e306, 9, 1)])
def test_divergence_names_the_iteration(lr, n_iter, iteration):
    with pytest.raises(RuntimeError, match=f"training diverged at iteration {iteration}: a weight is not finite"):
        decompose(NET.W, 100 * DATA.X, DATA.y, q=3, rho=2.0, lr=lr, n_iter=n_iter)
