"""What comes out of the experiment on representatives: networks, gates, feature learning accuracy, differences,
controls and the transfer matrix, as one document that pages, tables and files show."""

from __future__ import annotations

import numpy as np

from ..core import store
from .feature_learning import MEASURES, RELATIONS, Evidence, Share, verdict
from .representatives import Experiment
from .representatives_configuration import ARMS

WHEN = ("last", "best")
#: Table 1 of the paper in %: accuracy, robust accuracy, feature learning accuracy on D_NR and D_R, by learner.
PAPER = {
    "mnist": {"standard": (99.56, 0.04, 88.11, 44.61), "adversarial": (99.41, 94.43, 39.49, 69.19)},
    "cifar10": {"standard": (95.74, 0.00, 91.79, 61.26), "adversarial": (86.28, 45.13, 10.88, 67.88)},
    "svhn": {"standard": (96.84, 0.16, 73.91, 65.38), "adversarial": (91.99, 58.55, 35.50, 77.04)},
}
PAPERS = {"mnist": "mnist", "mnist_5k": "mnist", "cifar10": "cifar10", "svhn": "svhn"}  # a set's part of that table
SETS = {"standard": "D_NR", "adversarial": "D_R"}  # by the reference's arm
#: Rows and columns of the transfer matrix: an arm, and the kind of its network.
PLACES = (("standard", "own"), ("adversarial", "own"), ("standard", "other"), ("untrained", "own"))


def document(experiment: Experiment, evidence: Evidence) -> dict:
    """All numbers of an experiment, JSON-ready."""
    c = experiment.config
    return {
        "dataset": c.dataset, "eps": c.eps, "norm": c.norm, "seeds": c.seeds, "starts": list(c.starts),
        "images": len(next(iter(evidence.sets.values()))[1].y), "reference": c.reference,
        "networks": networks(experiment), "gates": gates(evidence), "cells": cells(evidence, c.starts),
        "differences": differences(evidence, c.starts), "controls": controls(evidence, c.starts[0]),
        "transfer": transfer(evidence, c.starts[0]), "paper": PAPER.get(PAPERS.get(c.dataset, ""), {}),
    }  # fmt: skip


def networks(experiment: Experiment) -> list[dict]:
    """Accuracy, and accuracy under PGD-20, of every network on the test images, best and last."""
    rows = []
    for one in experiment.networks:
        held = store.load_json(experiment.folder(one) / "result.json")["networks"]
        rows += [{"network": one.name, "arm": one.arm, "kind": one.kind, "seed": one.seed, "when": when,
                  "iteration": held[when]["iteration"], "accuracy": held[when]["accuracy"], "pgd": held[when]["pgd"]}
                 for when in WHEN]  # fmt: skip
    return rows


def gates(evidence: Evidence) -> list[dict]:
    """Of every set: what its reference says of it, and what is not as it must be."""
    rows = []
    for name, (one, held) in evidence.sets.items():
        gate = held.gate
        rows.append({"set": name, "reference": one.reference.name, "start": one.start, "part": one.part,
                     "passed": gate.passed, "failed": gate.failed, **held.head["gate"],
                     "restarts": np.bincount(held.restart).tolist()})  # fmt: skip
    return rows


def _row(share: Share, references) -> dict:
    """A share with the state of the representatives that it is of."""
    distance = np.concatenate([held.distance for held in references])
    state = {"median": float(np.median(distance)), "p90": float(np.quantile(distance, 0.9))}
    return share.as_dict() | state | {"converged": all(held.gate.passed for held in references)}


def cells(evidence: Evidence, starts) -> list[dict]:
    """Feature learning accuracy by start, relation, learner and reference, of the last and of the best learners."""
    rows = []
    for start in starts:
        for how in RELATIONS:
            for arm in ARMS:
                for reference in ARMS:
                    for when in WHEN:
                        share = evidence.share(arm, reference, start, how, when=when)
                        if share is not None:
                            about = {"start": start, "relation": how, "learner": arm, "set": SETS[reference]}
                            rows.append(about | {"when": when} | _row(share, evidence.references(reference, start)))
    return rows


def differences(evidence: Evidence, starts) -> list[dict]:
    """The paper's three statements, each as a difference with its interval: which features a learner has more of, and
    what adversarial training does to each."""
    rows = []
    for start in starts:
        for how in RELATIONS[1:]:
            held = {(a, r): evidence.share(a, r, start, how) for a in ARMS for r in ARMS}
            if None in held.values():
                continue
            (standard_nr, standard_r), (adversarial_nr, adversarial_r) = ([held[a, r] for r in ARMS] for a in ARMS)
            said = (
                ("standard learner: D_NR over D_R", standard_nr, standard_r, "more D_NR", "more D_R"),
                ("adversarial learner: D_NR over D_R", adversarial_nr, adversarial_r, "more D_NR", "more D_R"),
                ("D_NR: adversarial over standard learner", adversarial_nr, standard_nr, "strengthened", "suppressed"),
                ("D_R: adversarial over standard learner", adversarial_r, standard_r, "strengthened", "suppressed"),
            )
            fine = all(one.gate.passed for arm in ARMS for one in evidence.references(arm, start))
            for what, one, other, more, less in said:
                found = one.minus(other)
                rows.append({"start": start, "relation": how, "difference": what, **found.as_dict(),
                             "verdict": verdict(found, more, less), "converged": fine})  # fmt: skip
    return rows


def controls(evidence: Evidence, start: str) -> list[dict]:
    """What strangers say where nothing, or something else, should be learned; all of the last networks."""
    asked = [("label", {}), ("label of images that both references classify", {"only_right": True})]
    asked += [("class of the start", {"measure": "start"})] * (start == "image")
    asked += [("labels shuffled", {"measure": MEASURES[2]}), ("label, training images represented", {"part": "train"})]
    plan = [(what, reference, {}, options) for reference in ARMS for what, options in asked]
    plan += [("label, of an untrained reference", "untrained", {}, {})]
    plan += [("label, of the other architecture", "standard", {"kind": "other"}, {})]
    rows = []
    for what, reference, kind, options in plan:
        for arm in ARMS:
            how = "architecture" if kind else "stranger"
            share = evidence.share(arm, reference, start, how, **kind, **options)
            if share is not None:
                held = evidence.references(reference, start, kind.get("kind", "own"), options.get("part", "test"))
                rows.append({"control": what, "reference": reference, "learner": arm} | _row(share, held))
    return rows


def transfer(evidence: Evidence, start: str) -> list[dict]:
    """References x learners, none of which began with the other's weights; of the last networks."""
    rows = []
    for reference, kind in PLACES:
        for arm, its in PLACES:
            how = "stranger" if kind == its else "architecture"
            if "untrained" == reference == arm:
                continue
            share = evidence.share(arm, reference, start, how, kind=kind)
            if share is not None:
                about = {"reference": reference, "reference_kind": kind, "learner": arm, "learner_kind": its}
                rows.append(about | _row(share, evidence.references(reference, start, kind)))
    return rows
