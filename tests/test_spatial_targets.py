"""Labels with the axes of the inputs, boxes without a format, and values that are no probabilities."""

import numpy as np
import oracle
import pytest
import tensorflow as tf
from helpers import (
    assert_near,
    at_step,
    blending,
    boxes,
    choice,
    cutmix,
    data,
    every_layer_and_path,
    every_path,
    ids,
    mixed_inputs,
    mixup,
    one_hot,
    plan_of,
    raises,
    refused,
    refused_by_all,
    tree,
)

SOFT = data(), one_hot(ids())


SPATIAL = {
    "mask": (data(), data(shape=(8, 8, 1), seed=1).round()),
    "soft mask": (data(), data(shape=(8, 8, 4), seed=1)),
    "mask without channels": (data(), data(shape=(8, 8), seed=1).round()),
    "boolean mask": (data(), data(shape=(8, 8, 1), seed=1) > 0.5),
    "integer mask": (data(), data(shape=(8, 8, 1), seed=1).round().astype("int32")),
    "integer mask without channels": (data(), data(shape=(8, 8), seed=1).round().astype("uint8")),
    "the inputs": (data(), data()),
    "half precision": (data(), data().astype("float16")),
    "another size": (data(shape=(5, 9, 3)), data(shape=(5, 9, 2), seed=1)),
    "video": (data(shape=(3, 4, 5, 1)), data(shape=(3, 4, 5, 2), seed=1)),
    "series": (data(shape=(7, 2)), data(shape=(7, 3), seed=1)),
    "dictionary": (data(), {"kind": one_hot(ids()), "mask": data(shape=(8, 8, 1), seed=1).round()}),
    "tuple": (data(), (data(shape=(8, 8, 1), seed=1).round(), one_hot(ids()))),
    "of one of the inputs": ({"a": data(), "b": data(shape=(8, 8, 1))}, data(shape=(8, 8, 2), seed=1)),
}


@pytest.mark.parametrize("name", SPATIAL)
def test_a_target_with_the_axes_of_the_inputs_is_refused(name):
    refused(cutmix(), SPATIAL[name], "target=", good=SOFT)
    refused(choice(), SPATIAL[name], "target=", good=SOFT, every_way=False)


def test_a_mask_in_a_dictionary_and_with_weights_is_refused():
    x, y = SPATIAL["mask"]
    refused(cutmix(), {"images": x, "labels": y}, "target=")
    refused(cutmix(), (x, y, data(shape=())), "target=")


def test_a_mask_with_channels_first_is_refused():
    layer = cutmix(data_format="channels_first")
    for y in (data(shape=(1, 8, 6), seed=1), data(shape=(8, 6), seed=1), data(shape=(3, 8, 6))):
        refused(layer, (data(shape=(3, 8, 6)), y), "target=")


def test_a_mask_of_unknown_sizes_is_refused():
    x, y = SPATIAL["mask"]
    vague = tf.data.Dataset.from_tensors((x, y)).map(
        lambda x, y: (
            tf.ensure_shape(tf.numpy_function(lambda v: v, [x], "float32"), (None, None, None, 3)),
            tf.ensure_shape(tf.numpy_function(lambda v: v, [y], "float32"), (None, None, None, 1)),
        )
    )
    raises(lambda: next(iter(vague.map(cutmix()))), "target=")


@pytest.mark.fast("*numpy", "*native")
@every_path
def test_labels_with_other_axes_are_mixed_by_the_kept_share(path):
    x = data()
    for y in (one_hot(ids())[:, None], data(shape=(5, 3), seed=1), data(shape=(2, 5, 3), seed=1)):
        layer = cutmix()
        plan = plan_of(layer)
        ours = at_step(path, layer, 0, (x, y))
        assert_near(ours[1], oracle.mixup(y, oracle.kept_share(plan.box, (8, 8)), plan.permutation))
        np.testing.assert_array_equal(ours[0], mixed_inputs(x, plan))


@every_path
@pytest.mark.parametrize("name", ["integer mask", "the inputs", "dictionary"])
def test_a_target_that_is_named_is_taken(path, name):
    x, y = SPATIAL[name]
    keep = {"kind": "labels", "mask": "keep"} if name == "dictionary" else "keep"
    layer = cutmix(target=keep)
    ours_x, ours_y = at_step(path, layer, 0, (x, y))
    plan = plan_of(layer)
    np.testing.assert_array_equal(ours_x, mixed_inputs(x, plan))
    if name == "dictionary":
        assert_near(ours_y["kind"], oracle.mixup(y["kind"], plan.lam, plan.permutation))
        y, ours_y = y["mask"], ours_y["mask"]
    np.testing.assert_array_equal(ours_y, y)
    assert ours_y.dtype == y.dtype


@every_path
def test_a_blend_mixes_soft_masks_as_labels(path):
    x, y = SPATIAL["soft mask"]
    plan = plan_of(mixup())
    assert_near(at_step(path, mixup(), 0, (x, y))[1], oracle.mixup(y, plan.lam, plan.permutation))


@blending
def test_integer_masks_are_refused_by_a_blend_too(make):
    refused(make(), SPATIAL["integer mask"], "target=", good=SOFT)


@every_layer_and_path
def test_one_hot_labels_with_an_axis_more(make, path):
    """One-hot `(B, 1, C)`, as some data sets have them."""
    x, y = data(), one_hot(ids())[:, None]
    layer = make()
    plan = plan_of(layer)
    assert_near(at_step(path, layer, 0, (x, y)), (mixed_inputs(x, plan), oracle.mixup(y, *plan[:2])))


BOXES = {
    "classes": boxes(),
    "labels": boxes("labels"),
    "relative": {name: array.clip(0, 1) for name, array in boxes().items()},
    "alone": {"boxes": boxes()["boxes"]},
    "nested": {"kind": one_hot(ids()), "objects": boxes()},
    "in a tuple": (one_hot(ids()), boxes()),
    "one box": {"boxes": data(6, (4,)), "classes": ids().astype("float32")},
    "integer": {name: array.astype("int32") for name, array in boxes().items()},
}


@pytest.mark.parametrize("name", BOXES)
def test_boxes_without_a_format_are_refused(name):
    refused_by_all({}, (data(), BOXES[name]), "boxes", "target=", good=SOFT)


def test_boxes_in_a_dictionary_are_refused():
    refused_by_all({}, {"images": data(), "labels": boxes()}, "boxes", "target=")
    refused_by_all({}, {"images": data(), "labels": one_hot(ids()), "bounding_boxes": boxes()}, "bounding.boxes")


@every_path
@pytest.mark.parametrize("target", ["keep", {"boxes": "keep", "classes": "keep"}], ids=["whole", "leaves"])
def test_boxes_may_be_kept(path, target):
    x, y = data(), boxes()
    layer = mixup(target=target)
    ours = at_step(path, layer, 0, (x, y))
    plan = plan_of(layer)
    assert_near(ours[0], oracle.mixup(x, plan.lam, plan.permutation))
    for name, array in y.items():
        np.testing.assert_array_equal(ours[1][name], array)


@pytest.mark.fast("2.0-shape0-float32", "-1.0-shape1-float32")
@pytest.mark.parametrize(
    ("value", "shape", "dtype"),
    [
        (2.0, (5, 3), "float32"),
        (-1.0, (2, 2, 4), "float32"),
        (255.0, (7, 1), "float16"),
        (-0.5, (5, 3), "float64"),
        (1e6, (1, 1), "float32"),
    ],
)
def test_values_that_are_no_probabilities_are_refused(value, shape, dtype):
    y = data(6, shape, seed=1).astype(dtype)
    y[(3,) + (0,) * len(shape)] = value
    refused(mixup(), (data(shape=(4,)), y), 'target="labels"', good=(data(shape=(4,)), one_hot(ids())))


def test_such_values_are_refused_by_every_layer_and_within_structures():
    y = data(6, (5, 3), seed=1) * 3
    for labels in (y, {"a": one_hot(ids()), "b": y}, (y, one_hot(ids()))):
        refused_by_all({}, (data(), labels), 'target="labels"')


@every_layer_and_path
@pytest.mark.parametrize("target", ["labels", {"a": "labels", "b": "labels"}], ids=["whole", "leaves"])
def test_values_of_any_size_with_target_labels(make, path, target):
    x, y = data(), {"a": data(6, (5, 3), seed=1) * 9 - 4, "b": one_hot(ids())}
    y = y["a"] if target == "labels" else y
    layer = make(target=target)
    plan = plan_of(layer)
    expected = mixed_inputs(x, plan), tree.map_structure(lambda y: oracle.mixup(y, *plan[:2]), y)
    assert_near(at_step(path, layer, 0, (x, y)), expected)


@every_path
def test_probabilities_and_columns_to_regress_need_no_target(path):
    x, plan = data(shape=(4,)), plan_of(mixup())
    edges = data(6, (5, 3), seed=1).round()
    for y in (edges, edges[..., 0] * 99 - 3, edges[:, 0, :1] * -7, data(6, (2, 3, 4), seed=1)):
        assert_near(at_step(path, mixup(), 0, (x, y))[1], oracle.mixup(y, plan.lam, plan.permutation))
