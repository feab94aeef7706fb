"""Folders as a finished sweep leaves them, with made-up numbers."""

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from advfeat.core.store import digest_of_file, save_json
from advfeat.experiments.configuration import Figure3Config
from advfeat.sweeps.catalogue import DIGEST

HEAD = {
    "engine": "recursion", "training": ["adversarial"], "design": "grid", "design_seed": 0, "on_invalid": "refuse",
    "n_looks": 2, "certificate": "tangents", "max_nodes": 64, "start": "weights", "plots": [],
}  # fmt: skip


def folder(path, axes, rule, *, n_seeds=3, n_points=None, points=None, skipped=(), base=None, **spec):
    """Write one.  `rule(fields, seed)` gives {(metric, training, engine, iteration or None): value} of a run.

    `axes`: field -> values (grid), or {"low", "high", "scale"} with `points`, the design's columns.
    """
    axes = {name: axis if isinstance(axis, dict) else {"values": list(axis)} for name, axis in axes.items()}
    if points is None:
        product = list(itertools.product(*(axis["values"] for axis in axes.values())))
        points = {name: list(column) for name, column in zip(axes, zip(*product))}
    columns = {name: list(values) for name, values in points.items()}
    n_points = len(next(iter(columns.values())))
    base = Figure3Config(n_seeds=n_seeds).as_dict() | (base or {})
    rows, left_out, runs = [], dict(skipped), 0
    for point in range(n_points):
        own = {name: columns[name][point] for name in axes}
        if point in left_out:
            continue
        for seed in range(base["first_seed"], base["first_seed"] + n_seeds):
            runs += 1
            for (metric, training, engine, when), value in rule(base | own, seed).items():
                if not np.isnan(value):
                    when = (base | own)["n_iter"] if when is None else when
                    rows.append((point, training, engine, seed, *own.values(), when, metric, float(value)))
    _parquet(path / "results.parquet", axes, columns, rows)
    head = HEAD | {"title": "made up", "n_points": n_points, "metrics": sorted({row[-2] for row in rows})}
    listed = [
        {"point": p, "fields": {name: columns[name][p] for name in axes}, "reason": why} for p, why in left_out.items()
    ]
    save_json(
        path / "sweep.json",
        {
            "environment": {"advfeat": "0", "numpy": np.__version__}, "points": n_points,
            "spec": head | {"base": base, "axes": axes} | spec, "skipped": listed, "runs": runs,
            DIGEST: digest_of_file(path / "results.parquet"),
        },
    )  # fmt: skip
    return path


def _parquet(path, axes, columns, rows):
    names = pa.dictionary(pa.int32(), pa.string())
    kinds = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}

    def kind(values):
        held = {type(v) for v in values} - {type(None)}
        return kinds[float] if held == {int, float} else kinds[held.pop()]

    fields = [("point", pa.int32()), ("training", names), ("engine", names), ("seed", pa.int32())]
    fields += [(name, kind(columns[name])) for name in axes]
    fields += [("iteration", pa.int32()), ("metric", names), ("value", pa.float64())]
    table = zip(*rows) if rows else ([] for _ in fields)
    arrays = [pa.array(list(column), kind) for (_, kind), column in zip(fields, table)]
    pq.write_table(pa.table(arrays, schema=pa.schema(fields)), path)
