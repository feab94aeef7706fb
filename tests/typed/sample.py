"""A user's script for `mypy --strict`: numbers per run, attacks, certificates, theory, layers, a sweep's spec."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

import advfeat as af
from advfeat.attacks import Aligned, Attack, AttackProblem
from advfeat.core.model import Model
from advfeat.core.types import FloatArray, IntArray
from advfeat.images import AveragePool, BatchNorm, Convolution, Linear, Network, ReLU, Residual
from advfeat.sweeps import SweepSpec
from advfeat.theory import LeadingOrder, State, empirical_types, find_window, plateau, simulate
from advfeat.training import Measurement


class Signs(Attack):
    """An attack of one's own."""

    def run(self, problem: AttackProblem) -> None:
        on = problem.open
        gradient = problem.gradient("margin", problem.X, problem.clean, on)
        problem.evaluate(problem.move(problem.eps[..., None, None] * np.sign(gradient)), on)


class Planes(Model):
    """A model of one's own: F(x) = x W."""

    kind = "planes"

    def __init__(self, W: FloatArray):
        self.W = np.asarray(W)
        self.dtype, self.n_classes, self.sample_shape = self.W.dtype, self.W.shape[1], (self.W.shape[0],)

    def logits(self, X: FloatArray) -> FloatArray:
        return X @ self.W

    def pull_back(self, X: FloatArray, C: FloatArray) -> FloatArray:
        return C.astype(self.dtype) @ self.W.T

    @property
    def parameters(self) -> dict[str, FloatArray]:
        return {"W": self.W}

    def loss_and_grad(self, X: FloatArray, y: IntArray) -> tuple[float, dict[str, FloatArray]]:
        p = np.exp(self.logits(X))
        p = p / p.sum(axis=1, keepdims=True)
        gradient: FloatArray = X.T @ (p - np.eye(self.n_classes)[y]) / len(y)
        return float(-np.log(p[np.arange(len(y)), y]).mean()), {"W": gradient}


class Clean(af.attacks.Attack):
    """No perturbation at all."""

    def run(self, problem: AttackProblem) -> None:
        problem.evaluate(problem.X, problem.open)


def shares(net: af.PatchCNN, iteration: int) -> Mapping[str, NDArray[np.float64]]:
    return {"largest": np.abs(net.W).max(axis=(-1, -2, -3)) / (1 + iteration)}


def size(net: Model, iteration: int) -> dict[str, int]:
    return {"bytes": sum(array.nbytes for array in net.parameters.values()) * (iteration >= 0)}


def law() -> af.PatchDistribution:
    return af.PatchDistribution(n_classes=2, patch_dim=8, n_patches=4, n_robust=1, alpha=3.0, beta=1.0, noise_std=0.05)


def trained() -> af.TrainResult[af.PatchCNN]:
    data = law().sample(6, rng=0, balanced=True)
    batch = af.PatchCNN.init(2, 3, 8, rng=[0, 1], init_std=0.1, rho=10.0, dtype="float32", backend="numpy")
    config = af.TrainConfig(lr=[1.0, 2.0], n_iter=6, adversarial=True, ascent_lr=1.0, eps=np.array([0.5, 1.0]),
                            objective="neg_label_logit", norm="linf", seed=[0, 1])  # fmt: skip
    result = af.train(batch, data, config, metrics=[shares, Measurement(size, every=3)], diverged="drop")
    again: int = result.iteration
    print(again, result.history.at("loss").values.mean(axis=0), result.diverged_at)
    return result


def measured(net: af.PatchCNN) -> NDArray[np.bool_]:
    test = law().sample(5, rng=1)
    threat = af.ThreatModel(norm="l2", eps=[0.1, 0.2], budget="global")
    attacked = af.AttackSuite([Aligned(), af.PGD("margin", n_steps=2), "square", Signs(), Clean()])(net, test, threat)
    one = af.APGD("cross_entropy", n_steps=3)(net, (test.X, test.y), threat, rng=np.random.default_rng(0))
    found = af.robust_accuracy(net, test, eps=0.1, norm="linf", certificate="interval", attacks=["aligned"])
    bounds = af.certify(net, test.X, test.y, eps=0.1, norm="l2", method="linear")
    radii = af.robust_radius(net.run(0), test.X[:2], test.y[:2], method="interval", rtol=0.1)
    print(one.margin, found.under("aligned"), bounds.upper - bounds.lower, radii.broken - radii.certified)
    return attacked.success & found.standing


def planes() -> Planes:
    X, y = np.eye(3), np.arange(3)
    result = af.train(Planes(0.1 * np.eye(3)), (X, y), af.TrainConfig(lr=0.5, n_iter=2, optimiser="adam"))
    print(af.robust_accuracy(result.net, (X, y), eps=0.01).robust_accuracy)
    return result.net


def predicted() -> NDArray[np.float64]:
    data = law().sample(4, rng=0)
    types = empirical_types(data.y, data.robust, data.strength, 2)
    state = State.draw(2, 3, 1000, rng=range(2))
    runs = simulate(state, types, q=3, rho=[10.0, 20.0], lr=1.0, n_iter=4, backend="numpy")
    lead = LeadingOrder(2, np.linspace(1, 2, 2)[:, None], 1.0, 1, 3, 3, 10.0, 1.0)
    window = find_window(3.0, 1.0, 4, 1, 3, 10.0)
    print(lead.growth_rate("A"), window.place(0.3), plateau(1.0, 3, 10.0, 1.0))
    return lead.take_off_time("B", runs.B[0].max(axis=-1), 0.5)


def layers() -> Network:
    body = {"conv": Convolution(2), "bn": BatchNorm(), "relu": ReLU()}
    net = Network([body, Residual(Convolution(2)), AveragePool(), Linear(2)], (1, 4, 4), dtype="float64",
                  backend="numpy")  # fmt: skip
    X = np.random.default_rng(0).random((3, 1, 4, 4))
    loss, gradient = net.loss_and_grad(X, np.zeros(3, int), mode="train")
    print(loss, sorted(gradient), net.logits(X).shape, net.pull_back(X, np.ones((3, 2))).dtype)
    return net


def spec() -> SweepSpec:
    return SweepSpec(title="radii", engine="recursion", design="grid", base={"n_seeds": 2}, axes={"alpha": [2.0, 3.0]})


if __name__ == "__main__":
    result = trained()
    print(measured(result.net), planes().W, predicted(), layers().n_parameters, spec().size)
