"""Lemma B.2: the race against a plain loop, and the bounds of its proof against the race."""

import numpy as np
import pytest

from advfeat.theory.tensor_power import TABLE, bound, flow_bound, simulate, steps, sweep

ROUNDING = 1e-9  # of up to 1e6 steps, each rounded to float64


def points(rng, n):
    return {
        "x0": rng.uniform(0.15, 0.5, n),
        "y0": rng.uniform(0.05, 0.2, n),
        "S": rng.uniform(0.3, 3.0, n),
        "lr": 10.0 ** rng.uniform(-2, 0, n),
        "level": rng.uniform(0.4, 3.0, n),
    }


def wobble(t):
    return 1.5 + np.cos(t)


def plain(x, y, q, S, lr, level, C):
    """The two sequences, one point, as they stand in the lemma."""
    t = 0
    with np.errstate(over="ignore"):
        while x < level:
            x, y, t = x + lr * C(t) * x ** (q - 1), y + lr * S * C(t) * y ** (q - 1), t + 1
    return t, x, y


@pytest.mark.parametrize("q", [3, 4, 6])
@pytest.mark.parametrize("growth", [0.7, wobble])
def test_the_race_is_the_plain_loop(q, growth):
    given = points(np.random.default_rng(q), 40)
    given["level"][0] = 0.1  # there already
    found = simulate(q=q, growth=growth, growth_max=2.5, **given)
    for i in range(40):
        x0, y0, S, lr, level = (given[name][i] for name in ("x0", "y0", "S", "lr", "level"))
        T, x, y = plain(x0, y0, q, S, lr, level, growth if callable(growth) else lambda t: growth)
        assert found.time[i] == T
        np.testing.assert_allclose([found.x[i], found.y[i], found.ratio[i]], [x, y, y / y0], rtol=ROUNDING)
    assert found.reached.all()
    assert (found.time[0], found.x[0], found.y[0]) == (0, given["x0"][0], given["y0"][0])


def test_points_broadcast_and_do_not_see_each_other():
    x0, y0 = np.array([[0.1], [0.2], [0.3]]), np.array([0.05, 0.1])
    whole = simulate(x0, y0, q=3, lr=0.3, level=1.0)
    assert whole.time.shape == whole.premise.shape == (3, 2)
    for i, j in np.ndindex(3, 2):
        alone = simulate(x0[i, 0], y0[j], q=3, lr=0.3, level=1.0)
        assert (alone.time, alone.x, alone.y) == (whole.time[i, j], whole.x[i, j], whole.y[i, j])


@pytest.mark.parametrize("q", [3, 4, 5])
@pytest.mark.parametrize(("growth", "least", "most"), [(1.0, 1.0, 1.0), (wobble, 0.5, 2.5)])
def test_the_proven_bounds_hold(q, growth, least, most):
    """T between its bounds and y_T / y_0 below its own, at large steps too; and the bounds are not empty words."""
    given = points(np.random.default_rng(10 + q), 3000)
    found = simulate(q=q, growth=growth, growth_max=most, **given)
    lower, upper = steps(given["x0"], given["level"], q=q, lr=given["lr"], growth_min=least, growth_max=most)
    assert (found.time >= lower * (1 - ROUNDING)).all()
    assert (found.time <= upper * (1 + ROUNDING)).all()
    limit = bound(q=q, growth_max=most, **given)
    assert (found.ratio <= limit * (1 + ROUNDING)).all()
    finite = np.isfinite(limit)
    assert finite.mean() > 0.3
    assert np.median(limit[finite] / found.ratio[finite]) < 1.2


def test_the_lemma_s_inequalities_are_covered():
    """A faster x and a slower y than the recursions (the lemma asks for >= and <=) stay below the same bound."""
    rng = np.random.default_rng(3)
    for x0, y0 in zip(rng.uniform(0.1, 0.2, 50), rng.uniform(0.05, 0.1, 50)):
        x, y = x0, y0
        while x < 1:
            x, y = x + 0.02 * rng.uniform(1, 3) * x**3, y + 0.02 * rng.uniform(0, 1) * y**3
        assert y / y0 <= bound(x0, y0, q=4, lr=0.02, level=1.0)


@pytest.mark.parametrize("q", [3, 5])
def test_small_steps_reach_the_flow(q):
    """T lr and y_T against the flow's closed forms; the error of one Euler pass is of first order in lr."""
    x0, y0, S, level, p = 0.3, 0.2, 1.3, 1.0, q - 2
    time = (x0**-p - level**-p) / p
    y = (y0**-p - S * p * time) ** (-1 / p)
    errors = []
    for lr in (1e-3, 1e-4):
        found = simulate(x0, y0, q=q, S=S, lr=lr, level=level)
        errors.append([abs(found.time * lr / time - 1), abs(found.y / y - 1)])
        limit = bound(x0, y0, q=q, S=S, lr=lr, level=level)
        assert found.ratio <= limit
        errors[-1].append(limit / (y / y0) - 1)
    assert max(errors[0]) < 0.02
    assert (np.array(errors[1]) < 0.2 * np.array(errors[0])).all()


def test_sweep_over_the_head_start():
    """The further ahead, the less y moves; what the flow says of any level, with its power law as delta -> 0."""
    delta = np.array([-0.2, 0.05, 0.1, 0.3, 1.0, 4.0])
    table = sweep(delta, q=4, S=2.0, y0=0.05, lr=0.01, level=2.0)
    assert table.dtype.names == TABLE
    assert table.shape == (6,)
    np.testing.assert_allclose(table["x0"] / (0.05 * np.sqrt(2)) - 1, delta, atol=1e-14)
    assert (np.diff(table["ratio"]) < 0).all()
    assert (table["ratio"] <= table["bound"]).all()
    assert (table["ratio"][1:] <= table["flow_bound"][1:] * 1.01).all()
    assert table["flow_bound"][0] == np.inf
    assert (table["time"] >= table["flow_time"]).all()
    for q in (3, 4, 7):
        small = 1e-9
        assert flow_bound(small, q) == pytest.approx((small * (q - 2)) ** (-1 / (q - 2)), rel=1e-6)


def test_premise():
    """x_0 >= y_0 S^(1/(q-2)) (1 + gap)."""
    found = simulate([0.4, 0.41, 0.43, 0.5], 0.1, q=4, S=16.0, lr=0.01, level=1.0, gap=0.05)
    assert found.premise.tolist() == [False, False, True, True]
    np.testing.assert_allclose(found.delta, [0, 0.025, 0.075, 0.25], atol=1e-12)


def test_a_y_that_explodes_first_is_inf_without_a_warning():
    found = simulate(0.1, 0.3, q=4, S=4.0, lr=0.05, level=2.0)
    assert found.reached
    assert found.ratio == np.inf


def test_what_cannot_arrive_is_refused_before_a_step():
    def never(t):
        raise AssertionError("a step was taken")

    needed = (1e4 - 1) / 2 / 1e-3
    with pytest.raises(ValueError, match=r"max_iter = 100000: .* 2 of 3 points, up to 5e\+0*6"):
        simulate([1e-2, 1.5e-2, 0.5], 1e-3, q=4, lr=1e-3, level=1.0, growth=never, growth_max=1.0, max_iter=100_000)
    lower, _ = steps(1e-2, 1.0, q=4, lr=1e-3)
    assert lower == pytest.approx(needed)
    tight = int(steps(0.3, 1.0, q=4, lr=1e-3)[0]) + 1
    late = simulate([0.3, 0.9], 0.1, q=4, lr=1e-3, level=1.0, max_iter=tight)
    assert late.reached.tolist() == [False, True]  # Euler needs a few more than the flow
    assert late.time[0] == -1
    assert late.x[0] == plain_after(0.3, tight)


def plain_after(x, n):
    for _ in range(n):
        x = x + 1e-3 * x**3
    return pytest.approx(x, rel=ROUNDING)


FINE = {"x0": 0.3, "y0": 0.1, "q": 3, "lr": 0.1, "level": 1.0}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"q": 2}, "q = 2: must be an integer >= 3"),
        ({"x0": [0.1, -0.2]}, "x0 = -0.2: must be a number, finite and > 0"),
        ({"y0": float("nan")}, "y0 = nan"),
        ({"S": 0}, "S = 0"),
        ({"lr": "fast"}, "lr = 'fast'"),
        ({"level": True}, "level = True"),
        ({"growth": 0.0}, "growth = 0.0"),
        ({"growth": wobble}, "growth_max = None"),
        ({"growth": wobble, "growth_max": 1.0}, r"growth\(0\) = .*: must be <= growth_max = 1.0"),
        ({"growth": 2.0, "growth_max": 1.0}, "growth_max = 1.0: must be >= growth = 2.0"),
        ({"gap": -1}, "gap = -1"),
        ({"max_iter": 0}, "max_iter = 0"),
        ({"x0": [0.1, 0.2], "y0": [0.1, 0.2, 0.3]}, r"shapes x0 \(2,\), y0 \(3,\)"),
    ],
)
def test_bad_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        simulate(**(FINE | wrong))


def test_bad_arguments_elsewhere():
    with pytest.raises(ValueError, match=r"delta = -1\.0: must be a number, finite and > -1"):
        flow_bound([-1.0, 0.5], 3)
    with pytest.raises(ValueError, match=r"growth_min = 2: must be <= growth_max = 1.0"):
        steps(0.1, 1.0, q=3, lr=0.1, growth_min=2)
    with pytest.raises(ValueError, match=r"delta has shape \(2,\)"):
        sweep([0.1, 0.2], q=3, y0=[0.1, 0.2, 0.3])
