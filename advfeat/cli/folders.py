"""What `list` and `show` know of a folder: which kind it is, how far it is, and how its configuration differs."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from ..core import store
from ..experiments.configuration import Figure3Config
from ..experiments.image_configuration import ImageConfig
from ..experiments.representatives_configuration import KIND, RepresentativesConfig
from ..training.configuration import TrainConfig
from ..training.run_folder import read_checkpoint

MARKS = ("sweep.json", "config.json", "checkpoint.npz")  # a folder with one of these is a sweep's or a run's


@dataclass
class Folder:
    """`kind` is "reproduce", "images", "training", "representatives" or "sweep"; `done` maps a training, or "networks"
    of an experiment, or "sweep", to how much of `total` there is; `differences` are the keys of `config` that have not
    their defaults, `axes` those swept.
    """

    path: Path
    kind: str
    config: dict
    environment: dict
    differences: dict
    done: dict[str, int]
    total: int
    finished: bool
    axes: dict = field(default_factory=dict)

    @property
    def state(self) -> str:
        if self.finished:
            return "finished"
        unit = {"sweep": "results", KIND: "trained"}.get(self.kind, "iterations")
        return ", ".join(f"{name}: {n:,} of {self.total:,} {unit}" for name, n in self.done.items())

    def as_dict(self) -> dict:
        return {name: value for name, value in vars(self).items() if name not in ("config", "environment")}


def search(top) -> list[Path]:
    """Folders of runs and sweeps at or below `top`, in the order of their names; none inside of another."""
    if not Path(top).is_dir():
        raise FileNotFoundError(f"{top}: there is no such folder")
    found = []
    for path, folders, files in os.walk(top):
        if set(MARKS) & set(files):
            found.append(Path(path))
            folders.clear()
        folders.sort()
    return found


def read(path) -> Folder:
    """Raises FileNotFoundError for what is no run's or sweep's folder, CheckpointError or ValueError for a damaged
    one."""
    path = Path(path)
    if (path / "sweep.json").exists():
        return _sweep(path, store.load_json(path / "sweep.json"))
    if not (path / "config.json").exists():
        raise FileNotFoundError(f"{path}: not a run's or a sweep's folder, it has neither config.json nor sweep.json")
    about = store.load_json(path / "config.json")
    if about.get("kind") == KIND:
        return _experiment(path, about)
    try:
        word = about.get("kind", "reproduce" if "trainings" in about else "training")
        kind = {"reproduce": Figure3Config, "images": ImageConfig, "training": TrainConfig}[word]
        config = kind.from_dict(about["config"]).as_dict()
        places = {"run": path} if kind is TrainConfig else {name: path / name for name in about["trainings"]}
        environment = dict(about["environment"])
    except (KeyError, TypeError, ValueError) as error:
        raise store.CheckpointError(f"{path / 'config.json'}: not of a run ({error})") from None
    files = {name: place / "checkpoint.npz" for name, place in places.items()}
    held = {name: read_checkpoint(file) for name, file in files.items() if file.exists()}
    done = {name: held[name].iteration if name in held else 0 for name in files}
    total = config["n_iter"] if kind is not ImageConfig else max(
        (one.identity["config"]["n_iter"] for one in held.values()), default=0)  # fmt: skip
    finished = all(file.exists() and done[name] == total for name, file in files.items())
    return Folder(path, word, config, environment, _differences(kind, config), done, total, finished)


def _experiment(path, about) -> Folder:
    from ..experiments.representatives import load  # takes half a second, which other commands need not wait for

    try:
        experiment, environment = load(path), dict(about["environment"])
    except (KeyError, TypeError, ValueError) as error:
        raise store.CheckpointError(f"{path / 'config.json'}: not of an experiment ({error})") from None
    config, networks = experiment.config.as_dict(), experiment.networks
    done = {"networks": sum((experiment.folder(one) / "result.json").exists() for one in networks)}
    finished = (path / "table.json").exists()
    return Folder(path, KIND, config, environment, _differences(RepresentativesConfig, config), done, len(networks),
                  finished)  # fmt: skip


def _sweep(path, about) -> Folder:
    from ..sweeps.catalogue import DIGEST, TABLE

    try:
        spec, left_out = about["spec"], len(about["skipped"])
        total = (about["points"] - left_out) * spec["base"]["n_seeds"] * len(spec["training"])
        differences, environment, axes = _differences(Figure3Config, spec["base"]), about["environment"], spec["axes"]
    except (KeyError, TypeError, AttributeError) as error:
        raise store.CheckpointError(f"{path / 'sweep.json'}: not of a sweep ({error})") from None
    finished = (path / TABLE).exists() and about.get(DIGEST, "") is not None
    kept = [] if finished else [store.load_npz(file)["keys"] for file in (path / "batches").glob("*.npz")]
    done = {"sweep": total if finished else sum(map(len, kept))}
    return Folder(path, "sweep", spec, environment, differences, done, total, finished, axes)


def _differences(kind, config: dict) -> dict:
    defaults = {name: list(one.default) if one.many else one.default for name, one in kind.keys().items()}
    return {name: value for name, value in config.items() if name not in defaults or value != defaults[name]}


def axis(held: dict) -> str:
    """An axis as sweep.json holds it, in a few words."""
    values = held.get("values")
    if values is None:
        return f"{held['low']:g}..{held['high']:g}"
    return "{" + ",".join(str(value) for value in values[:4]) + (f",...{len(values)}" if len(values) > 4 else "") + "}"
