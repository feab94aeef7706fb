"""
A thousand trainings without a network
======================================

Without noise, the correlations of every neuron with every feature follow a recursion of their own, equal to the
network's training to rounding. A thousand seeds cost seconds, at any dimension of the patches.
"""

import matplotlib.pyplot as plt
import numpy as np

from advfeat.theory import State, flow_time, growth_rate, population_types, simulate

types = population_types(n_classes=3, n_patches=64, n_robust=1, alpha=3.0, beta=1.0)
state = State.draw(3, 10, patch_dim=10**6, rng=list(range(1000)), init_std=0.1)
runs = simulate(state, types, q=3, rho=100.0, lr=12.5, n_iter=1000, record_every=10)

# %%
# The largest correlation of each class with its own features, as medians and ranges over the seeds. In standard
# training the non-robust feature wins on nearly all of them.
A, B = (runs.A.max(axis=-1).mean(axis=-1), runs.B.max(axis=-1).mean(axis=-1))
figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
for values, color, label in ((A, "#0072b2", "robust feature"), (B, "#d55e00", "non-robust feature")):
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95), axis=1)
    axis.plot(runs.iteration, middle, color=color, label=label)
    axis.fill_between(runs.iteration, low, high, color=color, alpha=0.25, lw=0)
axis.set(xlabel="iteration", ylabel="mean over classes of max ⟨w, ·⟩", title="median and 5 to 95 % of 1,000 seeds")
_ = axis.legend()

# %%
# When a class takes off is decided by its best neuron at the start: the flow of Lemma D.8 predicts, from the drawn
# correlations alone, when it reaches 1; a class without a positive correlation never does.
first = runs.B[0].max(axis=-1)
rate = growth_rate(strength=1.0, n_patches=63, n_classes=3, q=3, rho=100.0, lr=12.5)
predicted = flow_time(first, 1.0, rate, q=3)
reached = runs.B.max(axis=-1) >= 1
arrived = np.where(reached.any(axis=0), runs.iteration[reached.argmax(axis=0)], np.nan)
figure, axis = plt.subplots(figsize=(4.2, 3.6), layout="constrained")
axis.plot(predicted.ravel(), arrived.ravel(), ".", ms=2, alpha=0.4, color="#d55e00")
axis.axline((0, 0), slope=1, color="black", dashes=(4, 3))
_ = axis.set(xlabel="predicted", ylabel="measured", title="iteration at which max ⟨w, v⟩ reaches 1")
