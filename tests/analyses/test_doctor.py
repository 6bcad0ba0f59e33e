"""The self-test passes here, and does not pass on a device that computes something else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from heldout.analyses import doctor
from heldout.errors import ConfigError


def test_the_cpu_is_healthy() -> None:
    lines, healthy = doctor.examine("cpu")
    assert healthy
    assert sum(line.endswith("ok") for line in lines) == len(doctor.CHECKS)


def test_an_error_of_one_in_a_thousand_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(x: Tensor) -> Tensor:
        return x @ x.T * (1.0 if x.dtype == torch.float64 else 1.001)

    monkeypatch.setitem(doctor.CHECKS, "matrix product", wrong)
    lines, healthy = doctor.examine("cpu")
    assert not healthy
    assert [line.split()[0:2] for line in lines if line.endswith("WRONG")] == [["matrix", "product"]]


@pytest.mark.parametrize("device", ["meta", "nonsense"])
def test_a_device_that_cannot_compute_is_refused(device: str) -> None:
    with pytest.raises(ConfigError, match=f"'{device}' cannot be used"):
        doctor.examine(device)
