"""The GPU rows of the benchmarks without a GPU: what they count, check and report.  Their times mean nothing here."""

import json
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from advfeat.kernels import gpu as kernels_gpu
from advfeat.kernels.cupy_engine import CupyEngine
from emulated_gpu import EmulatedGpu, compiler, kernels

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(BENCHMARKS)
    import gpu as bench
    import gpu_ceilings
    import gpu_checks
    from workloads import STEPS, Workload

emulated = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")
QUICK = gpu_ceilings.QUICK._replace(rounds=1, repeats=3)
LOAD = Workload("tiny", 2, 3, 4, 8, 3, 7, 1)  # classes of 3, 2 and 2 samples


class Clocked(EmulatedGpu):
    """The emulated GPU with a clock, on which a kernel or product takes a microsecond, a product in tf32 half of it;
    adds up the products' FLOPs."""

    def __init__(self, order=0):
        super().__init__(order)
        self.flops, self.now, self.takes = 0, 0.0, 1e-3

    def multiply(self, out, A, B, *, turn_a=False, turn_b=False, tf32=False):
        self.takes = 5e-4 if tf32 else 1e-3
        super().multiply(out, A, B, turn_a=turn_a, turn_b=turn_b, tf32=tf32)
        self.takes = 1e-3
        self.flops += 2 * out.size * A.shape[1 if turn_a else 2]

    def copy(self, target, source):
        super().copy(target, source)
        self.now += 5e-3 * (target.size == QUICK.numbers)  # the ceiling's, none of the engine's

    def _do(self, work):
        def counted(takes=self.takes):
            work()
            self.now += takes

        super()._do(counted)

    @contextmanager
    def timed(self):
        took, start = [], self.now
        yield took
        took.append(self.now - start)


class Timed(EmulatedGpu):
    """The emulated GPU with the clock on the wall, which JAX does not stop."""

    @contextmanager
    def timed(self):
        took, start = [], time.perf_counter()
        yield took
        took.append(1e3 * (time.perf_counter() - start))


@pytest.fixture
def on_the_cpu(monkeypatch):
    """The benchmark with an emulated GPU."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(bench, "Gpu", Clocked)
    monkeypatch.setattr(bench, "missing", lambda: None)
    monkeypatch.setattr(bench, "QUICK", QUICK)


# ------------------------------------------------------------------ without a GPU
@pytest.mark.skipif(kernels_gpu.missing() is None, reason="there is a GPU")
def test_without_a_gpu_it_says_what_is_missing():
    done = subprocess.run([sys.executable, BENCHMARKS / "gpu.py", "--quick"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == f"benchmarks/gpu.py needs a GPU: {kernels_gpu.missing()}"
    assert not done.stdout


def test_a_row_that_does_not_exist_is_an_error_before_any_work(capsys):
    with pytest.raises(SystemExit) as ended:
        bench.main(["--only", "huge"])
    assert ended.value.code == 2
    assert "default/float32/adversarial" in capsys.readouterr().err


def test_rows_are_chosen_by_parts_of_their_names():
    rows = bench.arguments(["--only", "batch", "tf32/adv"]).rows
    assert [str(row) for row in rows] == ["batch/float32/adversarial", "large/tf32/adversarial"]
    assert bench.arguments([]).rows == bench.ROWS
    assert set(bench.TINY) == set(bench.SHAPES) == {row.workload for row in bench.ROWS}
    for name, *_ in bench.TARGETS:
        assert name in map(str, bench.ROWS)


# ------------------------------------------------------------------ counts
@emulated
@pytest.mark.parametrize("step", ["standard", "adversarial", "logits", "PGD-20"])
def test_flops_are_those_of_the_products_that_the_engine_asks_for(step):
    load, device = replace(LOAD, n_runs=1) if step == "PGD-20" else LOAD, Clocked()
    engine = CupyEngine(device, "products")
    gpu_checks.our_job(engine, load, gpu_checks.packed(engine, load, step), step, 1)()
    last_look = load.flops("logits") if step == "PGD-20" else 0  # at the margins after the last step
    assert device.flops == load.flops(step) + last_look
    assert load.flops("logits") == 2 * 2 * 7 * 3 * 12 * 8 // (3 - load.n_runs)


@emulated
def test_the_products_alone_are_the_necessary_ones_and_give_their_numbers():
    device = Clocked()
    products, X, W = gpu_ceilings.Products(device, LOAD, False), LOAD.X.reshape(2, 21, 8), LOAD.W.reshape(2, 12, 8)
    ways = products.ascents()
    for how, first in ways.items():
        device.flops = 0
        for one in (first, products.forward, products.gradient):
            one()
        padding = 2 * 2 * (2 * 2 * 3 * 4 * 8)  # runs, products, and two samples of 3 patches for 4 neurons
        others = LOAD.flops("logits") * 2 * (1 - 1 / 3)
        extra = {"label by label": 0, "labels at once": padding, "all neurons": others}[how]
        assert device.flops == pytest.approx(LOAD.flops("adversarial") + extra, rel=1e-12)
    near = {"rtol": 1e-4, "atol": 1e-5}
    Z = X @ W.swapaxes(1, 2)
    np.testing.assert_allclose(device.download(products.Z), Z, **near)
    np.testing.assert_allclose(device.download(products.G), Z.swapaxes(1, 2) @ X, **near)
    products.pull()
    np.testing.assert_allclose(device.download(products.D), Z @ W, **near)
    ways["label by label"]()
    ways["labels at once"]()
    own = np.repeat(LOAD.y[:, :, None, None] == np.arange(3)[:, None], 3, axis=1).repeat(4, -1).reshape(2, 21, 12)
    D = np.where(own, Z, 0) @ W
    np.testing.assert_allclose(device.download(products.D), D, **near)
    moves = device.download(products.moves).reshape(2, 3, 9, 8)
    np.testing.assert_allclose(np.concatenate([moves[:, 0], moves[:, 1, :6], moves[:, 2, :6]], axis=1), D, **near)


def test_the_formula_says_how_flops_are_counted():
    for step in ("standard", "adversarial", "logits", "PGD-20"):
        said = re.fullmatch(r"(.*) products of 2 S K d, S = (.*), K = (.*), d = (.*)", gpu_ceilings.formula(LOAD, step))
        assert 2 * np.prod([eval(number) for number in said.groups()]) == pytest.approx(LOAD.flops(step))
    assert STEPS == 20


# ------------------------------------------------------------------ the kernels of the ceilings
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.parametrize("real", ["float", "double"])
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_the_ceilings_compile(real, architecture, tmp_path):
    names = kernels(gpu_ceilings.SOURCE)
    assert names == ["multiply_add", "copy"]
    common = ["nvcc", "-std=c++17", f"-arch={architecture}", f"-DREAL={real}", f"-I{kernels_gpu.SOURCES}"]
    common += ["-Werror", "all-warnings", f"{gpu_ceilings.SOURCE}.cu", "-o"]
    subprocess.run([*common, tmp_path / "x.ptx", "-ptx"], check=True)
    text = (tmp_path / "x.ptx").read_text()
    multiply_add, copy = re.split(r"\.entry copy\(", text)
    assert ".entry multiply_add(" in multiply_add
    assert multiply_add.count(f"fma.rn.f{32 if real == 'float' else 64}") == 256, "chains were merged, or not unrolled"
    assert copy.count("ld.global") == copy.count("st.global") == copy.count(".v4.") / 2 >= 5
    target = f"-arch={architecture}"
    subprocess.run(["ptxas", target, tmp_path / "x.ptx", "-o", tmp_path / "x.cubin"], check=True)
    assert all(f".text.{name}".encode() in (tmp_path / "x.cubin").read_bytes() for name in names)


@emulated
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_multiply_adds_count_themselves(dtype):
    for order, (a, b, each) in ((0, (1, 1, 256)), (1, (1, 2, 512)), (5, (1, 0, 0))):
        device = EmulatedGpu(order)
        total = device.empty((2 * 64,), np.float64)
        args = total, dtype(a), dtype(b), 3
        device.launch(f"{gpu_ceilings.SOURCE}:multiply_add", dtype, (2,), 64, *args)
        np.testing.assert_array_equal(device.download(total), 3 * each)
    device.launch(f"{gpu_ceilings.SOURCE}:multiply_add", dtype, (2,), 64, total, dtype(0), dtype(0), 1)
    np.testing.assert_array_equal(device.download(total), -sum(range(8)))


@emulated
def test_work_in_graphs_is_timed_by_the_call():
    device = Clocked()
    A, out = device.upload(np.ones((1, 4, 4), np.float32)), device.empty((1, 4, 4), np.float32)
    for milliseconds in (0.01, 0.5, 5):  # one call, three graphs of twenty, and twenty-five
        effort = QUICK._replace(milliseconds=milliseconds)
        assert gpu_ceilings.in_graphs(device, lambda: device.multiply(out, A, A), effort) == pytest.approx(1)


@emulated
def test_ceilings_are_work_over_time():
    found = gpu_ceilings.ceilings(Clocked(), QUICK)
    peak = 2 * 256 * (8 * 4) * 256 / 1e-6  # of 8 blocks on each of 4 multiprocessors
    assert found["multiply-adds"] == pytest.approx({"float32": peak, "float64": peak})
    assert found["copy"] == pytest.approx(2 * 4 * QUICK.numbers / 1e-6)
    rate = 2 * 32**3 / 1e-6
    assert found["cuBLAS"] == pytest.approx({"float32": rate, "tf32": 2 * rate, "float64": rate})


@emulated
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("vectors", [1, 63, 64, 65, 256, 257, 64 * 11 + 5])
def test_the_copy_copies(dtype, vectors):
    n = vectors * 16 // np.dtype(dtype).itemsize
    numbers = np.random.default_rng(vectors).standard_normal(n).astype(dtype)
    for order in (0, 1, 9):
        device = EmulatedGpu(order)
        source, target = device.upload(numbers), device.empty((n,), dtype)
        device.launch(f"{gpu_ceilings.SOURCE}:copy", dtype, (2,), 32, source, target, np.int64(n))
        np.testing.assert_array_equal(device.download(target), numbers)


@emulated
def test_a_copy_that_does_not_copy_is_found():
    class Lazy(Clocked):
        def launch(self, *args, **more):
            self._do(lambda: None)

    with pytest.raises(RuntimeError, match="copied"):
        gpu_ceilings.copy_bandwidth(Lazy(), QUICK)


# ------------------------------------------------------------------ the whole benchmark
ALL = ["default/float32/adv", "default/float64/adv", "batch", "tf32/standard", "tf32/error", "64/logits", "64/PGD"]


def an_iteration(load, regime, precision, step):
    """Microseconds: kernels and products of ten iterations less those of five."""
    device, took = Clocked(), []
    engine = CupyEngine(device, regime, tf32=precision == "tf32")
    for n_iter in (5, 10):
        job = gpu_checks.our_job(engine, load, gpu_checks.packed(engine, load, step), step, n_iter)
        took.append(gpu_ceilings.milliseconds(device, job))
    return 1e3 * (took[1] - took[0]) / 5


@emulated
def test_the_benchmark_runs_and_its_numbers_fit_together(on_the_cpu, tmp_path, capsys):
    bench.main(["--quick", "--no-jax", "--only", *ALL, "--out", str(tmp_path / "all.json")])
    record = json.loads((tmp_path / "all.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["all.json"]
    assert record["failed"] == []
    assert record["machine"]["device"] == "emulated on the CPU"
    top, rows = record["ceilings"], {(row["row"], row["regime"]): row for row in record["rows"]}
    regimes = {name: [r for n, r in rows if n == name] for name, _ in rows}
    assert regimes == {
        "default/float32/adversarial": ["auto", "persistent", "products"],
        "default/float64/adversarial": ["auto", "persistent", "products"],
        "batch/float32/adversarial": ["auto", "persistent", "products"],
        "large/tf32/standard": ["auto"],
        "large/float64/logits": ["auto"],
        "large/float64/PGD-20": ["auto"],
        "large/tf32/error": ["tf32", "float32"],
    }
    errors = [rows.pop(("large/tf32/error", precision)) for precision in ("tf32", "float32")]
    for what in ("logits", "weights"):
        assert 1e-2 > errors[0][f"{what}_norm"] > 30 * errors[1][f"{what}_norm"] > 1e-8
    alone = {"adversarial": 4, "standard": 2, "logits": 1, "PGD-20": 40}  # microseconds of the fewest products
    for (name, regime), row in rows.items():
        workload, precision, step = name.split("/")
        load = Workload(workload, *bench.TINY[workload], dtype=gpu_ceilings.PRECISIONS[precision])
        seconds = 1e-6 * row["us"]
        assert row["q25_us"] <= row["us"] <= row["q75_us"]
        assert row["run_iterations_per_s"] == pytest.approx(load.n_runs / seconds)
        assert row["flops"] == load.flops(step)
        assert row["flops_per_s"] == pytest.approx(load.flops(step) / seconds)
        assert row["of_multiply_adds"] * top["multiply-adds"][load.dtype] == pytest.approx(row["flops_per_s"])
        assert row["of_cublas"] * top["cuBLAS"][precision] == pytest.approx(row["flops_per_s"])
        assert row["of_copy"] * top["copy"] * seconds == pytest.approx(load.bytes(step))
        products = alone[step] / (2 if precision == "tf32" else 1)
        assert row["products"]["us"] == pytest.approx(products)
        assert row["products_ratio"] * products == pytest.approx(row["us"])
        if regime == "products" or (regime, precision, step) == ("auto", "tf32", "standard"):
            assert row["us"] == pytest.approx(an_iteration(load, regime, precision, step))
        assert "jax_ratio" not in row
    said = capsys.readouterr().out
    assert said.count("two runs have the same bits") == len(rows)
    assert said.count("a run of a batch those of the run alone") == 3
    assert said.count("auto has the bits of persistent; ") == 3
    assert "No JAX rows: left out" in said
    assert "MISSED" not in said, "targets are judged by tiny shapes"


def wrong(method):
    """`CupyEngine.train` whose weights `method(self, W, calls)` spoils."""
    true, calls = CupyEngine.train, []

    def train(self, W, *args):
        calls.append(1)
        answer = true(self, W, *args)
        method(self, W, len(calls))
        return answer

    return train


def scale(self, W, calls):
    W *= W.dtype.type(1.01)


def drift(self, W, calls):
    W[-1] += 1e-7 * calls


def by_batch(self, W, calls):
    W[-1] += 1e-7 * len(W)


@emulated
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (scale, "auto differs from the reference by"),
        (drift, "auto: two runs on this GPU differ"),
        (by_batch, "persistent: run 0 of 5 differs from the run alone"),
    ],
)
def test_a_row_that_fails_its_check_is_not_timed(on_the_cpu, monkeypatch, tmp_path, fault, message):
    monkeypatch.setattr(CupyEngine, "train", wrong(fault))
    names, out = ["batch", "large/float64/logits"], tmp_path / "out.json"
    with pytest.raises(SystemExit, match=re.escape(message)):  # a text as status: printed, and status 1
        bench.main(["--quick", "--no-jax", "--only", *names, "--out", str(out)])
    record = json.loads(out.read_text())
    assert [row["row"] for row in record["rows"]] == ["large/float64/logits"]
    assert record["failed"][0].startswith(f"batch/float32/adversarial: {message}")


def test_calls_are_repeated_until_they_take_long_enough():
    device, effort = Clocked(), gpu_ceilings.Effort()

    def takes(milliseconds):
        def job():
            device.now += milliseconds

        return job

    for each, n in ((2.0, 150), (1e-4, 5000), (900.0, 1)):
        job, calls = bench.many_calls(device, takes(each), effort)
        assert calls == n
        assert gpu_ceilings.milliseconds(device, job) == pytest.approx(each * n)
    for each, n in ((0.1, 3000), (1e-3, 5000), (100.0, 20)):
        job, calls = bench.long_enough(device, lambda n_iter, each=each: takes(7.0 + each * n_iter), effort)
        assert calls == n
        assert gpu_ceilings.milliseconds(device, job) == pytest.approx(7 + each * n)


@emulated
def test_a_run_that_rests_is_not_timed_as_training():
    device = Clocked()
    load = replace(LOAD, n_runs=1)
    load.W[...] = np.nan
    engine = CupyEngine(device)
    with pytest.raises(gpu_checks.CheckFailed, match="not finite at iteration 0"):
        gpu_checks.our_job(engine, load, gpu_checks.packed(engine, load, "standard"), "standard")()


@emulated
def test_a_shape_too_large_for_the_persistent_regime_has_no_such_row(on_the_cpu, monkeypatch, capsys):
    monkeypatch.setattr(bench, "Gpu", lambda: small)
    small = Clocked()
    small.shared_bytes = 4 << 10
    bench.main(["--quick", "--no-jax", "--only", "large/float64/standard"])
    said = capsys.readouterr().out
    assert "persistent: regime = 'persistent': " in said
    assert "auto has the bits of products; " in said


def test_targets_are_judged_by_the_rows_of_the_regime_auto():
    row = {"row": "default/float32/adversarial", "regime": "auto", "us": 41.0, "jax_ratio": 3.5}
    other = row | {"regime": "products", "us": 1.0}
    most, least = "microseconds an iteration, at most 40", "times JAX's speed, at least 3"
    cases = [("us", "41", most, "MISSED"), ("us", "40", most, "met")]
    cases += [("jax_ratio", "2.9", least, "MISSED"), ("jax_ratio", "3.1", least, "met")]
    for name, number, what, verdict in cases:
        said = list(bench.verdicts([other, row | {name: float(number)}]))
        assert f"default/float32/adversarial: {number} {what}: {verdict}" in said
        assert len(said) == 2
    assert list(bench.verdicts([other])) == []


@emulated
def test_beside_jax(on_the_cpu, monkeypatch, tmp_path):
    """JAX on the CPU, one and several runs: every variant is checked and tried, the fastest reported."""
    pytest.importorskip("jax")
    rows = [bench.Row("batch", "float32", "standard"), bench.Row("large", "tf32", "logits")]
    for name, value in {"Gpu": Timed, "without_jax": lambda: None, "CHUNK": 2, "ROWS": rows}.items():
        monkeypatch.setattr(bench, name, value)
    bench.main(["--quick", "--out", str(tmp_path / "jax.json")])
    found = {(row["row"], row["regime"]): row for row in json.loads((tmp_path / "jax.json").read_text())["rows"]}
    for name in map(str, rows):
        ours, theirs = found[name, "auto"], found[name, "JAX"]
        assert 0.1 < ours["jax_ratio"] / (theirs["us"] / ours["us"]) < 10, "medians of three, on a busy machine perhaps"
        assert theirs["jax_ratio"] == 1
        assert theirs["variant"] in theirs["tried"]
        assert theirs["iterations"] == ours["iterations"] or "logits" in name
    tried = found["batch/float32/standard", "JAX"]["tried"]
    plain = {f"{gradient}, {how}" for gradient in ("closed form", "jax.grad") for how in ("vmap", "map of 2")}
    assert {name for name in tried if "unroll" not in name} == plain
    assert len(tried) == len(plain) + 1


@emulated
def test_jax_too_must_be_right(monkeypatch):
    pytest.importorskip("jax")
    monkeypatch.syspath_prepend(BENCHMARKS)
    from jax_peer import Peer

    load = replace(LOAD, n_runs=1)
    for step in ("logits", "PGD-20"):
        check = gpu_checks.Check(load, "float32", step)
        job = Peer(load, "highest", from_host=True).jobs(step, 1)["closed form"]
        check.theirs("right", job())
        with pytest.raises(gpu_checks.CheckFailed, match="JAX, wrong differs from the reference"):
            check.theirs("wrong", job() * np.float32(1.05))
        with pytest.raises(gpu_checks.CheckFailed, match="by nan"):
            check.judge("nothing", np.full_like(check.expected, np.nan))
