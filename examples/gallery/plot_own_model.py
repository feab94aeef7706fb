"""
Attacks on a model of one's own
===============================

Whatever answers ``logits`` and ``pull_back`` can be attacked. For softmax regression the least margin over a ball
is known in closed form, so an attack can be held against it.
"""

import matplotlib.pyplot as plt
import numpy as np

import advfeat as af
from advfeat.core.model import Model


class SoftmaxRegression(Model):
    """F(x) = x W + b."""

    kind = "softmax-regression"

    def __init__(self, W, b):
        self.W, self.b = W, b
        self.dtype, self.n_classes, self.sample_shape = W.dtype, len(b), (len(W),)

    def logits(self, X):
        return X @ self.W + self.b

    def pull_back(self, X, C):
        return C @ self.W.T


rng = np.random.default_rng(0)
y = rng.integers(3, size=200)
X = np.eye(3)[y] @ rng.standard_normal((3, 20)) + 0.3 * rng.standard_normal((200, 20))
model = SoftmaxRegression(X.T @ np.eye(3)[y] / 50, np.zeros(3))

# %%
# The margin against a rival j can fall by ε ‖w_y − w_j‖₁ in an ℓ∞ ball.
radii = np.linspace(0, 0.5, 11)
F, clean = model.logits(X), np.arange(3) == y[:, None]
drop = np.abs(model.W.T[y][:, None] - model.W.T[None]).sum(axis=-1)
least = [np.where(clean, np.inf, F[clean][:, None] - F - eps * drop).min(axis=1) for eps in radii]
attacks = {"FGSM": af.FGSM("cross_entropy"), "APGD towards every class": af.APGD("margin", all_targets=True)}

figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
axis.plot(radii, [(margin > 0).mean() for margin in least], color="black", lw=3, alpha=0.4, label="exact")
for (name, attack), marker in zip(attacks.items(), "ov"):
    left = [1 - attack(model, (X, y), af.ThreatModel("linf", eps)).success.mean() for eps in radii]
    axis.plot(radii, left, marker, label=name)
axis.set(xlabel="radius ε", ylabel="robust accuracy")
_ = axis.legend()
