"""docs/robust-window.md: who can be robust on the whole l_inf ball, each statement held against networks."""

from fractions import Fraction as F
from itertools import permutations

import numpy as np
import pytest
from scipy.optimize import linprog
from tolerances import REORDERED

from advfeat import PGD, Aligned, PatchCNN, PatchDistribution, ThreatModel
from advfeat.theory.window import contradiction, density_ratio, robust_window

# alpha, beta, eps, P_R, P_NR, q: where Proposition 1 applies, at its edge (3^3 = 27), and at c > 1
APPLIES = [(4, 1, 1, 1, 65, 3), (3, 1, 1, 1, 10, 3), (2.5, 0.8, 1, 2, 8, 2), (4, 1, 1, 1, 27, 3), (1, 1, 1.2, 3, 2, 4)]
NOT = [(4, 1, 1, 1, 26, 3), (4, 1, 0.99, 1, 65, 3), (9, 1, 1, 2, 8, 2), (3, 1, 1, 1, 0, 3)]


def applies(alpha, beta, eps, n_robust, others, q):
    return contradiction(alpha, beta, eps, n_robust + others, n_robust, q)


def sample(alpha, beta, n_robust, others, k=2, d=None, n=None):
    """One sample of each class, or n, of the noiseless data."""
    kinds = {"n_patches": n_robust + others, "n_robust": n_robust}
    law = PatchDistribution(n_classes=k, patch_dim=d or 2 * k, alpha=alpha, beta=beta, **kinds)
    return law.sample(n or k, 0, balanced=True)


def attacked(alpha, beta, eps, n_robust, others, q, k=2, d=None):
    """The points of the proof: X (N, P, d) and labels y, for all ordered pairs y != j and both steps.  J_R is first."""
    u, v = np.eye(d or 2 * k)[:k], np.eye(d or 2 * k)[k : 2 * k]
    points, labels = [], []
    for y, j in permutations(range(k), 2):
        steps = (0 * u[y], -beta * v[y]), (-min(alpha, eps) * u[y], -beta * v[y] + eps * u[j])
        for on_robust, on_others in steps:
            assert np.abs([on_robust, on_others]).max() <= eps
            points.append([alpha * u[y] + on_robust] * n_robust + [beta * v[y] + on_others] * others)
            labels.append(y)
    return np.array(points, float), np.array(labels)


def test_the_conditions():
    assert all(applies(*case) for case in APPLIES)
    assert not any(applies(*case) for case in NOT)
    assert contradiction(3.0, 1.0, 1.0, 64, 1)  # the default configuration
    assert not contradiction(3.0, 1.0, 0.5, 64, 1)  # and its test radius
    for alpha, beta, P, n_robust, q in [(3.0, 1.0, 64, 1, 3), (1.5, 1.0, 9, 2, 2), (2.0, 1.0, 30, 1, 4)]:
        assert all(contradiction(alpha, beta, eps, P, n_robust, q) for eps in np.linspace(beta, 5 * alpha, 50))
        c = density_ratio(alpha, beta, P, n_robust, q)
        assert c < 1
        assert robust_window(alpha, beta, P, n_robust, q)[1] < c ** (1 / q) * beta


BAD = {"alpha": [0], "beta": [float("nan")], "eps": [-1], "n_patches": [0], "n_robust": [65, 1.5], "q": [1]}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in BAD for value in BAD[name]])
def test_bad_arguments(name, value):
    fine = {"alpha": 3.0, "beta": 1.0, "eps": 1.0, "n_patches": 64, "n_robust": 1, "q": 3}
    with pytest.raises(ValueError, match=f"{name} = {value}: must be"):
        contradiction(**(fine | {name: value}))


# ------------------------------------------------------------------ Proposition 1
@pytest.mark.parametrize("case", APPLIES + NOT)
def test_all_weights_at_once_by_linear_programming(case):
    """In the polynomial part a network is M_if = G_i(f) >= 0, f = u_1, u_2, v_1, v_2, and the margins at the points of
    the proof are linear in it: over all M <= 1 their largest minimum is 0 where the proposition applies, else > 0."""
    alpha, beta, eps, n_robust, others, q = case
    X, y = attacked(alpha, beta, max(eps, beta), n_robust, others, q)
    strength = np.maximum(X, 0) ** q  # (N, P, f): a patch lies along one feature
    assert ((X != 0).sum(axis=-1) <= 1).all()
    margins = np.zeros((len(y), 2, 4))
    for n, label in enumerate(y):
        margins[n, label] += strength[n].sum(axis=0)
        margins[n, 1 - label] -= strength[n].sum(axis=0)
    rows = np.column_stack([-margins.reshape(len(y), 8), np.ones(len(y))])
    best = linprog([0] * 8 + [-1], rows, np.zeros(len(y)), bounds=[(0, 1)] * 8 + [(None, None)])
    assert best.success
    assert (-best.fun > 1e-6) is (not applies(alpha, beta, max(eps, beta), n_robust, others, q))


def robust_classes(net, X, y):
    """Whether each class is right at all points of the proof, (R, k)."""
    margin = net.margin(X, y)
    return np.stack([(margin[:, y == i] > 0).all(axis=1) for i in range(net.shape[0])], axis=1)


def most_robust_classes(case, runs=400, k=3, d=8):
    """Random and diagonal-plus-noise networks, trained on the points of the proof themselves: the largest number of
    classes that one of them, at any time, has right at all these points."""
    alpha, q, rho = case[0], case[5], 1e3
    X, y = attacked(*case, k=k, d=d)
    rng = np.random.default_rng(0)
    W = rng.standard_normal((runs, k, 4, d)) * 10.0 ** rng.uniform(-1, 0, (runs, 1, 1, d))
    W[: runs // 2, np.arange(k), :, np.arange(k)] += 2 * rng.uniform(size=(k, runs // 2, 4))
    most = 0
    for _ in range(50):
        W *= (20 / np.abs(PatchCNN(W, q, rho).logits(X)).max(axis=(1, 2)))[:, None, None, None] ** (1 / q)
        net = PatchCNN(W, q, rho)
        assert alpha * W[..., :k].max() <= rho  # the proposition's polynomial part
        most = max(most, robust_classes(net, X, y).sum(axis=1).max())
        gradient = net.loss_and_grad(X, y)[1]
        W = W - 0.05 * gradient / np.sqrt((gradient**2).sum(axis=(1, 2, 3), keepdims=True) + 1e-300)
    return most


@pytest.mark.parametrize("case", APPLIES)
@pytest.mark.one_in(3)
def test_no_network_in_the_polynomial_part_has_two_robust_classes(case):
    assert most_robust_classes(case) == 1


@pytest.mark.parametrize("case", [NOT[2], (4, 1, 1, 1, 20, 3)])
def test_the_same_search_finds_them_where_the_proposition_is_silent(case):
    assert not applies(*case)
    assert most_robust_classes(case) == 3


# ------------------------------------------------------------------ diagonal networks of any scale
def test_diagonal_networks_of_any_scale():
    """The smallest margin P_R sigma(A (alpha - eps)) - P sigma(A eps): never positive from eps_hi on, always below the
    linear edge, and with equality there from A eps = rho on."""
    alpha, P, n_robust, q = 9.0, 10, 2, 3
    data = sample(alpha, 1.0, n_robust, P - n_robust)
    high, edge = robust_window(alpha, 1.0, P, n_robust, q)[1], n_robust * alpha / (P + n_robust)
    assert edge == 1.5
    u = data.features[0]
    net = PatchCNN(np.stack([A * u[:, None] for A in 10.0 ** np.linspace(-2, 2, 81)]), q, 1.0)

    def robust(eps):
        return (net.margin(data.X + eps * (u[1 - data.y] - u[data.y])[:, None], data.y) > 0).all(axis=1)

    assert not robust(high * (1 + 1e-9)).any()
    assert robust(edge * (1 - 1e-9)).all()
    middle = robust((high + edge) / 2)
    assert 0 < middle.sum() < len(middle)
    assert robust(edge).all()


# ------------------------------------------------------------------ Proposition 2 and the networks with rival neurons
def rivals(k, n, a, b, d=None):
    """Class i: n neurons a u_i, and one b u_l for each l != i -> W (k, n + k - 1, d)."""
    u = np.eye(d or 2 * k)[:k]
    return np.stack([np.concatenate([[a * u[i]] * n, b * np.delete(u, i, axis=0)]) for i in range(k)])


def sigma(z):
    """q = 3, rho = 1, in rationals."""
    return F(0) if z <= 0 else z**3 / 3 if z <= 1 else z - F(2, 3)


def least_and_most(n, a, b, low, high):
    """The exact range of phi(t) = n sigma(a t) - sigma(b t) over [low, high], within [-1, 1] or right of 1 / b.

    phi' = (n a^3 - b^3) t^2 has one sign on (0, 1 / b]; beyond, n a^3 t^2 - b (to 1 / a) and n a - b (after) are
    increasing in turn, so phi rises from where the first is positive.
    """
    assert a < b
    if high * b <= 1:
        assert low <= 0
        turns = [low, F(0), high]
    else:
        assert low * b > 1 >= low * a
        assert min(n * a**3 * low**2, n * a) > b
        turns = [low, high]
    values = [n * sigma(a * t) - sigma(b * t) for t in turns]
    return min(values), max(values)


def exact_margin(n, a, b, alpha, eps, n_robust, others):
    """min over the ball of F_y - F_j = sum_p phi(x_{p, u_y}) - phi(x_{p, u_j}): coordinates move independently."""
    inner = least_and_most(n, a, b, -eps, eps)
    return n_robust * (least_and_most(n, a, b, alpha - eps, alpha + eps)[0] - inner[1]) + others * (inner[0] - inner[1])


@pytest.mark.parametrize(("b", "last"), [("0.431", 4460), ("0.430914", 18692), ("0.43086", 18812)])
def test_ten_neurons_and_one_of_the_rival(b, last):
    """k = 2, alpha = 4, beta = eps = rho = 1, q = 3, ten 0.2 u_i and one b u_l: certified on the whole ball in
    rationals up to `last` non-robust patches, and broken by one patch more."""
    n, a, b = 10, F("0.2"), F(b)
    assert applies(4, 1, 1, 1, last, 3)
    assert density_ratio(4, 1, last + 1, 1) < 1
    net = PatchCNN(rivals(2, n, float(a), float(b)), 3, 1.0)
    assert 4 * net.W.max() > 1  # not in the polynomial part
    for others, right in ((last, True), (last + 1, False)):
        data = sample(4.0, 1.0, 1, others)
        own, (u, v) = data.y, data.features
        if b**3 > n * a**3:  # phi(1) < 0: the attacker shows the label's feature on J_NR, else the rival's everywhere
            on_robust, on_others = -u[own], u[own] - v[own]
        else:
            on_robust, on_others = u[1 - own] - u[own], u[1 - own] - v[own]
        X = data.X + np.where(data.robust[..., None], on_robust[:, None], on_others[:, None])
        assert np.abs(X - data.X).max() <= 1
        found, exact = net.margin(X, own), exact_margin(n, a, b, F(4), F(1), 1, others)
        assert (exact > 0) is right
        assert (found > 0).tolist() == [right, right]
        np.testing.assert_allclose(found, float(exact), atol=REORDERED * 1e3)  # logits reach 18,813 x 0.027


def test_the_exact_margin_is_the_least_over_a_fine_grid():
    """h(x_{u_y}, x_{u_j}) = F_y - F_j of one patch, over the boxes that both kinds of patch move in."""
    n, a, b, size = 10, F("0.2"), F("0.431"), 161
    net = PatchCNN(rivals(2, n, float(a), float(b)), 3, 1.0)
    inner = least_and_most(n, a, b, F(-1), F(1))
    outer = least_and_most(n, a, b, F(3), F(5))
    for centre, exact in ((0.0, inner[0] - inner[1]), (4.0, outer[0] - inner[1])):
        own, rival = np.meshgrid(np.linspace(centre - 1, centre + 1, size), np.linspace(-1, 1, size))
        x = np.zeros((size * size, 1, 4))
        x[:, 0, 0], x[:, 0, 1] = own.ravel(), rival.ravel()
        least = (net.logits(x) @ [1, -1]).min()  # attained in a corner, a point of the grid
        assert least == pytest.approx(float(exact), abs=1e-12)


def test_eight_neurons_and_one_of_the_rival_hold_for_any_number_of_patches():
    """8 * 0.2^3 = 0.4^3: phi is 0 on the whole of [-eps, eps], and the margin 16 / 375 for every P_NR."""
    for others in (27, 65, 10**6, 10**30):
        assert exact_margin(8, F("0.2"), F("0.4"), F(4), F(1), 1, others) == F("16/375")
        assert applies(4, 1, 1, 1, others, 3)


@pytest.mark.parametrize(("k", "q", "n", "eps"), [(2, 3, 8, 1.0), (3, 2, 2, 1.9), (4, 4, 3, 0.9), (5, 3, 5, 1.5)])
def test_proposition_2_against_attacks(k, q, n, eps):
    """Robust networks at c < 1, eps >= beta and eps < alpha / 2: every attack, and 2000 random corners, fail."""
    alpha, beta, n_robust, others, rho = 4.0, min(eps, 1.0), 1, 400, 1.7
    assert applies(alpha, beta, eps, n_robust, others, q)
    b = rho / eps * 0.98
    assert b > rho / (alpha - eps)
    a = b * n ** (-1 / q)
    data = sample(alpha, beta, n_robust, others, k, d=2 * k + 1, n=2 * k)
    net = PatchCNN(rivals(k, n, a, b, d=2 * k + 1), q, rho)
    promised = n_robust * ([n, -1] @ net.activation((alpha - eps) * np.array([a, b])))
    assert promised > 0.001
    rng = np.random.default_rng(1)
    tried = [attack(net, data, ThreatModel(eps=eps)).X_adv for attack in (PGD(), Aligned())]
    tried += [data.X + eps * rng.choice([-1, 0, 1], data.X.shape) for _ in range(2000 // len(data.y))]
    least = np.min([net.margin(X, data.y) for X in tried])
    assert least >= promised - 1e-9
    assert least == pytest.approx(promised, abs=1e-9)  # and it is attained


def test_from_half_of_alpha_on_two_classes_meet():
    """eps >= max(beta, alpha / 2): one input in both balls, so that no two classes are robust, whatever the network."""
    alpha, beta = 4.0, 1.0
    data = sample(alpha, beta, 1, 6)
    (u, v), rival = data.features, 1 - data.y
    on_robust = alpha / 2 * (u[rival] - u[data.y])
    X = data.X + np.where(data.robust[..., None], on_robust[:, None], -beta * v[data.y][:, None])
    assert np.abs(X - data.X).max() == alpha / 2
    np.testing.assert_array_equal(np.sort(X, axis=1)[0], np.sort(X, axis=1)[1])
