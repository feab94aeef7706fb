"""Run folders: what a training leaves behind, how it is continued, and what comes back as networks and histories.

``config.json`` says what was trained, with versions; ``checkpoint.npz`` is the state after an iteration, the same size
however long the training is; ``records.bin`` grows by what was recorded between two checkpoints; ``history.npz`` is
the whole history in one piece, written at the end or when a training stops.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..core import checks, store
from ..core.lock import Lock
from ..core.model import Model
from ..core.records import record
from ..core.types import Array, Float64Array, JsonDict
from ..patches.network import PatchCNN
from .configuration import TrainConfig
from .recorder import History, Recorder

LENGTH = 8  # bytes that say how long a block of records is
START = hashlib.sha256(b"advfeat records").hexdigest()  # of the chain of digests
PARTS = {"start": "its initial network differs", "data": "its data differ", "clocks": "it was recorded by other clocks"}


@dataclass
class Checkpoint:
    """The state of a training after `iteration`, whatever the model: `arrays` and `options` make it again.

    `records` are the bytes of records.bin that belong to it, and the last of their chain of digests.
    """

    iteration: int
    kind: str
    arrays: dict[str, Array]
    options: JsonDict
    identity: JsonDict
    optimiser: dict[str, Array] = field(default_factory=dict)
    diverged_at: Float64Array | None = None
    records: tuple[int, str] = (0, START)
    history: History | None = None  # version 0.1.0 keeps it here

    def model(self, kinds: dict[str, type[Model]] | None = None) -> Model:
        """The model, of a kind that advfeat brings or of `kinds`; ValueError for any other."""
        from ..images.network import Network  # takes 10 ms, which who trains no images need not wait for

        kinds = {one.kind: one for one in (PatchCNN, Network)} | (kinds or {})
        if self.kind not in kinds:
            raise ValueError(f"holds a model of kind {self.kind!r}; its class must be given, kinds = {{kind: class}}")
        return kinds[self.kind].from_arrays(self.arrays, **self.options)


class RunFolder:
    """The folder of one training, which nobody else writes in while this context lasts."""

    def __init__(self, path, identity: dict):
        self.path = store.make_folder(path)
        self.checkpoint, self.identity = self.path / "checkpoint.npz", identity
        self._records = 0, START
        self._lock = Lock(self.path)

    def __enter__(self) -> RunFolder:
        self._lock.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._lock.__exit__(*error)

    def open(self) -> Checkpoint | None:
        """The checkpoint of this very training, or None where the folder is new; CheckpointError for any other."""
        if self.checkpoint.exists():
            held = read_checkpoint(self.checkpoint)
            self._compare(held.identity)
            self._records = held.records
            return held
        about = self.path / "config.json"
        if about.exists():
            self._compare({"config": store.load_json(about).get("config")})
        store.save_json(about, {"config": self.identity["config"], "environment": store.environment()})
        return None

    def _compare(self, held: dict):
        if not isinstance(held.get("config"), dict):
            raise store.CheckpointError(f"{self.path}: its configuration is missing, nothing was changed")
        what = TrainConfig.from_dict(self.identity["config"]).changes(held["config"])
        what += [said for part, said in PARTS.items() if part in held and held[part] != self.identity[part]]
        if what:
            raise store.CheckpointError(f"{self.path}: holds another run, nothing was changed; {', '.join(what)}")

    def records(self) -> list[dict[str, np.ndarray]]:
        """The blocks that belong to the checkpoint, verified."""
        return read_records(self.path / "records.bin", *self._records)

    def save(self, iteration: int, net: Model, optimiser, recorder: Recorder, diverged_at) -> None:
        """Write a checkpoint; it costs the same however long the history is."""
        new = recorder.unsaved()
        if new:
            self._records = append_records(self.path / "records.bin", *self._records, new)
        size, chain = self._records
        head = {"kind": net.kind, "options": net.options, "identity": self.identity, "iteration": iteration}
        head |= {"records": {"bytes": size, "digest": chain}}
        arrays = {f"model/{name}": a for name, a in net.arrays().items()} | {"diverged_at": diverged_at}
        arrays |= {f"optimiser/{name}": a for name, a in optimiser.arrays().items()}
        store.save_state(self.checkpoint, head, arrays)

    def save_history(self, history: History) -> None:
        store.save_npz(self.path / "history.npz", **history.arrays())


# ------------------------------------------------------------------ records, piece by piece
def append_records(path, size: int, chain: str, arrays: dict) -> tuple[int, str]:
    """Write a block behind the first `size` bytes; what a killed process left there goes.  Returns the new end."""
    held = io.BytesIO()
    np.savez(held, **arrays)
    block = held.getvalue()
    try:
        with open(path, "r+b" if Path(path).exists() else "x+b") as file:
            file.truncate(size)
            file.seek(size)
            file.write(len(block).to_bytes(LENGTH, "little") + block)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise store.not_written(path, error) from None
    if size == 0:
        store.sync_folder(Path(path).parent)
    return size + LENGTH + len(block), _link(chain, block)


def read_records(path, size: int, chain: str) -> list[dict[str, np.ndarray]]:
    """The blocks in the first `size` bytes; CheckpointError where they are not those that end in `chain`."""
    if size == 0:
        return []
    try:
        with store.opened(path) as file:
            held = file.read(size)
    except FileNotFoundError as error:
        raise store.CheckpointError(str(error)) from None
    blocks, at, found = [], 0, START
    while at < len(held):
        end = at + LENGTH + int.from_bytes(held[at : at + LENGTH], "little")
        blocks.append(held[at + LENGTH : end])
        found, at = _link(found, blocks[-1]), end
    if at != size or found != chain:
        raise store.CheckpointError(f"{path}: damaged, it is not what the checkpoint belongs to")
    arrays = []
    for block in blocks:
        with np.load(io.BytesIO(block), allow_pickle=False) as file:
            arrays.append({name: file[name] for name in file.files})
    return arrays


def _history(blocks: list[dict]) -> History:
    recorder = Recorder((), 0)
    for block in blocks:
        recorder.extend(block)
    return recorder.history()


def _link(chain: str, block: bytes) -> str:
    return hashlib.sha256(chain.encode() + block).hexdigest()


# ------------------------------------------------------------------ reading
def read_checkpoint(path) -> Checkpoint:
    """A checkpoint of this or of version 0.1.0; CheckpointError, naming the file, for anything else."""
    arrays = store.load_npz(path)
    try:
        held = _first_format(arrays) if "identity" in arrays else _checkpoint(*store.state_of(path, arrays))
        last = held.identity["config"]["n_iter"]
        if not 0 <= held.iteration <= last:
            raise ValueError(f"iteration = {held.iteration}: must be in 0..{last}")
        if held.history is not None:
            _check_first_history(held, TrainConfig.from_dict(held.identity["config"]))
        return held
    except store.CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise store.CheckpointError(f"{path}: not a checkpoint of advfeat ({error})") from None


def _checkpoint(head: dict, arrays: dict) -> Checkpoint:
    def part(name):
        return {key.removeprefix(name): a for key, a in arrays.items() if key.startswith(name)}

    records = head["records"]["bytes"], head["records"]["digest"]
    return Checkpoint(
        head["iteration"], head["kind"], part("model/"), head["options"], head["identity"], part("optimiser/"),
        arrays["diverged_at"], records,
    )  # fmt: skip


def _first_format(arrays: dict) -> Checkpoint:
    """Of version 0.1.0: the whole history lies in the checkpoint, and the engine's name in the identity."""
    identity = json.loads(str(arrays["identity"]))
    if identity.pop("format") != "advfeat-1":
        raise ValueError("its format is not advfeat-1")
    history = {name.removeprefix("history/"): a for name, a in arrays.items() if name.startswith("history/")}
    model = {name: arrays[name] for name in ("W", "q", "rho")}
    options = {"backend": identity["start"].rsplit(" ", 1)[-1]}
    iteration = arrays["iteration"]
    if iteration.shape != () or iteration.dtype.kind not in "iu":
        raise ValueError(f"iteration = {iteration!r}: must be one integer")
    return Checkpoint(int(iteration), PatchCNN.kind, model, options, identity, history=History.from_arrays(history))


def _check_first_history(held: Checkpoint, config: TrainConfig):
    """Whether the first format's history, which has no digest, ends where its checkpoint says."""
    expected = [*range(0, held.iteration + 1, config.record_points)]
    if held.iteration == config.n_iter and expected[-1] != config.n_iter:
        expected.append(config.n_iter)
    if held.history["iteration"].tolist() != expected:
        raise ValueError(f"its history is not that of a training at iteration {held.iteration}")
    runs = held.arrays["W"].shape[:-3]
    if held.history["loss"].shape[1:] != runs:
        raise ValueError(f"its history is not that of weights of shape {held.arrays['W'].shape}")


@record
class Run:
    """A run folder in memory: configuration, environment, and per training its network and history.

    A folder of one training (`train(..., run_dir=...)`) has the one name "run"; one of `advfeat reproduce` has
    "standard" and "adversarial".
    """

    path: Path
    config: JsonDict
    environment: JsonDict
    nets: dict[str, Model]
    histories: dict[str, History]

    @property
    def net(self) -> Model:
        return self._only(self.nets)

    @property
    def history(self) -> History:
        return self._only(self.histories)

    def _only(self, table):
        if len(table) != 1:
            raise ValueError(f"{self.path}: holds the trainings {sorted(table)}; choose one of them")
        return next(iter(table.values()))


def load(run_folder: str | Path, kinds: dict[str, type[Model]] | None = None) -> Run:
    """Read a run folder; its networks may be those of an unfinished run (see history["iteration"]).

    `kinds` are classes of models that advfeat does not know, by their `kind`.  Raises FileNotFoundError or
    CheckpointError, naming the file.
    """
    path = checks.path("run_folder", run_folder)
    if kinds is not None:
        checks.instance("kinds", kinds, dict, "a dictionary of models by their kinds")
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"{path}: not a run folder, it has no config.json")
    about = store.load_json(path / "config.json")
    arms = about.get("trainings", ["run"])
    fine = isinstance(about.get("config"), dict) and isinstance(about.get("environment"), dict)
    if not fine or not isinstance(arms, list) or not all(arm in ("run", "standard", "adversarial") for arm in arms):
        raise store.CheckpointError(f"{path / 'config.json'}: not of a run, its parts are missing or of another kind")
    nets, histories = {}, {}
    for arm in arms:
        place = path if arm == "run" else path / arm
        held = read_checkpoint(place / "checkpoint.npz")
        try:
            nets[arm] = held.model(kinds)
            histories[arm] = held.history or _history(read_records(place / "records.bin", *held.records))
        except store.CheckpointError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise store.CheckpointError(f"{place / 'checkpoint.npz'}: {error}") from None
    return Run(path, about["config"], about["environment"], nets, histories)
