"""The GPU rows of the benchmarks without a GPU: what they check and report.  Their times mean nothing here."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from advfeat.kernels.gpu import device as kernels_gpu
from advfeat.kernels.gpu.engine import CupyEngine
from emulated_gpu import compiler
from gpu_clocks import BENCHMARKS, LOAD, QUICK, Clocked, Timed, Workload, bench, gpu_ceilings, gpu_checks

emulated = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")


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
    assert said.count("auto has the bits of persistent") == 3  # and of products, where those coincide
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
def test_beside_jax(on_the_cpu, monkeypatch, tmp_path, capsys):
    """JAX on the CPU, one and several runs: every variant is checked and tried, the fastest that is right reported."""
    pytest.importorskip("jax")
    from jax_peer import Peer

    right = Peer.autodiff
    monkeypatch.setattr(Peer, "autodiff", lambda *args: 1.01 * right(*args))
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
    assert {name for name in tried if "unroll" not in name} == {"closed form, vmap", "closed form, map of 2"}
    assert len(tried) == 3
    said = capsys.readouterr().out
    for how in ("vmap", "map of 2"):
        assert f"JAX, jax.grad, {how}, left out: CheckFailed: JAX, jax.grad, {how} differs from the reference" in said
    assert "JAX: 2 variants, errors " in said


@emulated
def test_a_row_whose_peers_all_break_is_ours_alone(on_the_cpu, monkeypatch, tmp_path):
    pytest.importorskip("jax")
    from jax_peer import Peer

    def breaks(self, *args):
        raise MemoryError("no room\nfor it")

    monkeypatch.setattr(Peer, "logits", breaks)
    monkeypatch.setattr(bench, "without_jax", lambda: None)
    bench.main(["--quick", "--only", "large/tf32/logits", "--out", str(tmp_path / "jax.json")])
    (row,) = json.loads((tmp_path / "jax.json").read_text())["rows"]
    assert row["regime"] == "auto"
    assert "jax_ratio" not in row


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
