"""Networks out to PyTorch and back, as files, and what is said of arrays that do not fit."""

import contextlib

import numpy as np
import pytest
import torch
import torch_networks as peers
from image_networks import CASES, images, network, style, twin

from advfeat.core.store import CheckpointError
from advfeat.images import ConvNet, PreActResNet18, ResNet18, WideResNet
from advfeat.images.exchange import load, names, read_safetensors, save, to_state_dict, with_state_dict

safetensors = pytest.importorskip("safetensors.numpy")


def state_of(module):
    return {name: a.numpy() for name, a in module.state_dict().items()}


@pytest.mark.parametrize("name", CASES)
def test_logits_are_equal_both_ways(name):
    net = network(name)
    X, _ = images(name, net)
    F = net.logits(X)
    module = twin(name, net, train=False)
    theirs = module(torch.from_numpy(X)).detach().numpy()
    assert np.abs(F - theirs).max() <= 1e-12 * np.abs(theirs).max()
    torch.manual_seed(0)
    module = CASES[name][1]().double()  # another network, made and trained by PyTorch
    optimiser = torch.optim.SGD(module.parameters(), lr=0.05)
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(module(torch.from_numpy(images(name, net, 2)[0])), torch.zeros(
            2 * len(X), dtype=int))  # fmt: skip
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    theirs = module.eval()(torch.from_numpy(X)).detach().numpy()
    for prefix in ("", "module.", "module.module."):
        ours = with_state_dict(net, {prefix + n: a for n, a in state_of(module).items()}, style(name))
        assert np.abs(ours.logits(X) - theirs).max() <= 1e-12 * np.abs(theirs).max()
    back = to_state_dict(ours, style(name))
    for n, a in state_of(module).items():
        if not n.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(back[n], a)
    assert back.keys() == module.state_dict().keys()


def test_a_residual_network_has_the_names_of_both_styles():
    net = ResNet18(2, (1, 8, 8))
    ours, theirs = (names(net, one)["layer2.0.downsample.0.weight"] for one in ("torchvision", "robust_overfitting"))
    assert (ours, theirs) == ("layer2.0.downsample.0.weight", "layer2.0.shortcut.0.weight")
    assert names(net, "robust_overfitting")["fc.bias"] == "linear.bias"
    state = to_state_dict(net, "robust_overfitting")
    back = with_state_dict(net, state, "robust_overfitting")
    assert back.fingerprint() == net.fingerprint()
    assert names(PreActResNet18(2, (1, 8, 8)), "torchvision")["linear.bias"] == "fc.bias"
    assert names(WideResNet(10, 1), "robust_overfitting")["fc.bias"] == "fc.bias"


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["resnet18-w4-8x8-smooth", "wrn-16-2-7x7"])
def test_a_file_gives_the_same_network(name, dtype, ending, tmp_path):
    net, path = network(name, dtype), tmp_path / f"net.{ending}"
    save(net, path, style(name))
    back = load(path)
    X, _ = images(name, net)
    np.testing.assert_array_equal(back.logits(X), net.logits(X))
    assert (back.fingerprint(), back.dtype, back.box) == (net.fingerprint(), net.dtype, net.box)


def test_safetensors_are_read_by_their_own_package_and_by_pytorch(tmp_path):
    name = "wrn-10-1-28x28"
    net, path = network(name), tmp_path / "net.safetensors"
    save(net, path, style(name))
    held = safetensors.load_file(path)
    module = peers.filled(CASES[name][1](), held, False)
    X, _ = images(name, net)
    np.testing.assert_allclose(net.logits(X), module(torch.from_numpy(X)).detach().numpy(), rtol=1e-12)
    foreign = tmp_path / "theirs.safetensors"
    safetensors.save_file(state_of(module), foreign)
    with pytest.raises(CheckpointError, match=r"theirs\.safetensors: holds arrays and no layers"):
        load(foreign)
    state, metadata = read_safetensors(foreign)
    assert not metadata
    np.testing.assert_array_equal(with_state_dict(net, state, style(name)).logits(X), net.logits(X))


# ------------------------------------------------------------------ what does not fit
def test_what_differs_is_named():
    net = ResNet18(2, (1, 8, 8))
    state = to_state_dict(net)
    with pytest.raises(ValueError, match=r"it lacks fc\.bias; it has no place for head\.bias"):
        with_state_dict(net, {("head.bias" if n == "fc.bias" else n): a for n, a in state.items()})
    with pytest.raises(ValueError, match=r"fc\.weight has shape \(10, 8\), and not \(10, 16\)"):
        with_state_dict(net, state | {"fc.weight": np.zeros((10, 8), np.float32)})
    with pytest.raises(ValueError, match=r"it lacks .* and \d+ more; it has no place for .* and \d+ more"):
        with_state_dict(net, to_state_dict(WideResNet(10, 1, (1, 8, 8))))
    with pytest.raises(ValueError, match=r"fc\.weight holds NaN"):
        with_state_dict(net, state | {"fc.weight": np.full((10, 16), np.nan, np.float32)})
    with pytest.raises(ValueError, match=r"bn1\.running_var holds -1: a variance"):
        with_state_dict(net, state | {"bn1.running_var": np.full(2, -1, np.float32)})
    with pytest.raises(TypeError, match=r"fc\.weight has dtype int64"):
        with_state_dict(net, state | {"fc.weight": np.zeros((10, 16), int)})
    with pytest.raises(ValueError, match="style = 'keras': unknown"):
        to_state_dict(net, "keras")


def test_files_that_are_none(tmp_path):
    net = ConvNet(2, (1, 8, 8))
    with pytest.raises(ValueError, match=r"net\.pt: must end in \.npz or \.safetensors"):
        save(net, tmp_path / "net.pt")
    for ending in ("npz", "safetensors"):
        path = tmp_path / f"net.{ending}"
        with pytest.raises(FileNotFoundError, match=f"{path}: there is no such file"):
            load(path)
        save(net, path)
        whole = path.read_bytes()
        for wrong in (b"", whole[:100], whole[:-7], b"\x00" * 100):
            path.write_bytes(wrong)
            with pytest.raises(CheckpointError, match=str(path)):
                load(path)
    np.savez(tmp_path / "other.npz", W=np.zeros(3))
    with pytest.raises(CheckpointError, match=r"other\.npz: is not a state"):
        load(tmp_path / "other.npz")


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_no_flipped_bit_is_silent(ending, tmp_path):
    """A bit of the file, wherever it lies: an error that names the file, or the same network."""
    net, path = ConvNet(2, (1, 8, 8), rng=3), tmp_path / f"net.{ending}"
    save(net, path)
    whole, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for at in rng.integers(8 * len(whole), size=300).tolist():
        flipped = bytearray(whole)
        flipped[at // 8] ^= 1 << at % 8
        path.write_bytes(flipped)
        with contextlib.suppress(CheckpointError):
            assert load(path).fingerprint() == net.fingerprint()
            continue
        refused += 1
    assert refused > 250
