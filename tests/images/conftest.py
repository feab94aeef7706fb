"""Whole networks go through their tests on every engine."""

import image_networks
import pytest
from advfeat.kernels.layers import BACKENDS


@pytest.fixture(params=BACKENDS)
def engines(request, monkeypatch):
    """`image_networks.network` on each engine in turn."""
    monkeypatch.setattr(image_networks, "BACKEND", request.param)
    return request.param
