"""The folder of a sweep: finished batches, each written once and whole, and the table made of them."""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..core import store
from ..core.lock import Lock
from .catalogue import CLAIMS, METRICS, TABLE
from .plan import Plan, SweepBatch, tasks_of

PARTS = {TABLE, "batches", "damaged", "figures", "index.html"}  # of a sweep's folder, beside sweep.json and specs
BATCH = re.compile(r"[0-9a-f]{20}\.npz")
ROWS = 200_000  # of a row group, about
OPEN_FILES = 16


@contextmanager
def opened(folder):
    """The archive of a folder, which is made if need be and locked: what another sweep has half written is its own.

    Raises CheckpointError where another process writes, or the folder holds other things than a sweep's.
    """
    _check_ours(Path(folder))
    with Lock(store.make_folder(folder)):
        yield Archive(folder)


class Archive:
    """Finished batches in `folder`/batches, one .npz each, named by a hash of what they hold; see `opened`.

    `places` maps a result's key to its file and row.  A file that cannot be read back as it was written is set aside in
    `folder`/damaged and named in `damaged`, so what it held is computed again.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.batches = store.make_folder(self.folder / "batches")
        store.remove_temporaries(self.batches)
        self.places: dict[str, tuple[Path, int]] = {}
        self.damaged: list[tuple[Path, str]] = []
        self._open: OrderedDict[Path, dict] = OrderedDict()
        for path in sorted(self.batches.glob("*.npz")):
            try:
                self._register(path, _read(path)["keys"])
            except store.CheckpointError as error:
                aside = store.make_folder(self.folder / "damaged") / path.name
                path.replace(aside)
                self.damaged.append((aside, str(error)))

    def _register(self, path, keys):
        for row, key in enumerate(keys.tolist()):
            self.places.setdefault(key, (path, row))

    def keep(self, batch: SweepBatch, arrays: dict[str, np.ndarray]) -> None:
        """Write a finished batch; a second copy of the same is dropped."""
        path = self.batches / f"{batch.name}.npz"
        if not path.exists():
            arrays = {"keys": np.array(batch.keys), **arrays}
            store.save_npz(path, digest=np.array(store.digest_of(arrays)), **arrays)
        self._register(path, np.array(batch.keys))

    def get(self, key: str) -> tuple[dict[str, np.ndarray], int]:
        """The arrays that hold a result, and its row in them."""
        path, row = self.places[key]
        if path not in self._open:
            self._open[path] = _read(path)
            while len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)
        self._open.move_to_end(path)
        return self._open[path], row

    # -------------------------------------------------------------- the table
    def write_table(self, plan: Plan) -> Path:
        """results.parquet: one row per point, training, engine, seed, metric and recorded time; NaN has none.

        Rows are in the order of points, trainings, seeds, engines and metrics, whatever the order of the work.
        """
        import pyarrow.parquet as pq  # 60 MB and a quarter of a second

        path, schema = self.folder / TABLE, _schema(plan)

        def body(file):
            with pq.ParquetWriter(file, schema) as writer:
                for rows in _chunks(self._blocks(plan)):
                    writer.write_table(_table(rows, schema))

        store.write(path, body)
        return path

    def _blocks(self, plan: Plan) -> Iterable[dict]:
        """Rows of one point, training, seed and engine at a time, as columns."""
        spec, tasks = plan.spec, tasks_of(plan.spec)
        seeds = range(plan.spec.base["first_seed"], plan.spec.base["first_seed"] + plan.spec.base["n_seeds"])
        engines = ("network", "recursion", "both") if spec.engine == "both" else (spec.engine,)
        for i, point in plan.points.items():
            for training in tasks:
                for seed, key in zip(seeds, plan.keys[training][i]):
                    arrays, row = self.get(key)
                    for engine in engines:
                        names, times, values = _measured(spec, training, engine, arrays, row)
                        head = {"point": i, "training": training, "engine": engine, "seed": seed}
                        head |= dict(zip(spec.axes, point))
                        yield head, names, times, values


def _measured(spec, training, engine, arrays, row):
    """Names, iterations and values of a result's rows."""
    at, names, times, values = arrays["iteration"], [], [], []
    for name in spec.metrics:
        if engine not in METRICS[name].engines or training not in METRICS[name].trainings:
            continue
        if name in CLAIMS:
            last = arrays[f"{engine}/{CLAIMS[name].metric}"][row, -1]
            held = np.array([np.nan if np.isnan(last) else float(CLAIMS[name].holds(last))])
        else:
            held = np.atleast_1d(arrays[f"{engine}/{name}"][row])
        known = ~np.isnan(held)
        names += [name] * int(known.sum())
        times += (at if METRICS[name].recorded else at[-1:])[known].tolist()
        values += held[known].tolist()
    return names, times, values


def _schema(plan: Plan):
    import pyarrow as pa

    from .axis import KEYS

    word = pa.dictionary(pa.int32(), pa.string())
    kinds = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: word}
    columns = [("point", pa.int32()), ("training", word), ("engine", word), ("seed", pa.int64())]
    columns += [(name, kinds[KEYS[name].kind]) for name in plan.spec.axes]
    columns += [("iteration", pa.int64()), ("metric", word), ("value", pa.float64())]
    return pa.schema(columns)


def _chunks(blocks):
    held, rows = [], 0
    for block in blocks:
        held.append(block)
        rows += len(block[1])
        if rows >= ROWS:
            yield held
            held, rows = [], 0
    if held:
        yield held


def _table(blocks, schema):
    import pyarrow as pa

    lengths = np.array([len(names) for _, names, _, _ in blocks])
    columns = []
    for field in schema:
        if field.name in ("iteration", "metric", "value"):
            part = {"metric": 1, "iteration": 2, "value": 3}[field.name]
            column = pa.array([item for block in blocks for item in block[part]])
        else:
            column = pa.array([head[field.name] for head, *_ in blocks]).take(
                pa.array(np.repeat(np.arange(len(blocks)), lengths))
            )
        words = pa.types.is_dictionary(field.type)
        columns.append(column.dictionary_encode() if words else column.cast(field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _check_ours(folder: Path) -> None:
    """Refuse a folder of something else; specs may lie there, and what a sweep that was killed early has left."""
    if not folder.is_dir() or (folder / "sweep.json").exists():
        return
    others = _foreign(folder)
    if "batches" in others and not [name for name in _foreign(folder / "batches") if not BATCH.fullmatch(name)]:
        others = sorted(set(others) - PARTS)
    if others:
        named = ", ".join(others[:3]) + (" ..." if len(others) > 3 else "")
        raise store.CheckpointError(f"{folder}: is not the folder of a sweep, it holds {named}; choose a new one")


def _foreign(folder: Path) -> list[str]:
    """Names of what is neither a spec nor a lock or a temporary that a killed process left."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix != ".toml")
    return [name for name in names if name != ".lock" and not store.TEMPORARY.fullmatch(name)]


def _name(keys) -> str:  # as `Batch.name`
    return hashlib.sha256("".join(keys).encode()).hexdigest()[:20]


def _read(path: Path) -> dict[str, np.ndarray]:
    """A batch's arrays; CheckpointError where they are not what was written."""
    arrays = store.load_npz(path)
    digest = arrays.pop("digest", None)
    if digest is None or "keys" not in arrays or str(digest) != store.digest_of(arrays):
        raise store.CheckpointError(f"{path}: damaged, its content is not what was written")
    if path.stem != _name(arrays["keys"].tolist()):
        raise store.CheckpointError(f"{path}: its name belongs to other results than it holds")
    return arrays
