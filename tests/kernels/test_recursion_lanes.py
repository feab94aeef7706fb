"""Runs of the recursion side by side: the bits of runs alone, the plan, what is compiled for them."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from advfeat.kernels.cpu import engine as cpu_engine
from advfeat.kernels.cpu import recursion as cpu_recursion
from advfeat.kernels.cpu import recursion_lanes
from advfeat.kernels.recursion import Types, Watch
from engines import engine_of
from noiseless import D, K, M, problem

from advfeat.theory import State, population_types, simulate


def mixed(R, q, n_steps, norm, known, seed=0):
    """A recursion's arguments for R runs of two patterns of types, every number of a run its own."""
    rng = np.random.default_rng(seed)
    _, _, types, state = problem(random=False, seeds=range(R), partition="bernoulli" if seed % 2 else "uniform")
    types = Types(*(a.copy() for a in types))
    types.count[::3, 0, -1] = 0.0  # a kind of patch that every third run lacks
    types.weight[...] *= 0.5 + rng.random(types.weight.shape)
    types.strength[...] *= 0.5 + rng.random(types.strength.shape)
    W = state.orthogonal.copy() if known else np.zeros((R, K * M, 0))
    watch = Watch(W, np.full(R, D - 2.0 * K), np.zeros(R), 1e-3, False)
    rho, lr, step = (0.5 + rng.random(R) for _ in range(3))
    eps = (0.2 + rng.random(R)) * (1 if n_steps else 0)
    return [state.phi.reshape(R, K * M, -1).copy(), state.gram.copy(), types, watch, q, rho, 2 * lr, 25], step, eps


def of_runs(given, step, eps, on):
    part = [a[on] if isinstance(a, np.ndarray) else a for a in given]
    part[2], watch = Types(*(a[on] for a in given[2])), given[3]
    part[3] = Watch(*(a[on] for a in watch[:3]), *watch[3:])
    return part, step[on], eps[on]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("q", "J", "norm", "n_steps"), [
    (3, 0, 0, 0), (2, 0, 0, 0), (6, 2, 0, 0), (3, 0, 0, 1), (4, 1, 0, 2), (2, 2, 0, 1), (3, 1, 1, 1), (5, 2, 1, 3),
])  # fmt: skip
def test_runs_side_by_side_have_the_bits_of_runs_alone(q, J, norm, n_steps, known, seed):
    R = 13
    given, step, eps = mixed(R, q, n_steps, norm, known, seed)
    given[0][4] *= 1e4  # learns fast, or diverges
    given[0][7] = 1e308
    engine = engine_of("numba")

    def run(on):
        part, s, e = of_runs(given, step, eps, on)
        flagged, bad = engine.recursion(*part, J, s, e, norm, n_steps)
        return part[0], part[1], part[3].orthogonal, part[3].risk, flagged, bad

    alone, blocks = [np.array([r]) for r in range(R)], [np.arange(R)[i::4] for i in (0, 1, 2, 3)]
    with ThreadPoolExecutor(3) as pool:  # calls at the same time share nothing
        found = [[run(np.arange(R))], [run(on) for on in alone], list(pool.map(run, alone)),
                 list(pool.map(run, blocks))]  # fmt: skip
    results = [[np.concatenate(arrays) for arrays in zip(*parts)] for parts in found]
    order = [np.arange(R)] * 3 + [np.argsort(np.concatenate(blocks))]
    for one, *others in zip(*([a[by] for a in held] for held, by in zip(results, order))):
        for other in others:
            np.testing.assert_array_equal(one, other)
    flagged, bad = results[0][4:]
    assert bad[7] == 0
    assert (bad < 0).any()
    if n_steps and norm == 0:
        assert (flagged >= 0).any()
    assert len(np.unique(results[0][0][:, 0, 0])) == R


def test_the_plan_counts_blocks_and_what_is_left(set_threads):
    set_threads(2)
    types = Types(*(np.repeat(a, 13, axis=0) for a in population_types(3, 4, 1, 2.0, 1.0)))
    types.count[::3, 0, -1] = 0.0  # a kind of patch that every third run lacks
    engine = engine_of("numba")
    assert engine.plan_recursion(types) == "13 runs in 2 blocks of 8 side by side; 2 threads"
    few = Types(*(a[:4] for a in types))
    assert engine.plan_recursion(few) == "4 runs one by one; 2 threads"
    some = Types(*(a[:5] for a in types))
    assert engine.plan_recursion(some) == "3 runs in 1 blocks of 8 side by side, 2 runs one by one; 2 threads"


def test_what_is_warmed_up_is_what_simulate_calls():
    """Else a kernel would be compiled twice, the second time when it is waited for."""
    for part in ("recursion", "lanes"):
        cpu_engine.warm_up(part)
    kernels = cpu_recursion.recursion, recursion_lanes.standard_lanes, recursion_lanes.adversarial_lanes
    before = [list(kernel.signatures) for kernel in kernels]
    types = population_types(3, 4, 1, 2.0, 1.0)
    for runs in (1, 8):
        state, rates = State.draw(3, 2, 6, rng=list(range(runs))), {"q": 3, "rho": 1.0, "lr": 0.1, "n_iter": 2}
        simulate(state, types, **rates)
        simulate(state, types, **rates, ascent_lr=1.0, eps=0.1)
    assert [list(kernel.signatures) for kernel in kernels] == before
