"""The network, its losses and its gradients in PyTorch float64 autograd, written apart from the library.

Arrays in, arrays out: ``W (R, k, m, d)``, ``X (R, N, P, d)``, ``y (R, N)``.
"""

import torch
from torch.nn.functional import cross_entropy


def smoothed_relu(z, q, rho):
    inner = z**q / (q * rho ** (q - 1))
    return torch.where(z <= 0, torch.zeros_like(z), torch.where(z <= rho, inner, z - (1 - 1 / q) * rho))


def forward(W, X, q, rho):
    """F (R, N, k)."""
    return smoothed_relu(torch.einsum("rnpd,rksd->rnpks", X, W), q, rho).sum(dim=(2, 4))


def per_sample(F, y, objective):
    """J (R, N), the objective that an attack increases."""
    of_label = F.gather(-1, y[..., None])[..., 0]
    if objective == "neg_label_logit":
        return -of_label
    if objective == "margin":
        is_label = torch.nn.functional.one_hot(y, F.shape[-1]).bool()
        return F.masked_fill(is_label, -torch.inf).amax(dim=-1) - of_label
    return cross_entropy(F.flatten(0, 1), y.flatten(), reduction="none").reshape(y.shape)


def _double(*arrays):
    return [torch.from_numpy(a).double() for a in arrays]


def logits(W, X, q, rho):
    return forward(*_double(W, X), q, rho).numpy()


def objective(F, y, name):
    """J (R, N) of logits F (R, N, k)."""
    return per_sample(torch.from_numpy(F), torch.from_numpy(y), name).numpy()


def weight_gradient(W, X, y, q, rho):
    """mean_n -log softmax(F)_y (R,) and its gradient (R, k, m, d)."""
    W, X = _double(W, X)
    W.requires_grad_()
    loss = per_sample(forward(W, X, q, rho), torch.from_numpy(y), "cross_entropy").mean(dim=1)
    return loss.detach().numpy(), torch.autograd.grad(loss.sum(), W)[0].numpy()


def input_gradient(W, X, y, q, rho, objective):
    """The gradient of every sample's J in its input, (R, N, P, d)."""
    W, X = _double(W, X)
    X.requires_grad_()
    J = per_sample(forward(W, X, q, rho), torch.from_numpy(y), objective)
    return torch.autograd.grad(J.sum(), X)[0].numpy()
