"""
Inversion: what a network sees of an image
==========================================

A representative of an image is another image with nearly the same representation, found by descent from something
that has nothing of it. Of a normally trained network it holds whatever carries the class there; of an adversarially
trained one the digit comes back.
"""

import matplotlib.pyplot as plt
import numpy as np

import advfeat as af
from advfeat.images import ResNet18
from advfeat.images.data import digits
from advfeat.images.inversion import Inversion, invert

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
# Six digits, and what both networks' inversions make of noise.
images = test.X[:6]
noise = (0.5 + np.random.default_rng(0).random(images.shape) / 20).astype("float32")
figure, axes = plt.subplots(3, 6, figsize=(8, 4.2), layout="constrained")
for axis, image in zip(axes[0], images):
    axis.imshow(image[0], cmap="gray", vmin=0, vmax=1)
axes[0, 0].set_ylabel("image")
for line, (name, net) in zip(axes[1:], nets.items()):
    found = invert(net, net.representation(images), [noise], Inversion())
    line[0].set_ylabel(name)
    for axis, image, distance in zip(line, found.X, found.distance):
        axis.imshow(image[0], cmap="gray", vmin=0, vmax=1)
        axis.set_title(f"distance {distance:.2f}", fontsize=8)
for axis in axes.ravel():
    axis.set(xticks=[], yticks=[])
