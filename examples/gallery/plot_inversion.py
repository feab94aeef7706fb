"""
Inversion: what a network sees of an image
==========================================

A representative of an image is another image with nearly the same representation, found by descent from something
that has nothing of it. It holds the network's own features of the image, and another network may read it or not.
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
# Forty digits, inverted by both networks from noise, and the share of these that each network reads as the digit.
images, labels = test.X[:40], test.y[:40]
noise = (0.5 + np.random.default_rng(0).random(images.shape) / 20).astype("float32")
found = {name: invert(net, net.representation(images), [noise], Inversion()) for name, net in nets.items()}
for name, one in found.items():
    reads = {reader: (net.logits(one.X).argmax(axis=1) == labels).mean() for reader, net in nets.items()}
    print(f"by {name}: median distance {np.median(one.distance):.2f},",
          ", ".join(f"{reader} reads {share:.2f}" for reader, share in reads.items()))  # fmt: skip

# %%
# Six of them.
figure, axes = plt.subplots(3, 6, figsize=(8, 4.2), layout="constrained")
rows = {"image": images} | {name: one.X for name, one in found.items()}
for line, (name, shown) in zip(axes, rows.items()):
    line[0].set_ylabel(name)
    for axis, image in zip(line, shown):
        axis.imshow(image[0], cmap="gray", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
