"""`advfeat info` and `advfeat warmup`."""

import json
import os

import numpy as np
import pytest
from advfeat.kernels.cpu import engine as cpu_engine
from cli_runs import TINY

import advfeat
from advfeat.cli import ahead, main
from advfeat.images import WideResNet
from advfeat.images.exchange import save


def test_info_names_engines_and_versions(capsys):
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    for part in ("numba engine", "cupy engine", "threads", "numpy", advfeat.__version__):
        assert part in text


PLANS = {
    "numba": ([], ("Plan for 2 seeds:", "passes", "1 over d = 12, 1 over K = 12 neurons", "in step")),
    "few runs": (["n_neurons=90"], ("over K = 270 neurons",)),
    "noise": (["noise_std=1"], ("repeated patches none or few",)),
    "noiseless": (["noise_std=0", "n_patches=50"], ("repeated patches kept once, 2 per sample at most",)),
    "recursions": ([], ("standard recursion 2 runs one by one; 2 threads; about", "adversarial recursion 2 runs")),
    "minibatches": (["batch_size=2"], ("none: it does not know minibatches",)),
    "numpy": (["backend=numpy"], ("choice numpy", "matmul and einsum")),
}


@pytest.mark.parametrize(("pairs", "parts"), PLANS.values(), ids=PLANS)
def test_info_plans_a_configuration(pairs, parts, capsys, set_threads):
    set_threads(3)
    assert main(["info", "--plan", *TINY, *pairs]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in parts:
        assert part in text


def test_warmup_compiles_every_part(tmp_path, monkeypatch, capsys):
    """In processes of their own, which import what they call: here os.mkdir in place of the compilation."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))  # for the notes of what is compiled
    monkeypatch.setattr(cpu_engine, "warm_up", os.mkdir)
    assert main(["warmup"]) == 0
    assert "ready after" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {*cpu_engine.WARM_UPS, "cache"}
    assert ahead._missing(cpu_engine.WARM_UPS) == []


def test_info_as_json_is_numbers(capsys):
    assert main(["info", "--json", "--plan", *TINY]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["numba"]["vector_bits"] in (128, 256, 512)
    assert found["numba"]["threads"] == cpu_engine.get_num_threads()
    assert found["environment"]["advfeat"] == advfeat.__version__
    assert (found["plan"]["seeds"], found["plan"]["backend"]) == (2, "numba")
    assert "over d = 12" in found["plan"]["choices"]["passes"]


IGNORED = {
    "--config": ["--config", "nowhere.toml"], "--set": ["--set", "alpha=2"], "--seeds": ["--seeds", "3"],
    "--backend": ["--backend", "numpy"], "--dtype": ["--dtype", "float64"], "--weights": ["--weights", "nowhere.npz"],
}  # fmt: skip


@pytest.mark.parametrize("option", IGNORED)
def test_info_refuses_what_only_a_plan_needs(option, capsys):
    assert main(["info", *IGNORED[option]]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"advfeat info: {option}: only with --plan, which is what the engine would do "
                                    "for a configuration\n")  # fmt: skip


def test_info_plans_given_weights(tmp_path, capsys):
    file = tmp_path / "w.npz"
    np.savez(file, W=np.zeros((2, 3, 4, 12)), q=4)
    assert main(["info", "--plan", *TINY, "--weights", str(file)]) == 0
    assert "Plan for 2 seeds:" in capsys.readouterr().out
    assert main(["info", "--plan", *TINY, "q=3", "--weights", str(file)]) == 2
    assert "q = 3: contradicts the given weights" in capsys.readouterr().err
    np.savez(file, W=np.zeros((3, 4, 13)))
    assert main(["info", "--plan", *TINY, "--weights", str(file)]) == 2
    assert "weights have shape (3, 4, 13)" in capsys.readouterr().err


def test_info_names_the_kernel_of_each_layer(tmp_path, capsys):
    file = tmp_path / "net.npz"
    save(WideResNet(10, 2, (3, 8, 8)), file)
    assert main(["info", "--network", str(file), "--batch", "16", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["network"]
    kernels = found["kernels"]
    assert found["images"] == 16
    assert kernels["conv1"].startswith("direct, 3 x 3 at stride 1")
    assert kernels["block1.layer.0.conv2"].startswith("Winograd F(4x4, 3x3)")
    assert kernels["block2.layer.0.conv1"].startswith("direct, 3 x 3 at stride 2")
    assert kernels["block2.layer.0.bn1"] == "in what reads it"
    assert not any("numpy" in kernel.lower() for kernel in kernels.values())
    assert main(["info", "--batch", "16"]) == 2
    assert "--batch: only with --network" in capsys.readouterr().err
    assert main(["info", "--network", str(file), "--batch", "0"]) == 2
    assert "n = 0: must be an integer >= 1" in capsys.readouterr().err
