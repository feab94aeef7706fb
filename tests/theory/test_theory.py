"""Floor 3: window, plateau and phases against brute force and against networks."""

import numpy as np
import pytest

from advfeat import PatchCNN, PatchDistribution, feature_swap
from advfeat.theory import density_ratio, find_window, phase_two_started, plateau, robust_window
from advfeat.theory.window import diagonal_edge


def test_the_default_window_and_density():
    low, high = robust_window(3.0, 1.0, 64, 1, q=3)
    assert low == pytest.approx(1 / (1 + (64 / 63) ** (1 / 3)), rel=1e-15)
    assert (round(low, 3), round(high, 3)) == (0.499, 0.600)
    assert density_ratio(3.0, 1.0, 64, 1) == pytest.approx(27 / 63)
    law = PatchDistribution(n_classes=2, patch_dim=4, n_patches=64, n_robust=1, alpha=3.0, beta=1.0)
    assert law.assumption_2_3(3) == pytest.approx((27 / 63, 3.0))


def test_the_limit_of_many_patches():
    P, P_R, alpha, beta, q = 10**12, 1, 3.0, 1.0, 4
    low, high = robust_window(alpha, beta, P, P_R, q)
    assert low == pytest.approx(beta / 2, rel=1e-4)
    assert high == pytest.approx(density_ratio(alpha, beta, P, P_R, q) ** (1 / q) * beta, rel=2e-3)


DEFAULT = (3.0, 1.0, 64, 1, 3)
NO_WINDOW = {
    "norm": (DEFAULT, {"norm": "l2"}, "it is one of l_inf balls, and norm = 'l2'"),
    "empty": ((1.0, 1.0, 64, 1, 3), {}, "it is empty, eps_lo = 0.4987 >= eps_hi = 0.2"),
    "no robust patch": ((3.0, 1.0, 64, 0, 3), {}, "it is empty"),
    "size": (DEFAULT, {"strength": 40.0}, "A (alpha - eps_lo) = 100.1 > rho = 100, the robust feature leaves"),
    "size, q": ((3.0, 1.0, 64, 1, 4), {"strength": 60.0}, "down to alpha P_R / (P + P_R) = 0.04615"),
    "diverged": (DEFAULT, {"strength": np.nan}, "the robust feature's A = nan, the training diverged"),
}


@pytest.mark.parametrize(("numbers", "more", "message"), NO_WINDOW.values(), ids=NO_WINDOW)
def test_no_window_without_its_premises(numbers, more, message):
    found = find_window(*numbers, rho=100.0, **more)
    assert not found.stands
    assert message in found.failed
    assert found.ends is None
    assert [found.place(eps) for eps in (0.1, 0.55, 2.0)] == ["no window"] * 3
    assert found.sentence(0.55).startswith("There is no window of test radii")
    assert message in found.sentence(0.55)


@pytest.mark.parametrize("strength", [None, 0.0, 30.0, 39.9])
def test_the_window_where_its_premises_hold(strength):
    found = find_window(*DEFAULT, rho=100.0, strength=strength)
    assert found.ends == list(robust_window(*DEFAULT))
    assert [found.place(eps) for eps in (0.4, found.low, 0.5, found.high, 0.7)] == (
        ["below", "below", "inside", "above", "above"]
    )  # a tie is wrong: at eps_lo non-robust networks have fallen, at eps_hi robust ones too
    known = None if strength is None else f"A (alpha - eps_lo) = {strength * (3 - found.low):.4g} <= rho = 100"
    said = known or "A is not known"
    assert said in found.sentence(0.5)
    assert "The test radius 0.5 lies inside the window (0.4987, 0.6)" in found.sentence(0.5)


def test_beyond_the_polynomial_part_radii_are_left_that_any_size_holds():
    numbers = (3.0, 1.0, 10, 4, 3)
    found = find_window(*numbers, rho=1.0, strength=1e6)
    assert found.ends == [robust_window(*numbers)[0], pytest.approx(3.0 * 4 / 14)]
    assert "any A" in found.premise


@pytest.mark.parametrize("q", [2, 3, 4])
@pytest.mark.parametrize("strength", [0.1, 0.6, 2.0, 300.0])
def test_the_edge_of_robust_networks_of_any_size(q, strength):
    """The exact attack, hide u_y and show u_j everywhere, just below and just above; rho = 1."""
    law = PatchDistribution(n_classes=2, patch_dim=4, n_patches=12, n_robust=2, alpha=2.5, beta=1.0)
    data, (u, v) = law.sample(2, 0, balanced=True), law.features
    edge = diagonal_edge(2.5, 12, 2, q, 1.0, strength)
    net = PatchCNN.robust_minimum(strength, law.features, q=q, rho=1.0)
    hide, show = u[data.y][:, None], u[1 - data.y][:, None]
    nothing = -(v[data.y][:, None] * ~data.robust[..., None])  # along v the network sees nothing
    for factor, right in ((1 - 1e-6, True), (1 + 1e-6, False)):
        X = data.X + factor * edge * (show - hide * data.robust[..., None]) + 0.1 * nothing
        assert (net.margin(X, data.y) > 0).tolist() == [right, right]
    low, high = 2.5 * 2 / 14, robust_window(2.5, 1.0, 12, 2, q)[1]
    assert low - 1e-8 < edge < high + 1e-8
    if strength * (2.5 - high) <= 1:
        assert edge == pytest.approx(high, abs=1e-8)


@pytest.mark.parametrize("q", [2, 3, 5])
@pytest.mark.parametrize("feature", ["robust", "non_robust"])
def test_diagonal_networks_change_their_mind_at_the_window(q, feature):
    """The attacker that hides f_y and shows f_j everywhere wins just above the window's edge and loses just below."""
    law = PatchDistribution(n_classes=2, patch_dim=4, n_patches=12, n_robust=2, alpha=2.5, beta=1.0)
    data = law.sample(2, 0, balanced=True)
    low, high = robust_window(2.5, 1.0, 12, 2, q)
    edge = high if feature == "robust" else low
    minimum = PatchCNN.robust_minimum if feature == "robust" else PatchCNN.nonrobust_minimum
    net = minimum(1.0, law.features, q=q, rho=1e6)  # everything in the polynomial part
    f = law.features[0] if feature == "robust" else law.features[1]
    for factor, right in ((0.999, True), (1.001, False)):
        delta = factor * edge * (f[1 - data.y] - f[data.y])[:, None]
        assert (net.margin(data.X + delta, data.y) > 0).tolist() == [right, right]


def test_propositions_3_1_and_3_2():
    """Both minima fit; the swap breaks the first; the second holds where P_R (alpha - eps) > P eps."""
    law = PatchDistribution(n_classes=3, patch_dim=8, n_patches=10, n_robust=2, alpha=9.0, beta=1.0)
    data = law.sample(12, 0, balanced=True)
    for minimum in (PatchCNN.robust_minimum, PatchCNN.nonrobust_minimum):
        losses = [minimum(g, law.features, q=3, rho=1.0).loss(data.X, data.y) for g in (0.2, 0.5, 1.0, 8.0)]
        assert losses[0] > losses[1] > losses[2] > losses[3]
        n, strength = (2, 9.0) if minimum == PatchCNN.robust_minimum else (8, 1.0)
        F = n * (8.0 * strength - 2 / 3)  # in the linear part
        assert losses[3] == pytest.approx(np.log1p(2 * np.exp(-F)), rel=1e-12, abs=0)
    swapped = feature_swap(data, eps=1.0)
    assert PatchCNN.nonrobust_minimum(16.0, law.features).accuracy(swapped, data.y) == 0
    robust = PatchCNN.robust_minimum(16.0, law.features)
    assert robust.accuracy(swapped, data.y) == 1
    u = law.features[0]
    for eps, right in ((1.4, 1.0), (1.6, 0.0)):  # the edge: 2 (9 - eps) = 10 eps, eps = 1.5
        delta = eps * (u[(data.y + 1) % 3] - u[data.y])[:, None]
        assert robust.accuracy(data.X + delta, data.y) == right


@pytest.mark.parametrize(("ascent_lr", "expected"), [(3, 0.693), (10, 0.464), (30, 0.322)])
def test_plateau_values(ascent_lr, expected):
    assert plateau(1.0, 3, 1.0, ascent_lr) == pytest.approx(expected, abs=5e-4)


def test_at_the_plateau_an_ascent_step_removes_a_non_robust_patch():
    beta, q, rho, rate = 0.8, 4, 5.0, 2.0
    B = plateau(beta, q, rho, rate)
    assert beta * B < rho
    assert rate * (beta * B / rho) ** (q - 1) * B == pytest.approx(beta, rel=1e-12)
    half = B / 2 ** (1 / q)
    assert phase_two_started(np.array([[half * 1.001], [half * 0.999]]), beta, q, rho, rate).tolist() == [True, False]
