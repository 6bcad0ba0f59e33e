from __future__ import annotations

import pytest
import torch

from heldout.errors import ConfigError, NetworkError
from heldout.tasks.base import Batch
from heldout.training.losses import squared_error

DRAW = torch.Generator().manual_seed(0)


def rows(n: int = 12) -> tuple[torch.Tensor, Batch]:
    outputs, targets = torch.randn(2, n, 1, generator=DRAW) * 1e3
    kind = torch.arange(n) % 3
    return outputs, Batch(torch.zeros(n, 1), torch.arange(n), targets, strata={"target": kind, "a": kind + 2})


def test_it_is_the_mean_over_items_of_the_squared_error_over_the_scale() -> None:
    outputs, batch = rows()
    assert batch.targets is not None
    scales = [100.0, 0.02, 200.0]
    wanted = sum(
        float((o - t) ** 2) / scales[i % 3] for i, (o, t) in enumerate(zip(outputs, batch.targets, strict=True))
    )
    assert float(squared_error(scales)(outputs, batch)) == pytest.approx(wanted / 12, rel=1e-5)
    one = squared_error([100.0])(outputs, batch)
    torch.testing.assert_close(one, torch.nn.functional.mse_loss(outputs, batch.targets) / 100)


def test_weights_make_errors_per_particle_errors_of_the_total() -> None:
    outputs, batch = rows()
    assert batch.targets is not None
    particles = batch.strata["a"]
    loss = squared_error(weight=lambda b: b.strata["a"].square())(outputs, batch)
    totals = particles[:, None] * (outputs - batch.targets)
    torch.testing.assert_close(loss, totals.square().mean())


def test_its_gradient_stays_in_the_outputs_dtype() -> None:
    outputs, batch = rows()
    outputs.requires_grad_()
    loss = squared_error([1.0, 2.0, 3.0], weight=lambda b: b.strata["a"])(outputs, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.dtype == torch.float32
    assert outputs.grad is not None


def test_what_has_no_squared_error() -> None:
    outputs, batch = rows()
    with pytest.raises(NetworkError, match=r"outputs are \(12,\), targets \(12, 1\)"):
        squared_error()(outputs[:, 0], batch)
    with pytest.raises(NetworkError, match="targets none"):
        squared_error()(outputs, Batch(outputs, torch.arange(12)))
    with pytest.raises(ConfigError, match="scales must be positive"):
        squared_error([1.0, 0.0])
