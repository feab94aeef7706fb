"""Every engine against the float64 reference, run by run and sample by sample; the Numba engine's bits."""

import inspect
import re
from copy import copy

import numpy as np
import pytest
from advfeat.kernels import L2, LINF, NumpyEngine, formulas, get_engine
from advfeat.kernels.cpu import engine as cpu_engine
from advfeat.kernels.cpu.blocks import PANEL_BYTES, WEIGHT_BYTES
from advfeat.kernels.cpu.vectors import BLOCK_BYTES
from engines import ENGINES, PRODUCTS, engine_of
from problems import RHO, random_problem
from tolerances import PARITY

from advfeat.core.checks import OBJECTIVES

SHAPES = {  # R, N, P, d, k, m, q
    "one of everything": (1, 1, 1, 4, 2, 1, 2),
    "one neuron, one number": (2, 83, 51, 1, 2, 1, 3),
    "passes over depth and neurons": (2, 3, 3, 640, 77, 10, 3),
    "samples longer than a chunk": (1, 2, 600, 5, 10, 54, 2),
    "one patch, two neurons": (2, 7, 1, 3, 2, 1, 3),
    "three neurons": (2, 6, 4, 5, 3, 1, 4),
    "whole blocks, four neurons": (2, 5, 64, 6, 3, 4, 3),
    "six neurons, passes over depth": (2, 4, 3, 600, 2, 6, 2),
    "nothing divides anything": (3, 7, 5, 13, 3, 3, 5),
    "samples straddle blocks": (2, 5, 17, 7, 4, 5, 2),
    "several chunks": (3, 23, 50, 37, 3, 2, 3),
}
SHARING = {  # one X for all runs, one y for all runs, some samples active
    "all per run": (False, False, False),
    "shared samples": (True, True, False),
    "shared inputs": (True, False, False),
    "some active": (False, False, True),
    "some of the shared active": (True, True, True),
}
CASES = [(shape, "all per run") for shape in SHAPES]
CASES += [(shape, sharing) for shape in list(SHAPES)[-3:] for sharing in list(SHARING)[1:]]
#: Seconds each where CUDA kernels run on the CPU: the slow tier's there
LONG_EMULATED = ("one neuron, one number", "passes over depth and neurons", "samples longer than a chunk",
                 "several chunks")  # fmt: skip
J = list(OBJECTIVES.values())
METHODS = [name for name, value in vars(NumpyEngine).items() if inspect.isfunction(value) and name[0] != "_"]


class Case:
    """A problem with all that engines are given; the last of several runs has no active sample where some have none."""

    PER_RUN = ("W", "rate", "step", "small", "eps", "shift", "direction", "cross", "leaders", "start", "pull")

    def __init__(self, shape, sharing="all per run", dtype="float64"):
        R, N, P, d, k, m, self.q = SHAPES[shape]
        *shared, masked = SHARING[sharing]
        self.dtype = dtype
        self.W, self.X, self.y = random_problem(7, (R, N, P, d, k, m), dtype, *shared)
        self.active = np.arange(R * N).reshape(R, N) % 3 != 1 if masked else None
        if masked and R > 1:
            self.active[-1] = False
        spread = np.linspace(0.5, 1, R).astype(dtype).astype(float)
        self.rate, self.step, self.small, self.eps = spread / 200, spread, spread / 4, spread / 4
        self.shift = np.abs(self.W).sum(axis=-1) / 4
        self.direction = np.sign(self.W).reshape(R, k * m, d)
        self.cross = self.direction @ self.W.reshape(R, k * m, d).swapaxes(1, 2)
        self.leaders = np.repeat(np.arange(k * m).reshape(1, k, m)[..., :2], R, axis=0)
        rng = np.random.default_rng(2)
        self.start = (self.X + rng.uniform(-0.1, 0.1, (R, N, P, d))).astype(dtype)
        self.pull = rng.standard_normal((R, N, k))

    @property
    def on(self):
        return np.ones(self.start.shape[:2], bool) if self.active is None else self.active

    def inputs(self):
        return np.broadcast_to(self.X, self.start.shape), np.broadcast_to(self.y, self.start.shape[:2])

    def run(self, r, dtype=None):
        """The active samples of run r as a case of their own."""
        one, on = copy(self), self.on[r]
        for name in self.PER_RUN:
            setattr(one, name, getattr(self, name)[[r]])
        one.X, one.y = (a[[r]][:, on] for a in self.inputs())
        one.start, one.pull, one.active, one.dtype = one.start[:, on], one.pull[:, on], None, dtype or self.dtype
        for name in ("W", "X", "shift", "direction", "cross", "start"):
            setattr(one, name, getattr(one, name).astype(one.dtype))
        return one

    def call(self, engine, method, *args):
        """The engine's answers, a tuple; the names among `args` are this case's arrays.  `train` answers with W too."""
        W, batch = self.W.copy(), engine.pack(self.X, self.y, len(self.W), self.active)
        args = (getattr(self, a) if isinstance(a, str) else a for a in args)
        answer = getattr(engine, method)(W, batch, self.q, RHO, *args)
        answer = answer if isinstance(answer, tuple) else (answer,)
        return (W, *answer) if method == "train" else answer

    def run_by_run(self, engine, method, *args, dtype=None, fill=np.nan):
        """The same from every run's active samples alone; `fill` for all other samples."""
        answers = {r: self.run(r, dtype).call(engine, method, *args) for r in np.flatnonzero(self.on.any(axis=1))}
        for values in zip(*answers.values()):
            if method in ("train", "loss_and_grad"):
                yield np.concatenate(values)
                continue
            whole = np.array(np.broadcast_to(fill, (*self.on.shape, *values[0].shape[2:])), values[0].dtype)
            for r, value in zip(answers, values):
                whole[r, self.on[r]] = value[0]
            yield whole

    def truth(self, method, *args, fill=np.nan):
        return self.run_by_run(NumpyEngine(), method, *args, dtype="float64", fill=fill)

    def agree(self, value, truth, scale=None):
        """Equal to rounding, relative to `scale` or the largest truth, where samples are active; exactly elsewhere."""
        on = self.on if value.shape[:2] == self.on.shape else ...
        atol = PARITY[self.dtype] * (np.abs(truth[on]).max() if scale is None else scale)
        np.testing.assert_allclose(value[on], truth[on], rtol=0, atol=atol)
        if on is not ...:
            np.testing.assert_array_equal(value[~on], truth[~on])

    def margin(self, X):
        """Margins (R, N) of other inputs, and the largest logit, in float64."""
        F = formulas.forward(self.W.astype(float), X.astype(float), self.q, RHO)
        return formulas.margin(F, self.inputs()[1]), np.abs(F).max()


norms = pytest.mark.parametrize("norm", [LINF, L2])


@pytest.fixture(params=PARITY)
def dtype(request):
    return request.param


@pytest.fixture(params=CASES, ids=": ".join)
def case(request, dtype):
    return Case(*request.param, dtype)


@pytest.fixture(params=[case for case in CASES if "active" not in case[1]], ids=": ".join)
def whole(request, dtype):
    """A case as the loss and training have them: every sample counts."""
    return Case(*request.param, dtype)


@pytest.fixture(scope="module", params=ENGINES)
def engine(request):
    """One engine for all shapes and dtypes, so that memory left by one problem would show in the next."""
    return engine_of(request.param)


@pytest.fixture(scope="module", params=[*ENGINES, *PRODUCTS])
def trainer(request):
    """The same, and the GPU engine's other regime of training."""
    return engine_of(request.param)


# ------------------------------------------------------------------ one interface
def test_engines_have_the_same_methods_with_the_same_signatures(engine):
    public = [name for name in dir(engine) if name[0] != "_" and callable(getattr(engine, name))]
    assert sorted(public) == sorted(METHODS)
    for name in METHODS:
        assert inspect.signature(getattr(type(engine), name)) == inspect.signature(getattr(NumpyEngine, name))


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_get_engine_gives_the_engine_of_that_name(backend):
    assert get_engine(backend).name == backend


def test_the_shapes_reach_every_pass(dtype):
    """Several chunks, groups of several, and for every product more than one pass."""
    cases = {shape: Case(shape, dtype=dtype) for shape in SHAPES}
    packed = {shape: get_engine("numba").pack(case.X, case.y, len(case.W)) for shape, case in cases.items()}
    assert np.bincount(packed["several chunks"].data.table[:, 0]).min() > 1
    assert packed["one neuron, one number"].groups[:, 2].max() > 1
    shape, long = "passes over depth and neurons", packed["samples longer than a chunk"]
    plan = dict(get_engine("numba").plan(cases[shape].W, packed[shape]))
    assert re.fullmatch(r"[2-9] over d = 640, [2-9] over K = 770 neurons", plan["passes"])
    block_bytes = BLOCK_BYTES * BLOCK_BYTES // cases[shape].W.itemsize
    assert long.blocks * block_bytes > PANEL_BYTES  # of a weight gradient's lanes
    assert 540 * long.blocks * BLOCK_BYTES > WEIGHT_BYTES  # of its coefficients
    assert 540 * BLOCK_BYTES > PANEL_BYTES  # of an input gradient's neurons


# ------------------------------------------------------------------ every method against the reference
def test_logits(engine, case):
    (F,), (truth,) = case.call(engine, "logits"), case.truth("logits")
    assert F.dtype == np.float64
    case.agree(F, truth)


def test_interval(engine, case):
    for bound, truth in zip(case.call(engine, "interval", "shift"), case.truth("interval", "shift")):
        assert bound.dtype == np.float64
        case.agree(bound, truth)


@pytest.mark.one_in(3)
def test_input_grad(engine, case):
    for objective in J:
        (gradient,), (truth,) = case.call(engine, "input_grad", objective), case.truth("input_grad", objective, fill=0)
        assert gradient.dtype == case.dtype
        case.agree(gradient, truth)


def test_pull_back(engine, case):
    (out,), (truth,) = case.call(engine, "pull_back", "pull"), case.truth("pull_back", "pull", fill=0)
    assert out.dtype == case.dtype
    case.agree(out, truth)


@norms
@pytest.mark.one_in(5)
def test_ascend(engine, case, norm):
    for objective in J:
        args = "ascend", objective, "step", "eps", norm, 2
        (X_adv,), (truth,) = case.call(engine, *args), case.truth(*args, fill=case.inputs()[0])
        assert X_adv.dtype == case.dtype
        case.agree(X_adv, truth)


@norms
@pytest.mark.one_in(5)
def test_pgd(engine, case, norm):
    """Engines may keep different iterates where those tie to rounding: the margins must agree, and be X_adv's own."""
    X, _ = case.inputs()
    for objective in J:
        args = "pgd", objective, "small", "eps", norm, 3, "start"
        (X_adv, margin), (_, truth) = case.call(engine, *args), case.truth(*args)
        own, top = case.margin(X_adv)
        assert X_adv.dtype == case.dtype
        case.agree(margin, truth, top)
        case.agree(margin, np.where(case.on, own, np.nan), top)
        np.testing.assert_array_equal(X_adv[~case.on], X[~case.on])


@pytest.mark.one_in(3)
def test_aligned(engine, case):
    """Engines may choose different directions where those tie to rounding: the margins they reach must agree."""
    args = "aligned", "eps", "cross", "leaders"
    (codes,), (truth,) = case.call(engine, *args), case.truth(*args, fill=0)
    assert codes.dtype == np.int64
    np.testing.assert_array_equal(codes[~case.on], 0)
    (X, _), run = case.inputs(), np.arange(len(case.W))[:, None, None]
    (margin, top), (expected, _) = (
        case.margin(X + (case.eps[run] * np.sign(c))[..., None] * case.direction[run, np.maximum(np.abs(c) - 1, 0)])
        for c in (codes, truth)
    )
    np.testing.assert_allclose(margin, expected, rtol=0, atol=PARITY[case.dtype] * top)


def test_loss_and_grad(engine, whole):
    for value, truth in zip(whole.call(engine, "loss_and_grad"), whole.truth("loss_and_grad")):
        whole.agree(value, truth)


@norms
@pytest.mark.parametrize("n_steps", [0, 2])
@pytest.mark.one_in(5)
def test_train(trainer, whole, n_steps, norm):
    for objective in J if n_steps else J[:1]:
        args = "train", "rate", 3, objective, "step", "eps", norm, n_steps
        for value, truth in zip(whole.call(trainer, *args), whole.truth(*args)):
            whole.agree(value, truth)


# ------------------------------------------------------------------ the Numba engine's bits
CALLS = [("logits",), ("pull_back", "pull"), ("loss_and_grad",)]
CALLS += [("interval", "shift"), ("aligned", "eps", "cross", "leaders")]
CALLS += [("input_grad", objective) for objective in J]
CALLS += [("ascend", objective, "step", "eps", norm, 2) for objective in J for norm in (LINF, L2)]
CALLS += [("pgd", objective, "small", "eps", norm, 5, "start") for objective in J for norm in (LINF, L2)]
CALLS += [("train", "rate", 5, objective, "step", "eps", norm, 1) for objective in J for norm in (LINF, L2)]
every_call = pytest.mark.parametrize("call", CALLS, ids=lambda call: "-".join(map(str, call)))


def same_bits(values, others):
    for value, other in zip(values, others, strict=True):
        np.testing.assert_array_equal(value, other, strict=True)


@every_call
@pytest.mark.parametrize("shape", ["three neurons", "several chunks"])
def test_a_run_in_a_batch_is_the_run_alone(shape, call, dtype):
    case, engine = Case(shape, dtype=dtype), get_engine("numba")
    same_bits(case.call(engine, *call), case.run_by_run(engine, *call, fill=0))


@every_call
@pytest.mark.parametrize("sharing", ["all per run", "shared samples"])
def test_results_do_not_depend_on_threads(sharing, call, dtype, set_threads):
    case, engine, results = Case("several chunks", sharing, dtype), get_engine("numba"), []
    for n in (1, 2, 3):
        set_threads(n)
        assert cpu_engine.get_num_threads() == n
        results.append(case.call(engine, *call))
    same_bits(results[0], results[1])
    same_bits(results[0], results[2])


@every_call
def test_shared_samples_are_repeated_samples(call, dtype):
    case, engine = Case("several chunks", "shared samples", dtype), get_engine("numba")
    repeated = copy(case)
    repeated.X, repeated.y = case.inputs()
    same_bits(case.call(engine, *call), repeated.call(engine, *call))


@pytest.mark.parametrize("call", [call for call in CALLS if call[0] not in ("train", "loss_and_grad")], ids=str)
def test_a_sample_alone_is_the_sample_among_others(call, dtype):
    case, engine = Case("several chunks", dtype=dtype), get_engine("numba")
    among_others = case.call(engine, *call)
    for r, n in ((0, 0), (1, 7), (2, 22)):
        case.active = np.zeros(case.start.shape[:2], bool)
        case.active[r, n] = True
        same_bits([value[r, n] for value in case.call(engine, *call)], [value[r, n] for value in among_others])


@every_call
def test_results_do_not_depend_on_what_an_engine_did_before(call, dtype):
    used, case = get_engine("numba"), Case("one patch, two neurons", dtype=dtype)
    Case("several chunks", dtype=dtype).call(used, *call)
    same_bits(case.call(used, *call), case.call(get_engine("numba"), *call))


def test_a_run_that_diverges_leaves_the_others_alone(trainer, set_threads):
    case, call = Case("nothing divides anything"), ("train", "rate", 6, J[0], "step", "eps", LINF, 1)
    calm, results = case.call(trainer, *call), []
    case.rate = case.rate * [1, np.inf, 1]
    for n in (1, 2, 3):
        set_threads(n)
        with np.errstate(all="ignore"):
            results.append(case.call(trainer, *call))
    W, loss, bad = results[0]
    assert bad.tolist() == [-1, 1, -1]
    assert np.isnan(loss[1])
    same_bits([W[[0, 2]], loss[[0, 2]]], [calm[0][[0, 2]], calm[1][[0, 2]]])
    same_bits(results[0], results[1])
    same_bits(results[0], results[2])


@pytest.mark.parametrize("n", [0, -1, 4])
def test_the_number_of_threads_is_checked(n, set_threads):
    with pytest.raises(ValueError, match=rf"n = {n}: the number of threads must be between 1 and 3"):
        set_threads(n)
