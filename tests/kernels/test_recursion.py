"""The recursions of Lemma 5.1 and 5.2 against trained networks, and the engines against each other."""

import itertools
from collections import Counter

import numpy as np
import pytest
from advfeat.kernels.recursion import Types, Watch, tail
from engines import ON_GPU, engine_of
from noiseless import RHO, D, K, M, P, problem
from scipy import special, stats
from tolerances import PARITY, SIGMAS

import advfeat as af
from advfeat.theory import State, empirical_types, population_types, simulate, standard_error

T = 60
EXACT = 1e-12  # relative to the largest correlation: the same training in other coordinates




def all_correlations(net, data):
    return net.weights @ np.concatenate(data.features).T


def train_both(lr=0.5, n_iter=T, adversarial=None, **given):
    more = adversarial or {}
    net, data, types, state = problem(norm=more.get("norm", "linf"), **given)
    seen = []
    config = af.TrainConfig(lr=lr, n_iter=n_iter, adversarial=bool(more), record_every=5, **more)
    af.train(net, data, config, metrics=lambda n, _: seen.append(all_correlations(n, data)) or {})
    found = simulate(state, types, q=3, rho=RHO, lr=lr, n_iter=n_iter, record_every=5, **more)
    truth = np.stack(seen)
    return np.abs(found.phi - truth).max(axis=(1, 2, 3, 4)) / np.abs(truth).max(), found, truth


@pytest.mark.parametrize("partition", ["uniform", "bernoulli"])
@pytest.mark.parametrize("random", [False, True])
def test_standard_training_is_the_recursion(partition, random):
    error, found, truth = train_both(partition=partition, random=random)
    assert error.max() < EXACT
    assert found.watched == "never"
    assert np.isnan(found.saturated_at).all()
    assert np.abs(truth[-1] - truth[0]).max() > 0.5  # it has learned
    np.testing.assert_array_equal(found.A[-1], np.einsum("risi->ris", found.phi[-1][..., :K]))
    np.testing.assert_array_equal(found.B[-1], np.einsum("risi->ris", found.phi[-1][..., K:]))


ASCENTS = [
    {"objective": J, "norm": norm, "n_ascent": n}
    for J, norm, n in itertools.product(["neg_label_logit", "margin", "cross_entropy"], ["linf", "l2"], [1, 3])
]


@pytest.mark.parametrize("ascent", ASCENTS, ids=lambda a: "-".join(map(str, a.values())))
@pytest.mark.parametrize("random", [False, True])
def test_adversarial_training_is_the_recursion(ascent, random):
    rate = 0.6 / ascent["n_ascent"] if ascent["norm"] == "linf" else 2.0
    options = {"ascent_lr": rate, "eps": 0.8, **ascent}
    error, found, truth = train_both(adversarial=options, random=random)
    assert error.max() < EXACT
    assert found.watched == ("exact" if ascent["norm"] == "linf" else "never")
    assert np.isnan(found.saturated_at).all()
    _, _, other = train_both(random=random, adversarial=None)
    assert np.abs(truth[-1] - other[-1]).max() > 1e-2 or ascent["norm"] == "l2"  # the ascent matters


def test_projection_and_clip_are_reached():
    """The cases above are not all inside the ball: with a tiny radius the curves differ from those of a huge one."""
    for norm, rate in (("linf", 0.6), ("l2", 2.0)):
        ends = [
            train_both(adversarial={"ascent_lr": rate, "eps": eps, "norm": norm, "n_ascent": 2}, scale=0.01, d=2 * K)
            for eps in (0.05, 50.0)
        ]
        assert max(error.max() for error, *_ in ends) < EXACT
        assert np.abs(ends[0][1].phi[-1] - ends[1][1].phi[-1]).max() > 1e-3


# ------------------------------------------------------------------ saturation
def saturating():
    return {"ascent_lr": 12.0, "eps": 0.3, "n_ascent": 1}


def test_saturation_is_flagged_when_it_happens_and_not_before():
    options = saturating()
    net, data, types, state = problem(scale=0.1)
    first = np.full(2, -1)

    def look(n, iteration):
        C = np.stack([n.run(r).input_grad(data.X[r], data.y[r], "neg_label_logit") for r in range(2)])
        orthogonal = np.abs(options["ascent_lr"] * C[..., 2 * K :]).max(axis=(1, 2, 3)) > options["eps"]
        first[(first < 0) & orthogonal] = iteration
        return {"phi": all_correlations(n, data)}

    config = af.TrainConfig(lr=0.5, n_iter=T, adversarial=True, record_every=1, **options)
    history = af.train(net, data, config, metrics=look).history["phi"]
    stopped = simulate(state, types, q=3, rho=RHO, lr=0.5, n_iter=T, record_every=1, **options)
    assert (first > 0).all()
    assert stopped.saturated_at.tolist() == first.tolist()
    for r in range(2):
        np.testing.assert_allclose(stopped.phi[: first[r], r], history[: first[r], r], atol=EXACT)
        assert np.isnan(stopped.phi[first[r] + 1 :, r]).all()
    options |= {"after_saturation": "continue"}
    going = simulate(state, types, q=3, rho=RHO, lr=0.5, n_iter=T, record_every=1, **options)
    assert np.isfinite(going.phi).all()
    assert going.exact.sum(axis=0).tolist() == (first + 1).tolist()
    assert np.abs(going.phi[-1] - history[-1]).max() > 1e-6  # after it, the recursion is an approximation


def test_without_the_weights_the_flag_never_comes_late():
    """From (phi, H) alone the bound flags no later than saturation itself, and never while it is certain."""
    _, _, types, state = problem(scale=0.1)
    blind = State(state.phi, state.gram, state.n_orthogonal)
    seen = simulate(state, types, q=3, rho=RHO, lr=0.5, n_iter=T, **saturating())
    bound = simulate(blind, types, q=3, rho=RHO, lr=0.5, n_iter=T, **saturating())
    assert bound.watched == "probability"
    assert (bound.saturated_at <= seen.saturated_at).all()
    assert (bound.risk > 1e-9).all()
    mild = simulate(blind, types, q=3, rho=RHO, lr=0.5, n_iter=T, ascent_lr=0.05, eps=0.8)
    assert (mild.risk == 0).all()
    assert np.isnan(mild.saturated_at).all()


@pytest.mark.parametrize("axes", [1, 2, 5, 90])
def test_tail_bounds_the_uniform_direction(axes):
    t = np.linspace(0.02, 1.2, 60)
    bound = tail(np.ones_like(t), t, axes)
    truth = np.where(t < 1, special.betainc(max(axes - 1, 1e-300) / 2, 0.5, 1 - np.minimum(t, 1) ** 2), 0)
    assert (bound >= np.minimum(axes * truth, 1) * (1 - 1e-12)).all()
    assert (bound[t >= 1] == 0).all()


# ------------------------------------------------------------------ engines
def given(R, random, seed=0):
    _, _, types, state = problem(random=random, seeds=range(R), norm="linf")
    rng = np.random.default_rng(seed)
    rates = [0.5 + rng.random(R) for _ in range(3)]
    return state, types, rates


@pytest.mark.parametrize("random", [False, True], ids=["few patch kinds", "many"])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("J", "norm", "n_steps"), [(0, 0, 1), (1, 0, 2), (2, 1, 2), (0, 0, 0)])
@pytest.mark.parametrize("engine", ["numba", *ON_GPU])
def test_engines_equal_the_reference(engine, random, known, J, norm, n_steps):
    R = 3
    state, types, (rho, lr, rate) = given(R, random)
    results = []
    for name in ("numpy", engine):
        phi, gram = state.phi.reshape(R, K * M, -1).copy(), state.gram.copy()
        W = state.orthogonal.copy() if known else np.zeros((R, K * M, 0))
        watch = Watch(W, np.full(R, D - 2.0 * K), np.zeros(R), np.inf, False)
        eps = np.full(R, 1.0 if norm else 10.0)
        out = engine_of(name).recursion(phi, gram, types, watch, 3, rho, lr, 6, J, rate, eps, norm, n_steps)
        results.append((phi, gram, W, watch.risk, *out))
    for one, two in zip(*results):
        np.testing.assert_allclose(two, one, rtol=0, atol=PARITY["float64"] * max(1, np.abs(one).max(initial=0)))


def test_a_run_does_not_know_its_neighbours():
    state, types, (rho, lr, rate) = given(5, False)
    options = {"q": 3, "n_iter": 30, "eps": 0.8}
    together = simulate(state, types, rho=rho, lr=lr, ascent_lr=0.5 * rate, **options)
    for r in range(5):
        alone = simulate(
            State(state.phi[[r]], state.gram[[r]], state.n_orthogonal, state.orthogonal[[r]]),
            Types(*(a[[r]] for a in types)), rho=rho[r], lr=lr[r], ascent_lr=0.5 * rate[r], **options,
        )  # fmt: skip
        np.testing.assert_array_equal(alone.phi[:, 0], together.phi[:, r])


# ------------------------------------------------------------------ initial states and types
def test_drawn_states_have_the_law_of_weights():
    n, d = 400, 40
    state = State.draw(2, 3, d, rng=list(range(n)), init_std=0.5)
    diagonal = np.einsum("raa->ra", state.gram)
    mean, spread = 0.25 * (d - 4), 0.25 * np.sqrt(2 * (d - 4))
    assert abs(diagonal.mean() - mean) < SIGMAS * spread / np.sqrt(6 * n)
    off = state.gram[:, np.triu_indices(6, 1)[0], np.triu_indices(6, 1)[1]]
    assert abs(off.std() / (0.25 * np.sqrt(d - 4)) - 1) < SIGMAS / np.sqrt(2 * off.size)
    assert abs(state.phi.std() / 0.5 - 1) < SIGMAS / np.sqrt(2 * state.phi.size)
    singular = State.draw(2, 3, 6, rng=0)
    assert np.linalg.matrix_rank(singular.gram[0]) == 2 < 6
    assert State.draw(2, 3, 4, rng=0).gram.max() == 0
    huge = State.draw(2, 3, 10**9, rng=0)
    assert np.einsum("raa->ra", huge.gram) == pytest.approx(1, abs=1e-3)


def test_empirical_types_count_what_is_there():
    types = empirical_types([0, 1, 0], [[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[3.0, 1, 1], [1, 3, 2], [1, 1, 3]], 2)
    kinds = {
        (int(y), float(w)): {(int(f), float(s)): int(n) for f, s, n in zip(*(a[0, j] for a in types[2:])) if n}
        for j, (y, w) in enumerate(zip(types.y[0], types.weight[0]))
    }
    assert kinds == {(0, 2 / 3): {(0, 3.0): 1, (2, 1.0): 2}, (1, 1 / 3): {(1, 3.0): 1, (3, 1.0): 1, (3, 2.0): 1}}


@pytest.mark.parametrize("values", [1, 2, 50])
def test_types_are_what_counting_one_by_one_finds(values):
    rng = np.random.default_rng(values)
    y, robust = rng.integers(3, size=(4, 12)), rng.random((4, 12, 5)) < 0.4
    strength = np.where(robust, 0, 100.0) + rng.integers(values, size=robust.shape)
    types = empirical_types(y, robust, strength, 3)
    for r in range(4):
        samples = [(int(label), *sorted(Counter(zip(of.tolist(), s.tolist())).items()))
                   for label, of, s in zip(y[r], robust[r], strength[r])]  # fmt: skip
        found = []
        for j in np.flatnonzero(types.weight[r]):
            label = int(types.y[r, j])
            kinds = [((bool(f == label), s), n) for f, s, n in zip(*(a[r, j].tolist() for a in types[2:])) if n]
            assert {f for f, n in zip(types.feature[r, j], types.count[r, j]) if n} <= {label, 3 + label}
            found.append(((label, *kinds), types.weight[r, j]))
        assert [kind for kind, _ in found] == list(dict.fromkeys(samples))
        assert [weight for _, weight in found] == pytest.approx([n / 12 for n in Counter(samples).values()])


def test_balanced_data_of_constant_strength_are_the_population():
    _, _, types, state = problem()
    population = population_types(K, P, 2, 3.0, 1.0)
    options = {"q": 3, "rho": RHO, "lr": 0.5, "n_iter": T}
    np.testing.assert_allclose(
        simulate(state, types, **options).phi, simulate(state, population, **options).phi, atol=EXACT
    )
    bernoulli = population_types(K, P, 2, 3.0, 1.0, partition="bernoulli")
    assert bernoulli.weight.sum() == pytest.approx(1)
    assert bernoulli.weight.shape == (1, K * (P + 1))


def big_sample(shared, laws, n=6000):
    """An empirical law with many samples, as a check on the integrals."""
    law = af.PatchDistribution(
        n_classes=K, patch_dim=2 * K, n_patches=P, n_robust=2, alpha=laws[0], beta=laws[1], shared_strengths=shared
    )
    data = law.sample(n, 3, balanced=True)
    for robust in (True, False):  # one strength per sample and feature, or one per patch
        kept = np.where(data.robust == robust, data.strength, np.nan)
        assert (np.nanmin(kept, axis=1) == np.nanmax(kept, axis=1)).all() == shared
    return empirical_types(data.y, data.robust, data.strength, K)


@pytest.mark.parametrize("shared", [True, False])
def test_random_strengths_of_the_population(shared):
    laws = stats.uniform(2, 2), stats.uniform(0.5, 1)
    state = State.draw(K, M, D, rng=0, init_std=0.3)
    options = {"q": 3, "rho": RHO, "lr": 0.5, "n_iter": 20, "record_every": 20}
    types = population_types(K, P, 2, *laws, shared=shared, n_points=64, seeds=range(8))
    found = simulate(state, types, **options).phi[-1]
    truth = simulate(state, big_sample(shared, laws), **options).phi[-1, 0]
    plain = simulate(state, population_types(K, P, 2, 3.0, 1.0), **options).phi[-1, 0]
    sampling = 0.01 * np.abs(truth).max()  # 6000 samples: 1 / sqrt(6000) of strengths that vary by 30%
    assert np.abs(found.mean(axis=0) - truth).max() < sampling < np.abs(plain - truth).max()
    if shared:
        coarse, finer = (
            simulate(state, population_types(K, P, 2, *laws, shared=True, n_nodes=n), **options).phi[-1]
            for n in (2, 48)
        )
        # sigma' has knots, so the quadrature has no spectral accuracy
        assert np.abs(found - finer).max() < 1e-4 < np.abs(coarse - finer).max()
        law = stats.randint(2, 4)
        exact = population_types(K, P, 2, law, 1.0, shared=True)
        assert sorted(set(exact.strength[exact.feature < K])) == [2, 3]
        assert exact.weight.sum() == pytest.approx(1)
    else:
        error = standard_error(found)
        assert 0 < error.max() < sampling


# ------------------------------------------------------------------ errors
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": 1}, "q = 1"),
        ({"lr": -1.0}, "lr = -1.0"),
        ({"lr": [1.0, 2.0, 3.0]}, "lr has shape"),
        ({"ascent_lr": 1.0}, "eps = None: both must be given"),
        ({"ascent_lr": 1.0, "eps": 1.0, "objective": "magin"}, "did you mean 'margin'"),
        ({"n_iter": -1}, "n_iter = -1"),
        ({"after_saturation": "ignore"}, "after_saturation"),
    ],
)
def test_simulate_refuses(change, message):
    _, _, types, state = problem()
    with pytest.raises(ValueError, match=message):
        simulate(state, types, **({"q": 3, "rho": RHO, "lr": 0.5, "n_iter": 5} | change))


def test_more_refusals():
    _, _, types, rotated = problem(norm="l2")
    with pytest.raises(ValueError, match="parallel to the axes"):
        simulate(rotated, types, q=3, rho=RHO, lr=0.5, n_iter=5, ascent_lr=1.0, eps=1.0)
    with pytest.raises(ValueError, match="2 runs and types 3"):
        simulate(rotated, Types(*(np.repeat(a[:1], 3, 0) for a in types)), q=3, rho=RHO, lr=0.5, n_iter=5)
    with pytest.raises(ValueError, match="patch_dim = 3"):
        State.draw(2, 2, 3, rng=0)
    with pytest.raises(ValueError, match="n_robust = 9"):
        population_types(3, 7, 9, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"y = .*: must be integers in 0\.\.1"):
        empirical_types([0, 2], np.zeros((2, 3), bool), np.ones((2, 3)), 2)
    with pytest.raises(ValueError, match="must be two replicates or more"):
        standard_error(np.ones((1, 3)))


def test_types_of_another_number_of_classes_are_refused():
    _, _, _, state = problem()
    for n_classes in (K - 1, K + 1):
        with pytest.raises(ValueError, match="another number of classes than the 3 of state"):
            simulate(state, population_types(n_classes, P, 2, 3.0, 1.0), q=3, rho=RHO, lr=0.5, n_iter=5)


def test_no_radius_is_standard_training():
    _, _, types, state = problem()
    options = {"q": 3, "rho": RHO, "lr": 0.5, "n_iter": 30}
    still = simulate(state, types, ascent_lr=0.5, eps=0, **options)
    assert np.isnan(still.saturated_at).all()
    np.testing.assert_allclose(still.phi, simulate(state, types, **options).phi, atol=EXACT)


def test_discrete_laws_are_exact():
    given = stats.rv_discrete(values=([1, 2.5], [0.25, 0.75]))
    for law in (given, given()):
        types = population_types(2, 3, 1, law, 1.0, shared=True)
        weights = {s: types.weight[0][(types.strength[0] == s).any(axis=1)].sum() for s in (1.0, 2.5)}
        assert weights == {1.0: pytest.approx(1), 2.5: pytest.approx(0.75)}  # beta = 1 is in every type
    poisson = population_types(2, 3, 1, stats.poisson(1.0, loc=1), 1.0, shared=True)
    assert poisson.weight.sum() == pytest.approx(1, abs=1e-12)
    assert poisson.weight[0, 1] == pytest.approx(stats.poisson(1.0).pmf(1) / 2)


def test_a_generator_per_run():
    for rng in ([3, 4], (3, 4), range(3, 5), np.array([3, 4])):
        drawn = State.draw(2, 1, 8, rng=rng)
        assert drawn.n_runs == 2
        np.testing.assert_array_equal(drawn.phi[1], State.draw(2, 1, 8, rng=4).phi[0])
        assert af.PatchCNN.init(2, 1, 8, rng=rng).n_runs == 2


EYE = np.eye(8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: State.from_weights(np.zeros((2, 1, 8)), (2 * EYE[:2], EYE[2:4])), "features: must be orthonormal"),
        (lambda: State.from_weights(np.zeros((2, 1, 8)), (EYE[:2], EYE[:2])), "features: must be orthonormal"),
        (lambda: State.from_weights(np.full((2, 1, 8), np.nan), (EYE[:2], EYE[2:4])), "W holds NaN"),
        (lambda: State.from_weights(np.zeros((0, 2, 1, 8)), (EYE[:2], EYE[2:4])), "W has shape"),
        (lambda: State.draw(2, 1, 8, rng=[]), "rng = "),
        (lambda: State.draw(2, 1, 8, rng=-1), "rng = -1"),
        (lambda: population_types(2, 3, 1, stats.norm(0, 1), 1.0), "alpha has support"),
        (lambda: population_types(2, 3, 1, 1.0, stats.gamma), "beta = .*frozen"),
        (lambda: population_types(2, 3, 1, stats.uniform(1, 1), 1.0, n_points=5), "n_points = 5: must be a power of 2"),
        (lambda: population_types(2, 3, 1, stats.uniform(1, 1), 1.0, seeds=()), "seed"),
        (lambda: population_types(2, 30_000, 1, stats.uniform(1, 1), 1.0), "n_patches = 30000"),
        (lambda: population_types(2, 3, 1, stats.randint(1, 10**9), 1.0, shared=True), "at most 10000"),
        (lambda: empirical_types([0], np.zeros((1, 0)), np.zeros((1, 0)), 2), "at least one patch"),
        (lambda: population_types(2, 3, 1, 10**400, 1.0), "alpha = 1000"),
    ],
)
def test_still_more_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_divergence_is_said():
    _, _, types, state = problem()
    state.phi[1] = 1e308
    found = simulate(state, types, q=3, rho=RHO, lr=0.5, n_iter=5, record_every=1)
    assert found.diverged_at[1] == 0
    assert np.isnan(found.diverged_at[0])
    assert not found.exact[-1, ~np.isnan(found.diverged_at)].any()
