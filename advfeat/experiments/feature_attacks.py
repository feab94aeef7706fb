"""Table 2 of the paper: a class turned into another by the features of a reference that the victim never saw.

NRF-PGD aims at features of a normally trained reference, RF-PGD at those of an adversarially trained one
(`images.feature_attack`).  An attack succeeds where the victim says the target class.  Its victims are told apart as
learners are (`feature_learning.relation`); the reference itself is one that a white box attacks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..core import checks, store
from ..core.lock import Lock
from ..core.progress import Stopwatch
from ..core.records import record
from ..images.data import DATA_SETS
from ..images.feature_attack import FeaturePGD
from . import images
from .feature_learning import RELATIONS, NetworkKey, Share, mean_over_pairs, relation
from .representatives_configuration import class_pairs

#: Success on a standard learner in %, of NRF-PGD and RF-PGD; on adversarial learners the paper calls both low.
PAPER = {"cifar10": {("cat", "dog"): (71.41, 9.60), ("dog", "cat"): (80.36, 15.16),
                     ("airplane", "automobile"): (54.08, 0.34), ("automobile", "airplane"): (76.74, 0.40)}}  # fmt: skip
ATTACKS = {"standard": "NRF-PGD", "adversarial": "RF-PGD"}  # by the reference's arm


def attacked_images(data, pairs, most: int | None = None):
    """Numbers of the images of `data` that are attacked, their targets and the pair each belongs to: `most` images, or
    all, of each pair's first class.  ValueError where a class has no image."""
    numbers, targets, of = [], [], []
    for number, (source, target) in enumerate(pairs):
        for label in (source, target):
            if not (data.y == label).any():
                raise ValueError(f"pairs: none of the {len(data.y)} images is of class {label}")
        some = np.flatnonzero(data.y == source)[:most]
        numbers.append(some)
        targets.append(np.full(len(some), target))
        of.append(np.full(len(some), number))
    return tuple(map(np.concatenate, (numbers, targets, of)))


@record
class Attacked:
    """What the features of one reference do, at F radii and for M images.

    Attributes
    ----------
    scales, radii : (F,) over the configuration's radius, and as they are: of l_inf at most 1
    y, target, pair : (M,) labels, targets, numbers of the pair
    before : (M,) distance of the clean image, and distance : (F, M) that was reached, over |g(x')|
    clean, guesses : by victim, what it says of the clean (M,) and of the moved images (F, M)
    """

    reference: NetworkKey
    scales: np.ndarray
    radii: np.ndarray
    y: np.ndarray
    target: np.ndarray
    pair: np.ndarray
    before: np.ndarray
    distance: np.ndarray
    clean: dict[NetworkKey, np.ndarray]
    guesses: dict[NetworkKey, np.ndarray]

    def left(self, on=...) -> np.ndarray:
        """The share (F,) of the distance that is left, the mean over the images `on`."""
        return (self.distance / np.where(self.before > 0, self.before, 1))[:, on].mean(axis=1)

    def success(self, victim: NetworkKey) -> np.ndarray:
        """The share (F,) of images that a victim takes for the target class."""
        return (self.guesses[victim] == self.target).mean(axis=1)

    def of(self, pair: int | None) -> np.ndarray:
        """Which images (M,) are of a pair of classes, or all."""
        return np.ones(len(self.y), bool) if pair is None else self.pair == pair


def attacked(experiment, reference: NetworkKey, victims, progress=None) -> Attacked:
    """One reference's attacks on `victims`, from the experiment's folder or made now."""
    c, net = experiment.config, experiment.net(reference)
    nets = {one: images.load(experiment.folder(one)).nets["last"] for one in victims}
    nets |= {reference: net} if reference in nets else {}  # itself, whichever checkpoint that is
    data, pairs = c.test_samples(), class_pairs(c.dataset, c.pairs)
    chosen, target, pair = attacked_images(data, pairs, c.n_attacked)
    scales = np.array(sorted({1.0, *c.attack_scales}))
    radii = [min(float(scale) * c.eps, 1.0) if c.norm == "linf" else float(scale) * c.eps for scale in scales]
    X, y = data.X[chosen], data.y[chosen]
    head = {"reference": net.fingerprint(), "victims": {one.name: held.fingerprint() for one, held in nets.items()},
            "pairs": [list(one) for one in pairs], "eps": radii, "norm": c.norm, "steps": c.attack_steps,
            "images": store.digest(X, y), "aims": store.digest(data.X, data.y), "seed": c.seed}  # fmt: skip
    head = {"attack": store.digest_of_text(head)}
    file = experiment.path / "attacks" / f"{reference.name}.npz"
    held = store.load_state(file) if file.exists() else ({}, {})
    if held[0] == head:
        arrays = held[1]
    else:
        clock = Stopwatch(progress)
        attack = FeaturePGD(net, data.X, data.y, n_steps=c.attack_steps)
        arrays = {name: [] for name in ("distance", *(f"guesses/{one.name}" for one in victims))}
        for number, radius in enumerate(radii):
            clock.tell(f"attacks by {reference.name}", number / len(radii))
            found = attack.craft(X, target, radius, c.norm, c.seed)
            arrays["distance"].append(found.distance)
            for one, victim in nets.items():
                arrays[f"guesses/{one.name}"].append(said(victim, found.X))
        arrays = {name: np.stack(rows) for name, rows in arrays.items()} | {"before": found.before}
        arrays |= {f"clean/{one.name}": said(victim, X) for one, victim in nets.items()}
        store.make_folder(file.parent)
        store.save_state(file, head, arrays)
    clean, guesses = ({one: arrays[f"{kind}/{one.name}"] for one in victims} for kind in ("clean", "guesses"))
    return Attacked(reference, scales, np.array(radii), y, target, pair, arrays["before"], arrays["distance"], clean,
                    guesses)  # fmt: skip


def said(net, X) -> np.ndarray:
    return net.logits(X).argmax(axis=1).astype(np.uint8)


# ------------------------------------------------------------------ shares
def share(found: list[Attacked], arm: str, kind: str, how: str, victim: str, scale: float, draws: int, seed: int, *,
          pair: int | None = None, of: str = "all") -> Share | None:  # fmt: skip
    """The share of images that victims of the arm `victim` see as the target class, over all victims that are `how`
    related to a reference of this arm and kind; None where there is none.

    `of`: "all" images, the "correct" ones, which the victim classifies correctly as they are, or "clean", the share of
    all that it takes for the target class as they are.
    """
    rows = {}
    for one in found:
        if (one.reference.arm, one.reference.kind) != (arm, kind):
            continue
        some = one.of(pair)
        at = int(np.argmin(np.abs(one.scales - scale)))
        for who, guesses in one.guesses.items():
            if who.arm != victim or relation(who, one.reference) != how:
                continue
            clean = one.clean[who][some]
            hit = (clean if of == "clean" else guesses[at, some]) == one.target[some]
            on = clean == one.y[some] if of == "correct" else np.ones(len(hit), bool)
            if on.any():
                rows[who.seed, one.reference.seed] = hit, on
    return mean_over_pairs(rows, draws, seed) if rows else None


def over_seeds(found: Share) -> float | None:
    """The standard deviation over the seeds of victims of a share; None of one seed."""
    seeds = sorted({victim for victim, _ in found.pairs})
    means = [found.each[[victim == seed for victim, _ in found.pairs]].mean() for seed in seeds]
    return float(np.std(means, ddof=1)) if len(seeds) > 1 else None


def document(experiment, found: list[Attacked]) -> dict:
    """Table 2 and what it hangs on, JSON-ready."""
    c = experiment.config
    classes, pairs = DATA_SETS[c.dataset].classes, class_pairs(c.dataset, c.pairs)
    kinds = dict.fromkeys((one.reference.arm, one.reference.kind) for one in found)
    scales = found[0].scales.tolist()

    def row(arm, kind, how, victim, scale, pair=None):
        held = {of: share(found, arm, kind, how, victim, scale, c.bootstrap, c.seed, pair=pair, of=of)
                for of in ("all", "correct", "clean")}  # fmt: skip
        if held["all"] is None:
            return None
        some, at = [one for one in found if (one.reference.arm, one.reference.kind) == (arm, kind)], scales.index(scale)
        on = some[0].of(pair)
        return {
            "attack": ATTACKS[arm], "reference": arm, "kind": kind, "relation": how, "learner": victim, "scale": scale,
            "pair": None if pair is None else [classes[label] for label in pairs[pair]],
            **{of: None if one is None else one.as_dict() | {"std": over_seeds(one)} for of, one in held.items()},
            "before": float(np.mean([one.before[on] for one in some])),
            "distance": float(np.mean([one.distance[at, on] for one in some])),
            "left": float(np.mean([one.left(on)[at] for one in some])),
        }  # fmt: skip

    every = [(arm, kind, how, victim) for arm, kind in kinds for how in RELATIONS for victim in ATTACKS]
    table = [row(*one, 1.0, pair) for pair in range(len(pairs)) for one in every]
    curves = [row(*one, scale) for one in every for scale in scales]
    table, curves = ([one for one in rows if one is not None] for rows in (table, curves))
    return {"eps": c.eps, "norm": c.norm, "steps": c.attack_steps, "scales": scales, "radii": found[0].radii.tolist(),
            "table": table, "curves": curves, "equal": equal_distance(found),
            "paper": [[*pair, *both] for pair, both in PAPER.get(c.dataset, {}).items()]}  # fmt: skip


def equal_distance(found: list[Attacked]) -> list[dict]:
    """Success of RF-PGD on standard strangers beside that of NRF-PGD where as large a share of the distance is left.

    NRF-PGD's success is linear between its radii, 0 among them; a radius at which RF-PGD comes closer than NRF-PGD ever
    does has none.  Intervals are over seeds.
    """
    own = {one.reference: one for one in found if one.reference.kind == "own"}
    rows = []
    for at, scale in enumerate(found[0].scales):
        each, lefts = {}, []
        for reference, robust in own.items():
            plain = own[NetworkKey("standard", reference.seed)]
            left = np.array([1.0, *plain.left()])
            if reference.arm != "adversarial" or robust.left()[at] < left.min():
                continue
            lefts.append(robust.left()[at])
            for who in robust.guesses:
                if (who.arm, who.kind, relation(who, reference)) == ("standard", "own", "stranger"):
                    curve = np.array([(plain.clean[who] == plain.target).mean(), *plain.success(who)])
                    order = np.argsort(left)
                    matched = np.interp(robust.left()[at], left[order], curve[order])
                    each[who.seed, reference.seed] = robust.success(who)[at], matched
        if each:
            pairs = sorted(each)
            robust, plain = (Share(pairs, np.array([each[pair][i] for pair in pairs]), len(found[0].y), np.zeros(1))
                             for i in (0, 1))  # fmt: skip
            rows.append({"scale": float(scale), "left": float(np.mean(lefts)), "references": len(lefts),
                         "RF-PGD": robust.as_dict(), "NRF-PGD": plain.as_dict(),
                         "difference": plain.minus(robust).as_dict()})  # fmt: skip
    return rows


# ------------------------------------------------------------------ one reference and some victims
def attack_runs(reference: images.ImageRun, victims: list[images.ImageRun], source: str, target: str, eps: float,
                out, *, network: str = "last", n_steps: int = 50, most: int | None = None, force: bool = False) -> dict:
    """Test images of a class turned into another by the features of a training's network, and what other trainings'
    networks say of them; kept in the folder `out` as crafted.npz and result.json, which is returned.

    ValueError where the trainings are on different image sets, for eps = 0 or above the box, for one class twice.
    """
    c = reference.config
    for one in victims:
        if one.config.dataset != c.dataset:
            raise ValueError(f"{one.path}: was trained on {one.config.dataset}, the reference on {c.dataset}")
    eps, most = checks.number("eps", eps, above=0), None if most is None else checks.integer("samples", most, 1)
    if c.norm == "linf" and eps > 1:
        raise ValueError(f"eps = {eps!r}: must be <= 1, the width of the box in which images lie")
    (pair, _), data = class_pairs(c.dataset, [f"{source}:{target}"], "source:target"), c.test_samples()
    chosen, targets, _ = attacked_images(data, [pair], most)
    net = reference.nets[checks.choice("network", network, images.CHECKPOINTS)]
    attacker = FeaturePGD(net, data.X, data.y, n_steps=n_steps)
    identity = {"reference": net.fingerprint(), "pair": list(pair), "eps": eps, "norm": c.norm, "n_steps": n_steps,
                "images": store.digest(data.X[chosen]), "aims": store.digest(data.X, data.y), "network": network,
                "seed": c.seed, "victims": [str(one.path) for one in victims],
                "weights": [one.nets[network].fingerprint() for one in victims]}  # fmt: skip
    identity = {"attack": store.digest_of_text(identity)}
    with Lock(store.make_folder(out)):
        file = Path(out) / "result.json"
        if file.exists() and not force:
            held = store.load_json(file)
            if held.get("identity") != identity:
                raise store.CheckpointError(f"{out}: holds another attack, nothing was changed; --force begins anew")
            return held["found"]
        found = attacker.craft(data.X[chosen], targets, eps, c.norm, c.seed)
        rows = []
        for one in victims:
            victim = one.nets[network]
            before, after = said(victim, data.X[chosen]), said(victim, found.X)
            right, hit = before == data.y[chosen], after == targets
            rows.append({"victim": str(one.path), "training": one.config.training, "success": float(hit.mean()),
                         "success_of_correct": float(hit[right].mean()) if right.any() else None,
                         "confusion": float((before == targets).mean()), "accuracy": float(right.mean())})  # fmt: skip
        classes = DATA_SETS[c.dataset].classes
        answer = {"dataset": c.dataset, "reference": str(reference.path), "training": c.training, "network": network,
                  "source": classes[pair[0]], "target": classes[pair[1]], "eps": eps, "norm": c.norm,
                  "n_steps": n_steps,
                  "images": len(chosen), "distance_before": float(np.median(found.before)),
                  "distance": float(np.median(found.distance)), "victims": rows}  # fmt: skip
        store.save_npz(Path(out) / "crafted.npz", image=chosen, y=data.y[chosen], target=targets, **vars(found))
        store.save_json(file, {"identity": identity, "found": answer})
        return answer
