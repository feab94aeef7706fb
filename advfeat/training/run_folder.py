"""Run folders: the checkpoint of a training, and what a folder holds, as networks and histories."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core import store
from ..patches.network import PatchCNN

FORMAT = "advfeat-1"  # of checkpoints


@dataclass
class Checkpoint:
    """What a run folder keeps of a training; `iteration` may lie behind the last record."""

    iteration: int
    net: PatchCNN
    history: dict[str, np.ndarray]
    identity: dict


def read_checkpoint(path, backend: str = "numba") -> Checkpoint:
    held = store.load_npz(path)
    try:
        identity = json.loads(str(held["identity"]))
        if identity["format"] != FORMAT:
            raise KeyError("format")
        history = {name.removeprefix("history/"): a for name, a in held.items() if name.startswith("history/")}
        net = PatchCNN(held["W"], int(held["q"]), float(held["rho"]), backend)
        return Checkpoint(int(held["iteration"]), net, history, identity)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise store.CheckpointError(f"{path}: not a checkpoint of advfeat ({error})") from None


@dataclass(frozen=True)
class Run:
    """A run folder in memory: configuration, environment, and per training its network and history.

    A folder of one training (`train(..., run_dir=...)`) has the one name "run"; one of `advfeat reproduce` has
    "standard" and "adversarial".
    """

    path: Path
    config: dict
    environment: dict
    nets: dict
    histories: dict[str, dict[str, np.ndarray]]

    @property
    def net(self):
        return self._only(self.nets)

    @property
    def history(self):
        return self._only(self.histories)

    def _only(self, table):
        if len(table) != 1:
            raise ValueError(f"{self.path}: holds the trainings {sorted(table)}; choose one of them")
        return next(iter(table.values()))


def load(run_folder) -> Run:
    """Read a run folder; its networks may be those of an unfinished run (see history["iteration"]).

    Raises FileNotFoundError or CheckpointError, naming the file.
    """
    path = Path(run_folder)
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"{path}: not a run folder, it has no config.json")
    config = store.load_json(path / "config.json")
    arms = config.get("trainings", ["run"])
    places = {arm: path if arm == "run" else path / arm for arm in arms}
    backend = config["config"].get("backend", "numba")
    states = {arm: read_checkpoint(place / "checkpoint.npz", backend) for arm, place in places.items()}
    return Run(
        path,
        config["config"],
        config["environment"],
        {arm: state.net for arm, state in states.items()},
        {arm: state.history for arm, state in states.items()},
    )
