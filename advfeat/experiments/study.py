"""What carries the paper's order on real images: by how much more of D_NR than of D_R a standard learner has learned,
over who it is to the references, over how representatives were found, and over the trainings.

A study is a file: the base configuration, a *cross* of kinship, start and steps, of which the steps are read from one
descent, and *factors*, each a key of the configuration with values that stand for the base's one at a time.  Each of
its cells ends as a small file of results, from which tables and pictures are made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy import special

from ..core import checks, store
from ..core.config import parse_pair
from ..core.lock import Lock
from ..core.progress import Progress, Stopwatch
from ..images.inversion import readings
from ..images.representatives import STARTS, Representatives, Sources, heading, represent, with_gate
from . import images
from .feature_learning import COVERAGE, NetworkKey, Share, mean_over_pairs
from .forecast import affordable
from .image_configuration import ImageConfig
from .representatives_configuration import ARMS, RepresentativesConfig
from .stages import alone, check_workers, spread

#: Who a learner is to both references of a seed: the standard reference itself; with its initial weights and another
#: order of batches, from the start, the second half or the second epoch on; with other initial weights.
KINSHIP = {"itself": "own", "kin-epoch": "kin-epoch", "kin-half": "kin-half", "kin": "kin", "stranger": "own"}
OF_FACTORS = ("itself", "kin", "stranger")
PART = "part"  # the factor that is no key: which images are represented
FIXED = ("seed", "n_seeds", "starts", "order_seed", "order_from", "folder", "bootstrap", "learners")  # no factors
INDIFFERENT = ("folder", "starts", "learners")  # keys on which no cell hangs


@dataclass(frozen=True)
class Recipe:
    """How representatives of all references are found: a configuration, a start, the part of the images, and for a
    cell of the cross the steps at which one descent is read."""

    factor: str
    value: object
    config: RepresentativesConfig
    start: str
    part: str = "test"
    steps: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return f"cross-{self.start}" if self.steps else self.factor + f"-{self.value}" * (self.value is not None)


@dataclass(frozen=True)
class Cell:
    """One number of the study: the difference for one kind of learner, by one recipe, read after so many steps."""

    recipe: Recipe
    kinship: str
    steps: int | None = None

    @property
    def name(self) -> str:
        return f"{self.recipe.name}-{self.kinship}" + f"-{self.steps}" * (self.steps is not None)


@dataclass(frozen=True)
class StudyPlan:
    """A study as its file has it."""

    base: RepresentativesConfig
    kinship: tuple[str, ...]
    starts: tuple[str, ...]
    steps: tuple[int, ...]
    factors: dict[str, list]

    @classmethod
    def read(cls, path, pairs=()) -> StudyPlan:
        """Of a TOML file with the tables base, cross and factors; `pairs` change the base.  ValueError for what is no
        study, naming it."""
        held = store.read_toml(path)
        unknown = sorted(held.keys() - {"base", "cross", "factors"})
        if unknown or "base" not in held:
            what = f"{unknown[0]!r} is unknown" if unknown else "'base' is missing"
            raise ValueError(f"{path}: the tables of a study must be base, cross and factors, and {what}")
        for name in held:
            checks.instance(name, held[name], dict, "a table")
        base = RepresentativesConfig.from_dict(held["base"] | dict(parse_pair("--set", pair) for pair in pairs))
        cross, factors = held.get("cross", {}), held.get("factors", {})
        for name, values in cross.items():
            checks.choice("cross", name, ("kinship", "starts", "steps"))
            checks.instance(name, values, list, "a list")
        kinship = tuple(checks.choice("kinship", one, KINSHIP) for one in cross.get("kinship", OF_FACTORS))
        starts = tuple(checks.choice("starts", one, STARTS) for one in cross.get("starts", ()))
        steps = tuple(checks.integer("steps", one, 1, checks.MOST_STEPS) for one in cross.get("steps", (300,)))
        plan = cls(base, kinship, starts, steps, factors)
        if base.n_seeds < 2:
            raise ValueError(f"n_seeds = {base.n_seeds}: a study asks strangers, which need 2 at least")
        for name, values in factors.items():
            if name in FIXED:
                raise ValueError(f"factors: {name} is none, it says of all cells the same")
            if not isinstance(values, list) or not values:
                raise ValueError(f"factors: {name} = {values!r}: must be a list of values")
        list(plan.cells)  # refused before anything is trained
        return plan

    @property
    def recipes(self) -> Iterator[Recipe]:
        start = self.base.starts[0]
        once = replace(self.base, n_starts=1, inversion_steps=max(self.steps))
        for one in self.starts:
            yield Recipe("cross", None, once, one, steps=tuple(sorted(self.steps)))
        yield Recipe("default", None, self.base, start)
        for name, values in self.factors.items():
            for value in values:
                if name == PART:
                    yield Recipe(name, checks.choice(PART, value, ("test", "train")), self.base, start, value)
                else:
                    RepresentativesConfig.known(name)
                    yield Recipe(name, value, replace(self.base, **{name: value}), start)

    @property
    def cells(self) -> Iterator[Cell]:
        for recipe in self.recipes:
            for kinship in self.kinship if recipe.steps else OF_FACTORS:
                for steps in recipe.steps or (None,):
                    yield Cell(recipe, kinship, steps)


@dataclass(frozen=True)
class Study:
    """A plan, the folder in which it works, and the folder of its results."""

    plan: StudyPlan
    path: Path
    results: Path

    def run(self, progress: Progress | None = None, jobs: int | None = 1,
            scheduler: str = "loky") -> None:  # fmt: skip
        """Every cell that has no result yet; what is done is not done again.  `jobs`, `scheduler`: who trains and
        inverts, as of :func:`stages.spread`; results do not hang on it."""
        tell = progress or (lambda what, share: None)
        check_workers(jobs, scheduler)
        for recipe in self.plan.recipes:
            recipe.config.samples()
            recipe.config.selection(recipe.start, recipe.part)
        with Lock(store.make_folder(self.path)), Lock(store.make_folder(self.results)):
            for cell in self.plan.cells:
                if self.file(cell).exists() and self.result(cell) is None:
                    raise store.CheckpointError(f"{self.file(cell)}: is of another study, nothing was changed")
            for work in self.left(tell):
                if not alone(jobs, scheduler):
                    work.spread(tell, affordable(work.training(work.references[0]), jobs, scheduler), scheduler)
                for cell in work.cells:
                    store.save_json(self.file(cell), {"of": self.identity(cell), "found": work.of(cell)})

    def left(self, tell: Progress | None = None) -> list[RecipeWork]:
        """Recipes with cells that have no result yet."""
        cells = [cell for cell in self.plan.cells if self.result(cell) is None]
        of = {recipe: [cell for cell in cells if cell.recipe == recipe] for recipe in self.plan.recipes}
        return [RecipeWork(self, recipe, held, tell) for recipe, held in of.items() if held]

    def file(self, cell: Cell) -> Path:
        return self.results / f"{cell.name}.json"

    def identity(self, cell: Cell) -> str:
        """What tells a cell from every other: a digest of all that it hangs on."""
        recipe = cell.recipe
        config = {name: value for name, value in recipe.config.as_dict().items() if name not in INDIFFERENT}
        return store.digest_of_text({"config": config, "start": recipe.start, "part": recipe.part,
                                     "steps": [recipe.steps, cell.steps], "kinship": cell.kinship})  # fmt: skip

    def result(self, cell: Cell) -> dict | None:
        """What was found, or None where it was not measured yet, or is of another study."""
        if not self.file(cell).exists():
            return None
        held = store.load_json(self.file(cell))
        return held["found"] if held.get("of") == self.identity(cell) else None


class RecipeWork:
    """Networks and representatives of one recipe, made when they are asked for, and results of its cells."""

    def __init__(self, study: Study, recipe: Recipe, cells: list[Cell], tell=None):
        self.study, self.recipe, self.cells, self.config, self.tell = study, recipe, cells, recipe.config, tell

    @property
    def references(self) -> list[NetworkKey]:
        return [NetworkKey(arm, seed) for arm in reversed(ARMS) for seed in self.config.seeds]  # long trainings first

    @property
    def networks(self) -> list[NetworkKey]:
        """References, and the learners of the cells."""
        kinds = dict.fromkeys(KINSHIP[cell.kinship] for cell in self.cells)
        learners = [NetworkKey("standard", seed, kind) for kind in kinds for seed in self.config.seeds]
        return list(dict.fromkeys([*self.references, *learners]))

    def training(self, one: NetworkKey) -> ImageConfig:
        return self.config.of_training(one.arm, one.seed, one.kind)

    def folder(self, one: NetworkKey) -> Path:
        digest = store.digest_of_text(self.training(one).as_dict() | {"folder": None})
        return self.study.path / "networks" / f"{one.name}-{digest[:10]}"

    def is_trained(self, one: NetworkKey) -> bool:
        return (self.folder(one) / "result.json").exists()

    def train(self, one: NetworkKey) -> None:
        if not self.is_trained(one):
            report = Stopwatch(self.tell).part(0, 1, f"training {self.folder(one).name}")
            images.run(self.training(one), self.folder(one), progress=report)

    def net(self, one: NetworkKey, name: str = "last"):
        """The network of a training, which is done or continued first."""
        self.train(one)
        return images.load(self.folder(one)).nets[name]

    def spread(self, tell, jobs: int | None, scheduler: str) -> None:
        """Trainings, then representatives, by workers."""
        silent = RecipeWork(self.study, self.recipe, self.cells)
        left = [one for one in self.networks if not self.is_trained(one)]
        for done in spread(silent.train, left, jobs, scheduler):
            tell(f"{len(left)} trainings, {self.recipe.name}", done / len(left))
        left = [one for one in self.references if not all(file.exists() for file in self.files(one).values())]
        for done in spread(silent.represent, left, jobs, scheduler):
            tell(f"{len(left)} sets, {self.recipe.name}", done / len(left))

    @cached_property
    def selection(self) -> Sources:
        return self.config.selection(self.recipe.start, self.recipe.part)

    @cached_property
    def sets(self) -> dict[tuple[str, int], dict]:
        """Representatives by arm and seed of the reference, and by the steps at which they were read."""
        return {(one.arm, one.seed): self.represented(one) for one in self.references}

    def files(self, one: NetworkKey) -> dict[int | None, Path]:
        """Of a reference's representatives, by the steps at which they were read."""
        stem = self.study.path / "representatives" / f"{self.recipe.name}-{one.name}"
        steps = {None: ""} if not self.recipe.steps else {step: f"-{step}" for step in self.recipe.steps}
        return {step: stem.with_name(stem.name + end + ".npz") for step, end in steps.items()}

    def represent(self, one: NetworkKey) -> None:
        self.represented(one)

    def represented(self, one: NetworkKey) -> dict[int | None, Representatives]:
        net, recipe, s = self.net(one, self.config.reference), self.recipe, self.selection
        about = {"network": one.name} | self.config.about(recipe.start, recipe.part)
        head = heading(net, s, self.config.inversion, about)
        files = {step: file.with_suffix("") for step, file in self.files(one).items()}
        store.make_folder(self.study.path / "representatives")
        if all(file.exists() for file in self.files(one).values()):
            found = {step: Representatives.load(file) for step, file in files.items()}
            if all(one.is_of(head) for one in found.values()):
                return found
        report = Stopwatch(self.tell).part(0, 1, f"representatives {recipe.name}-{one.name}")
        if recipe.steps:
            targets = net.representation(s.X).astype(np.float64)
            held = readings(net, targets, s.begin[0], self.config.inversion, recipe.steps, report)
            made = {step: with_gate(net, s, found, head | {"read_at": step}) for step, found in held.items()}
        else:
            made = {None: represent(net, s, self.config.inversion, about, progress=report)}
        for step, held in made.items():
            held.save(files[step])
        return made

    def of(self, cell: Cell) -> dict:
        """Shares of D_NR and D_R, their difference, distances and gates, JSON-ready."""
        seeds, kind = self.config.seeds, KINSHIP[cell.kinship]
        pairs = [(learner, seed) for learner in seeds for seed in seeds
                 if (learner == seed) != (cell.kinship == "stranger")]  # fmt: skip
        checkpoint = self.config.reference if cell.kinship == "itself" else "last"
        nets = {seed: self.net(NetworkKey("standard", seed, kind), checkpoint) for seed in {one for one, _ in pairs}}
        said = {}
        for learner, seed in pairs:
            for arm in ARMS:
                held = self.sets[arm, seed][cell.steps]
                hit = nets[learner].logits(held.X).argmax(axis=1) == held.y
                said.setdefault(arm, {})[learner, seed] = hit, np.ones(len(hit), bool)
        shares = [mean_over_pairs(said[arm], self.config.bootstrap, self.config.seed) for arm in ARMS]
        found = {name: _told(share) for name, share in zip(("D_NR", "D_R"), shares)}
        found["difference"] = _told(shares[0].minus(shares[1]))
        for name, arm in zip(("D_NR", "D_R"), ARMS):
            held = [self.sets[arm, seed][cell.steps] for seed in seeds]
            distance = np.concatenate([one.distance for one in held])
            found[name] |= {
                "median": float(np.median(distance)), "p90": float(np.quantile(distance, 0.9)),
                "own_accuracy": [one.gate.own_accuracy for one in held], "passed": [one.gate.passed for one in held],
            }  # fmt: skip
        about = {"factor": cell.recipe.factor, "value": cell.recipe.value, "kinship": cell.kinship,
                 "start": cell.recipe.start, "steps": cell.steps, "versions": store.environment()}  # fmt: skip
        return found | about


def _told(share: Share) -> dict:
    return share.as_dict() | {"over_images": float(np.std(share.draws)), "left_out": share.left_out()}


# ------------------------------------------------------------------ claims
def contrast(one: dict, other: dict) -> dict:
    """The difference of two cells' differences with its interval: over seeds by the jackknife, a seed left out of both,
    and over images as if both had images of their own, which makes it wider."""
    value = one["difference"]["value"] - other["difference"]["value"]
    mine, theirs = (cell["difference"]["left_out"] for cell in (one, other))  # by the seed that is left out
    n = len(mine)
    if n < 2 or mine.keys() != theirs.keys():
        return {"value": value, "low": None, "high": None}
    left_out = [mine[seed] - theirs[seed] for seed in mine]
    images = sum(cell["difference"]["over_images"] ** 2 for cell in (one, other))
    t, z = special.stdtrit(n - 1, (1 + COVERAGE) / 2), special.ndtri((1 + COVERAGE) / 2)
    half = float(np.sqrt(t**2 * (n - 1) * np.var(left_out) + z**2 * images))
    return {"value": value, "low": value - half, "high": value + half}


def contrasts(study: Study) -> list[dict]:
    """Claims, each a contrast: kinship against strangers and steps against the most, start by start; noise against
    images; the default against one descent; each factor's value against the default."""
    found = {cell.name: study.result(cell) for cell in study.plan.cells}
    most, rows = max(study.plan.steps), []

    def add(claim, where, one, other):
        one, other = found.get(one), found.get(other)
        if one is not None and other is not None:
            fine = all(all(cell[name]["passed"]) for cell in (one, other) for name in ("D_NR", "D_R"))
            rows.append({"claim": claim, "where": where, **contrast(one, other), "converged": fine})

    for start in study.plan.starts:
        for kinship in study.plan.kinship:
            if kinship != "stranger":
                add(f"{kinship} over stranger", f"{start}, {most} steps", f"cross-{start}-{kinship}-{most}",
                    f"cross-{start}-stranger-{most}")  # fmt: skip
            for steps in study.plan.steps:
                if steps != most:
                    add(f"{steps} over {most} steps", f"{start}, {kinship}", f"cross-{start}-{kinship}-{steps}",
                        f"cross-{start}-{kinship}-{most}")  # fmt: skip
    for kinship in study.plan.kinship if set(STARTS) <= set(study.plan.starts) else ():
        add("noise over image", f"{kinship}, {most} steps", f"cross-noise-{kinship}-{most}",
            f"cross-image-{kinship}-{most}")  # fmt: skip
    for kinship in OF_FACTORS:
        start = study.plan.base.starts[0]
        add("default over one descent", f"{start}, {kinship}", f"default-{kinship}", f"cross-{start}-{kinship}-{most}")
    for recipe in study.plan.recipes:
        for kinship in OF_FACTORS:
            if not recipe.steps and recipe.factor != "default":
                add(f"{recipe.factor} {recipe.value} over default", kinship, f"{recipe.name}-{kinship}",
                    f"default-{kinship}")  # fmt: skip
    return rows
