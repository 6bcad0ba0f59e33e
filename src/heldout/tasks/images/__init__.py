"""Pictures of one shape each, whose shape, texture and colour vary independently; each can be an output of its own."""

from heldout.tasks.images.render import COLOURS, Scenes, render
from heldout.tasks.images.settings import FEATURES, ImagesSettings
from heldout.tasks.images.shapes import SHAPES
from heldout.tasks.images.task import Images
from heldout.tasks.images.textures import TEXTURES

__all__ = ["COLOURS", "FEATURES", "SHAPES", "TEXTURES", "Images", "ImagesSettings", "Scenes", "render"]
