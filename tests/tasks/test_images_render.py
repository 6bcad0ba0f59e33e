"""Pictures against closed forms: areas, colours, symmetry, and bytes that depend on nothing beside the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from heldout.tasks.images import COLOURS, SHAPES, TEXTURES, Scenes, render
from heldout.tasks.images.render import BACKGROUND, LEVELS
from heldout.tasks.images.shapes import OUTLINES, area, extent, signed_distance
from heldout.tasks.images.textures import PATTERNS

SCALE = 10 / 224
WHITE, SOLID = list(COLOURS).index("white"), TEXTURES.index("solid")


def scenes(n: int, *, seed: int = 0, **fixed: float | np.ndarray) -> Scenes:
    """Random parameters with every shape well inside the picture, some of them `fixed`."""
    rng = np.random.default_rng(seed)
    drawn = {
        "shape": rng.integers(10, size=n),
        "texture": rng.integers(10, size=n),
        "colour": rng.integers(10, size=n),
        "angle": rng.uniform(-45, 45, n),
        "texture_angle": rng.uniform(-45, 45, n),
        "x": rng.uniform(0.45, 0.55, n),
        "y": rng.uniform(0.45, 0.55, n),
        "box": np.full(n, 128 / 224),
    }
    for name, value in fixed.items():
        drawn[name] = np.broadcast_to(value, n).astype(drawn[name].dtype)
    return Scenes(**drawn)


@pytest.mark.parametrize(("size", "off"), [(64, 0.01), (224, 0.001)])
def test_shapes_cover_their_area(size: int, off: float) -> None:
    for number, name in enumerate(SHAPES):
        some = scenes(12, seed=number, shape=number, texture=SOLID, colour=WHITE)
        levels = render(some, size=size, texture_scale=SCALE)[:, 0].astype(float)
        covered = (levels - BACKGROUND).sum((1, 2)) / (255 - BACKGROUND)
        expected = area(name) * (128 / 224 / 2) ** 2 * size**2
        assert covered == pytest.approx(expected, rel=3 * off), name
        assert covered.mean() == pytest.approx(expected, rel=off), name


def test_areas_are_those_that_geometry_gives() -> None:
    closed = {
        "triangle": 2.0,
        "square": 4.0,
        "plus": 4 * 5 / 9,
        "circle": np.pi,
        "tee": 4 * 5 / 9,
        "rhombus": 2 * 0.6,
        "pentagon": 5 / 2 * np.sin(2 * np.pi / 5),
        "star": 5 * (3 - np.sqrt(5)) / 2 * np.sin(np.pi / 5),
        "fivesquare": 5 * 0.6**2,
        "trapezoid": 1.5 * 1.2,
    }
    assert {name: area(name) for name in SHAPES} == pytest.approx(closed)


def test_distances_are_those_to_densely_sampled_outlines() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.uniform(-1.3, 1.3, (2, 100)).astype(np.float32)
    along = np.linspace(0, 1, 1000)
    for name, contours in OUTLINES.items():
        if contours is None:
            dense = np.stack([np.cos(2 * np.pi * along), np.sin(2 * np.pi * along)], 1)
        else:
            edges = [(np.array(a), np.array(b)) for c in contours for a, b in zip(c, c[1:] + c[:1], strict=True)]
            dense = np.concatenate([a + along[:, None] * (b - a) for a, b in edges])
        nearest = np.sqrt(((np.stack([x, y], 1)[:, None] - dense) ** 2).sum(-1)).min(1)
        found = signed_distance(name, x, y)
        assert np.abs(found) == pytest.approx(nearest, abs=3e-3), name
        # The share of points inside is the area's.
        grid = np.linspace(-1, 1, 401, dtype=np.float32) + np.float32(1e-4)
        inside = signed_distance(name, *np.meshgrid(grid, grid)) < 0
        assert inside.mean() * 4 == pytest.approx(area(name), rel=0.02), name


def test_a_turned_shape_reaches_as_far_as_its_corners() -> None:
    root = np.sqrt(0.5)
    assert extent("square", root, root) == pytest.approx((-2 * root, 2 * root, -2 * root, 2 * root))
    assert extent("triangle", 1.0, 0.0) == (-1, 1, -1, 1)
    assert extent("circle", root, root) == (-1, 1, -1, 1)


def test_solid_shapes_have_their_colour_and_the_rest_is_grey() -> None:
    for number, name in enumerate(COLOURS):
        (picture,) = render(scenes(1, shape=1, angle=0, colour=number, texture=SOLID), size=64, texture_scale=SCALE)
        assert picture[:, 32, 32].tolist() == np.rint(255 * np.array(COLOURS[name])).tolist() == LEVELS[number].tolist()
        assert (picture[:, :4] == BACKGROUND).all()
        assert (picture[:, :, -4:] == BACKGROUND).all()
        # Every pixel lies between the background and the colour.
        moves = LEVELS[number] != BACKGROUND
        share = (picture[moves].astype(float) - BACKGROUND) / (LEVELS[number] - BACKGROUND)[moves, None, None]
        assert (picture[~moves] == BACKGROUND).all()
        assert share.min() >= 0
        assert share.max() <= 1


@pytest.mark.parametrize("size", [64, 63])
def test_a_turned_scene_is_a_turned_picture(size: int) -> None:
    """All of it a quarter anticlockwise about the picture's centre; rounding may move a level by one."""
    some = scenes(60, seed=3, texture=np.setdiff1d(np.arange(10), [5])[np.arange(60) % 9])
    turned = replace(
        some, angle=some.angle + 90, texture_angle=some.texture_angle + 90, x=1 - some.y, y=some.x, shape=some.shape
    )
    before = render(some, size=size, texture_scale=SCALE).astype(int)
    after = render(turned, size=size, texture_scale=SCALE).astype(int)
    off = np.abs(np.rot90(before, axes=(2, 3)) - after)
    # A texture's sample on the very edge of its pattern may fall on either side.
    assert (off > 1).mean() < 1e-3
    assert off.max() <= 2 * 128 / 16


def test_a_picture_is_the_same_whatever_is_rendered_beside_it() -> None:
    some = scenes(100, seed=4)
    whole = render(some, size=64, texture_scale=SCALE)
    rng = np.random.default_rng(0)
    for order in (rng.permutation(100), np.arange(7), np.array([42])):
        assert np.array_equal(render(some.take(order), size=64, texture_scale=SCALE), whole[order])
    assert len(set(some.keys())) == 100
    assert some.take(np.array([3])).keys()[0] == some.keys()[3]


@pytest.mark.parametrize(("size", "least"), [(64, 4), (224, 20)])
def test_textures_differ_from_each_other(size: int, least: float) -> None:
    """Mean difference of levels inside the shape, of any two textures of one scene, at any turn of one of them."""
    for angle in (0.0, 20.0, 45.0):
        some = scenes(10, texture=np.arange(10), shape=1, colour=WHITE, angle=0, texture_angle=angle, x=0.5, y=0.5)
        inside = render(some, size=size, texture_scale=SCALE)[:, 0, size // 3 : -size // 3, size // 3 : -size // 3]
        apart = np.abs(inside[:, None].astype(float) - inside).mean((2, 3))
        assert apart[~np.eye(10, dtype=bool)].min() > least


def test_textures_draw_the_share_of_a_cell_that_geometry_gives() -> None:
    at = (np.arange(400, dtype=np.float32) + np.float32(0.5)) / 400
    shares = {
        "stripes": 0.5,
        "grid": 1 - 0.7**2,
        "dots": np.pi * 0.28**2,
        "triangles": 0.95**2 / 2,
        "zigzags": 0.5,
        "rain": 0.3,
        "pluses": 2 * 0.3 * 0.9 - 0.3**2,
        "hexgrid": 1 - (1 - 2 * 0.13) ** 2,
        "noise": 0.5,
    }
    for name, expected in shares.items():
        tall = {"hexgrid": np.float32(np.sqrt(3)), "rain": np.float32(2), "noise": np.float32(300)}.get(
            name, np.float32(1)
        )
        wide = np.float32(300) if name == "noise" else np.float32(1)
        pattern = PATTERNS[name]
        assert pattern is not None
        assert pattern(*np.meshgrid(at * wide, at * tall)).mean() == pytest.approx(expected, abs=0.01), name
