"""
The window of test radii
========================

Filters are shared by all patches, so an attacker may add a rival's feature to every patch. Between two radii
diagonal networks of the robust features stand while those of the non-robust ones fall: the only radii at which a
robust network and any other can be told apart.
"""

import matplotlib.pyplot as plt
import numpy as np

from advfeat.theory import density_ratio, find_window, robust_window

ALPHA, BETA, P = 3.0, 1.0, 64

figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
degrees = np.arange(2, 9)
low, high = np.array([robust_window(ALPHA, BETA, P, 1, q=int(q)) for q in degrees]).T
axis.fill_between(degrees, low, high, where=high > low, color="#009e73", alpha=0.3, label="window")
axis.plot(degrees, low, "o-", color="#d55e00", label="non-robust features break from here on")
axis.plot(degrees, high, "s-", color="#0072b2", label="robust features hold up to here")
axis.set(xlabel="degree q of the activation", ylabel="test radius ε", ylim=(0.2, 1.6))
axis.set_title("one robust patch of 64, α = 3, β = 1")
axis.legend()

# %%
# The window has premises; :func:`advfeat.theory.find_window` names the first one that fails.
for n_robust in (1, 2, 4):
    ratio = density_ratio(ALPHA, BETA, P, n_robust)
    found = find_window(ALPHA, BETA, P, n_robust, q=3, rho=100.0, strength=33.0)
    word = f"({found.low:.3f}, {found.high:.3f})" if found.stands else f"none: {found.failed}"
    print(f"{n_robust} robust patches: density ratio {ratio:.2f}, window {word}")
