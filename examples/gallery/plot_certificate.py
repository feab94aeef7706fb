"""
Robust accuracy between attack and certificate
==============================================

An attack bounds robust accuracy from above, a certificate from below. Where both agree the number is exact; what is
left between them is undecided.
"""

import matplotlib.pyplot as plt
import numpy as np

import advfeat as af

law = af.PatchDistribution(n_classes=3, patch_dim=32, n_patches=64, n_robust=1, alpha=3.0, beta=1.0, noise_std=0.05)
data, test = law.sample(9, rng=0, balanced=True), law.sample(40, rng=1)
start = af.PatchCNN.init(3, 8, 32, rng=2, init_std=0.1, q=3, rho=100.0, dtype="float32")
net = af.train(start, data, af.TrainConfig(lr=12.5, n_iter=2500)).net

# %%
# Intervals cost next to nothing and leave much open; branch and bound searches until the bound meets the best point
# that it has found. PGD alone says more than is true: where its gradient is 0 it does not move.
radii = np.linspace(0.4, 0.52, 13)
bounds = [af.certify(net, test.X, test.y, eps, method="branch_and_bound") for eps in radii]
by_intervals = [(af.interval_margin(net, test.X, test.y, eps=eps) > 0).mean() for eps in radii]
by_pgd = [1 - af.PGD("margin")(net, test, af.ThreatModel("linf", eps)).success.mean() for eps in radii]
certified, unbroken = ([getattr(found, name).mean() for found in bounds] for name in ("certified", "broken"))
unbroken = [1 - share for share in unbroken]

figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
axis.fill_between(radii, certified, unbroken, color="0.8", label="undecided")
axis.plot(radii, by_pgd, "x--", color="#e69f00", label="PGD on the margin")
axis.plot(radii, unbroken, "v-", color="#d55e00", label="not broken by branch and bound")
axis.plot(radii, certified, "^-", color="#0072b2", label="certified by branch and bound")
axis.plot(radii, by_intervals, ":", color="#56b4e9", label="certified by intervals")
axis.set(xlabel="radius ε", ylabel="share of test samples")
_ = axis.legend()
