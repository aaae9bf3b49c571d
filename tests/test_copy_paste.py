"""CopyPaste and instance masks against painting in plain NumPy: every pixel, object, box and share."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from contract import PROMISES
from helpers import BACKEND, CODE_PATHS, at_step, every_path, on, pipeline, raises, refused, to_native, to_numpy

import kmix
from kmix import prng
from kmix._backend import NUMPY
from kmix.targets import BoundingBoxes, InstanceMasks, Labels, SegmentationMasks

N, PADDING = 6, {"labels": -1, "boxes": -1, "iscrowd": 0, "track": -1}


def copy_paste(**settings):
    return kmix.CopyPaste(**{"data_format": "channels_last", "seed": 5, **settings})


def scene(generator, n=N, most=5, size=None, dtype=None):
    """Images, and objects that overlap: some without pixels, some of padding, some crowds, with boxes of any values."""
    height, width = size or generator.integers(4, 24, 2)
    dtype = dtype or generator.choice(["bool", "uint8", "int32"])
    labels = generator.integers(-1, 4, (n, most)).astype(generator.choice(["int32", "float32"]))
    masks = np.zeros((n, most, height, width), dtype)
    for mask in masks.reshape(-1, height, width):
        (top, bottom), (left, right) = (np.sort(generator.integers(0, size + 1, 2)) for size in (height, width))
        mask[top:bottom, left:right] = generator.random((bottom - top, right - left)) < generator.choice([0.5, 1.0])
        if dtype != "bool":
            mask *= mask.dtype.type(generator.integers(1, 100))
    instances = {
        "masks": masks,
        "labels": labels,
        "boxes": generator.uniform(0, 24, (n, most, 4)).astype("float32"),
        "iscrowd": (generator.random((n, most)) < 0.2).astype("uint8"),
        "track": generator.integers(0, 99, (n, most, 2)).astype("int32"),
    }
    return generator.integers(0, 256, (n, height, width, 3)).astype("uint8"), instances


def target(**settings):
    return InstanceMasks(**{"format": "yxyx", "crowd": "iscrowd", "keep": ["track"], **settings})


def tight(mask):
    """The box `(top, left, bottom, right)` around the pixels of a mask."""
    rows, columns = np.nonzero(mask)
    return [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]


def packed(objects, like, width):
    """The objects `(values by name, mask)` of an image as arrays, padded."""
    found = {}
    for name, leaf in like.items():
        padding = np.zeros(leaf.shape[2:]) if name == "masks" else np.full(leaf.shape[2:], PADDING[name])
        rows = [values[name] for values in objects][:width]
        found[name] = np.stack([*rows, *[padding] * (width - len(rows))]).astype(leaf.dtype)
    return found


def cut(values, visible, min_visibility, moved=False):
    """An object of which only `visible` pixels show; None if too little does."""
    area, left = np.count_nonzero(values["masks"]), np.count_nonzero(visible)
    if left == 0 or left < min_visibility * area - 1e-6:
        return None
    if left == area and not moved:
        return values
    return {**values, "masks": visible, "boxes": np.array(tight(visible))}


def objects_of(instances, i):
    """The real objects of an image."""
    real = np.flatnonzero(instances["labels"][i] >= 0)
    return [{name: leaf[i, n] for name, leaf in instances.items()} for n in real]


def painted(images, instances, plan, max_instances=None, min_visibility=0.1):
    """What a CopyPaste makes of a batch, image by image: images, objects, the share of the sample."""
    mixed, found, lam = images.copy(), [], np.ones(len(images), "float32")
    most = instances["labels"].shape[1]
    width, regions = max_instances or 2 * most, np.zeros(images.shape[:3], bool)
    for i, j in enumerate(plan.permutation):
        own, pasted = objects_of(instances, i), []
        for n in range(most):
            can = instances["labels"][j, n] >= 0 and instances["masks"][j, n].any() and not instances["iscrowd"][j, n]
            if can and i != j and plan.lam[i] == 0 and plan.region.chosen[i, n] and len(own) + len(pasted) < width:
                pasted.append({name: leaf[j, n] for name, leaf in instances.items()})
        for values in pasted:
            regions[i] |= values["masks"] != 0
        mixed[i][regions[i]] = images[j][regions[i]]
        lam[i] = 1 - regions[i].mean()
        if pasted:
            own = [cut(values, np.where(regions[i], 0, values["masks"]), min_visibility) for values in own]
        found.append(packed([values for values in own if values is not None] + pasted, instances, width))
    return mixed, {name: np.stack([each[name] for each in found]) for name in instances}, lam, regions


def assert_same(ours, expected, exact=True):
    assert set(ours) == set(expected)
    for name, leaf in expected.items():
        assert ours[name].dtype == leaf.dtype, name
        np.testing.assert_allclose(ours[name], leaf, rtol=0, atol=0 if exact else 1e-5, err_msg=name)


def check_scenes(seeds, path="numpy", sizes=None):
    """Mix generated scenes and compare with `painted`. Returns what was seen."""
    seen = {"pasted": 0, "cut": 0, "gone": 0, "as it came": 0, "full": 0}
    for seed in seeds:
        generator = np.random.default_rng(seed)
        images, instances = scene(generator, size=sizes)
        most, share = instances["labels"].shape[1], generator.choice([0.0, 0.1, 0.5, 1.0])
        limit = None if generator.random() < 0.5 else int(generator.integers(most, 2 * most + 3))
        settings = {"max_instances": limit, "min_visibility": share}
        layer = copy_paste(
            rate=generator.choice([0.7, 1.0]),
            instance_rate=generator.choice([0.3, 1.0]),
            target={"instances": target(**settings), "value": Labels(), "mask": SegmentationMasks()},
        )
        values, classes = np.eye(N, dtype="float32"), generator.integers(0, 9, images.shape[:3]).astype("uint8")
        batch = {"images": images, "instances": instances, "value": values, "mask": classes}
        ours = at_step(path, layer, seed, {**batch, "sample_weight": np.arange(1, N + 1, dtype="float32")})
        plan = layer.plan(seed, N, spatial_shape=images.shape[1:3])
        mixed, found, lam, regions = painted(images, instances, plan, **settings)
        np.testing.assert_array_equal(ours["images"], mixed)
        assert_same(ours["instances"], found)
        np.testing.assert_array_equal(ours["mask"], np.where(regions, classes[plan.permutation], classes))
        weights = lam[:, None] * values, (1 - lam)[:, None] * values[plan.permutation]
        weights = [each * np.arange(1, N + 1) for each in weights]
        np.testing.assert_allclose(ours["sample_weight"], sum(weights).sum(1), rtol=1e-5)
        np.testing.assert_allclose(ours["value"], sum(weights) / sum(weights).sum(1)[:, None], atol=1e-5)
        alone = lam == 1
        np.testing.assert_array_equal(ours["value"][alone], values[alone])
        own, left = (instances["labels"] >= 0).sum(), (found["labels"] >= 0).sum()
        seen["as it came"] += alone.sum()
        seen["pasted"] += (~alone).sum()
        seen["gone"] += left < own
        seen["full"] += ((found["labels"] >= 0).sum(1) == limit).sum()
        seen["cut"] += (found["boxes"] == np.floor(found["boxes"])).all(2)[found["labels"] >= 0].sum()
    return seen


def test_scenes_are_what_is_painted():
    seen = check_scenes(range(40))
    assert min(seen.values()) > 5, seen


@pytest.mark.slow
def test_a_thousand_scenes_are_what_is_painted():
    seen = check_scenes(range(1000, 2000))
    assert min(seen.values()) > 100, seen


@pytest.mark.parametrize(("path", "count"), [("native", 12), ("tfdata", 4)])
def test_scenes_on_other_code_paths(path, count):
    check_scenes(range(count), path, sizes=(9, 7))


@on("jax", why="jax.jit")
def test_scenes_within_jit():
    import jax

    generator = np.random.default_rng(3)
    images, instances = scene(generator, size=(9, 7), dtype="bool")
    layer = copy_paste(target={"instances": target(max_instances=7)})
    mix = jax.jit(layer.at_step)
    for step in range(6):
        ours = to_numpy(mix(step, to_native({"images": images, "instances": instances})))
        plan = layer.plan(step, N, spatial_shape=(9, 7))
        mixed, found, *_ = painted(images, instances, plan, 7)
        np.testing.assert_array_equal(ours["images"], mixed)
        assert_same(ours["instances"], found)
