"""What the GPU rows of the benchmarks are held against: FLOPs counted, products alone, the ceilings' kernels."""

import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from advfeat.kernels.gpu import device as kernels_gpu
from advfeat.kernels.gpu.engine import CupyEngine
from emulated_gpu import EmulatedGpu, compiler, kernels
from gpu_clocks import LOAD, QUICK, Clocked, gpu_ceilings, gpu_checks

emulated = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")


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
