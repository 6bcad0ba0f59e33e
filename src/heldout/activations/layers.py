"""Node layers: sites whose rows are a layer's activations, and which of their positions count."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import Tensor

from heldout.activations.sites import Site
from heldout.errors import ConfigError, SiteError

_SLICE = re.compile(r"(-?\d+)?:(-?\d+)?")


@dataclass(frozen=True)
class NodeLayer:
    """A site whose rows are one layer's activations, and which of its positions count.

    `positions`: ``all`` that hold data; ``scored``, those that the batch scores; ``last``; or a slice of each item's data
    as Python writes it (``1:`` leaves out the first, ``-2:`` keeps the last two).
    """

    site: str
    positions: str = "all"

    @staticmethod
    def parse(given: NodeLayer | str | tuple[str, str]) -> NodeLayer:
        """A layer from its site, or from (site, positions). Raises `SiteError` and `ConfigError`."""
        layer = given if isinstance(given, NodeLayer) else NodeLayer(*((given,) if isinstance(given, str) else given))
        if layer.positions not in ("all", "scored", "last") and not _SLICE.fullmatch(layer.positions):
            raise ConfigError(
                f"node layer {layer.site}: positions {layer.positions!r}; choose from 'all', 'scored', 'last' or a slice "
                "such as '1:'"
            )
        return NodeLayer(str(Site.parse(layer.site)), layer.positions)

    def counted(self, data: Tensor, scored: Tensor | None) -> Tensor:
        """(B, T) bool: which of the positions that hold `data` (B, T) count. Raises `SiteError` where none does."""
        chosen = data
        if self.positions == "scored":
            if scored is None or scored.shape != data.shape:
                raise SiteError(
                    f"node layer {self.site} has {tuple(data.shape)} positions, but the batch scores "
                    f"{None if scored is None else tuple(scored.shape)}; name them, for example 'last'"
                )
            chosen = data & scored
        elif self.positions != "all":
            match = _SLICE.fullmatch("-1:" if self.positions == "last" else self.positions)
            assert match is not None
            place, length = data.cumsum(dim=1) - 1, data.sum(dim=1, keepdim=True)
            for edge, bound in enumerate(match.groups()):
                if bound is not None:
                    limit = int(bound) if int(bound) >= 0 else length + int(bound)
                    chosen = chosen & (place < limit if edge else place >= limit)
        if not bool(chosen.any()):
            raise SiteError(f"node layer {self.site}: no position of a batch counts under {self.positions!r}")
        return chosen
