"""The page of the images study: what the networks see."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heldout.figures.page import Section
from heldout.figures.pictures import Row, pictures
from heldout.studies.images import ImagesConfig, settings_from
from heldout.tasks.images import FEATURES, Images

ACROSS = 10  # pictures of a row


def samples(config: ImagesConfig) -> Section:
    """Shapes, textures and colours one by one, and some pictures of each split."""
    task = Images(settings_from(config.task()), seed=config.first_seed)
    rows = []
    for i, name in enumerate(FEATURES):
        values = task.values["train"][:, i]
        firsts = [np.flatnonzero(values == k)[0] for k in range(int(values.max()) + 1)]
        rows.append(_row(task, "train", np.resize(firsts, ACROSS), f"train, by {name}"))
    rows += [_row(task, name, np.arange(ACROSS), name) for name in task.splits if name not in ("train", "val")]
    figure = pictures(
        rows,
        id="pictures",
        title="What the networks see",
        caption=f"Pictures of {config.size} x {config.size} pixels as they enter the networks, those of seed "
        f"{config.first_seed}: the first of each value in train, and the first {ACROSS} of each test split.",
    )
    return Section(
        "pictures",
        "The pictures",
        (
            "A shape of one colour on grey, filled with a texture through which the grey shows; shape and texture are "
            "turned independently of each other, and the shape lies anywhere in the picture. Shape, texture and colour are "
            "balanced and independent of each other in pairs.",
        ),
        figures=(figure,),
    )


def _row(task: Images, split: str, index: NDArray[np.int64], label: str) -> Row:
    named = task.settings.values()
    contents = [
        " ".join(names[k] for names, k in zip(reversed(named), reversed(value), strict=True))
        for value in task.values[split][index].tolist()
    ]
    items = task.pictures(split)
    return Row(label, items.levels(index).transpose(0, 2, 3, 1), contents)
