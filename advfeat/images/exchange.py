"""Networks as files, and their arrays under the names that PyTorch's public implementations give them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..core import checks, memory, store
from .network import Network

#: Style -> what replaces what in the names of a network of layers.  ResNet18 has torchvision's names by itself,
#: WideResNet and PreActResNet18 those of locuslab/robust_overfitting.
STYLES = {
    "torchvision": ((r"\.shortcut\.", ".downsample."), (r"\.convShortcut\.", ".downsample.0."), (r"^linear\.", "fc.")),
    "robust_overfitting": ((r"\.downsample\.", ".shortcut."), (r"^fc\.", "linear.")),
}
COUNTER = "num_batches_tracked"  # of every batch norm: PyTorch reads it where momentum is None, and always wants it


def names(net: Network, style: str) -> dict[str, str]:
    """The name in this library -> the name in a style, of every array of a network."""
    rules = STYLES[checks.choice("style", style, STYLES)]
    if style == "robust_overfitting" and any(name.startswith("block1.") for name in net.shapes):
        rules = ()  # its wide networks have "fc" and "convShortcut"
    found = {}
    for name in net.shapes:
        found[name] = name
        for old, new in rules:
            found[name] = re.sub(old, new, found[name])
    return found


def to_state_dict(net: Network, style: str = "torchvision") -> dict[str, np.ndarray]:
    """Copies of all arrays as ``torch.nn.Module.load_state_dict`` takes them (each through torch.from_numpy).

    `style`: "torchvision" or "robust_overfitting", whose names for the shortcut and the last layer differ.  Every batch
    norm has a "num_batches_tracked" of 0 beside its statistics.
    """
    arrays, out = net.arrays(), {}
    for name, new in names(net, style).items():
        out[new] = arrays[name].copy()
        if name.endswith("running_var"):
            out[new.removesuffix("running_var") + COUNTER] = np.array(0)
    return out


def with_state_dict(net: Network, state: Mapping[str, np.ndarray], style: str = "torchvision") -> Network:
    """The network with the arrays of a PyTorch state dict in a style, in the network's dtype.

    Prefixes "module." (of DataParallel) and "num_batches_tracked" are taken as what they are.  ValueError, naming what
    differs, for any other name or shape.
    """
    plain = {re.sub(r"^(module\.)+", "", name): np.asarray(a) for name, a in state.items()}
    held = {name: a for name, a in plain.items() if not name.endswith(COUNTER)}
    own = {new: name for name, new in names(net, style).items()}
    arrays = {own.get(name, name): a for name, a in held.items()}
    return Network.from_options(dtype=net.dtype, arrays=arrays, **net.options)


# ------------------------------------------------------------------ files
def save(net: Network, path, style: str = "torchvision") -> None:
    """A network as a file that :func:`~advfeat.images.exchange.load` reads: PATH.npz (arrays, layers, digest; no
    pickle), or PATH.safetensors (arrays under the names of `style`, as other programs read them, layers in its
    metadata).

    ValueError for any other ending; ModuleNotFoundError where the package safetensors is needed and missing.
    """
    path = Path(path)
    if path.suffix == ".npz":
        store.save_state(path, {"kind": net.kind, "options": net.options}, net.arrays())
    elif path.suffix == ".safetensors":
        state = to_state_dict(net, style)
        about = {"kind": net.kind, "options": net.options, "style": style, "digest": store.digest_of(state)}
        held = _safetensors().numpy.save(state, metadata={"advfeat": json.dumps(about)})
        store.write(path, lambda file: file.write(held))
    else:
        raise ValueError(f"{path}: must end in .npz or .safetensors")


def load(path) -> Network:
    """The network that :func:`~advfeat.images.exchange.save` wrote.

    Raises FileNotFoundError; CheckpointError, naming the file, for what is damaged or holds no network of this library
    (arrays of others come by :func:`read_safetensors` and :func:`with_state_dict`); MemoryError.
    """
    path = Path(path)
    own = path.suffix != ".safetensors"
    state, about = read_safetensors(path) if not own else reversed(store.load_state(path))
    if not own and "advfeat" not in about:
        raise store.CheckpointError(f"{path}: holds arrays and no layers; make the network and use with_state_dict")
    try:
        head = about if own else json.loads(about["advfeat"])
        if head["kind"] != Network.kind:
            raise ValueError(f"holds a model of kind {head['kind']!r}")
        if own:
            return Network.from_arrays(state, **head["options"])
        if head["digest"] != store.digest_of(state):
            raise ValueError("damaged, its content is not what was written")
        dtype = next(a.dtype for a in state.values() if a.dtype.kind == "f")
        return with_state_dict(Network.from_options(dtype=dtype, **head["options"]), state, head["style"])
    except (KeyError, TypeError, ValueError, StopIteration, RecursionError) as error:
        raise store.CheckpointError(f"{path}: {error}") from None


def read_safetensors(path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(arrays by name, metadata) of a safetensors file; errors as of :func:`load`."""
    path, package = Path(path), _safetensors()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    size = path.stat().st_size
    memory.require(size, f"{path}: reading its {size:,} bytes", "close other programs, or use a larger machine")
    try:
        with package.safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (package.SafetensorError, TypeError, OSError, ValueError) as error:
        raise store.CheckpointError(f"{path}: not a safetensors file of NumPy's dtypes ({error})") from None


def _safetensors():
    try:
        import safetensors
        import safetensors.numpy
    except ModuleNotFoundError:
        raise ModuleNotFoundError("the package safetensors is missing: pip install 'advfeat[images]'") from None
    return safetensors
