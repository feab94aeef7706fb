"""The GPU engine's recursion against the formulas, its kernel run on the CPU (cuda_on_cpu.h)."""

import numpy as np
import pytest
from advfeat.kernels import recursion as formulas
from advfeat.kernels.gpu import recursion as gpu_recursion
from advfeat.kernels.gpu.device import GpuMemoryError
from advfeat.kernels.recursion import Types, Watch
from emulated_gpu import EmulatedGpu, compiler
from test_recursion import given
from tolerances import PARITY

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")

NEG_LABEL_LOGIT, MARGIN, CROSS_ENTROPY, LINF, L2 = 0, 1, 2, 0, 1
EVERYTHING, NOTHING = 227 << 10, 16  # bytes of shared memory


class Case:
    """R runs in NumPy arrays; `run` works on copies and returns all that `recursion` changes or returns."""

    def __init__(
        self, R=2, k=3, m=4, S=3, C=2, D=7, known=True, q=3, seed=0,
        scale=0.3, lr=0.3, step=0.25, eps=0.1, limit=np.inf, go_on=False,
    ):  # fmt: skip
        rng = np.random.default_rng(seed)
        K = k * m
        self.phi, W = (scale * rng.standard_normal((R, K, n)) for n in (2 * k, D))
        self.gram = W @ W.swapaxes(1, 2)
        y = rng.integers(k, size=(R, S))
        feature = y[..., None] + k * rng.integers(2, size=(R, S, C))
        strength, count = rng.uniform(0.5, 2, (R, S, C)), rng.integers(1, 4, (R, S, C)).astype(float)
        self.types = Types(y, rng.dirichlet(np.ones(S), R), feature, strength, count)
        self.orthogonal, self.axes = W if known else W[..., :0], np.full(R, float(D))
        self.risk, self.limit, self.go_on, self.q = rng.uniform(0, 1e-12, R), limit, go_on, q
        self.rho, self.lr, self.step = (rng.uniform(0.7 * a, 1.3 * a, R) for a in (1, lr, step))
        self.eps = rng.uniform(0.7, 1.3, R) * eps

    def part(self, runs):
        """Some of the runs."""
        other = object.__new__(Case)
        pick = {"types": Types(*(a[runs] for a in self.types)), "limit": self.limit, "go_on": self.go_on, "q": self.q}
        other.__dict__.update({name: pick[name] if name in pick else a[runs] for name, a in vars(self).items()})
        return other

    def padded(self, S, C):
        """The same with types of weight 0 and kinds of count 0, here and there."""
        other = self.part(slice(None))
        shape, rng = self.types.feature.shape, np.random.default_rng(3)
        types, kinds = (np.sort(rng.permutation(new)[:old]) for new, old in zip((S, C), shape[1:]))
        there = np.arange(shape[0])[:, None, None], types[None, :, None], kinds[None, None]
        junk = np.zeros((shape[0], S), np.int64), np.zeros((shape[0], S))
        junk += np.ones((shape[0], S, C), np.int64), np.full((shape[0], S, C), 1e3), np.zeros((shape[0], S, C))
        for new, old in zip(junk, self.types):
            new[there[: old.ndim] if old.ndim == 3 else (there[0][..., 0], there[1][..., 0])] = old
        unused = np.setdiff1d(np.arange(S), types)
        junk[4][:, unused] = 7
        other.types = Types(*junk)
        return other

    def run(self, gpu, n_iter, objective, norm, n_steps):
        phi, gram, W, risk = (a.copy() for a in (self.phi, self.gram, self.orthogonal, self.risk))
        watch = Watch(W, self.axes, risk, self.limit, self.go_on)
        given = phi, gram, self.types, watch, self.q, self.rho, self.lr, n_iter, objective, self.step, self.eps
        one = formulas.recursion if gpu is None else gpu_recursion.recursion
        out = one(*([gpu] if gpu else []), *given, norm, n_steps)
        return phi, gram, W, risk, *out


class Together(EmulatedGpu):
    """Its blocks run at the same time."""

    def launch(self, *args, **more):
        super().launch(*args, **more, together=True)


def near(found, truth):
    for two, one in zip(found, truth, strict=True):
        assert two.dtype == one.dtype
        np.testing.assert_allclose(two, one, rtol=0, atol=PARITY["float64"] * max(1, np.abs(one).max(initial=0)))


def same(found, truth):
    for two, one in zip(found, truth, strict=True):
        np.testing.assert_array_equal(two, one)


ASCENTS = [(J, norm, n) for n in (1, 3) for J in (NEG_LABEL_LOGIT, MARGIN, CROSS_ENTROPY) for norm in (LINF, L2)]
SHAPES = {
    "few columns": {},
    "many columns": {"S": 5, "C": 3, "known": False, "q": 4},
    "wide": {"R": 1, "k": 2, "m": 19, "S": 2, "C": 9, "D": 35, "q": 2, "scale": 0.2, "eps": 0.02},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ascent", [*ASCENTS, (NEG_LABEL_LOGIT, LINF, 0)], ids=str)
def test_equals_the_reference(shape, ascent):
    case = Case(**SHAPES[shape], go_on=True)
    truth = case.run(None, 3, *ascent)
    near(case.run(EmulatedGpu(), 3, *ascent), truth)
    if ascent[2]:  # the ascent, and its limit, matter
        assert np.abs(truth[0] - case.run(None, 3, NEG_LABEL_LOGIT, LINF, 0)[0]).max() > 1e-2
        case.eps = 1e9 * case.eps
        assert np.abs(truth[0] - case.run(None, 3, *ascent)[0]).max() > 1e-4


@pytest.mark.parametrize("random", [False, True], ids=["few patch kinds", "many"])
def test_empirical_types(random):
    state, types, (rho, lr, rate) = given(2, random)
    case = Case(k=3, m=4)
    case.phi, case.gram, case.orthogonal = state.phi.reshape(2, 12, 6), state.gram, state.orthogonal
    case.types, case.rho, case.lr, case.step, case.eps = types, rho, lr, rate, np.full(2, 10.0)
    near(case.run(EmulatedGpu(), 4, MARGIN, LINF, 2), case.run(None, 4, MARGIN, LINF, 2))


@pytest.mark.parametrize(
    "shape",
    [
        {"R": 1, "k": 2, "m": 1, "S": 1, "C": 1, "D": 1},
        {"R": 3, "k": 11, "m": 1, "S": 2, "C": 1, "D": 3},
        {"R": 1, "k": 2, "m": 33, "S": 9, "C": 1, "D": 2, "q": 2},
        {"R": 1, "k": 5, "m": 1, "S": 1, "C": 11, "D": 40, "q": 6},
        {"R": 1, "k": 3, "m": 2, "S": 9, "C": 5, "D": 3, "known": False},
        {"R": 1, "k": 1, "m": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("ascent", [(MARGIN, LINF, 2), (CROSS_ENTROPY, L2, 2), (NEG_LABEL_LOGIT, LINF, 1)], ids=str)
def test_shapes(shape, ascent):
    case = Case(**shape, seed=5, go_on=True)
    near(case.run(EmulatedGpu(), 2, *ascent), case.run(None, 2, *ascent))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    "shape", [{"R": 300, "k": 2, "m": 2, "S": 1, "C": 1, "D": 1, "seed": 3}, {"R": 80, "k": 4, "m": 3}], ids=str
)
def test_what_happens_in_few_runs_only(shape, known):
    """The strongest rival changes from one step to the next; an axis saturates in the first step alone."""
    case = Case(**shape, known=known, scale=0.5, step=1.0, eps=0.2, limit=0.5, go_on=True)
    for norm in (LINF, L2):
        near(case.run(EmulatedGpu(), 1, MARGIN, norm, 2), case.run(None, 1, MARGIN, norm, 2))


def test_the_first_of_equal_rivals():
    case = Case(k=4, S=2)
    case.phi[:, 8:12] = case.phi[:, 4:8]
    case.types.y[:] = 0, 3
    case.types.feature[:] = case.types.y[..., None]
    near(case.run(EmulatedGpu(), 1, MARGIN, L2, 1), case.run(None, 1, MARGIN, L2, 1))


@pytest.mark.parametrize("ascent", [(CROSS_ENTROPY, LINF, 2), (NEG_LABEL_LOGIT, L2, 1)], ids=str)
def test_large_runs_and_any_number_of_threads(ascent):
    """256 threads at this number of neurons, and with others the same bits."""
    for columns in ({"S": 5, "C": 2}, {"S": 10, "C": 6}):
        case = Case(R=1, k=5, m=20, D=90, scale=0.1, go_on=True, **columns)
        found = case.run(EmulatedGpu(), 2, *ascent)
        near(found, case.run(None, 2, *ascent))
        for least, most in ((100, 100), (20, 50)):  # 128 and 512 threads
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(gpu_recursion, "SMALL", least)
                patch.setattr(gpu_recursion, "MEDIUM", most)
                same(case.run(EmulatedGpu(), 2, *ascent), found)


@pytest.mark.parametrize("shape", ["few columns", "many columns"])
@pytest.mark.parametrize("ascent", [(CROSS_ENTROPY, L2, 2), (NEG_LABEL_LOGIT, LINF, 1), (MARGIN, LINF, 2)], ids=str)
def test_the_order_of_threads_and_the_place_of_memory_change_nothing(shape, ascent):
    case = Case(**SHAPES[shape], go_on=True)
    truth = case.run(EmulatedGpu(), 2, *ascent)
    for order in (1, 2, 3, 7):
        same(case.run(EmulatedGpu(order), 2, *ascent), truth)
    for room in (NOTHING, 1 << 11, 1 << 12):
        same(case.run(EmulatedGpu(order=1, shared_bytes=room), 2, *ascent), truth)


@pytest.mark.parametrize("ascent", [(NEG_LABEL_LOGIT, LINF, 1), (CROSS_ENTROPY, LINF, 2), (MARGIN, L2, 1)], ids=str)
def test_a_run_does_not_know_its_neighbours(ascent):
    """Not their number of columns either, nor how many blocks there are, nor how launches cut the iterations."""
    case = Case(R=5, S=4, C=3, go_on=True)
    case.types.weight[1, 1:3] = 0  # few columns; other runs have many
    case.types.count[3, :, 1] = 0
    gpu = EmulatedGpu(shared_bytes=NOTHING)
    gpu.multiprocessors = 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_recursion, "LAUNCH", 1)
        together = case.run(gpu, 3, *ascent)
    assert len(gpu.launched) == 3
    for r in range(5):
        alone = case.part([r]).run(EmulatedGpu(), 3, *ascent)
        same([a[0] for a in alone], [a[r] for a in together])


def test_blocks_take_several_runs():
    case, gpu = Case(R=5, go_on=True), Together(shared_bytes=2 * NOTHING)  # two blocks, side by side in scratch
    gpu.multiprocessors = 1
    same(case.run(gpu, 2, MARGIN, LINF, 1), case.run(EmulatedGpu(), 2, MARGIN, LINF, 1))


def test_padding_changes_no_bit():
    case = Case()
    for ascent in [(NEG_LABEL_LOGIT, LINF, 1), (CROSS_ENTROPY, L2, 2), (MARGIN, LINF, 0)]:
        truth = case.run(EmulatedGpu(), 2, *ascent)
        same(case.padded(5, 4).run(EmulatedGpu(), 2, *ascent), truth)
        near(case.padded(5, 4).run(None, 2, *ascent), truth)


def test_a_run_of_padding_alone_rests():
    case = Case()
    case.types.count[1] = 0
    for n_steps in (0, 2):
        found = case.run(EmulatedGpu(), 2, CROSS_ENTROPY, LINF, n_steps)
        near(found, case.run(None, 2, CROSS_ENTROPY, LINF, n_steps))
        same([a[1] for a in found[:3]], [case.phi[1], case.gram[1], case.orthogonal[1]])


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("go_on", [True, False])
@pytest.mark.parametrize("n_steps", [1, 2])
def test_flagged_runs(known, go_on, n_steps):
    case = Case(R=4, known=known, go_on=go_on, D=30, limit=1e-3, scale=0.05, step=2 / n_steps, lr=1)
    ascent = NEG_LABEL_LOGIT, LINF, n_steps
    truth = case.run(None, 9, *ascent)
    assert len(set(truth[4].tolist())) > 2, truth[4]  # some never, some early, some late
    found = case.run(EmulatedGpu(), 9, *ascent)
    near(found, truth)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_recursion, "LAUNCH", 2)
        same(case.run(EmulatedGpu(), 9, *ascent), found)


def test_a_risk_that_is_spent_already():
    case = Case(R=2, known=False, limit=1.0)
    case.risk[:] = 1.0, 1.0 + 1e-15
    case.eps[:] = 1e9  # nothing is added
    for norm, n_steps in ((LINF, 1), (LINF, 0), (L2, 1)):
        truth = case.run(None, 2, MARGIN, norm, n_steps)
        assert truth[4].tolist() == [-1, 0 if (norm, n_steps) == (LINF, 1) else -1]
        near(case.run(EmulatedGpu(), 2, MARGIN, norm, n_steps), truth)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("J", "norm", "n_steps"), [(0, 0, 0), (0, 0, 1), (2, 1, 2), (1, 0, 2), (1, 1, 1)])
def test_bad_runs(J, norm, n_steps, known):
    """They keep the state they had before, and may be flagged in the same iteration."""
    case = Case(R=4, go_on=True, known=known, limit=1e-3, eps=0.5)
    case.phi[1, 0] = np.nan
    case.phi[2] = 1e308 * np.sign(case.phi[2])
    later = norm == LINF and n_steps > 0  # H overflows after a while; else Phi in the first step
    case.lr[3] = 1e80 if later else np.inf
    with np.errstate(all="ignore"):
        truth = case.run(None, 5, J, norm, n_steps)
    assert truth[5].tolist() == [-1, 0, 0, 2 if later else 1]
    found = case.run(EmulatedGpu(order=1), 5, J, norm, n_steps)
    same(found[4:], truth[4:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_recursion, "LAUNCH", 1)
        same(case.run(EmulatedGpu(), 5, J, norm, n_steps), found)
    near([a[[0]] for a in found[:4]], [a[[0]] for a in truth[:4]])
    same([a[1:3] for a in found[:3]], [a[1:3] for a in (case.phi, case.gram, case.orthogonal)])
    if later:
        near([found[0][3]], [truth[0][3]])


@pytest.mark.parametrize("n_steps", [0, 2])
@pytest.mark.parametrize("shared_bytes", [NOTHING, EVERYTHING])
def test_memory_is_asked_for_before_any_work(n_steps, shared_bytes):
    case, ascent, size = Case(R=6), (2, CROSS_ENTROPY, LINF, n_steps), {"shared_bytes": shared_bytes}
    gpu = EmulatedGpu(**size)
    case.run(gpu, *ascent)
    needed = gpu.allocated
    case.run(EmulatedGpu(memory=needed, **size), *ascent)
    for memory in (needed // 2, needed - 1, 500):
        gpu = EmulatedGpu(memory=memory, **size)
        with pytest.raises(GpuMemoryError, match="6 runs need") as caught:
            case.run(gpu, *ascent)
        error = caught.value
        assert (error.needed, error.free) == (needed, memory)
        assert not gpu.launched
        assert (error.fits > 0) == (memory > 500)
        for runs in range(1, 6):
            counting = EmulatedGpu(**size)
            case.part(range(runs)).run(counting, *ascent)
            assert (counting.allocated <= memory) == (runs <= error.fits)


def test_arrays_begin_where_pairs_of_numbers_may():
    """16 bytes: the emulation would not notice."""
    for K, n in ((3, 1), (5, 7), (9, 3)):
        sizes = gpu_recursion._sizes(np.array([n]), n, 3, K, 2 * K, 5, 1)
        assert (sizes % 2 == 0).all()
        for memory in (NOTHING, 300, EVERYTHING):
            _, shared, room = gpu_recursion._place(sizes, memory)
            assert shared % 2 == room % 2 == gpu_recursion.HEAD % 2 == 0
            assert 8 * shared <= memory


def test_nothing_to_do():
    case = Case()
    for n_iter, runs in ((0, [0, 1]), (2, [])):
        part = case.part(runs)
        found = part.run(EmulatedGpu(), n_iter, NEG_LABEL_LOGIT, LINF, 1)
        same(found, part.run(None, n_iter, NEG_LABEL_LOGIT, LINF, 1))
