"""
Robust accuracy between attack and certificate
==============================================

An attack bounds robust accuracy from above, a certificate from below. Where both agree the number is exact; what a
weaker certificate leaves open is the shaded band.
"""

import matplotlib.pyplot as plt
import numpy as np

import advfeat as af

law = af.PatchDistribution(n_classes=3, patch_dim=32, n_patches=64, n_robust=1, alpha=3.0, beta=1.0, noise_std=0.02)
data, test = law.sample(9, rng=0, balanced=True), law.sample(40, rng=1)
start = af.PatchCNN.init(3, 8, 32, rng=2, init_std=0.1, q=3, rho=100.0, dtype="float32")
config = af.TrainConfig(lr=12.5, n_iter=2500, adversarial=True, ascent_lr=40.0, eps=1.0)
net = af.train(start, data, config).net

# %%
# Intervals cost next to nothing; branch and bound searches until the bound meets the best point found.
radii = np.linspace(0.3, 0.9, 13)
bounds = {method: [af.certify(net, test.X, test.y, eps, method=method) for eps in radii]
          for method in ("interval", "branch_and_bound")}  # fmt: skip
attacked = [1 - af.PGD("margin")(net, test, af.ThreatModel("linf", eps)).success.mean() for eps in radii]
certified = {method: [found.certified.mean() for found in all_radii] for method, all_radii in bounds.items()}

figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
axis.fill_between(radii, certified["branch_and_bound"], attacked, color="0.8", label="undecided")
axis.plot(radii, attacked, "v-", color="#d55e00", label="PGD on the margin")
axis.plot(radii, certified["branch_and_bound"], "^-", color="#0072b2", label="certified by branch and bound")
axis.plot(radii, certified["interval"], ":", color="#56b4e9", label="certified by intervals")
axis.set(xlabel="radius ε", ylabel="share of test samples")
_ = axis.legend()
