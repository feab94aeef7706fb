"""Robust accuracy of a batch of runs at several radii, between the best attack and a certificate."""

from __future__ import annotations

import numpy as np

from ..attacks import PGD, Aligned, AttackSuite, FeatureSwap, OneStepAscent, ThreatModel
from ..certify import certify, interval_margin
from ..data import PatchData
from ..network import PatchCNN


def certified(net: PatchCNN, data: PatchData, eps: np.ndarray, norm: str, method: str, max_nodes: int):
    """Samples (E, R, N) certified right at the radii `eps` (E, R), which ascend along E, and those the search breaks.

    From the largest radius down: what is certified there is certified at every smaller one.
    """
    correct = net.margin(data.X, data.y) > 0
    sure, broken, before = [], [], np.zeros_like(correct)
    for radius in eps[::-1]:
        now = before | (correct & (interval_margin(net, data.X, data.y, eps=radius, norm=norm) > 0))
        bad = np.zeros_like(now)
        if method != "interval" and (correct & ~now).any():
            proof = certify(
                net, data.X, data.y, radius, norm=norm, method=method, max_nodes=max_nodes, active=correct & ~now
            )
            now, bad = now | proof.certified, proof.broken
        sure.append(now)
        broken.append(bad)
        before = now
    return np.array(sure[::-1]), np.array(broken[::-1])


def standing(net: PatchCNN, data: PatchData, eps: np.ndarray, norm: str, sure, broken, ascent_lr, pgd, seeds):
    """Samples (E, R, N) right and broken by no attack and no search at the radii `eps` (E, R), which ascend along E.

    From the smallest radius up: what is broken there is broken at every larger one; certified samples need no attack.
    `pgd` holds its steps and restarts.
    """
    suite = AttackSuite(
        [FeatureSwap(), OneStepAscent(ascent_lr), Aligned(), PGD("cross_entropy", **pgd), PGD("margin", **pgd)]
    )
    correct, lost, out = net.margin(data.X, data.y) > 0, np.zeros_like(sure[0]), []
    for radius, proved, found in zip(eps, sure, broken):
        lost = lost | found
        left = correct & ~lost & ~proved
        if left.any():
            lost = lost | (suite(net, data, ThreatModel(norm, radius), seeds, active=left).success & left)
        out.append(correct & ~lost)
    return np.array(out)
