"""Labels of more axes than two need a target: masks, frames, boxes, probabilities of positions."""

import numpy as np
import oracle
import pytest
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
    tf,
    tree,
)

from kmix.targets import Labels

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
def test_labels_of_any_shape_are_mixed_by_the_kept_share(path):
    x = data()
    for y in (one_hot(ids())[:, None], data(shape=(5, 3), seed=1), data(shape=(2, 5, 3), seed=1), SPATIAL["mask"][1]):
        layer = cutmix(target=Labels(any_shape=True))
        plan = plan_of(layer)
        ours = at_step(path, layer, 0, (x, y))
        assert_near(ours[1], oracle.mixup(y, oracle.kept_share(plan.box, (8, 8)), plan.permutation))
        np.testing.assert_array_equal(ours[0], mixed_inputs(x, plan))


@pytest.mark.in_turn
@pytest.mark.fast("*-native", "dictionary-tfdata")
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
    layer = mixup(target=Labels(any_shape=True))
    plan = plan_of(layer)
    assert_near(at_step(path, layer, 0, (x, y))[1], oracle.mixup(y, plan.lam, plan.permutation))


@blending
def test_integer_masks_are_refused_by_a_blend_too(make):
    refused(make(), SPATIAL["integer mask"], "target=", good=SOFT)


@every_layer_and_path
def test_one_hot_labels_with_an_axis_more(make, path):
    """One-hot `(B, 1, C)`, as some data sets have them."""
    x, y = data(), one_hot(ids())[:, None]
    layer = make(target=Labels(any_shape=True))
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


HIGHER = {
    "probabilities of tokens": data(6, (5, 3), seed=1),
    "edges": data(6, (5, 3), seed=1).round(),
    "values": data(6, (5, 3), seed=1) * 9 - 4,
    "one column": data(6, (7, 1), seed=1).astype("float16"),
    "rank 4": data(6, (2, 2, 4), seed=1).astype("float64"),
    "integers": ids(18).reshape(6, 3, 1),
}


@pytest.mark.parametrize("name", HIGHER)
def test_labels_of_three_axes_need_a_target_whatever_their_values(name):
    refused_by_all({}, (data(), HIGHER[name]), "target=", "any_shape", good=SOFT)


def test_labels_of_three_axes_need_a_target_within_structures():
    y = HIGHER["edges"]
    for labels in ({"a": one_hot(ids()), "b": y}, (y, one_hot(ids()))):
        refused_by_all({}, (data(), labels), "target=")
    refused_by_all({"target": "labels"}, (data(), y), "target=")


@every_layer_and_path
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "leaves"])
def test_values_of_any_size_with_any_shape(make, path, whole):
    x, y = data(), {"a": HIGHER["values"], "b": one_hot(ids())}
    y = y["a"] if whole else y
    layer = make(target=Labels(any_shape=True) if whole else {"a": Labels(any_shape=True), "b": "labels"})
    plan = plan_of(layer)
    expected = mixed_inputs(x, plan), tree.map_structure(lambda y: oracle.mixup(y, *plan[:2]), y)
    assert_near(at_step(path, layer, 0, (x, y)), expected)


@every_path
def test_columns_to_regress_need_no_target(path):
    x, plan = data(shape=(4,)), plan_of(mixup())
    for y in (data(6, (5,), seed=1) * 99 - 3, data(6, (1,), seed=1) * -7, data(6, (), seed=1)):
        assert_near(at_step(path, mixup(), 0, (x, y))[1], oracle.mixup(y, plan.lam, plan.permutation))


POSITIONS = {
    "series": (data(shape=(7, 2)), data(shape=(7,), seed=1)),
    "flattened mask": (data(), data(shape=(64,), seed=1).round()),
    "multi-hot": (data(shape=(7, 2)), data(shape=(7,), seed=1).round().astype("int32")),
    "dictionary": (data(), {"kind": one_hot(ids()), "mask": data(shape=(64,), seed=1)}),
}


@pytest.mark.parametrize("name", POSITIONS)
def test_a_column_for_each_position_needs_a_target_under_a_paste(name):
    refused(cutmix(), POSITIONS[name], "target=", "position", good=SOFT)
    refused(choice(), POSITIONS[name], "target=", good=SOFT, every_way=False)


@every_path
def test_the_number_of_classes_tells_columns_from_positions(path):
    x, y = POSITIONS["series"]
    for layer in (cutmix(num_classes=7), cutmix(target=Labels(any_shape=True)), mixup()):
        plan = plan_of(layer, spatial=(7,))
        assert_near(at_step(path, layer, 0, (x, y)), (mixed_inputs(x, plan), oracle.mixup(y, *plan[:2])))
