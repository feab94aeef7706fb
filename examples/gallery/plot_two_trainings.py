"""
Two trainings of one network
============================

Standard and adversarial training of the same three-class patch network, from the same weights on the same samples.
Standard training learns the non-robust feature of every class; an adversary stops it, and the robust one takes
over.
"""

import matplotlib.pyplot as plt

import advfeat as af
from advfeat.theory import plateau

law = af.PatchDistribution(n_classes=3, patch_dim=32, n_patches=64, n_robust=1, alpha=3.0, beta=1.0, noise_std=0.02)
data, test = law.sample(9, rng=0, balanced=True), law.sample(30, rng=1)
start = af.PatchCNN.init(3, 8, 32, rng=2, init_std=0.1, q=3, rho=100.0, dtype="float32")
rates = {"lr": 12.5, "n_iter": 2500, "record_every": 50}
trainings = {
    "standard": af.TrainConfig(**rates),
    "adversarial": af.TrainConfig(**rates, adversarial=True, ascent_lr=40.0, eps=1.0),
}
runs = {name: af.train(start, data, config) for name, config in trainings.items()}

# %%
# ``history`` holds the correlations ⟨w, u⟩ and ⟨w, v⟩ of every neuron. Dashed: the plateau B* at which the theory
# expects the non-robust feature to stop, in the sum over a class's neurons that it speaks of.
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
for axis, (name, run) in zip(axes, runs.items()):
    for key, color, label in (("A", "#0072b2", "robust feature"), ("B", "#d55e00", "non-robust feature")):
        size = ((run.history[key].clip(min=0) ** 3).sum(axis=-1) ** (1 / 3)).mean(axis=-1)
        axis.plot(run.history["iteration"], size, color=color, label=label)
    axis.set(title=f"{name} training", xlabel="iteration")
axes[1].axhline(plateau(beta=1.0, q=3, rho=100.0, ascent_lr=40.0), color="black", dashes=(4, 3), label="B*")
axes[1].legend()
_ = axes[0].set_ylabel("size of the feature, mean over classes")

# %%
# What that does to robustness, at a radius inside the window of test radii:
for name, run in runs.items():
    found = af.robust_accuracy(run.net, test, eps=0.5, ascent_lr=40.0)
    print(f"{name}: clean {found.correct.mean():.2f}, under the worst attack {found.robust_accuracy:.2f}, "
          f"certified {found.certified_accuracy:.2f}")  # fmt: skip
