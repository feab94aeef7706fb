"""Tiny sweeps, and drivers of them in processes of their own."""

import os
import subprocess
import sys
import time

import pyarrow.parquet as pq

BASE = {
    "n_classes": 2, "n_neurons": 2, "patch_dim": 4, "n_patches": 4, "n_train": 4, "n_test": 2, "noise_std": 0.0,
    "n_iter": 2, "n_records": 2, "n_seeds": 1,
}  # fmt: skip
ALPHA = [1.0, 1.5, 2.0, 2.5, 3.0]


def spec(axes=None, base=None, **sweep):
    """Five recursions of two iterations, changed as said."""
    head = {"title": "tiny", "engine": "recursion", "training": "standard", "metrics": ["A", "B"], "n_looks": 2}
    return {"sweep": head | sweep, "base": BASE | (base or {}), "axes": {"alpha": ALPHA} if axes is None else axes}


def slow(n=8, n_iter=5_000, **sweep):
    """`n` networks that train for a good part of a second each."""
    base = {"n_iter": n_iter, "patch_dim": 16, "n_patches": 16, "n_train": 32}
    return spec({"alpha": [1.0 + i / n for i in range(n)]}, base, engine="network", metrics=["loss"], **sweep)


def write(path, tables):
    """As TOML."""

    def text(value):
        if isinstance(value, dict):
            return "{" + ", ".join(f"{name} = {text(held)}" for name, held in value.items()) + "}"
        return repr(value).replace("'", '"').replace("True", "true").replace("False", "false")

    lines = [line for name, table in tables.items()
             for line in (f"[{name}]", *(f"{key} = {text(value)}" for key, value in table.items()))]  # fmt: skip
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def rows(folder):
    return pq.read_table(folder / "results.parquet")


def start(*arguments, **options):
    """`advfeat ...` in a process group of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    return subprocess.Popen([sys.executable, "-m", "advfeat", *map(str, arguments)], **pipes | options)


def finished(folder):
    """How many batches are stored."""
    batches = folder / "batches"
    return len([name for name in os.listdir(batches) if not name.startswith(".")]) if batches.is_dir() else 0


def until(true):
    """Wait for it; the runner ends what waits too long."""
    while not true():
        time.sleep(0.005)
