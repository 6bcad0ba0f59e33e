"""The networks of a row of the matrix, by the row's name; one loader a row, in modules by kind of task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

from heldout.studies.matrix_material import Folders, Material, Settings

Load = Callable[[str, Settings, Folders, Sequence[int], str], Material]

LOADERS = {
    "digits": "matrix_load_pictures:digits",
    "digits_cnn": "matrix_load_pictures:digits",
    "images": "matrix_load_pictures:images",
    "features": "matrix_load_features:features",
    "similarity": "matrix_load_features:features",
    "sequences": "matrix_load_text:sequences",
    "dyck": "matrix_load_text:dyck",
    "code": "matrix_load_text:code",
    "arithmetic": "matrix_load_numbers:arithmetic",
    "arithmetic_exactly": "matrix_load_numbers:arithmetic",
    "product": "matrix_load_numbers:arithmetic",
    "modular": "matrix_load_numbers:modular",
    "nuclear": "matrix_load_numbers:nuclear",
}


def material(row: str, s: Settings, folders: Folders, seeds: Sequence[int], device: str) -> Material:
    """`s`: settings of the step that trained the row's first network; `folders`: ``weights-<seed>`` (``weights`` where one
    step trains all seeds), and what else the row's loader reads."""
    module, _, name = LOADERS[row].partition(":")
    load: Load = getattr(import_module(f"heldout.studies.{module}"), name)
    return load(row, s, folders, seeds, device)
