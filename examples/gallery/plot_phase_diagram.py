"""
A phase diagram
===============

Which feature does standard training learn? A sweep over two keys of the configuration; each point is a training by
the exact recursion. ``examples/winner.toml`` is the same at 48 x 48 points with eight seeds each.
"""

import tempfile

import matplotlib.pyplot as plt
import numpy as np
import pyarrow.parquet

import advfeat as af

ALPHAS, ROBUST = [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0], [1, 2, 4, 8, 16, 32]
spec = {
    "sweep": {"engine": "recursion", "training": "standard", "metrics": ["robust_wins"]},
    "base": {"n_patches": 64, "n_seeds": 4, "n_iter": 1000, "n_records": 1, "lr": 25.0},
    "axes": {"alpha": ALPHAS, "n_robust": ROBUST},
}
with tempfile.TemporaryDirectory() as folder:
    af.sweep(spec, folder)
    table = pyarrow.parquet.read_table(f"{folder}/results.parquet").to_pylist()

# %%
# The table has one row per point, seed, metric and recorded time.
share = np.zeros((len(ROBUST), len(ALPHAS)))
for row in table:
    if row["iteration"] == 1000:
        share[ROBUST.index(row["n_robust"]), ALPHAS.index(row["alpha"])] += row["value"] / 4

figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
picture = axis.pcolormesh(range(len(ALPHAS)), range(len(ROBUST)), share, cmap="cividis", vmin=0, vmax=1)
figure.colorbar(picture, ax=axis, label="share of classes in which\nthe robust feature is the larger")
axis.set_xticks(range(len(ALPHAS)), ALPHAS)
axis.set_yticks(range(len(ROBUST)), ROBUST)
_ = axis.set(xlabel="strength of the robust feature α (β = 1)", ylabel="robust patches of 64")
