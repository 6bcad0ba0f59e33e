"""Items that depend on their batch are found, whichever axis is to blame; others pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import heldout
from heldout.analyses.alone import check_items_alone
from heldout.analyses.faithfulness import Subject
from heldout.errors import NetworkError
from heldout.tasks.base import Split
from heldout.tasks.ragged import Ragged

T = 5


class Encodes(nn.Module):
    """Classes for each position, by an encoder that takes positions or items first."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, src: Tensor, src_key_padding_mask: Tensor | None = None) -> Tensor:
        states = self.encoder(self.embed(src), src_key_padding_mask=src_key_padding_mask)
        found: Tensor = self.head(states)
        return found


class Pools(Encodes):
    """One prediction an item: the mean over the first axis, which holds positions in its author's mind."""

    def forward(self, src: Tensor, src_key_padding_mask: Tensor | None = None) -> Tensor:
        return super().forward(src, src_key_padding_mask).mean(0)


class Transposed(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, src: Tensor) -> Tensor:
        found: Tensor = self.inner(src.T)
        return found.transpose(0, 1)


class Blind(nn.Module):
    """Counts padding as data."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 8), nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        rows = self.embed(tokens)
        found: Tensor = self.head(rows + rows.mean(1, keepdim=True))
        return found


def subject(make: Callable[[], nn.Module]) -> Subject:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Subject(make().eval())


def tokens(n: int, *, mask: bool = False) -> Split:
    x = torch.randint(1, 9, (n, T), generator=torch.Generator().manual_seed(1))
    inputs = {"src": x, "src_key_padding_mask": torch.zeros(n, T, dtype=torch.bool)} if mask else x
    return heldout.split("id", "test", inputs, x % 3)


def of_lengths(*lengths: int) -> Split:
    x = np.random.default_rng(0).integers(1, 9, size=sum(lengths))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = Ragged(x, x % 3, offsets=offsets, pad=0, scored=np.ones(len(x), dtype=bool))
    return Split("id", "test", items)


@pytest.mark.parametrize("n", [4, T, 12])
def test_positions_first_without_a_wrapper_is_refused_whatever_the_number_of_items(n: int) -> None:
    wrong = subject(lambda: Encodes(batch_first=False))
    with pytest.raises(NetworkError, match=r"items are mixed. Axis 0 .* wrapper .* SITE@time_first"):
        check_items_alone(wrong, tokens(n))


@pytest.mark.parametrize("n", [T, 12])
def test_with_a_mask_and_pooling_too(n: int) -> None:
    """Shapes that do not fit, or fit by accident, lead to the same advice."""
    for make in (Encodes, Pools):
        wrong = subject(partial(make, batch_first=False))
        with pytest.raises(NetworkError, match="batch_first=False"):
            check_items_alone(wrong, tokens(n, mask=True))


def test_a_square_batch_hides_it_from_everything_else() -> None:
    """With as many items as positions, shapes fit and a pass succeeds: that is what this check is for."""
    wrong, split = subject(lambda: Pools(batch_first=False)), tokens(T, mask=True)
    batch = next(split.batches(T))
    assert wrong.network(**batch.inputs).shape == (T, 3)


def test_items_first_and_wrapped_networks_pass() -> None:
    for n in (1, T, 12):
        check_items_alone(subject(lambda: Encodes(batch_first=True)), tokens(n))
        check_items_alone(subject(lambda: Encodes(batch_first=True)), tokens(n, mask=True))
        check_items_alone(subject(lambda: Transposed(Encodes(batch_first=False))), tokens(n))


def test_padding_that_is_seen_is_told_from_items_that_are_mixed() -> None:
    with pytest.raises(NetworkError, match=r"padding of axis 1\. .*mask_argument"):
        check_items_alone(subject(Blind), of_lengths(3, 6, 4, 6))
    check_items_alone(subject(Blind), of_lengths(6, 6, 6))


def test_a_recurrent_network_that_mixes_later_items_with_earlier_ones() -> None:
    class Recurrent(nn.Module):
        def __init__(self, *, batch_first: bool) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(9, 8), nn.Linear(8, 3)
            self.lstm = nn.LSTM(8, 8, batch_first=batch_first)

        def forward(self, tokens: Tensor) -> Tensor:
            found: Tensor = self.head(self.lstm(self.embed(tokens))[0])
            return found

    check_items_alone(subject(lambda: Recurrent(batch_first=True)), of_lengths(3, 6, 4))
    with pytest.raises(NetworkError, match="items are mixed"):
        check_items_alone(subject(lambda: Recurrent(batch_first=False)), of_lengths(3, 6, 4))


def test_a_failure_of_another_kind_gets_no_advice_on_axes() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyError("flux")

    with pytest.raises(NetworkError, match="flux") as raised:
        check_items_alone(subject(Fails), tokens(3))
    assert "batch_first" not in str(raised.value)


def test_an_argument_that_no_split_gives_is_to_be_bound() -> None:
    class Asks(nn.Module):
        def forward(self, x: Tensor, task: str) -> Tensor:
            return x

    with pytest.raises(NetworkError, match=r"'task'\. If it is how it is called: .* wrapper binds"):
        check_items_alone(subject(Asks), tokens(3))


def test_check_refuses_too() -> None:
    splits = [heldout.split(n, "test", torch.randint(1, 9, (6, T), generator=torch.Generator().manual_seed(i)))
              for i, n in enumerate(("id", "far"))]  # fmt: skip
    network = subject(lambda: Encodes(batch_first=False)).network
    with pytest.raises(NetworkError, match="items are mixed"):
        heldout.check(network, {"head": lambda rows, mask: rows / 2}, splits)
