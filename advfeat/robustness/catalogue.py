"""Every attack and every certificate once: its name, what figures and tables call it, its defaults, what it needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..attacks.apgd import APGD
from ..attacks.base import Attack
from ..attacks.gradient import FGSM, PGD, OneStepAscent
from ..attacks.square import Square
from ..core import checks
from ..core.ball import Budget, Norm
from ..core.data import Data
from ..core.model import Checked, Model
from ..core.types import Array, BoolArray, PerRun, PerSample
from ..patches.attacks import Aligned, FeatureSwap, Rescue
from ..patches.certify import Method, certify
from ..patches.certify.interval import interval_bound
from ..patches.network import PatchCNN

#: What an entry may need, and how an error says so.
NEEDS = {
    "features": "the data's features",
    "ascent_lr": "ascent_lr",
    "neurons": "a PatchCNN, whose neurons it reads",
}


@dataclass(frozen=True)
class AttackEntry:
    """An attack with its default options; `key` names it in results, `needs` are keys of NEEDS."""

    attack: Attack
    label: str
    needs: tuple[str, ...] = ()
    short: str = ""

    @property
    def key(self) -> str:
        return self.short or self.attack.name


#: The attacks that a suite knows by name: all of ATTACKS but the one that needs a rate.
AttackName = Literal[
    "feature_swap", "fgsm_cross_entropy", "fgsm_margin", "aligned", "pgd_cross_entropy", "pgd_margin", "pgd_dlr",
    "pgd_margin_all_targets", "apgd_cross_entropy", "apgd_margin", "apgd_dlr", "apgd_margin_all_targets",
    "apgd_dlr_all_targets", "rescue", "square",
]  # fmt: skip
#: Cheap first; by the attacks' own names.
ATTACKS = {
    entry.attack.name: entry
    for entry in (
        AttackEntry(FeatureSwap(), "feature swap (Thm. 4.3)", ("features",)),
        AttackEntry(OneStepAscent(), "one-step ascent", ("ascent_lr",)),
        AttackEntry(FGSM("cross_entropy"), "FGSM", short="fgsm"),
        AttackEntry(FGSM("margin"), "margin FGSM"),
        AttackEntry(Aligned(), "aligned", ("neurons",)),
        AttackEntry(PGD("cross_entropy"), "cross-entropy PGD (the paper's)"),
        AttackEntry(PGD("margin"), "margin PGD"),
        AttackEntry(PGD("dlr"), "DLR PGD"),
        AttackEntry(PGD("margin", all_targets=True), "margin PGD, every target"),
        AttackEntry(APGD("cross_entropy"), "cross-entropy APGD"),
        AttackEntry(APGD("margin"), "APGD", short="apgd"),
        AttackEntry(APGD("dlr"), "DLR APGD"),
        AttackEntry(APGD("margin", all_targets=True), "margin APGD, every target"),
        AttackEntry(APGD("dlr", all_targets=True), "DLR APGD, every target"),
        AttackEntry(Rescue(), "dead-gradient rescue", ("neurons",)),
        AttackEntry(Square(), "random search"),
    )
}
#: Certificates, weakest and cheapest first.
CERTIFICATES = {
    "interval": "intervals",
    "linear": "two tangents",
    "tangents": "best tangents",
    "branch_and_bound": "branch and bound",
}
SEARCH = "branch_and_bound"  # who broke a sample: an attack's key, or this, the certificates' own search
LABELS = {entry.key: entry.label for entry in ATTACKS.values()} | {SEARCH: "branch and bound's search"}


def attack(name: str, **options: object) -> Attack:
    """The attack of this name with other options; it has its entry's key as its name in results."""
    entry = ATTACKS[checks.choice("attack", name, ATTACKS)]
    return replace(entry.attack, name=entry.key, **options)


def lacking(name: str, model: Model, data: Data, ascent_lr: PerRun | None) -> str | None:
    """What the attack of this name needs and is not there, in words; None where it can run."""
    there = {"features": "v" in data.directions, "ascent_lr": ascent_lr is not None,
             "neurons": isinstance(model, PatchCNN)}  # fmt: skip
    missing = [NEEDS[need] for need in ATTACKS[name].needs if not there[need]]
    return missing[0] if missing else None


def certifiable(model: Model) -> bool:
    """Whether certificates exist for models of this kind."""
    if isinstance(model, PatchCNN):
        return True
    from ..images.network import Network  # takes 10 ms, which who has patches need not wait for

    return isinstance(model, Network)


def prove(model: Model, held: Checked, eps: PerSample, active: BoolArray, *, method: Method, norm: Norm,
          budget: Budget, max_nodes: int | None = None, give_up: bool | None = None,
          time_limit: float | None = None) -> tuple[BoolArray, BoolArray, Array | None]:  # fmt: skip
    """What a certificate says of the samples `active` at radius `eps`: certified, broken, and X_adv where broken.

    Intervals of a budget per patch, at one radius per run, are one pass of the engine over all samples.  Networks of
    layers have "interval" and "linear" (:mod:`advfeat.images.certify`), which is slow and asked for by name alone;
    other methods say nothing of them.
    """
    if not isinstance(model, PatchCNN):
        from ..images.certify import METHODS, margin_bound

        certified = np.zeros_like(active)
        if method in METHODS and norm in ("linf", "l2") and active.any():
            X, y = held.X[0][active], held.y[0][active]
            radius = np.broadcast_to(eps, active.shape)[active]
            certified[active] = margin_bound(model, X, y, radius, norm=norm, method=method) > 0
        return certified, np.zeros_like(certified), held.X[0]
    if method == "interval" and budget == "patch" and np.ndim(eps) < max(np.ndim(active), 1):
        radius = checks.per_run("eps", eps, model.n_runs, low=0)
        certified = active & (model.drop_runs_axis(interval_bound(model, held, radius, norm)) > 0)
        return certified, np.zeros_like(certified), None
    options = {"norm": norm, "budget": budget, "method": method, "max_nodes": max_nodes, "give_up": give_up,
               "time_limit": time_limit}  # fmt: skip
    found = certify(model, held.data.X, held.data.y, eps, active=active, **options)
    return active & found.certified, active & found.broken, found.X_adv
