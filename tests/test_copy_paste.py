"""CopyPaste and instance masks against painting in plain NumPy: every pixel, object, box and share."""

import keras
import numpy as np
import pytest
from contract import PROMISES
from helpers import at_step, every_path, on, raises, refused, tf, to_native, to_numpy
from outside import RowMix

import kmix
from kmix import prng
from kmix._backend import NUMPY
from kmix.targets import BoundingBoxes, InstanceMasks, Keypoints, Labels, SegmentationMasks

N, HIDDEN = 6, 1
PADDING = {"labels": -1, "boxes": -1, "iscrowd": 0, "track": -1, "keypoints": [-1, -1, 0]}


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
        padding = np.zeros(leaf.shape[2:]) if name == "masks" else np.zeros(leaf.shape[2:]) + PADDING[name]
        rows = [values[name] for values in objects][:width]
        rows += [padding] * (width - len(rows))
        found[name] = np.reshape(rows, (width, *leaf.shape[2:])).astype(leaf.dtype)
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


def marked(values, region, visibility):
    """An object whose points have this visibility where they lie in a region, and 0 outside of the image."""
    if "keypoints" not in values:
        return values
    points, (height, width) = values["keypoints"].copy(), region.shape
    for point in points:
        x, y = np.floor(point[:2]).astype(int)
        inside = 0 <= x < width and 0 <= y < height
        if point[2] > 0 and (not inside or region[y, x]):
            point[2] = visibility if inside else 0
    return {**values, "keypoints": points}


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
            own = [marked(values, regions[i], HIDDEN) for values in own if values is not None]
            pasted = [marked(values, ~regions[i], 0) for values in pasted]
        found.append(packed(own + pasted, instances, width))
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


@pytest.mark.fast("numpy*", "native*")
@pytest.mark.parametrize(("path", "count"), [("numpy", 4), ("native", 4), ("tfdata", 4)])
def test_scenes_on_every_code_path(path, count):
    check_scenes(range(count), path, sizes=(9, 7))


@pytest.mark.fast("numpy*")
@pytest.mark.parametrize(("path", "count"), [("numpy", 40), ("native", 2), ("tfdata", 2)])
def test_points_of_objects_follow_their_pixels(path, count):
    seen = {0: 0, 1: 0, 2: 0}
    for step in range(count):
        generator = np.random.default_rng(step)
        images, instances = scene(generator, size=(9, 7), dtype="bool")
        points = generator.uniform(-1, [8, 10, 0], (N, 5, 4, 3))
        points[..., 2] = generator.integers(0, 3, points.shape[:3])
        instances["keypoints"] = points.astype("float32")
        own = target(keypoints=Keypoints(hidden=HIDDEN), max_instances=8)
        layer = copy_paste(target=own, rate=0.8)
        _, ours = at_step(path, layer, step, (images, instances))
        expected = painted(images, instances, layer.plan(step, N, spatial_shape=(9, 7)), 8)[1]
        assert_same(ours, expected)
        for v in seen:
            seen[v] += np.count_nonzero(expected["keypoints"][..., 2] == v)
    assert min(seen.values()) > 50 or path != "numpy", seen


def test_points_are_named_and_checked():
    instances = objects(keypoints=np.ones((2, 1, 4, 3), "float32"))
    raises(lambda: copy_paste(target=InstanceMasks())(pixels(), instances), r"keypoints=kmix.targets.Keypoints\(\)")
    own = copy_paste(target=InstanceMasks(keypoints=Keypoints()))
    raises(lambda: own(pixels(), objects()), r"no \['keypoints'\]")
    raises(lambda: own(pixels(), {**instances, "keypoints": np.ones((2, 1, 4, 2))}), "visibility")
    raises(lambda: own(pixels(), {**instances, "keypoints": np.full((2, 1, 4, 3), 7.0)}), "visibility is 0, 1 or 2")
    with pytest.raises(TypeError, match="Keypoints"):
        InstanceMasks(keypoints="xy")


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


# Other mixers.


def pasted_by(mixer, images, instances, step, width, min_visibility=0.1):
    """The objects after a mixer that pastes boxes or tiles, or blends."""
    n, height, width_of = images.shape[:3]
    plan, found = mixer.plan(step, n, spatial_shape=(height, width_of)), []
    for i in range(n):
        if plan.lam[i] == 1 or (plan.partners is None and plan.permutation[i] == i):
            found.append(packed(objects_of(instances, i), instances, width))
            continue
        objects = []
        for k, part in enumerate(plan.parts()):
            shown, shift = np.ones((height, width_of), bool), (0, 0)
            if plan.region is not None:
                (top, left, bottom, right), shift = part.window[i], part.shift[i]
                shown[:], shown[top:bottom, left:right] = False, True
            elif plan.box is not None:
                top, left, bottom, right = plan.box[i]
                shown[top:bottom, left:right] = False
                shown = shown if k == 0 else ~shown
            for values in objects_of(instances, part.source[i]):
                visible = np.where(shown, np.roll(values["masks"], shift, axis=(0, 1)), 0)
                moved = plan.region is not None
                objects.append(cut(values, visible, min_visibility if plan.pastes else 0, moved))
        found.append(packed([values for values in objects if values is not None], instances, width))
    return {name: np.stack([each[name] for each in found]) for name in instances}


OTHERS = {
    "MixUp": lambda **settings: kmix.MixUp(1.0, seed=2, rate=0.8, **settings),
    "CutMix": lambda **settings: kmix.CutMix(1.0, seed=2, rate=0.8, data_format="channels_last", **settings),
    "Mosaic": lambda **settings: kmix.Mosaic(seed=2, rate=0.8, data_format="channels_last", **settings),
}


@pytest.mark.in_turn
@pytest.mark.fast("*numpy")
@every_path
@pytest.mark.parametrize("name", OTHERS)
def test_other_mixers_cut_move_and_keep_masks(name, path):
    for step in range(30 if path == "numpy" else 2):
        generator = np.random.default_rng(step)
        images, instances = scene(generator, **({} if path == "numpy" else {"size": (8, 11), "dtype": "bool"}))
        limit = None if step % 2 else int(generator.integers(5, 12))
        layer = OTHERS[name](target=target(max_instances=limit, min_visibility=0.3))
        _, ours = at_step(path, layer, step, (images, instances))
        width = limit or (20 if name == "Mosaic" else 10)
        assert_same(ours, pasted_by(layer, images, instances, step, width, 0.3))


def test_a_choice_returns_one_width():
    layers = [make(target={"instances": target()}) for make in OTHERS.values()]
    layers.append(copy_paste(target={"instances": target()}))
    layer, drawn = kmix.RandomChoice(layers, seed=2), set()
    images, instances = scene(np.random.default_rng(4), size=(8, 11))
    for step in range(12):
        choice = int(layer.plan(step, N, spatial_shape=(8, 11)).choice)
        drawn.add(choice)
        ours = layer.at_step(step, {"images": images, "instances": instances})["instances"]
        if choice == 3:
            expected = painted(images, instances, layers[3].plan(step, N, spatial_shape=(8, 11)))[1]
        else:
            expected = pasted_by(layers[choice], images, instances, step, 20)
        for name, leaf in expected.items():
            np.testing.assert_array_equal(ours[name][:, : leaf.shape[1]], leaf)
        assert ours["labels"].shape == (N, 20)
        assert (ours["labels"][:, 10:] == -1).all() or choice == 2
    assert drawn == {0, 1, 2, 3}


def test_a_mixer_from_outside_cuts_masks():
    images, instances = scene(np.random.default_rng(7), size=(8, 11), dtype="bool")
    _, ours = (layer := RowMix(1.0, target=target(), seed=1)).at_step(0, (images, instances))
    plan = layer.plan(0, N, spatial_shape=(8, 11))
    rows = np.stack([plan.region.first, 0 * plan.region.first, 0 * plan.region.first + 8], axis=1)
    box = np.concatenate([rows, np.full((N, 1), 11)], axis=1)
    as_boxes = type("", (), {"plan": lambda *_, **__: plan._replace(region=None, box=box)})
    assert_same(ours, pasted_by(as_boxes(), images, instances, 0, 10))


# The promises of every mixer.


def batches():
    images, instances = scene(np.random.default_rng(2), size=(8, 6), dtype="uint8")
    values, weights = np.eye(N, dtype="float32"), np.linspace(0.5, 2, N).astype("float32")
    several = {"instances": target(), "value": Labels()}
    yield "alone", copy_paste(target=target(max_instances=7)), (images, instances)
    yield (
        "with labels",
        copy_paste(target=several, rate=0.8),
        (images, {"instances": instances, "value": values}, weights),
    )
    others = {"data_format": "channels_first", "pairing": kmix.pairing.RandomPairs(allow_self=False)}
    yield (
        "channels first",
        copy_paste(target=target(), **others),
        (images.transpose(0, 3, 1, 2).astype("float32"), instances),
    )
    choice = [copy_paste(target=target()), kmix.MixUp(1.0, target=target(), seed=1)]
    yield "a choice", kmix.RandomChoice(choice, seed=4), (images, instances)


BATCHES = {name: case for name, *case in batches()}


@pytest.mark.in_turn
@pytest.mark.fast("with labels-config", "with labels-clean", "alone-spec", "with labels-second_batch", "alone-groups")
@pytest.mark.parametrize(
    "promise", [each for each in PROMISES if each.__name__ != "check_once"], ids=lambda each: each.__name__[6:]
)
@pytest.mark.parametrize("name", BATCHES)
def test_the_layer_keeps_the_promises_of_every_mixer(name, promise):
    promise(*BATCHES[name])


def test_the_plan_reads_the_streams_that_it_says():
    layer, (seed, step, replica) = copy_paste(rate=0.6, instance_rate=0.3, seed=77), (77, 9, 2)
    plan, words = layer.plan(step, 5, replica), prng.bits(NUMPY, prng.key(NUMPY, seed, step), 512, 512, 5, replica)
    u = prng.uniform(NUMPY, words)
    np.testing.assert_array_equal(plan.lam, u[0] >= 0.6)
    np.testing.assert_array_equal(plan.permutation, np.argsort(words[1]))
    assert plan.region.chosen.shape == (5, 496)
    for n in (0, 1, 495):
        np.testing.assert_array_equal(plan.region.chosen[:, n], u[16 + n] < 0.3)


def test_a_rate_that_is_a_schedule_counts_steps():
    images, instances = scene(np.random.default_rng(2), size=(8, 6))
    layer = copy_paste(target=target(), instance_rate=1.0, rate=lambda step: 1.0 - step)
    first, second = (layer.at_step(step, (images, instances)) for step in range(2))
    assert not np.array_equal(first[0], images)
    np.testing.assert_array_equal(second[0], images)


def objects(n=2, most=1, size=(4, 4), **others):
    """Masks that cover their images."""
    return {"masks": np.ones((n, most, *size), bool), "labels": np.zeros((n, most), "int32"), **others}


def pixels(n=2, size=(4, 4)):
    return np.arange(n, dtype="float32").reshape(n, 1, 1, 1) * np.ones((1, *size, 1), "float32")


def always(**settings):
    others = kmix.pairing.RandomPairs(allow_self=False)
    return copy_paste(**{"instance_rate": 1.0, "pairing": others, "target": {"instances": InstanceMasks()}, **settings})


@every_path
def test_a_partner_that_covers_the_image_replaces_it(path):
    given = {"images": pixels(), "instances": objects(), "value": np.eye(2, dtype="float32")}
    mixed = at_step(path, always(target={"value": Labels()}), 0, given)
    np.testing.assert_array_equal(mixed["images"], pixels()[::-1])
    np.testing.assert_array_equal(mixed["value"], np.eye(2)[::-1])
    np.testing.assert_array_equal(mixed["instances"]["labels"], [[0, -1], [0, -1]])
    assert mixed["instances"]["masks"][:, 0].all()
    assert not mixed["instances"]["masks"][:, 1].any()


def test_boxes_that_disagree_with_masks_stay_unless_the_mask_changes():
    instances = objects(boxes=np.array([[[9, 9, 9, 9]], [[0, 0, 1, 1]]], "float32"))
    instances["masks"][1, 0, 1:] = False
    _, mixed = always(target=InstanceMasks("xyxy")).at_step(0, (pixels(), instances))
    np.testing.assert_array_equal(mixed["boxes"], [[[0, 1, 4, 4], [0, 0, 1, 1]], [[9, 9, 9, 9], [-1] * 4]])


@pytest.mark.parametrize("format", ["xyxy", "yxyx", "xywh", "center_xywh", "rel_xyxy", "rel_center_xywh"])
def test_boxes_in_every_format_and_of_integers(format):
    masks = np.zeros((2, 1, 8, 4), bool)
    masks[0], masks[1, 0, :, :2] = True, True
    # The left half of the first object is covered.
    expected = {
        "xyxy": [2, 0, 4, 8],
        "yxyx": [0, 2, 8, 4],
        "xywh": [2, 0, 2, 8],
        "center_xywh": [3, 4, 2, 8],
        "rel_xyxy": [0.5, 0, 1, 1],
        "rel_center_xywh": [0.75, 0.5, 0.5, 1],
    }[format]
    for dtype in ["float32"] if format.startswith("rel") else ["float32", "int16"]:
        instances = {"masks": masks, "labels": np.zeros((2, 1)), "boxes": np.full((2, 1, 4), 7, dtype)}
        _, mixed = always(target=InstanceMasks(format)).at_step(0, (pixels(size=(8, 4)), instances))
        np.testing.assert_array_equal(mixed["boxes"], [[expected, [7] * 4], [[7] * 4, [-1] * 4]])
        assert mixed["boxes"].dtype == dtype


def test_one_pixel_of_many_counts():
    masks = np.zeros((2, 1, 4100, 4100), bool)
    masks[:, :, 7, 9] = True
    images = np.zeros((2, 4100, 4100, 1), "uint8")
    images[1] = 1
    mixed = always(target={"value": Labels()}).at_step(
        0,
        {
            "images": images,
            "instances": {"masks": masks, "labels": np.zeros((2, 1))},
            "value": np.eye(2, dtype="float32"),
        },
    )
    assert mixed["images"].sum() == 4100 * 4100
    np.testing.assert_array_equal(mixed["images"][:, 7, 9, 0], [1, 0])
    assert (mixed["value"].max(1) > 0.999).all()
    assert (mixed["value"].max(1) < 1).all()


@pytest.mark.parametrize("most", [0, 1])
@pytest.mark.parametrize("limit", [None, 3])
@every_path
def test_batches_without_objects(path, limit, most):
    layer = always(target={"instances": InstanceMasks("xyxy", max_instances=limit)})
    instances = objects(most=most, boxes=np.ones((2, most, 4), "float32"))
    instances["labels"] -= 1
    mixed = at_step(path, layer, 0, {"images": pixels(), "instances": instances})
    np.testing.assert_array_equal(mixed["images"], pixels())
    assert mixed["instances"]["masks"].shape == (2, limit or 2 * most, 4, 4)
    assert (mixed["instances"]["boxes"] == -1).all()
    assert not mixed["instances"]["masks"].any()


def dataset(counts, sizes=(9, 7)):
    """Batches whose number of objects is not known, and of which the masks have these static sizes."""

    def batch(number):
        images, instances = scene(np.random.default_rng(number), most=counts[number], size=(9, 7), dtype="uint8")
        return {"images": images, "instances": {**instances, "labels": instances["labels"].astype("float32")}}

    like = tf.nest.map_structure(lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), batch(0))
    for name, spec in like["instances"].items():
        rest = sizes if name == "masks" else spec.shape[2:]
        like["instances"][name] = tf.TensorSpec((N, None, *rest), spec.dtype)
    numbers = range(len(counts))
    ds = tf.data.Dataset.from_generator(lambda: map(batch, numbers), output_signature=like)
    return ds, [batch(number) for number in numbers]


@pytest.mark.slow
@pytest.mark.xla
@pytest.mark.parametrize("limit", [None, 21])
@pytest.mark.parametrize("sizes", [(9, 7), (None, None)])
def test_numbers_of_objects_that_are_not_known_in_tf_data(sizes, limit):
    ds, given = dataset([3, 0, 17, 20], sizes)
    layer = copy_paste(target={"instances": target(max_instances=limit)})
    ours = tf.data.Dataset.zip(tf.data.Dataset.range(4), ds).map(layer.at_step)
    for step, (mixed, batch) in enumerate(zip(ours, given, strict=True)):
        plan = layer.plan(step, N, spatial_shape=(9, 7))
        images, expected, *_ = painted(batch["images"], batch["instances"], plan, limit)
        np.testing.assert_array_equal(mixed["images"], images)
        assert_same(to_numpy(mixed["instances"]), expected)


@pytest.mark.slow
@pytest.mark.xla
def test_what_is_not_known_is_checked_in_tf_data():
    ds, _ = dataset([3, 12])
    limited = ds.map(copy_paste(target={"instances": target(max_instances=10)}))
    raises(lambda: list(limited), "max_instances")
    many, _ = dataset([3, 497])
    raises(lambda: list(many.map(copy_paste(target={"instances": target()}))), "496")


# Refusals.


def without(name):
    return {key: leaf for key, leaf in objects().items() if key != name}


WRONG = {
    "no masks": (without("masks"), InstanceMasks(), "dictionary of masks"),
    "an array": (objects()["masks"], InstanceMasks(), "dictionary of masks"),
    "no labels": (without("labels"), InstanceMasks(), "labels of the objects"),
    "float masks": (objects() | {"masks": np.ones((2, 1, 4, 4), "float32")}, InstanceMasks(), "masks > 0.5"),
    "masks of one object": (objects() | {"masks": np.ones((2, 4, 4), bool)}, InstanceMasks(), r"\(B, N, H, W\)"),
    "labels (B,)": (objects() | {"labels": np.zeros(2, "int32")}, InstanceMasks(), r"\(B, N\)"),
    "unsigned labels": (objects() | {"labels": np.zeros((2, 1), "uint8")}, InstanceMasks(), "may be -1"),
    "bool labels": (objects() | {"labels": np.zeros((2, 1), bool)}, InstanceMasks(), "may be -1"),
    "other counts": (objects() | {"labels": np.zeros((2, 3), "int32")}, InstanceMasks(), "one mask, one label"),
    "other sizes": (objects(size=(4, 5)), InstanceMasks(), "height and width"),
    "boxes without a format": (objects(boxes=np.ones((2, 1, 4))), InstanceMasks(), 'InstanceMasks\\("xyxy"\\)'),
    "a format without boxes": (objects(), InstanceMasks("xyxy"), r"no \['boxes'\]"),
    "boxes of three": (objects(boxes=np.ones((2, 1, 3))), InstanceMasks("xyxy"), "one mask, one label"),
    "unsigned boxes": (objects(boxes=np.ones((2, 1, 4), "uint8")), InstanceMasks("xyxy"), "may be -1"),
    "no crowd entry": (objects(), InstanceMasks(crowd="iscrowd"), r"no \['iscrowd'\]"),
    "a crowd entry of vectors": (objects(crowd=np.ones((2, 1, 3))), InstanceMasks(crowd="crowd"), r"\(B, N\)"),
    "an unknown entry": (objects(area=np.ones((2, 1))), InstanceMasks(), r"keep=\['area'\]"),
    "an entry of strings": (objects(name=np.array([["a"], ["b"]])), InstanceMasks(keep=["name"]), "numbers"),
    "more than max_instances": (objects(most=3), InstanceMasks(max_instances=2), "max_instances"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_objects_are_refused(name):
    instances, own, *words = WRONG[name]
    for layer in (copy_paste(target=own), kmix.MixUp(1.0, target=own)):
        raises(lambda layer=layer: layer(pixels(), instances), *words, errors=ValueError)


CANNOT = {
    "none": ({"labels": np.zeros(2, "float32")}, None, "0 instance masks"),
    "two": ({"instances": objects(), "more": objects()}, {"more": InstanceMasks()}, "2 instance masks"),
    "boxes": (
        {"instances": objects(), "boxes": {"boxes": np.ones((2, 1, 4)), "labels": np.ones((2, 1))}},
        {"boxes": BoundingBoxes("xyxy")},
        "InstanceMasks",
    ),
    "too many": ({"instances": objects(most=497)}, None, "496"),
}


@pytest.mark.parametrize("name", CANNOT)
def test_what_a_copy_paste_cannot_mix_is_refused(name):
    targets, target, words = CANNOT[name]
    batch = {"images": pixels(), **targets}
    refused(copy_paste(target=target), batch, words)
    choice = kmix.RandomChoice([copy_paste(target=target), kmix.CutMix(target=target, data_format="channels_last")])
    refused(choice, batch, words, every_way=False)


def test_496_objects_are_told_apart():
    instances = objects(most=496, size=(1, 496))
    instances["masks"] = np.eye(496, dtype=bool)[None, :, None] & np.ones((2, 1, 1, 1), bool)
    layer, x = always(instance_rate=0.5, target=InstanceMasks()), pixels(size=(1, 496))
    mixed, _ = layer.at_step(0, (x, instances))
    chosen = layer.plan(0, 2).region.chosen
    np.testing.assert_array_equal(mixed[:, 0, :, 0], np.where(chosen, x[::-1, 0, :, 0], x[:, 0, :, 0]))


@pytest.mark.parametrize("shape", [(2, 4, 4), (2, 4, 4, 4, 1)])
def test_inputs_that_are_no_images_are_refused(shape):
    with pytest.raises(ValueError, match="two spatial axes"):
        copy_paste(target=InstanceMasks())(np.zeros(shape, "float32"), objects())


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"format": "corners"}, "format"),
        ({"max_instances": 0}, "max_instances"),
        ({"min_visibility": 1.5}, "min_visibility"),
        ({"crowd": 3}, "crowd"),
        ({"keep": "track"}, "keep"),
        ({"keep": ["masks"]}, "keep"),
        ({"crowd": "a", "keep": ["a"]}, "crowd"),
    ],
)
def test_settings_of_instance_masks_are_checked(settings, word):
    with pytest.raises((ValueError, TypeError), match=word):
        InstanceMasks(**settings)


@pytest.mark.parametrize("settings", [{"instance_rate": 1.1}, {"instance_rate": None}, {"rate": -1}])
def test_settings_of_the_layer_are_checked(settings):
    with pytest.raises((ValueError, TypeError), match=next(iter(settings))):
        kmix.CopyPaste(**settings)


@pytest.mark.parametrize("mixer", [kmix.CopyPaste(), kmix.MixUp(target={"a": InstanceMasks()})])
def test_a_trainer_refuses_objects(mixer):
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="train_step"):
        kmix.MixTrainer(model, mixer)
