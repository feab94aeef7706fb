"""The paper's experiment on real images (Sec. 6.2): trainings, representatives and feature learning accuracy, each a
stage that is done once, in one folder.

S standard and S adversarial networks are references and learners; each has a kin, with its initial weights and another
order of batches; another architecture and an untrained network stand beside them.  Feature learning accuracy comes
from the weights that trainings have stored, so that other representatives cost no training.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core import checks, store
from ..core.lock import Lock
from ..core.progress import Progress, Stopwatch
from ..images import exchange
from ..images.representatives import Representatives, Sources, heading, rebuilt, represent
from . import images
from .feature_attacks import Attacked, attacked, attacked_images
from .feature_learning import Answers, Evidence, NetworkKey, SetKey
from .forecast import affordable
from .image_configuration import ImageConfig
from .representatives_configuration import (
    ARMS,
    FREE,
    KIND,
    LEARNERS,
    OF_REPRESENTATIVES,
    RepresentativesConfig,
    class_pairs,
)
from .stages import alone, check_workers, spread

UNTRAINED = 500  # added to the first seed: of the network that nothing was trained on, and no other begins with


@dataclass(frozen=True)
class Experiment:
    """What is trained, represented and asked, in a folder."""

    config: RepresentativesConfig
    path: Path

    # -------------------------------------------------------------- what there is
    @property
    def networks(self) -> list[NetworkKey]:
        """All that are trained: own ones, and the other learners."""
        kinds = ["own", *[kind for kind in LEARNERS if kind in self.config.learners]]
        return [NetworkKey(arm, seed, kind) for kind in kinds for seed in self.config.seeds for arm in ARMS]

    @property
    def attackers(self) -> list[NetworkKey]:
        """References of Table 2: all own networks, and adversarial ones of other radii."""
        own = [one for one in self.networks if one.kind == "own"]
        return own + [NetworkKey("adversarial", seed, f"eps-{radius!r}") for radius in self.config.reference_eps
                      for seed in self.config.seeds]  # fmt: skip

    @property
    def untrained(self) -> NetworkKey:
        return NetworkKey("untrained", self.config.seed + UNTRAINED)

    @property
    def sets(self) -> list[SetKey]:
        """Every own network's representatives from every start; and, from the first start, as controls those of an
        untrained reference and of the other architecture, and training images instead of test images."""
        c, first = self.config, self.config.starts[0]
        own = [one for one in self.networks if one.kind == "own"]
        controls = [SetKey(self.untrained, first)]
        controls += [SetKey(NetworkKey("standard", c.seed, "other"), first)] * ("other" in c.learners)
        controls += [SetKey(NetworkKey(arm, c.seed), first, "train") for arm in ARMS]
        return [SetKey(one, start) for start in c.starts for one in own] + controls

    def training(self, one: NetworkKey) -> ImageConfig:
        return self.config.of_training(one.arm, one.seed, one.kind)

    def folder(self, one: NetworkKey) -> Path:
        return self.path / "networks" / one.name

    def net(self, one: NetworkKey):
        """The network as a reference."""
        if one.arm == "untrained":
            return self.config.of_training("standard", one.seed).untrained()
        return images.load(self.folder(one)).nets[self.config.reference]

    # -------------------------------------------------------------- stages
    def train(self, one: NetworkKey, progress=None) -> None:
        if not self.is_trained(one):
            images.run(self.training(one), self.folder(one), progress=progress)

    def is_trained(self, one: NetworkKey) -> bool:
        folder = self.folder(one)
        return (folder / "result.json").exists() and images.load(folder).config == self.training(one)

    def represent(self, one: SetKey, selection: Sources, progress=None) -> Representatives:
        """The set from its file, or made now, start by start."""
        path, about = self.path / "representatives" / one.name, {"network": one.reference.name}
        store.make_folder(path.parent)
        return _kept(path, self.net(one.reference), selection, self.config.inversion,
                     about | self.config.about(one.start, one.part), progress)  # fmt: skip

    def ask(self, one: NetworkKey, sets, sources: dict[str, Sources]) -> Answers:
        """The learner's answers at all its record points, from its file or computed now."""
        file = self.path / "answers" / f"{one.name}.npz"
        run = None if one.arm == "untrained" else images.load(self.folder(one))
        clock = [0] if run is None else run.history.at("validation_accuracy").iteration.tolist()
        last = self.net(one) if run is None else run.nets["last"]
        head = {"network": one.name, "weights": last.fingerprint(), "clock": clock}
        head |= {"sets": {name: store.digest(held.X) for name, (_, held) in sets.items()},
                "images": {part: store.digest(held.X) for part, held in sources.items()}}  # fmt: skip
        if file.exists():
            about, arrays = store.load_state(file)
            if about["asked"] == head:
                return self._answers(one, about, arrays)
        asked = {f"set/{name}": held.X for name, (_, held) in sets.items()}
        asked |= {f"images/{part}": held.X for part, held in sources.items()}
        guesses = {name: [] for name in asked}
        for iteration in clock:
            net = last if run is None else exchange.load(self.folder(one) / "weights" / f"{iteration}.npz")
            for name, X in asked.items():
                guesses[name].append(net.logits(X).argmax(axis=1).astype(np.uint8))
        arrays = {name: np.stack(held) for name, held in guesses.items()} | {"iteration": np.array(clock)}
        chosen = {name: clock.index(0 if run is None else run.iterations[name]) for name in ("best", "last")}
        about = {"asked": head, **chosen}
        store.make_folder(file.parent)
        store.save_state(file, about, arrays)
        return self._answers(one, about, arrays)

    @staticmethod
    def _answers(one: NetworkKey, about: dict, arrays: dict) -> Answers:
        parts = ({name.removeprefix(f"{kind}/"): a for name, a in arrays.items() if name.startswith(f"{kind}/")}
                 for kind in ("set", "images"))  # fmt: skip
        return Answers(one, arrays["iteration"], *parts, about["best"], about["last"])

    # -------------------------------------------------------------- all of it
    def run(self, progress: Progress | None = None, force: bool = False, jobs: int | None = 1,
            scheduler: str = "loky") -> Evidence:  # fmt: skip
        """Every stage that is not done yet; progress(what, share of it) is called now and then.  `jobs`, `scheduler`:
        who does them, as of :func:`advfeat.experiments.stages.spread`; what comes out does not hang on it."""
        tell, jobs = progress or (lambda what, share: None), self._check(jobs, scheduler)
        with Lock(store.make_folder(self.path)):
            self._claim(force)
            for part in ("test", "train"):
                self.config.selection(self.config.starts[0], part)
            self._train(self.networks, tell, jobs, scheduler)
            self._represent(tell, jobs, scheduler)
            return self._evidence(tell)

    def attack(self, progress: Progress | None = None, force: bool = False, jobs: int | None = 1,
               scheduler: str = "loky") -> list[Attacked]:  # fmt: skip
        """Table 2's attacks by every reference on all networks that are trained, own ones in any case."""
        tell, jobs = progress or (lambda what, share: None), self._check(jobs, scheduler)
        with Lock(store.make_folder(self.path)):
            self._claim(force)
            own = [one for one in self.networks if one.kind == "own"]
            wanted = list(dict.fromkeys([*own, *self.attackers]))
            self._train(wanted, tell, jobs, scheduler)
            return self._attacks(tell)

    def _check(self, jobs: int | None, scheduler: str) -> int | None:
        """Errors for data and workers that do not fit, before anything is written; so many jobs as memory allows."""
        self.config.samples()
        attacked_images(self.config.test_samples(), class_pairs(self.config.dataset, self.config.pairs))
        check_workers(jobs, scheduler)
        return affordable(self.training(NetworkKey("adversarial", self.config.seed)), jobs, scheduler)

    def attacks(self, tell=lambda what, share: None) -> list[Attacked]:
        """Table 2's attacks by the references that are trained; [] where own networks are not."""
        with Lock(self.path):
            return self._attacks(tell)

    def _attacks(self, tell) -> list[Attacked]:
        there, others = ([one for one in networks if (self.folder(one) / "result.json").exists()]
                         for networks in (self.networks, self.attackers))  # fmt: skip
        if any(one.kind == "own" and one not in there for one in self.networks):
            return []
        return [attacked(self, one, there, tell) for one in others]

    def _train(self, networks: list[NetworkKey], tell, jobs: int | None, scheduler: str) -> None:
        if alone(jobs, scheduler):
            for one in networks:
                self.train(one, Stopwatch(tell).part(0, 1, f"training {one.name}"))
            return
        left = sorted((one for one in networks if not self.is_trained(one)), key=lambda one: one.arm)  # long ones first
        for done in spread(self.train, left, jobs, scheduler):
            tell(f"{len(left)} trainings", done / len(left))

    def _represent(self, tell, jobs: int | None, scheduler: str) -> None:
        """All sets by workers; in this process they are made where they are needed."""
        left = [one for one in self.sets if not (self.path / "representatives" / f"{one.name}.npz").exists()]
        left.sort(key=lambda one: (one.reference.arm, one.start != "noise"))  # long ones first
        for done in spread(self.represented, left, jobs, scheduler) if not alone(jobs, scheduler) else ():
            tell(f"{len(left)} sets of representatives", done / len(left))

    def represented(self, one: SetKey) -> None:
        self.represent(one, self.config.selection(one.start, one.part))

    def evidence(self, tell=lambda what, share: None) -> Evidence:
        """What learners answer on representatives; FileNotFoundError where a training is not done."""
        with Lock(self.path):
            return self._evidence(tell)

    def _evidence(self, tell) -> Evidence:
        for one in self.networks:
            if not (self.folder(one) / "result.json").exists():
                raise FileNotFoundError(f"{self.folder(one)}: is not trained yet, `advfeat images reproduce` goes on")
        pairs = sorted({(one.start, one.part) for one in self.sets})
        selections = {pair: self.config.selection(*pair) for pair in pairs}
        sets = {}
        for one in self.sets:
            report = Stopwatch(tell).part(0, 1, f"representatives {one.name}")
            sets[one.name] = one, self.represent(one, selections[one.start, one.part], report)
        sources = {part: selections[start, part] for start, part in reversed(pairs)}
        answers = []
        for one in [*self.networks, self.untrained]:
            tell(f"answers of {one.name}", 0.0)
            answers.append(self.ask(one, sets, sources))
        return Evidence(answers, sets, self.config.bootstrap, self.config.seed, self.config.reference)

    def _claim(self, force: bool) -> None:
        about, known = self.path / "config.json", {"config": self.config.as_dict(), "kind": KIND}
        changed = []
        if about.exists():
            held = store.load_json(about)
            if held.get("kind") != KIND:
                raise store.CheckpointError(f"{self.path}: holds a run of another kind, nothing was changed")
            changed = self.config.changes(held["config"])
            bound = [line for line in changed if line.partition(" ")[0] not in FREE]
            if bound and not force:
                what = ", ".join(bound)
                raise store.CheckpointError(f"{self.path}: holds another experiment, nothing was changed; {what}")
            if force:  # other representatives cost no training
                others = {line.partition(" ")[0] for line in bound} - set(OF_REPRESENTATIVES)
                for name in ("representatives", "answers", *["networks", "attacks"] * (not bound or bool(others))):
                    shutil.rmtree(self.path / name, ignore_errors=True)
        elif {path.name for path in self.path.iterdir()} - {".lock"}:
            raise store.CheckpointError(f"{self.path}: not empty and no experiment's folder, nothing was changed")
        if not about.exists() or force or changed:
            store.save_json(about, {"environment": store.environment(), **known})


def load(out) -> Experiment:
    """The experiment of a folder of `advfeat images reproduce`."""
    out = Path(out)
    about = store.load_json(out / "config.json") if (out / "config.json").is_file() else {}
    if about.get("kind") != KIND:
        raise FileNotFoundError(f"{out}: not a folder of `advfeat images reproduce`")
    return Experiment(RepresentativesConfig.from_dict(about["config"]), out)


# ------------------------------------------------------------------ one reference alone
def invert_run(run: images.ImageRun, name: str, config: RepresentativesConfig, start: str, out, *, part: str = "test",
               force: bool = False, progress=None) -> Representatives:  # fmt: skip
    """Representatives of a training's network `name` ("best" or "last"), from one start, into the folder `out`: the set
    with its datasheet, and the network.  `config` says which images and how; its data are the training's."""
    out, net = store.make_folder(out), run.nets[checks.choice("network", name, images.CHECKPOINTS)]
    about = {"network": name, "iteration": run.iterations[name]} | config.about(start, part)
    with Lock(out):
        found = _kept(out / "representatives", net, config.selection(start, part), config.inversion, about, progress,
                      force)  # fmt: skip
        exchange.save(net, out / "network.npz")
    return found


def _kept(path: Path, net, selection, options, about, progress=None, force: bool = False) -> Representatives:
    """Representatives from the file `path`, or made now, with their parts kept beside it until all are done."""
    parts = path.with_name(f"{path.name}-parts")
    if path.with_suffix(".npz").exists() and not force:
        found = Representatives.load(path)
        if not found.is_of(heading(net, selection, options, about)):
            raise store.CheckpointError(f"{path}.npz: holds other representatives, nothing was changed")
        shutil.rmtree(parts, ignore_errors=True)  # of a process that was killed between the two
        return found
    if force:
        shutil.rmtree(parts, ignore_errors=True)
    with Lock(store.make_folder(parts)):
        found = represent(net, selection, options, about, parts=parts, progress=progress)
        found.save(path)
    shutil.rmtree(parts, ignore_errors=True)
    return found


def rebuild(folder, data=None, progress=None) -> tuple[Representatives, list[str]]:
    """The representatives of a folder of `invert_run` built anew from their datasheet and the network beside it, and
    what is not as the datasheet says; `data` is the folder of the image set's files, where they are in no usual place.
    CheckpointError for a datasheet of something else."""
    sheet = store.load_json(Path(folder) / "representatives.json")
    try:
        config = RepresentativesConfig(**sheet["selection"], folder=data)
        selection, net = config.selection(sheet["start"], sheet["part"]), exchange.load(Path(folder) / "network.npz")
        return rebuilt(sheet, net, selection, progress)
    except (KeyError, TypeError, AttributeError) as error:
        raise store.CheckpointError(f"{folder}: its datasheet is of something else ({error})") from None
