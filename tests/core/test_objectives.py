"""What attacks increase, and its slope in the logits, against PyTorch autograd; ties and too few classes."""

import numpy as np
import pytest
import torch

from advfeat.core import objectives
from advfeat.core.objectives import OBJECTIVES, TARGETED, UNTARGETED

RNG = np.random.default_rng(3)
F = 4 * RNG.standard_normal((2, 40, 5))
Y = RNG.integers(5, size=(2, 40))
T = (Y + RNG.integers(1, 5, size=Y.shape)) % 5


def torch_value(name, F, y, t):
    """J (R, N), written apart from the library with torch's sort, softmax and gather."""
    y, t = torch.from_numpy(y)[..., None], None if t is None else torch.from_numpy(t)[..., None]
    if t is not None and name in UNTARGETED:
        return -torch_value(name, F, t[..., 0].numpy(), None)
    of_label = F.gather(-1, y)[..., 0]
    down = F.sort(dim=-1, descending=True).values
    if name == "neg_label_logit":
        return -of_label
    if name == "cross_entropy":
        return -F.log_softmax(dim=-1).gather(-1, y)[..., 0]
    if name == "targeted_cross_entropy":
        return F.log_softmax(dim=-1).gather(-1, t)[..., 0]
    if name.startswith("targeted"):
        gap = F.gather(-1, t)[..., 0] - of_label
        return gap if name == "targeted_margin" else gap / (down[..., 0] - (down[..., 2] + down[..., 3]) / 2)
    gap = F.scatter(-1, y, -torch.inf).amax(dim=-1) - of_label
    return gap if name == "margin" else gap / (down[..., 0] - down[..., 2])


CASES = [(name, targets) for name in OBJECTIVES for targets in (None, T) if targets is not None or name not in TARGETED]


@pytest.mark.parametrize(("name", "targets"), CASES)
def test_objectives_and_their_gradients_are_autograds(name, targets):
    logits = torch.from_numpy(F).requires_grad_()
    J = torch_value(name, logits, Y, targets)
    truth = torch.autograd.grad(J.sum(), logits)[0].numpy()
    np.testing.assert_allclose(objectives.value(name, F, Y, targets), J.detach().numpy(), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(objectives.gradient(name, F, Y, targets), truth, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("name", "targets"), [("dlr", None), ("targeted_dlr", T)])
def test_dlr_does_not_know_shift_and_scale(name, targets):
    moved = objectives.value(name, 3.7 * F + 2, Y, targets)
    np.testing.assert_allclose(moved, objectives.value(name, F, Y, targets), rtol=1e-12)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("level", [0.0, 7.5, 1e300])
def test_equal_logits_give_finite_numbers_and_dlr_the_margins_slope(name, level):
    """0/0 in DLR: the largest logits are equal, or all are."""
    tied, y, t = np.full((1, 2, 5), level), np.array([[0, 3]]), np.array([[2, 1]])
    tied[0, 1, 0] -= 1e-3 * max(level, 1)
    for targets in (t,) if name in TARGETED else (None, t):
        assert np.isfinite(objectives.value(name, tied, y, targets)).all()
        slope = objectives.gradient(name, tied, y, targets)
        assert np.isfinite(slope).all()
        if name in objectives.CLASSES:
            np.testing.assert_array_equal(objectives.value(name, tied, y, targets), 0)
            margin = objectives.gradient(name.replace("dlr", "margin"), tied, y, targets)
            np.testing.assert_array_equal(slope, margin)


@pytest.mark.parametrize(("name", "fewest"), [("dlr", 3), ("targeted_dlr", 4), ("margin", 2), ("cross_entropy", 2)])
def test_objectives_know_how_many_classes_they_need(name, fewest):
    assert objectives.check(name, fewest, True) == name
    if fewest > 2:
        with pytest.raises(ValueError, match=rf"objective = '{name}': needs at least {fewest} classes"):
            objectives.check(name, fewest - 1, True)
