"""Augmentation: images moved and mirrored at random, by the library's random numbers."""

from __future__ import annotations

import numpy as np

from ...core import checks
from ...core.types import FloatArray


def augmented(X: FloatArray, rng: np.random.Generator, kind: checks.Augmentation, padding: int = 4) -> FloatArray:
    """Images (N, C, H, W), each moved by up to `padding` pixels either way, with kind "crop_flip" mirrored or not.

    What is moved in are pixels mirrored at the border (NumPy's "reflect"), as in locuslab/robust_overfitting.  An image
    draws a row, a column and a coin, whatever the kind.
    """
    if checks.choice("kind", kind, checks.AUGMENTATIONS) == "none":
        return X
    if not isinstance(X, np.ndarray) or X.ndim != 4 or X.dtype.kind != "f":
        raise TypeError(f"X = {checks.shown(X)}: must be images (N, C, H, W) of float32 or float64")
    checks.instance("rng", rng, np.random.Generator, "a Generator")
    checks.integer("padding", padding, 0)
    N, _, H, W = X.shape
    p = min(padding, H - 1, W - 1)
    rows, columns, mirrored = rng.integers(0, 2 * p + 1, N), rng.integers(0, 2 * p + 1, N), rng.random(N) < 0.5
    wide = np.pad(X, ((0, 0), (0, 0), (p, p), (p, p)), "reflect")
    windows = np.lib.stride_tricks.sliding_window_view(wide, (H, W), axis=(2, 3))
    out = windows[np.arange(N), :, rows, columns]
    if kind == "crop_flip":
        out[mirrored] = out[mirrored][..., ::-1]
    return np.ascontiguousarray(out)
