"""
Adversarial training on real digits
===================================

A small ResNet18 on scikit-learn's digits of 8 x 8 pixels, trained normally and by PGD, and what an attack makes of
both.
"""

import matplotlib.pyplot as plt

import advfeat as af
from advfeat.images import ResNet18
from advfeat.images.data import digits

training, test = digits()
start = ResNet18(width=4, image_shape=(1, 8, 8))
common = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 100, "schedule": "one_cycle"}
pgd = {"adversarial": True, "ascent": "steepest", "random_start": True, "objective": "cross_entropy",
       "n_ascent": 3, "ascent_lr": 0.1, "eps": 0.2}  # fmt: skip
nets = {
    "standard": af.train(start, training, af.TrainConfig(n_iter=150, **common)).net,
    "PGD training": af.train(start, training, af.TrainConfig(n_iter=150, **common, **pgd)).net,
}

# %%
# The same attack on both; only images that were right can be broken.
attacked = {name: af.PGD("margin")(net, test, af.ThreatModel("linf", 0.2)) for name, net in nets.items()}
for name, net in nets.items():
    right = (net.logits(test.X).argmax(axis=1) == test.y).mean()
    print(f"{name}: accuracy {right:.2f}, under attack {1 - attacked[name].success.mean():.2f}")

# %%
# What the attack did to six images, and what the networks say.
figure, axes = plt.subplots(3, 6, figsize=(8, 4.2), layout="constrained")
rows = {"image": (test.X, None)} | {name: (attacked[name].X_adv, net) for name, net in nets.items()}
for line, (name, (images, net)) in zip(axes, rows.items()):
    says = test.y if net is None else net.logits(images).argmax(axis=1)
    for i, axis in enumerate(line):
        axis.imshow(images[i, 0], cmap="gray", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[], title=f"{says[i]}")
    line[0].set_ylabel(name)
