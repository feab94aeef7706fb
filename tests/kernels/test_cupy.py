"""The GPU engine beyond parity (test_engines.py): bits, regimes, memory, precision, errors, whole commands.

Kernels run on the CPU (emulated_gpu.py), and on a GPU too where there is one.
"""

import re
import subprocess
import sys
import types
from functools import cache

import numpy as np
import pytest
from advfeat.kernels import L2, LINF, get_engine
from advfeat.kernels.gpu import device as gpu_device
from advfeat.kernels.gpu import engine as gpu_engine
from advfeat.kernels.gpu import persistent as gpu_persistent
from advfeat.kernels.gpu.engine import CupyEngine
from emulated_gpu import EmulatedGpu, tf32
from engines import DEVICES, device_of, on_the_cpu
from sweep_specs import ALPHA, rows, spec
from test_engines import CALLS, Case, J, same_bits

import advfeat as af
from advfeat.cli import main
from advfeat.experiments.configuration import Figure3Config
from advfeat.sweeps import SweepSpec, sweep
from advfeat.sweeps import plan as planning
from advfeat.training import run_folder
from advfeat.training.loop import TrainingInterrupted

devices = pytest.mark.parametrize("device", DEVICES)
ORDERS = 0, 1, 2, 3, 11
TRAIN = [call for call in CALLS if call[0] == "train"] + [("train", "rate", 4, 0, "step", "eps", LINF, 0)]
SMALL = {"n_classes": 2, "n_neurons": 3, "patch_dim": 8, "n_patches": 4, "n_train": 4, "n_test": 4, "n_iter": 20}
SMALL |= {"n_records": 2, "n_seeds": 2}


def regime_of(engine, case):
    return dict(engine.plan(case.W, engine.pack(case.X, case.y, len(case.W))))["regime"]


# ------------------------------------------------------------------ bits
@devices
@pytest.mark.parametrize("call", TRAIN, ids=lambda call: "-".join(map(str, call)))
@pytest.mark.parametrize("shape", ["nothing divides anything", "several chunks"])
@pytest.mark.one_in(3)
def test_persistent_run_in_a_batch_is_the_run_alone(device, shape, call, dtype):
    engine, case = CupyEngine(device_of(device), "persistent"), Case(shape, dtype=dtype)
    assert regime_of(engine, case).startswith("persistent")
    same_bits(case.call(engine, *call), case.run_by_run(engine, *call))


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return request.param


@on_the_cpu
@pytest.mark.parametrize("call", [TRAIN[0], TRAIN[3]], ids=["neg_label_logit", "margin-l2"])
@pytest.mark.one_in(3)
def test_persistent_bits_do_not_depend_on_the_team(call, dtype):
    """One block per run keeps the gradient in shared memory; teams of two and of all chunks leave it by chunk."""
    case, found, cuts = Case("several chunks", dtype=dtype), [], []
    (R, k, m, d), (_, N, P, _) = case.W.shape, case.X.shape
    for blocks, order in ((R, 0), (R, 1), (2 * R, 2), (100 * R, 0), (100 * R, 2), (100 * R, 3)):
        device = EmulatedGpu(order)
        device.blocks_at_once = lambda *_, blocks=blocks: blocks
        if cuts:
            device.shared_bytes = cuts[0].shared - 1
        cuts.append(gpu_persistent.choose(device, k, m, d, P, N, R, dtype))
        found.append(case.call(CupyEngine(device, "persistent"), *call))
    all_chunks = -(-N // cuts[0].S), False
    assert [(cut.team, cut.keep) for cut in cuts] == [(1, True), (1, False), (2, False), *3 * [all_chunks]]
    for other in found[1:]:
        same_bits(found[0], other)


@on_the_cpu
@pytest.mark.parametrize("call", CALLS, ids=lambda call: "-".join(map(str, call)))
@pytest.mark.one_in(3)
def test_the_order_of_threads_does_not_matter(call, dtype):
    """A barrier that is missing shows here."""
    case = Case("nothing divides anything", dtype=dtype)
    for regime in ("persistent", "products") if call[0] == "train" else ("auto",):
        found = [case.call(CupyEngine(EmulatedGpu(order), regime), *call) for order in ORDERS]
        for other in found[1:]:
            same_bits(found[0], other)


@on_the_cpu
def test_launches_go_on_where_the_last_one_ended(monkeypatch):
    """One iteration a launch, a run that diverges among them: as in one launch."""
    case, engine = Case("nothing divides anything"), CupyEngine(EmulatedGpu(), "persistent")
    case.rate = case.rate * [1, np.inf, 1]
    with np.errstate(all="ignore"):
        once = case.call(engine, *TRAIN[0])
        monkeypatch.setattr(gpu_persistent, "LAUNCH_SECONDS", 0)
        engine._gpu.launched.clear()
        same_bits(once, case.call(engine, *TRAIN[0]))
    assert engine._gpu.launched == [gpu_persistent.KERNEL] * TRAIN[0][2]
    assert once[2].tolist() == [-1, 1, -1]


@on_the_cpu
@pytest.mark.parametrize("norm", [LINF, L2])
def test_very_many_blocks_of_labels_are_products_with_all_neurons(norm, monkeypatch):
    case, call = Case("several chunks"), ("train", "rate", 3, 0, "step", "eps", norm, 2)
    monkeypatch.setattr(gpu_engine, "MOST_BLOCKS", 8)
    device = EmulatedGpu()
    for value, truth in zip(case.call(CupyEngine(device, "products"), *call), case.truth(*call)):
        case.agree(value, truth)
    assert device.launched.count("multiply") == 2 * (2 * 2 + 2)


@devices
@pytest.mark.parametrize("regime", ["persistent", "products"])
def test_the_same_call_gives_the_same_bits(device, regime):
    case, engine = Case("several chunks"), CupyEngine(device_of(device), regime)
    same_bits(case.call(engine, *TRAIN[0]), case.call(CupyEngine(device_of(device), regime), *TRAIN[0]))


@devices
@pytest.mark.parametrize(("regime", "n_iter", "n_seeds"), [
    *(pytest.param(regime, n, 1, marks=marks) for regime in ("products", "persistent")
      for n, marks in ((40, ()), (200, pytest.mark.slow))),
])  # fmt: skip
def test_default_run_follows_the_cpu(device, regime, n_iter, n_seeds):
    """float64, relative 1e-9 after 200 iterations: one seed on the CPU, every seed on a GPU."""
    if device == "gpu":
        n_iter, n_seeds = 200, 4
    config = Figure3Config(n_seeds=n_seeds, dtype="float64")
    data, weights = config.data("train"), []
    for engine in (get_engine("numba"), CupyEngine(device_of(device), regime)):
        W = config.network().W.copy()
        rates = (np.full(n_seeds, getattr(config, name)) for name in ("lr", "ascent_lr", "eps"))
        lr, step, eps = rates
        batch = engine.pack(data.X, data.y, n_seeds)
        loss, bad = engine.train(W, batch, config.q, config.rho, lr, n_iter, J[0], step, eps, LINF, 1)
        assert (bad < 0).all()
        weights.append((W, loss))
    (W, loss), (other, other_loss) = weights
    assert np.abs(W - config.network().W).max() > 1e-3 * np.abs(W).max()
    np.testing.assert_allclose(other, W, rtol=0, atol=1e-9 * np.abs(W).max())
    np.testing.assert_allclose(other_loss, loss, rtol=1e-9)


def test_stopped_training_continues_to_the_same_bits(cupy, tmp_path):
    config = Figure3Config(**SMALL, backend="cupy")
    args = config.network(), config.data("train"), config.training(True)
    whole = af.train(*args)

    class Stop(Exception):
        pass

    def stop(what, share):
        if share >= 7 / args[2].n_iter:
            raise Stop

    with pytest.raises((Stop, TrainingInterrupted)):
        af.train(*args, run_dir=tmp_path, progress=stop)
    again = af.train(*args, run_dir=tmp_path)
    np.testing.assert_array_equal(again.net.W, whole.net.W)
    for name, values in whole.history.items():
        np.testing.assert_array_equal(again.history[name], values)


# ------------------------------------------------------------------ regimes
@on_the_cpu
def test_the_regime_is_chosen_by_shape_and_can_be_forced():
    case, large = Case("several chunks"), Case("samples longer than a chunk")
    auto = CupyEngine(EmulatedGpu())
    assert regime_of(auto, case).startswith("persistent")
    assert regime_of(auto, large).startswith("products")
    assert regime_of(CupyEngine(EmulatedGpu(), "products"), case).startswith("products")
    with pytest.raises(ValueError, match=r"regime = 'persistent': a sample and the weights \(P = 600, K = 540, d = 5"):
        large.call(CupyEngine(EmulatedGpu(), "persistent"), *TRAIN[0])
    with pytest.raises(ValueError, match=r"regime = 'fast': must be one of \('auto', 'persistent', 'products'\)"):
        CupyEngine(EmulatedGpu(), "fast")


@on_the_cpu
def test_training_waits_for_the_device_once():
    """Between weights up and weights down nothing is copied, and by products one recorded iteration is replayed."""
    case = Case("several chunks")
    for regime, launches in (("persistent", 1), ("products", None)):
        device = EmulatedGpu()
        case.call(CupyEngine(device, regime), "train", "rate", 50, 0, "step", "eps", LINF, 1)
        assert device.downloads <= 4
        if launches:
            assert device.launched == [gpu_persistent.KERNEL]
        else:
            assert device.launched.count("steps:update") == 2  # once at once, once recorded


@on_the_cpu
@pytest.mark.parametrize("norm", [LINF, L2])
def test_labels_of_nearly_equal_counts_are_one_product(norm, dtype):
    """23 samples of 3 labels in 24 slots: two calls an ascent step instead of two per label and run."""
    case, device = Case("several chunks", dtype=dtype), EmulatedGpu()
    case.y = np.stack([np.random.default_rng(r).permutation(np.arange(23) % 3) for r in range(3)])
    call = "train", "rate", 3, 0, "step", "eps", norm, 2
    for value, truth in zip(case.call(CupyEngine(device, "products"), *call), case.truth(*call)):
        case.agree(value, truth)
    assert device.launched.count("multiply") == 2 * (2 * 2 + 2)  # an iteration at once and one recorded
    batch = CupyEngine(device).pack(case.X, case.y, 3)
    assert batch.even(3).each == 8
    assert batch.even(3) is batch.even(3)
    case.y[:, :3] = 0
    assert CupyEngine(device).pack(case.X, case.y, 3).even(3).each is None


# ------------------------------------------------------------------ memory
@on_the_cpu
@pytest.mark.parametrize("call", CALLS, ids=lambda call: "-".join(map(str, call)))
@pytest.mark.one_in(3)
def test_no_method_needs_more_memory_than_planned(call):
    for shape in ("several chunks", "samples straddle blocks", "one of everything"):
        case = Case(shape, dtype="float32")
        device, (R, k, m, d), (_, N, P, _) = EmulatedGpu(), case.W.shape, case.X.shape
        case.call(CupyEngine(device), *call)
        assert 0 < device.allocated <= R * gpu_engine.bytes_per_run(k, m, d, P, N, 4)


@on_the_cpu
@pytest.mark.parametrize("call", [("logits",), TRAIN[0], CALLS[-7]], ids=["logits", "train", "pgd"])
def test_out_of_memory_names_the_bytes_and_the_batch_that_fits(call):
    case, needed = Case("several chunks"), []
    for memory in (1000, 100_000):
        with pytest.raises(gpu_device.GpuMemoryError, match="of GPU memory") as error:
            case.call(CupyEngine(EmulatedGpu(memory=memory), "products"), *call)
        assert error.value.free == memory < error.value.needed
        assert re.search(f"3 runs need {error.value.needed:,} bytes .* and {memory:,} are free", str(error.value))
        needed.append(error.value.needed)
    assert needed[0] == needed[1]
    two = EmulatedGpu(memory=needed[0] // 3 * 2 + 10)
    with pytest.raises(gpu_device.GpuMemoryError, match="batches of at most 2 runs fit"):
        case.call(CupyEngine(two, "products"), *call)
    for name in ("X", "y", *Case.PER_RUN):
        setattr(case, name, getattr(case, name)[:2])
    case.call(CupyEngine(two, "products"), *call)


def test_a_sweep_sizes_its_batches_by_the_device(monkeypatch):
    each = gpu_engine.bytes_per_run(2, 3, 8, 4, 4, 4)
    for memory, largest in ((1 << 30, None), (5.5 * each, 5)):
        device = EmulatedGpu(memory=int(memory))
        monkeypatch.setattr(gpu_device, "connect", cache(lambda device=device: device))
        config = Figure3Config(**SMALL, backend="cupy")
        fits = planning._fit_device(config, types.SimpleNamespace(engine="network"), 1)
        assert fits == (largest or (1 << 30) // each)
    device.memory = each - 1
    with pytest.raises(ValueError, match=r"one run of 2 x 3 neurons in dimension 8 needs about .* of GPU memory"):
        planning._fit_device(config, types.SimpleNamespace(engine="network"), 1)
    device.memory = 5 * gpu_engine.bytes_per_run(2, 2, 4, 4, 4, 4)
    table = spec({"alpha": ALPHA}, base={"backend": "cupy", "n_seeds": 8}, engine="network")
    assert {len(batch.runs) for batch in planning.make(SweepSpec.build(table), 1e9, 1).batches} == {5}


# ------------------------------------------------------------------ precision
def test_tf32_rounds_factors_only(cupy):
    """Error of logits against float64, relative to the largest: float32's 1e-7 against the 2^-11 of ten bits."""
    case, errors = Case("several chunks", dtype="float32"), {}
    (truth,) = case.truth("logits")
    for name, engine in (("float32", CupyEngine(cupy)), ("tf32", CupyEngine(cupy, tf32=True))):
        assert engine.name == ("cupy-tf32" if name == "tf32" else "cupy")
        (F,) = case.call(engine, "logits")
        errors[name] = np.abs(F - truth).max() / np.abs(truth).max()
    assert errors["float32"] < 1e-6
    assert 1e-5 < errors["tf32"] < 2**-10
    with pytest.raises(ValueError, match="tensor cores multiply float32 networks, this one is float64"):
        Case("several chunks").call(CupyEngine(cupy, tf32=True), "logits")
    with pytest.raises(ValueError, match="1/rho must be a finite, normal float32 number"):
        CupyEngine(cupy).logits(case.W, CupyEngine(cupy).pack(case.X, case.y, 3), 3, 1e-60)


def test_tf32_rounding():
    numbers = np.float32([1 + 2**-11, 1 + 2**-10, 1 + 2**-12, -(1 + 2**-11), 3.0])
    np.testing.assert_array_equal(tf32(numbers), np.float32([1 + 2**-10, 1 + 2**-10, 1, -(1 + 2**-10), 3]))


# ------------------------------------------------------------------ what is missing
class Runtime(types.SimpleNamespace):
    def driverGetVersion(self):
        return self.version

    def getDeviceCount(self):
        if self.count is None:
            raise RuntimeError("cudaErrorNoDevice")
        return self.count


@pytest.mark.parametrize(
    ("version", "count", "what"),
    [
        (0, None, "the NVIDIA driver is not installed"),
        (12040, None, r"no CUDA device answers \(cudaErrorNoDevice\)"),
        (12040, 0, "there is no CUDA device, or CUDA_VISIBLE_DEVICES hides it"),
    ],
)
def test_what_is_missing_is_named(version, count, what, monkeypatch, capsys):
    fake = types.ModuleType("cupy")
    fake.__spec__ = types.SimpleNamespace()
    fake.cuda = types.SimpleNamespace(runtime=Runtime(version=version, count=count))
    monkeypatch.setitem(sys.modules, "cupy", fake)
    gpu_device.connect.cache_clear()
    with pytest.raises(gpu_device.NoGpu, match=f"backend = 'cupy': {what}"):
        get_engine("cupy")
    assert main(["info"]) == 0
    assert re.search(f"cupy engine +{what}", capsys.readouterr().out)
    assert main(["reproduce", "--backend", "cupy-tf32"]) == 2
    assert re.search(what, capsys.readouterr().err)


def test_a_forked_process_is_told_to_start_anew():
    device = object.__new__(gpu_device.Gpu)
    device._process = -1
    with pytest.raises(gpu_device.NoGpu, match="a forked process cannot use its parent's GPU"):
        device.upload(np.ones(3))


def test_without_cupy_everything_imports(monkeypatch, capsys):
    code = "import sys; sys.modules['cupy'] = None; import advfeat, advfeat.kernels.gpu.engine as e; print('fine')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "fine\n", done.stderr
    monkeypatch.setattr(gpu_device, "find_spec", lambda name: None)
    gpu_device.connect.cache_clear()
    with pytest.raises(ValueError, match=r"the package CuPy is not installed \(extra 'cuda12' or 'cuda13'\)"):
        af.PatchCNN(np.ones((2, 1, 3)), backend="cupy")


# ------------------------------------------------------------------ whole commands
def test_reproduce_on_the_device(cupy, tmp_path, capsys):
    """The same numbers as on the CPU, to rounding."""
    pairs = [f"{key}={value}" for key, value in SMALL.items() if key != "n_seeds"]
    results = []
    for backend in ("numba", "cupy"):
        out = tmp_path / backend
        given = ["--out", str(out), "--seeds", "2", "--dtype", "float64", "--backend", backend, "--set", *pairs]
        assert main(["reproduce", *given]) == 0
        results.append(run_folder.load(out))
    capsys.readouterr()
    mine, theirs = results[1].histories["adversarial"], results[0].histories["adversarial"]
    assert sorted(mine) == sorted(theirs)
    for name in ("A", "B", "loss", "test_accuracy", "robust_accuracy"):
        np.testing.assert_allclose(mine[name], theirs[name], rtol=1e-9, atol=1e-12)
    assert main(["info", "--plan", "--backend", "cupy", "--set", *pairs]) == 0
    assert re.search(r"regime +persistent", capsys.readouterr().out)


@pytest.mark.parametrize("engine", ["network", "recursion"])
def test_sweep_on_the_device(engine, cupy, tmp_path):
    found = []
    for backend in ("numba", "cupy"):
        table = spec({"alpha": ALPHA}, engine=engine, base={"backend": backend, "dtype": "float64"})
        sweep(table, tmp_path / backend, jobs=1)
        found.append(rows(tmp_path / backend))
    mine, theirs = (table.column("value").to_numpy() for table in found[::-1])
    np.testing.assert_allclose(mine, theirs, rtol=1e-7, atol=1e-9)
