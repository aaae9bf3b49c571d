"""Batches that users of other libraries reported, sent to the layers: mixed correctly, or refused on every road."""

import itertools
import json
import warnings
from collections import OrderedDict

import keras
import numpy as np
import oracle
import pytest
import tensorflow as tf
from cases import assert_near, at_step, data, ids, raises, refused, ways
from roads import ROADS, call, to_native, to_numpy

import kmix

BACKEND = keras.backend.backend()
on = lambda backend, why: pytest.mark.skipif(backend != BACKEND, reason=why)
every_road = pytest.mark.parametrize("road", ROADS)


def mixup(**settings):
    return kmix.MixUp(**{"alpha": 1.0, "seed": 3, **settings})


def embedding(**settings):
    return kmix.EmbeddingMixup(**{"alpha": 1.0, "seed": 4, **settings})


def cutmix(**settings):
    return kmix.CutMix(**{"alpha": 1.0, "seed": 5, "data_format": "channels_last", **settings})


def choice(**settings):
    """Pastes half of the batches."""
    return kmix.RandomChoice([mixup(**settings), cutmix(**settings)], seed=6)


LAYERS = {"MixUp": mixup, "EmbeddingMixup": embedding, "CutMix": cutmix, "RandomChoice": choice}
every_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
blending = pytest.mark.parametrize("make", [mixup, embedding], ids=["MixUp", "EmbeddingMixup"])
every_layer_and_road = pytest.mark.parametrize(
    ("make", "road"),
    [
        pytest.param(LAYERS[name], road, id=f"{name}-{road}")
        for name, road in [
            ("MixUp", "numpy"),
            ("EmbeddingMixup", "native"),
            ("CutMix", "tfdata"),
            ("RandomChoice", "numpy"),
            ("MixUp", "tfdata"),
            ("CutMix", "native"),
        ]
    ],
)
pasting = pytest.mark.parametrize("make", [cutmix, choice], ids=["CutMix", "RandomChoice"])
both = pytest.mark.parametrize("make", [mixup, cutmix], ids=["MixUp", "CutMix"])


def one_hot(y, classes=3):
    return oracle.one_hot(y, classes).astype("float32")


SOFT = data(), one_hot(ids())


def refused_by_all(settings, batch, *words, makes=LAYERS, **others):
    """Assert that all layers refuse a batch, one of them on every way."""
    turn = sum(map(ord, repr(words) + repr(settings))) % len(makes)
    for i, name in enumerate(makes):
        refused(LAYERS[name](**settings), batch, *words, every_way=i == turn, **others)


def plan_of(layer, step=0, n=6, spatial=(8, 8)):
    return layer.plan(step, n, spatial_shape=spatial)


def mixed_inputs(x, plan):
    """The result of the formulas of the papers for inputs with channels last."""
    if plan.box is None:
        return oracle.mixup(x, plan.lam, plan.permutation)
    return oracle.cutmix(x, plan.box, plan.permutation)


# Case 1: a dictionary without labels, and inputs alone.


DICTIONARIES = {
    "the names of TFDS": {"image": data(), "label": one_hot(ids())},
    "images": {"images": data()},
    "one name right": {"images": data(), "label": one_hot(ids())},
    "labels": {"x": data(), "labels": one_hot(ids())},
    "weights": {"images": data(), "sample_weight": data(shape=())},
    "another order": OrderedDict(y=one_hot(ids()), x=data()),
}


@pytest.mark.parametrize("name", DICTIONARIES)
def test_case_1_a_dictionary_without_images_or_labels_is_refused(name):
    found = [rf"\b{key}\b" for key in DICTIONARIES[name]]
    refused_by_all({}, DICTIONARIES[name], "passthrough=", *found, r"\bimages\b", r"\blabels\b", good=SOFT)


@every_layer
def test_case_1_not_even_by_keyword_or_in_training(make):
    for training in (None, True):
        raises(
            lambda training=training: make()({"image": data()}, training=training),
            r"\bimage\b",
            r"\bimages\b",
            r"\blabels\b",
        )


@every_layer
@pytest.mark.parametrize("batch", [data(), (data(),), {"images": data()}], ids=["tensor", "tuple", "dictionary"])
def test_case_1_inputs_alone_in_a_map_are_refused(make, batch):
    ds = tf.data.Dataset.from_tensors(batch)
    raises(lambda: next(iter(ds.map(make()))), "labels")
    raises(lambda: next(iter(ds.map(lambda *arguments: make()(*arguments)))), "labels")
    raises(lambda: next(iter(ds.enumerate().map(make().at_step))), "labels")


@every_layer
def test_case_1_inputs_alone_are_the_identity_where_no_data_set_is_mapped(make):
    x, y, layer = data(), one_hot(ids()), make()
    for batch in (x, to_native(x), tf.constant(x)):
        np.testing.assert_array_equal(to_numpy(layer(batch)), x)
    np.testing.assert_array_equal(layer(x, y)[0], layer.at_step(0, (x, y))[0])


@on("tensorflow", "other backends cannot run a model in tf.data")
@every_layer
def test_case_1_a_model_with_a_layer_may_be_mapped_over_inputs(make):
    x, inputs = data(), keras.Input((8, 8, 3))
    model = keras.Model(inputs, make()(inputs))
    ds = tf.data.Dataset.from_tensors(x)
    for function in (model, lambda x: model(x, training=False), tf.function(model)):
        np.testing.assert_array_equal(next(iter(ds.map(function))), x)
    np.testing.assert_array_equal(model.predict(x, verbose=0), x)


# Case 2: targets with the spatial axes that CutMix cuts.


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
def test_case_2_a_target_with_the_axes_of_the_inputs_is_refused(name):
    refused(cutmix(), SPATIAL[name], "target=", good=SOFT)
    refused(choice(), SPATIAL[name], "target=", good=SOFT, every_way=False)


def test_case_2_in_a_dictionary_and_with_weights():
    x, y = SPATIAL["mask"]
    refused(cutmix(), {"images": x, "labels": y}, "target=")
    refused(cutmix(), (x, y, data(shape=())), "target=")


def test_case_2_with_channels_first():
    layer = cutmix(data_format="channels_first")
    for y in (data(shape=(1, 8, 6), seed=1), data(shape=(8, 6), seed=1), data(shape=(3, 8, 6))):
        refused(layer, (data(shape=(3, 8, 6)), y), "target=")


def test_case_2_where_the_sizes_are_not_known_before():
    x, y = SPATIAL["mask"]
    vague = tf.data.Dataset.from_tensors((x, y)).map(
        lambda x, y: (
            tf.ensure_shape(tf.numpy_function(lambda v: v, [x], "float32"), (None, None, None, 3)),
            tf.ensure_shape(tf.numpy_function(lambda v: v, [y], "float32"), (None, None, None, 1)),
        )
    )
    raises(lambda: next(iter(vague.map(cutmix()))), "target=")


@pytest.mark.fast("*numpy", "*native")
@every_road
def test_case_2_labels_with_other_axes_are_mixed_by_the_kept_share(road):
    x = data()
    for y in (one_hot(ids())[:, None], data(shape=(5, 3), seed=1), data(shape=(2, 5, 3), seed=1)):
        layer = cutmix()
        plan = plan_of(layer)
        ours = at_step(road, layer, 0, (x, y))
        assert_near(ours[1], oracle.mixup(y, oracle.kept_share(plan.box, (8, 8)), plan.permutation))
        np.testing.assert_array_equal(ours[0], mixed_inputs(x, plan))


@every_road
@pytest.mark.parametrize("name", ["integer mask", "the inputs", "dictionary"])
def test_case_2_a_target_that_is_written_out_is_taken(road, name):
    x, y = SPATIAL[name]
    keep = {"kind": "labels", "mask": "keep"} if name == "dictionary" else "keep"
    layer = cutmix(target=keep)
    ours_x, ours_y = at_step(road, layer, 0, (x, y), fuse=True)
    plan = plan_of(layer)
    np.testing.assert_array_equal(ours_x, mixed_inputs(x, plan))
    if name == "dictionary":
        assert_near(ours_y["kind"], oracle.mixup(y["kind"], plan.lam, plan.permutation))
        y, ours_y = y["mask"], ours_y["mask"]
    np.testing.assert_array_equal(ours_y, y)
    assert ours_y.dtype == y.dtype


@every_road
def test_case_2_a_blend_mixes_soft_masks_as_labels(road):
    x, y = SPATIAL["soft mask"]
    plan = plan_of(mixup())
    assert_near(at_step(road, mixup(), 0, (x, y))[1], oracle.mixup(y, plan.lam, plan.permutation))


@blending
def test_case_2_integer_masks_are_refused_by_a_blend_too(make):
    refused(make(), SPATIAL["integer mask"], "target=", good=SOFT)


# Case 3: boxes, and float labels with many axes that are not probabilities.


def boxes(classes="classes", n=6):
    objects = {"boxes": data(n, (3, 4), seed=2) * 8, classes: ids(3 * n).reshape(n, 3).astype("float32")}
    objects["boxes"][:, 2], objects[classes][:, 2] = -1, -1
    return objects


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
def test_case_3_boxes_without_a_format_are_refused(name):
    refused_by_all({}, (data(), BOXES[name]), "boxes", "target=", good=SOFT)


def test_case_3_boxes_in_a_dictionary_batch():
    refused_by_all({}, {"images": data(), "labels": boxes()}, "boxes", "target=")
    refused_by_all({}, {"images": data(), "labels": one_hot(ids()), "bounding_boxes": boxes()}, "bounding.boxes")


@every_road
@pytest.mark.parametrize("target", ["keep", {"boxes": "keep", "classes": "keep"}], ids=["whole", "leaves"])
def test_case_3_boxes_that_are_kept(road, target):
    x, y = data(), boxes()
    layer = mixup(target=target)
    ours = at_step(road, layer, 0, (x, y))
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
def test_case_3_values_that_are_no_probabilities_are_refused(value, shape, dtype):
    y = data(6, shape, seed=1).astype(dtype)
    y[(3,) + (0,) * len(shape)] = value
    refused(mixup(), (data(shape=(4,)), y), 'target="labels"', good=(data(shape=(4,)), one_hot(ids())))


def test_case_3_by_every_layer_and_within_structures():
    y = data(6, (5, 3), seed=1) * 3
    for labels in (y, {"a": one_hot(ids()), "b": y}, (y, one_hot(ids()))):
        refused_by_all({}, (data(), labels), 'target="labels"')


@every_layer_and_road
@pytest.mark.parametrize("target", ["labels", {"a": "labels", "b": "labels"}], ids=["whole", "leaves"])
def test_case_3_values_of_any_size_with_target_labels(make, road, target):
    x, y = data(), {"a": data(6, (5, 3), seed=1) * 9 - 4, "b": one_hot(ids())}
    y = y["a"] if target == "labels" else y
    layer = make(target=target)
    plan = plan_of(layer)
    expected = mixed_inputs(x, plan), keras.tree.map_structure(lambda y: oracle.mixup(y, *plan[:2]), y)
    assert_near(at_step(road, layer, 0, (x, y)), expected)


@every_road
def test_case_3_probabilities_and_columns_to_regress_need_no_target(road):
    x, plan = data(shape=(4,)), plan_of(mixup())
    edges = data(6, (5, 3), seed=1).round()
    for y in (edges, edges[..., 0] * 99 - 3, edges[:, 0, :1] * -7, data(6, (2, 3, 4), seed=1)):
        assert_near(at_step(road, mixup(), 0, (x, y))[1], oracle.mixup(y, plan.lam, plan.permutation))


# target=: what it accepts.


NAMES = "labels", "keep", "union"


@every_layer
@pytest.mark.parametrize("target", ["mask", "Labels", "", {"a": "labels", "b": "boxes"}, ["keep", "ignore"]], ids=repr)
def test_target_of_an_unknown_name_is_refused(make, target):
    raises(lambda: make(target=target), "target", *NAMES, errors=ValueError)


@every_layer
@pytest.mark.parametrize("target", [3, 0.5, {"a": 1}], ids=repr)
def test_target_of_another_type_is_refused(make, target):
    raises(lambda: make(target=target), "target", errors=(TypeError, ValueError))


Y = {"a": one_hot(ids()), "b": data(shape=(2,), seed=1)}


@pytest.mark.parametrize(
    ("target", "y"),
    [
        ({"a": "labels", "z": "keep"}, Y),
        ({"a": "labels", "b": "keep", "z": "keep"}, Y),
        (["labels", "keep"], Y),
        ({"a": "labels", "b": "keep"}, tuple(Y.values())),
        (("labels", "keep", "keep"), tuple(Y.values())),
        (("labels",), tuple(Y.values())),
        ({"a": "keep"}, Y["a"]),
        ({"a": {"c": "keep"}, "b": "keep"}, Y),
    ],
    ids=str,
)
def test_target_of_another_structure_than_the_labels_is_refused(target, y):
    refused_by_all({"target": target}, (data(), y), "target", makes=["MixUp", "CutMix"])


@every_layer_and_road
def test_target_by_leaf(make, road):
    x = data()
    y = {"ids": ids(), "code": ids(9)[:6], "tags": data(shape=(4,), seed=1).round(), "size": data(shape=(1,)) * 9}
    target = {"ids": "labels", "code": "keep", "tags": "union", "size": None}
    layer = make(target=target, num_classes={"ids": 3})
    plan = plan_of(layer)
    lam, permutation = plan[:2]
    union = np.maximum(y["tags"], y["tags"][permutation])
    expected = {
        "ids": oracle.mixup(oracle.one_hot(y["ids"], 3), lam, permutation),
        "code": y["code"],
        "tags": np.where(oracle.rows(lam == 1, union), y["tags"], union),
        "size": oracle.mixup(y["size"], lam, permutation),
    }
    ours = at_step(road, layer, 0, (x, y))[1]
    assert_near(ours, expected)
    assert ours["code"].dtype == y["code"].dtype or (BACKEND, road) == ("jax", "native")


@pytest.mark.fast("*numpy", "*native")
@every_road
def test_target_in_every_form_of_a_batch(road):
    x, y, w = data(), ids(), np.linspace(0.5, 2, 6, dtype="float32")
    for batch in ((x, y), (x, y, w), {"images": x, "labels": y}, {"images": x, "labels": y, "sample_weight": w}):
        labels, weights = (batch["labels"], batch.get("sample_weight")) if isinstance(batch, dict) else (y, w)
        ours = call(road, mixup(target="keep"), batch)
        out = list(ours.values()) if isinstance(ours, dict) else list(ours)
        plan = plan_of(mixup())
        assert len(out) == len(batch)
        np.testing.assert_array_equal(out[1], labels)
        if len(out) == 3:
            assert_near(out[2], oracle.weighted(one_hot(y), weights, *plan[:2])[1])


def test_target_survives_config_copy_and_json():
    for target in (None, "keep", "union", {"a": "labels", "b": {"c": "keep", "d": "union"}}, ["keep", None]):
        layer = mixup(target=target)
        config = json.loads(json.dumps(layer.get_config()))
        copies = [
            kmix.MixUp.from_config(config),
            keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))),
        ]
        for copy in copies:
            assert copy.get_config()["target"] == layer.get_config()["target"]
    x, y = data(), {"a": one_hot(ids()), "b": ids()}
    layer = mixup(target={"a": "union", "b": "keep"})
    copy = kmix.MixUp.from_config(json.loads(json.dumps(layer.get_config())))
    assert_near(copy.at_step(2, (x, y)), layer.at_step(2, (x, y)), atol=0)


def test_target_of_a_choice_is_that_of_its_layers_or_refused():
    settings = [{"target": "union"}, {}]
    raises(
        lambda: kmix.RandomChoice([mixup(**settings[0]), cutmix(**settings[1])]), "agree", "target", errors=ValueError
    )
    x, y = data(), data(shape=(4,), seed=1).round()
    layer = choice(**settings[0])
    kinds = set()
    for step in range(4):
        plan = plan_of(layer, step)
        union = np.maximum(y, y[plan.permutation])
        expected = np.where(oracle.rows(plan.lam == 1, y), y, union)
        assert_near(layer.at_step(step, (x, y)), (mixed_inputs(x, plan), expected))
        kinds.add(plan.box is None)
    assert kinds == {True, False}


@every_layer
def test_target_in_a_symbolic_call(make):
    x, y, z = keras.Input((8, 8, 3)), keras.Input((4,), dtype="int32"), keras.Input((7, 2), dtype="int32")
    mixed, labels = make(target={"a": "union", "b": "keep"})(x, {"a": y, "b": z})
    assert tuple(mixed.shape) == (None, 8, 8, 3)
    assert (tuple(labels["a"].shape), labels["a"].dtype) == ((None, 4), "float32")
    assert (tuple(labels["b"].shape), labels["b"].dtype) == ((None, 7, 2), "int32")


# "keep"


KEPT = {
    "ids": ids(),
    "ids beyond any class": ids() * 1000 - 7,
    "column": ids()[:, None],
    "bytes": ids().astype("uint8"),
    "booleans": ids() > 0,
    "integer grid": ids(48).reshape(6, 4, 2),
    "regression": data(shape=(3,)) * -9,
    "float64": data(shape=(3,)).astype("float64"),
    "float16": data(shape=(3, 5)).astype("float16") * 99,
    "boxes": boxes(),
    "nested": {"a": (ids(), {"b": data(shape=(8, 8, 1))}), "c": (ids() > 1,)},
}


@every_layer_and_road
def test_keep_leaves_labels_as_they_are(make, road):
    x, y = data(), {name: value for name, value in KEPT.items() if road != "native" or name != "float64"}
    layer = make(target="keep")
    ours = at_step(road, layer, 0, (x, y), fuse=True)
    assert_near(ours[0], mixed_inputs(x, plan_of(layer)))
    keras.tree.assert_same_structure(ours[1], y)
    for one, other in zip(keras.tree.flatten(ours[1]), keras.tree.flatten(y), strict=True):
        np.testing.assert_array_equal(one, other)
        # JAX has only 32 bits; no layer sees the others.
        assert one.dtype == other.dtype or ((BACKEND, road) == ("jax", "native") and other.dtype == "int64")


@pytest.mark.parametrize("road", ["numpy", "tfdata"])
@pytest.mark.parametrize("name", KEPT)
def test_keep_of_labels_that_are_one_tensor_or_any_structure(name, road):
    ours = at_step(road, mixup(target="keep"), 0, (data(shape=(2,)), KEPT[name]))[1]
    keras.tree.assert_same_structure(ours, KEPT[name])
    for one, other in zip(keras.tree.flatten(ours), keras.tree.flatten(KEPT[name]), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


@pytest.mark.fast("CutMix")
@every_layer
def test_keep_takes_strings_along(make):
    x, names = data(), np.array([f"file{i}.png" for i in range(6)])
    for batch in ((x, names), (x, {"name": names, "label": one_hot(ids())})):
        target = "keep" if batch[1] is names else {"name": "keep", "label": "labels"}
        layer = make(target=target)
        ours = layer.at_step(0, batch)[1]
        np.testing.assert_array_equal(ours if batch[1] is names else ours["name"], names)
        ds = tf.data.Dataset.from_tensors(batch).enumerate().map(layer.at_step)
        mixed = to_numpy(next(iter(ds)))
        np.testing.assert_array_equal(mixed[1] if batch[1] is names else mixed[1]["name"], names.astype("S"))
        assert_near(mixed[0], mixed_inputs(x, plan_of(layer)))


@every_layer_and_road
def test_keep_mixes_the_weights_of_the_leaf(make, road):
    x, y = data(), {"a": ids(), "b": one_hot(ids())}
    w = {"a": np.linspace(0.5, 2, 6, dtype="float32"), "b": np.linspace(3, 0, 6, dtype="float32")}
    layer = make(target={"a": "keep", "b": "labels"})
    plan = plan_of(layer)
    labels, weights = oracle.weighted(y["b"], w["b"], *plan[:2])
    expected = {"a": oracle.mixup(w["a"], *plan[:2]), "b": weights}
    ours = at_step(road, layer, 0, (x, y, w))
    assert_near(ours[2], expected)
    assert_near(ours[1], {"a": y["a"], "b": labels})
    _, kept, mixed = at_step(road, make(target="keep"), 0, (x, y["a"], w["a"]))
    np.testing.assert_array_equal(kept, y["a"])
    assert_near(mixed, expected["a"])


def test_keep_of_another_number_of_samples_is_refused():
    refused_by_all({"target": "keep"}, (data(), ids()[:4]), "same batch size", good=(data(), ids()))


def test_keep_of_a_whole_branch():
    x, y = data(), {"kind": ids(), "objects": boxes()}
    layer = mixup(target={"kind": "labels", "objects": "keep"}, num_classes={"kind": 3})
    plan = plan_of(layer)
    ours = layer.at_step(0, (x, y))[1]
    assert_near(ours["kind"], oracle.mixup(oracle.one_hot(y["kind"], 3), *plan[:2]))
    for name, array in y["objects"].items():
        np.testing.assert_array_equal(ours["objects"][name], array)


# "union"


def union(y, lam, permutation):
    """The larger value of the partners if both have a share, else the value of the one that has it all."""
    y = np.asarray(y, "float64")
    lam = oracle.rows(lam, y)
    return np.where(lam == 1, y, np.where(lam == 0, y[permutation], np.maximum(y, y[permutation])))


EXTREME = {"MixUp": lambda **s: mixup(alpha=0.01, **s), "CutMix": lambda **s: cutmix(alpha=0.05, **s)}


@pytest.mark.fast("*numpy", "*native", "CutMix-tfdata")
@pytest.mark.parametrize(
    ("kind", "road"),
    [
        *[(kind, road) for kind in ("MixUp", "CutMix") for road in ROADS],
        *[(kind, "numpy") for kind in ("EmbeddingMixup", "RandomChoice", "rate")],
        ("RandomChoice", "tfdata"),
        ("rate", "native"),
    ],
)
def test_union_is_the_larger_of_the_partners(kind, road):
    x, soft = data(16), data(16, (5,), seed=1)
    y = {
        "bits": soft.round().astype("int64"),
        "probabilities": soft,
        "booleans": soft > 0.5,
        "bytes": soft.round().astype("uint8"),
        "one-hot": one_hot(ids(16)),
        "float16": soft.astype("float16"),
        "one column": soft[:, :1],
    }
    layer = mixup(target="union", rate=0.5) if kind == "rate" else LAYERS[kind](target="union")
    plan = plan_of(layer, n=16)
    expected = {name: union(labels, plan.lam, plan.permutation) for name, labels in y.items()}
    assert (expected["bits"] > y["bits"]).any()
    ours = at_step(road, layer, 0, (x, y), fuse=True)
    assert_near(ours, (mixed_inputs(x, plan), expected))
    assert {labels.dtype.name for labels in ours[1].values()} == {"float32"}
    alone = at_step(road, layer, 0, (x, y["bits"]))[1]
    np.testing.assert_array_equal(alone, ours[1]["bits"])


@every_road
@pytest.mark.parametrize("kind", EXTREME)
def test_union_where_one_of_the_partners_has_it_all(kind, road):
    x, y = data(64, (4, 4, 1)), data(64, (6,), seed=1).round().astype("int32")
    layer = EXTREME[kind](target="union")
    plan = plan_of(layer, n=64, spatial=(4, 4))
    lam = plan.lam if plan.box is None else oracle.kept_share(plan.box, (4, 4))
    assert {0.0, 1.0} <= set(np.unique(lam))
    np.testing.assert_array_equal(at_step(road, layer, 0, (x, y))[1], union(y, lam, plan.permutation))


@every_road
def test_union_with_weights_does_not_weigh_the_labels(road):
    x, y, w = data(), data(shape=(5,), seed=1), np.linspace(0, 3, 6, dtype="float32")
    layer = mixup(target="union")
    plan = plan_of(layer)
    _, ours, weights = at_step(road, layer, 0, (x, y, w))
    assert_near((ours, weights), (union(y, *plan[:2]), oracle.mixup(w, *plan[:2])))


def test_union_refuses_what_is_not_multi_hot():
    for y in (data(shape=(3,), seed=1).round().astype("int32") * 2, np.full((6, 3), -1)):
        refused_by_all({"target": "union"}, (data(), y), good=SOFT)


# A callable


def framework(tensor):
    kind = {np.ndarray: "numpy"}.get(type(tensor))
    return kind or ("tensorflow" if tf.is_tensor(tensor) else BACKEND)


def partner(y, plan):
    """The labels of the partners, by functions of their framework."""
    if tf.is_tensor(y):
        return tf.gather(y, plan.permutation)
    return y[plan.permutation]


@every_layer_and_road
def test_callable_gets_tensors_of_the_batch_and_the_plan(make, road):
    x, y, seen = data(), data(shape=(3,), seed=1) * 9, []

    def mix(y, plan):
        seen.append({framework(array) for array in (y, plan.lam, plan.permutation)})
        seen[-1] |= set() if plan.box is None else {framework(plan.box)}
        lam = plan.lam[:, None]
        return lam * y - (1 - lam) * partner(y, plan)

    layer = make(target=mix)
    plan = plan_of(layer)
    expected = oracle.rows(plan.lam, y) * y - oracle.rows(1 - plan.lam, y) * y[plan.permutation]
    assert_near(at_step(road, layer, 0, (x, y), fuse=True), (mixed_inputs(x, plan), expected))
    wanted = {"numpy": "numpy", "native": BACKEND, "tfdata": "tensorflow"}[road]
    assert all(kinds == {wanted} for kinds in seen)
    assert seen


@every_road
def test_callable_is_given_the_labels_as_they_came(road):
    """It gets any dtype and shape, and its result comes out unchanged."""
    x, y = data(), ids(24).reshape(6, 2, 2).astype("int32")
    layer = mixup(target=partner)
    ours = at_step(road, layer, 0, (x, y))[1]
    np.testing.assert_array_equal(ours, y[plan_of(layer).permutation])
    assert ours.dtype == "int32"


@every_road
def test_callable_pastes_masks_with_the_box(road):
    x, y = SPATIAL["mask"]

    def paste(y, plan):
        rows, columns = (np.arange(8)[None, :, None], np.arange(8)[None, None, :])
        y0, x0, y1, x1 = (plan.box[:, i][:, None, None] for i in range(4))
        if not isinstance(y, np.ndarray):
            convert = tf.constant if tf.is_tensor(y) else keras.ops.convert_to_tensor
            rows, columns = convert(rows.astype("int32")), convert(columns.astype("int32"))
        inside = ((rows >= y0) & (rows < y1) & (columns >= x0) & (columns < x1))[..., None]
        where = np.where if isinstance(y, np.ndarray) else tf.where if tf.is_tensor(y) else keras.ops.where
        return where(inside, partner(y, plan), y)

    layer = cutmix(target=paste)
    plan = plan_of(layer)
    expected = oracle.cutmix(x, plan.box, plan.permutation), oracle.cutmix(y, plan.box, plan.permutation)
    assert (expected[1] != y).any()
    assert_near(at_step(road, layer, 0, (x, y)), expected, atol=0)


@every_road
def test_callable_for_one_of_the_leaves_and_weights(road):
    x, y, w = data(), {"a": ids().astype("int32"), "b": one_hot(ids())}, np.linspace(0.5, 2, 6, dtype="float32")
    layer = mixup(target={"a": partner, "b": "labels"})
    plan = plan_of(layer)
    labels, weights = oracle.weighted(y["b"], w, *plan[:2])
    expected = {"a": y["a"][plan.permutation], "b": labels}, weights
    assert_near(at_step(road, layer, 0, (x, y, w))[1:], expected)


def test_callable_of_a_registered_function_survives_config():
    target = keras.saving.register_keras_serializable(package="kmix_tests")(partner)
    layer = mixup(target=target)
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    copy = keras.saving.deserialize_keras_object(serialized)
    x, y = data(), ids()
    assert_near(copy.at_step(1, (x, y)), layer.at_step(1, (x, y)), atol=0)


# Case 9: class weights, applied before mixing.


CLASS_WEIGHT = {0: 1.0, 1: 3.0, 2: 0.5}


def weights_of(y, class_weight=CLASS_WEIGHT):
    return np.array([class_weight.get(int(label), 1.0) for label in np.ravel(y)])


@every_layer_and_road
@pytest.mark.parametrize("form", ["ids", "one-hot"])
def test_case_9_class_weights_become_weights_of_the_pair(make, form, road):
    x, y = data(), ids()
    labels = one_hot(y) if form == "one-hot" else y
    layer = make(class_weight=CLASS_WEIGHT, num_classes=None if form == "one-hot" else 3)
    plan = plan_of(layer)
    expected = oracle.weighted(one_hot(y), weights_of(y), *plan[:2])
    ours = at_step(road, layer, 0, (x, labels), fuse=True)
    assert_near(ours, (mixed_inputs(x, plan), *expected))
    assert ours[2].dtype == "float32"


@every_road
@pytest.mark.parametrize("form", ["column", "bytes", "integer one-hot"])
def test_case_9_in_calls_and_of_other_forms(form, road):
    x, y = data(), ids()
    labels = {"column": y[:, None], "bytes": y.astype("uint8"), "integer one-hot": one_hot(y).astype("int32")}[form]
    layer = mixup(class_weight=CLASS_WEIGHT, num_classes=None if "one-hot" in form else 3)
    plan = plan_of(layer)
    expected = oracle.weighted(one_hot(y), weights_of(y), *plan[:2])
    assert_near(call(road, layer, (x, labels)), (mixed_inputs(x, plan), *expected))


@every_layer_and_road
@pytest.mark.parametrize("shape", [(6,), (6, 1)], ids=str)
def test_case_9_class_weights_multiply_into_the_weights_that_there_are(make, shape, road):
    x, y, w = data(), ids(), np.linspace(0.0, 2, 6, dtype="float32")
    layer = make(class_weight=CLASS_WEIGHT, num_classes=3)
    plan = plan_of(layer)
    labels, weights = oracle.weighted(one_hot(y), w * weights_of(y), *plan[:2])
    ours = at_step(road, layer, 0, (x, y, w.reshape(shape)))
    assert_near(ours[1:], (labels, weights.reshape(shape)))


@every_road
def test_case_9_a_class_that_is_missing_weighs_one(road):
    x, y = data(), ids()
    for class_weight in ({1: 4.0}, {0: 0.0, 2: 0}):
        layer = mixup(class_weight=class_weight, num_classes=3)
        expected = oracle.weighted(one_hot(y), weights_of(y, class_weight), *plan_of(layer)[:2])
        assert_near(at_step(road, layer, 0, (x, y))[1:], expected)


@every_road
def test_case_9_class_weights_of_pairs(road):
    x, y = data(16), ids(16, 5)
    class_weight = {0: 1.0, 1: 3.0, 4: 0.25}
    layer = mixup(class_weight=class_weight, num_classes=5, labels="pair")
    plan = plan_of(layer, n=16)
    labels, weights = oracle.weighted(oracle.one_hot(y, 5), weights_of(y, class_weight), *plan[:2])
    ours = at_step(road, layer, 0, (x, y))
    assert ours[1].shape == (16, 3)
    assert_near(oracle.dense(ours[1], 5), labels)
    assert_near(ours[2], weights)


@every_layer_and_road
def test_case_9_a_dictionary_gets_a_key(make, road):
    x, y, w = data(), ids(), np.linspace(0.5, 2, 6, dtype="float32")
    layer = make(class_weight=CLASS_WEIGHT, num_classes=3)
    for batch, weights in (({}, 1), ({"sample_weight": w}, w)):
        ours = at_step(road, layer, 0, {"images": x, "labels": y, **batch})
        assert set(ours) == {"images", "labels", "sample_weight"}
        labels, weights = oracle.weighted(one_hot(y), weights * weights_of(y), *plan_of(layer)[:2])
        assert_near((ours["labels"], ours["sample_weight"]), (labels, weights))


def test_case_9_labels_that_are_nested_are_refused():
    for y in ({"a": ids(), "b": ids()}, (ids(), ids())):
        settings = {"class_weight": CLASS_WEIGHT, "num_classes": 3}
        refused_by_all(settings, (data(), y), "class_weight", good=(data(), ids()))


@pytest.mark.parametrize(
    "class_weight", [[1.0, 2.0], {0: -1.0}, {0: "a"}, {"a": 1.0}, {0: float("nan")}, 2.0], ids=repr
)
def test_case_9_weights_that_are_none(class_weight):
    raises(lambda: mixup(class_weight=class_weight, num_classes=3), "class_weight", errors=(TypeError, ValueError))


def test_case_9_class_weights_survive_json():
    layer = mixup(class_weight=CLASS_WEIGHT, num_classes=3)
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    for copy in (
        keras.saving.deserialize_keras_object(serialized),
        kmix.MixUp.from_config(json.loads(json.dumps(layer.get_config()))),
    ):
        assert_near(copy.at_step(1, (data(), ids())), layer.at_step(1, (data(), ids())), atol=0)


def test_case_9_nothing_is_weighed_where_nothing_is_mixed():
    layer, x, y = mixup(class_weight=CLASS_WEIGHT, num_classes=3), data(), ids()
    for batch in ((x, y), (x, y, np.ones(6, "float32"))):
        for ours, given in zip(layer(*batch, training=False), batch, strict=True):
            np.testing.assert_array_equal(ours, given)
    mixed = mixup(class_weight=CLASS_WEIGHT, num_classes=3, rate=0.0)(x, y)
    assert_near(mixed, (x, one_hot(y), weights_of(y)))


def test_case_9_in_a_symbolic_call():
    x, y = keras.Input((8, 8, 3)), keras.Input((), dtype="int32")
    shapes = [tuple(out.shape) for out in mixup(class_weight=CLASS_WEIGHT, num_classes=3)(x, y)]
    assert shapes == [(None, 8, 8, 3), (None, 3), (None,)]


@pytest.mark.fast("CutMix")
@both
def test_case_9_the_loss_of_fit_is_the_weighted_pair(make):
    x, y = data(12), ids(12)
    layer = make(class_weight=CLASS_WEIGHT, num_classes=3)
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.SGD(0.0), "categorical_crossentropy")
    ds = tf.data.Dataset.from_tensors((x, y)).enumerate().map(layer.at_step)
    logged = model.fit(ds, verbose=0).history["loss"][0]
    plan, w = plan_of(layer, n=12), weights_of(y)
    p = model.predict(mixed_inputs(x, plan).astype("float32"), verbose=0)
    own, other = (oracle.crossentropy(one_hot(labels), p) for labels in (y, y[plan.permutation]))
    pair = plan.lam * w * own + (1 - plan.lam) * w[plan.permutation] * other
    assert logged == pytest.approx(pair.mean(), rel=1e-4)


# Case 10: a number of classes for each output.


STRUCTURES = {
    "dictionary": ({"root": 7, "vowel": 3}, {"root": ids(14, 7), "vowel": ids(14, 3)}),
    "another order": ({"vowel": 3, "root": 7}, OrderedDict(vowel=ids(14, 3), root=ids(14, 7))),
    "tuple": ((7, 3), (ids(14, 7), ids(14, 3)[:, None])),
    "nested": ({"a": {"b": 7}, "c": 3}, {"a": {"b": ids(14, 7).astype("uint8")}, "c": ids(14, 3)}),
    "a value to regress": ({"root": 7}, {"root": ids(14, 7), "size": data(14, (1,)) * 9}),
    "None": ({"root": 7, "size": None}, {"root": ids(14, 7), "size": data(14, ()) * 9}),
    "soft labels": ({"root": 7}, {"root": ids(14, 7), "soft": one_hot(ids(14))}),
    "equal numbers": ({"left": 3, "right": 3}, {"left": ids(14, 3), "right": ids(14, 3, 2)}),
    "one output": ({"root": 7}, {"root": ids(14, 7)}),
}


def encoded(y, num_classes):
    """Class ids, one-hot encoded with a separate number of classes for each leaf."""
    if isinstance(y, dict):
        return {name: encoded(y[name], num_classes.get(name) if num_classes else None) for name in y}
    if isinstance(y, tuple):
        return tuple(itertools.starmap(encoded, zip(y, num_classes, strict=True)))
    return y if num_classes is None else oracle.one_hot(y, num_classes)


@pytest.mark.parametrize(
    ("name", "road"),
    [(name, road) for i, name in enumerate(STRUCTURES) for road in dict.fromkeys(("numpy", ROADS[i % 3]))],
)
def test_case_10_a_number_of_classes_for_each_output(name, road):
    (num_classes, y), x = STRUCTURES[name], data(14, (4, 4, 1))
    turn = list(LAYERS)[(list(STRUCTURES).index(name) + ROADS.index(road)) % len(LAYERS)]
    for make in dict.fromkeys([mixup, LAYERS[turn]]) if road == "numpy" else [LAYERS[turn]]:
        layer = make(num_classes=num_classes)
        plan = plan_of(layer, n=14, spatial=(4, 4))
        expected = keras.tree.map_structure(lambda y, plan=plan: oracle.mixup(y, *plan[:2]), encoded(y, num_classes))
        ours = at_step(road, layer, 0, (x, y))[1]
        if isinstance(y, dict):
            ours, expected = dict(ours), dict(expected)
        assert_near(ours, expected)


@every_road
def test_case_10_with_weights_and_in_a_dictionary(road):
    num_classes, y = STRUCTURES["dictionary"]
    x, w = data(14, (4,)), np.linspace(0.5, 2, 14, dtype="float32")
    layer = mixup(num_classes=num_classes)
    plan = plan_of(layer, n=14)
    expected = {name: oracle.weighted(oracle.one_hot(y[name], num_classes[name]), w, *plan[:2])[0] for name in y}
    assert_near(at_step(road, layer, 0, (x, y, w), fuse=True)[1], expected)
    mixed = at_step(road, layer, 0, {"images": x, "labels": y, "sample_weight": w})
    assert_near(mixed["labels"], expected)


@every_road
def test_case_10_pairs_of_many_outputs(road):
    num_classes = {"root": 7, "vowel": 5}
    x, y = data(14, (4,)), {"root": ids(14, 7), "vowel": ids(14, 5)}
    layer = mixup(num_classes=num_classes, labels="pair")
    plan = plan_of(layer, n=14)
    for name, pairs in at_step(road, layer, 0, (x, y))[1].items():
        assert pairs.shape == (14, 3)
        one_hots = oracle.one_hot(y[name], num_classes[name])
        assert_near(oracle.dense(pairs, num_classes[name]), oracle.mixup(one_hots, *plan[:2]))


def test_case_10_keys_and_structures_that_the_labels_lack():
    x, y = data(14), STRUCTURES["dictionary"][1]
    for num_classes, labels, words in (
        ({"root": 7, "vowel": 3, "tone": 2}, y, ("tone", "root", "vowel")),
        ({"root": 7, "vowel": 3}, {"root": y["root"]}, ("vowel",)),
        ({"root": 7}, y["root"], ()),
        ((7, 3), y, ()),
        ({"root": 7, "vowel": 3}, tuple(y.values()), ()),
    ):
        refused_by_all({"num_classes": num_classes}, (x, labels), "num_classes", *words)


def test_case_10_ids_are_checked_by_their_own_number():
    x, y = data(14), STRUCTURES["dictionary"][1]
    wrong = {"root": y["root"], "vowel": y["root"]}
    refused_by_all({"num_classes": {"root": 7, "vowel": 3}}, (x, wrong), "num_classes=3", good=(x, y))
    refused_by_all({"num_classes": {"root": 7}}, (x, y), "num_classes")


@pytest.mark.parametrize("num_classes", [{"a": 0}, {"a": 2.5}, {"a": "3"}, {"a": True}, [3, -1]], ids=repr)
def test_case_10_numbers_that_are_none(num_classes):
    for layer in (kmix.MixUp, kmix.CutMix, kmix.EmbeddingMixup):
        raises(lambda layer=layer: layer(num_classes=num_classes), "num_classes", errors=(TypeError, ValueError))


def test_case_10_numbers_survive_json_and_choices_agree():
    for name in ("dictionary", "nested"):
        num_classes, y = STRUCTURES[name]
        layer, x = choice(num_classes=num_classes), data(14)
        copy = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(layer))))
        for step in range(3):
            assert_near(copy.at_step(step, (x, y)), layer.at_step(step, (x, y)), atol=0)
    raises(
        lambda: kmix.RandomChoice([mixup(num_classes={"a": 7}), cutmix(num_classes={"a": 3})]),
        "agree",
        "num_classes",
        errors=ValueError,
    )


def test_case_10_in_a_symbolic_call():
    x, y = keras.Input((8, 8, 3)), {"root": keras.Input((), dtype="int32"), "vowel": keras.Input((1,), dtype="int32")}
    labels = mixup(num_classes={"root": 7, "vowel": 3})(x, y)[1]
    assert {name: tuple(label.shape) for name, label in labels.items()} == {"root": (None, 7), "vowel": (None, 3)}


@pytest.mark.fast("MixUp")
@both
def test_case_10_in_fit(make):
    num_classes, y = STRUCTURES["dictionary"]
    x, inputs = data(14), keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()(inputs)
    model = keras.Model(inputs, {n: keras.layers.Dense(c, "softmax", name=n)(flat) for n, c in num_classes.items()})
    model.compile(keras.optimizers.SGD(0.0), dict.fromkeys(num_classes, "categorical_crossentropy"))
    layer = make(num_classes=num_classes)
    logged = model.fit(tf.data.Dataset.from_tensors((x, y)).enumerate().map(layer.at_step), verbose=0).history["loss"][
        0
    ]
    plan = plan_of(layer, n=14)
    predicted = model.predict(mixed_inputs(x, plan).astype("float32"), verbose=0)
    losses = [
        oracle.crossentropy(oracle.mixup(oracle.one_hot(y[name], classes), *plan[:2]), predicted[name]).mean()
        for name, classes in num_classes.items()
    ]
    assert logged == pytest.approx(sum(losses), rel=1e-4)


# Case 11: ids that do not stand for a class.


@pytest.mark.fast("uint8-255")
@pytest.mark.parametrize(("dtype", "value"), [("uint8", 255), ("int32", -1), ("int64", -100)])
def test_case_11_ids_of_no_class_name_what_is_to_come(dtype, value):
    y, w = ids().astype(dtype), np.ones(6, "float32")
    y[[1, 4]], w[[1, 4]] = value, 0
    for batch in ((data(), y, w), (data(), y), (data(), y[:, None])):
        refused_by_all({"num_classes": 3}, batch, "num_classes=3", "ignore", good=(data(), ids()))


def test_case_11_rows_of_zeros_have_no_class():
    """What to write until then: a sample without a class has no share in any class."""
    y, w = one_hot(ids()), np.ones(6, "float32")
    y[[1, 4]], w[[1, 4]] = 0, 0
    for road in ROADS:
        expected = oracle.weighted(y, w, *plan_of(mixup())[:2])
        assert_near(at_step(road, mixup(), 0, (data(), y, w))[1:], expected)


# Case 12: weights for each class of multi-label data.


def per_class(y, w, p, smoothing=0.0):
    y = y * (1 - smoothing) + smoothing / 2
    return -(w * (y * np.log(p) + (1 - y) * np.log(1 - p)))


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "none", "mean_with_sample_weight"])
@pytest.mark.parametrize("shape", [(6, 4), (5, 2, 4), (4, 4)], ids=str)
@pytest.mark.parametrize("settings", [{}, {"from_logits": True}, {"label_smoothing": 0.2}], ids=str)
def test_case_12_a_loss_takes_a_weight_for_each_class(settings, shape, reduction):
    rng = np.random.default_rng(0)
    y, w = rng.uniform(size=shape).round().astype("float32"), rng.uniform(size=shape).round().astype("float32") * 2
    p = rng.uniform(0.1, 0.9, shape).astype("float32")
    loss = kmix.losses.SoftLabelCrossentropy(multi_label=True, reduction=reduction, **settings)
    predicted = np.log(p / (1 - p)) if settings.get("from_logits") else p
    terms = per_class(y, w, p, settings.get("label_smoothing", 0.0))
    expected = {
        "sum_over_batch_size": terms.mean(),
        "sum": terms.mean(axis=-1).sum(),
        "none": terms.mean(axis=-1),
        "mean_with_sample_weight": terms.sum() / w.sum(),
    }[reduction]
    np.testing.assert_allclose(to_numpy(loss(y, predicted, sample_weight=w)), expected, rtol=1e-4)
    # Weights that are the same for all classes act like weights of the samples.
    same = np.broadcast_to(w[..., :1], shape)
    by_sample = to_numpy(loss(y, predicted, sample_weight=w[..., 0]))
    np.testing.assert_allclose(to_numpy(loss(y, predicted, sample_weight=same)), by_sample, rtol=1e-5)


def test_case_12_a_weight_of_zero_hides_a_label():
    y, w, p = data(6, (4,), 1).round(), data(6, (4,), 2).round(), data(6, (4,), 3) * 0.8 + 0.1
    loss = kmix.losses.SoftLabelCrossentropy(multi_label=True)
    hidden = np.where(w == 0, 1 - y, y)
    assert (hidden != y).any()
    assert float(loss(hidden, p, sample_weight=w)) == pytest.approx(float(loss(y, p, sample_weight=w)))


@every_layer_and_road
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_case_12_the_mixed_loss_is_that_of_the_pair_class_by_class(make, dtype, road):
    x, y, w = data(), data(6, (4,), 1).round().astype(dtype), data(6, (4,), 2).round() * 2
    layer = make()
    plan = plan_of(layer)
    _, labels, weights = at_step(road, layer, 0, (x, y, w))
    expected = oracle.weighted(
        y.reshape(-1), w.reshape(-1), np.repeat(plan.lam, 4), (plan.permutation[:, None] * 4 + np.arange(4)).reshape(-1)
    )
    assert_near((labels, weights), tuple(array.reshape(6, 4) for array in expected))
    p = data(6, (4,), 3) * 0.8 + 0.1
    loss = kmix.losses.SoftLabelCrossentropy(multi_label=True)
    pair = [per_class(y[rows], w[rows], p) for rows in (np.arange(6), plan.permutation)]
    pair = plan.lam[:, None] * pair[0] + (1 - plan.lam)[:, None] * pair[1]
    assert float(loss(labels, p, sample_weight=weights)) == pytest.approx(pair.mean(), rel=1e-4)


def test_case_12_in_fit_and_evaluate():
    x, y, w = data(), data(6, (4,), 1).round(), data(6, (4,), 2).round() * 2
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4, "sigmoid")])
    model.compile(keras.optimizers.SGD(0.0), kmix.losses.SoftLabelCrossentropy(multi_label=True))
    p = model.predict(x, verbose=0)
    assert model.evaluate(x, y, sample_weight=w, verbose=0) == pytest.approx(per_class(y, w, p).mean(), rel=1e-4)
    layer = mixup()
    logged = model.fit(tf.data.Dataset.from_tensors((x, y, w)).map(layer), verbose=0).history["loss"][0]
    mixed = layer.at_step(0, (x, y, w))
    p = model.predict(mixed[0], verbose=0)
    assert logged == pytest.approx(per_class(mixed[1], mixed[2], p).mean(), rel=1e-4)


# Case 13: video.


def test_case_13_the_docstring_says_that_a_box_cuts_time():
    text = kmix.CutMix.__doc__.lower()
    assert "time" in text
    assert "video" in text


@every_road
def test_case_13_a_box_of_video_cuts_time_unless_that_is_folded_into_the_channels(road):
    x, y = data(6, (4, 8, 6, 2)), one_hot(ids())
    plan = plan_of(cutmix(), spatial=(4, 8, 6))
    assert plan.box.shape == (6, 6)
    np.testing.assert_array_equal(at_step(road, cutmix(), 0, (x, y))[0], oracle.cutmix(x, plan.box, plan.permutation))
    folded = np.moveaxis(x, 1, 3).reshape(6, 8, 6, 8)
    mixed, labels = at_step(road, cutmix(), 0, (folded, y))
    plan = plan_of(cutmix(), spatial=(8, 6))
    unfolded = np.moveaxis(mixed.reshape(6, 8, 6, 4, 2), 3, 1)
    for frame in range(4):
        np.testing.assert_array_equal(unfolded[:, frame], oracle.cutmix(x[:, frame], plan.box, plan.permutation))
    assert_near(labels, oracle.mixup(y, oracle.kept_share(plan.box, (8, 6)), plan.permutation))


# Case 14: binary labels.


@pytest.mark.parametrize("shape", [(6,), (6, 1)], ids=str)
@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "bool"])
def test_case_14_binary_labels_are_told_of_the_cast(dtype, shape):
    y = ids(6, 2).astype(dtype).reshape(shape)
    refused_by_all({}, (data(), y), "num_classes", "binary", "float", good=SOFT)


@every_layer_and_road
def test_case_14_the_cast_does_what_it_says(make, road):
    for shape in ((6,), (6, 1)):
        y = ids(6, 2).astype("float32").reshape(shape)
        expected = oracle.mixup(y, *plan_of(make())[:2])
        assert_near(at_step(road, make(), 0, (data(), y))[1], expected)


# Cases 15 and 34b: what CutMix reads as channels.


def bare(**settings):
    """CutMix as users write it, without `data_format`."""
    return kmix.CutMix(**{"alpha": 1.0, "seed": 5, **settings})


def warned(function):
    """The texts of the user warnings that a function gives."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
    return [
        str(warning.message)
        for warning in caught
        if warning.category is UserWarning and "CutMix" in str(warning.message)
    ]


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((28, 28), "float32"), ((100, 5), "float16"), ((2, 100), "float32"), ((7, 640), "float64")],
    ids=str,
)
def test_case_15_inputs_without_channels_are_warned_of(shape, dtype):
    batch = data(6, shape).astype(dtype), one_hot(ids())
    for name in ways(bare(), batch) if shape == (28, 28) else ["call with NumPy", "ds.map(layer)"]:
        # A warning may come only once per layer, so each way has its own layer.
        texts = warned(ways(bare(), batch)[name])
        assert texts, name
        for word in ("x[..., None]", 'data_format="channels_last"'):
            assert word in texts[0], name


def test_case_15_in_every_form():
    x, y = data(6, (28, 28)), one_hot(ids())
    for function in (
        lambda: bare()({"images": x, "labels": y}),
        lambda: bare()(x, y, np.ones(6, "float32")),
        lambda: bare()({"a": x, "b": data(6, (28, 2))}, y),
        lambda: kmix.RandomChoice([bare(), bare(seed=1)], seed=1)(x, y),
    ):
        assert warned(function)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: bare(data_format="channels_last"), (28, 28)),
        (lambda: bare(data_format="channels_first"), (2, 100)),
        (bare, (28, 28, 1)),
        (bare, (28, 28, 28)),
        (bare, (28, 4)),
        (bare, (28, 1)),
        (bare, (4, 6, 6, 5)),
        (mixup, (28, 28)),
        (embedding, (28, 28)),
    ],
)
def test_case_15_what_is_plain_is_not_warned_of(make, shape):
    keras.config.set_image_data_format("channels_last")
    for name in ("call with NumPy", "ds.map(layer)"):
        assert not warned(ways(make(), (data(6, shape), one_hot(ids())))[name])


@pytest.mark.filterwarnings("ignore:.*CutMix:UserWarning")
@every_road
def test_case_15_with_the_format_the_box_lies_along_time(road):
    y = one_hot(ids())
    x = data(6, (2, 100))
    layer = cutmix(data_format="channels_first")
    plan = plan_of(layer, spatial=(100,))
    expected = oracle.cutmix(x, plan.box, plan.permutation, "channels_first")
    np.testing.assert_array_equal(at_step(road, layer, 0, (x, y))[0], expected)
    images = data(6, (28, 28, 1))
    plan = plan_of(cutmix(), spatial=(28, 28))
    np.testing.assert_array_equal(
        at_step(road, bare(), 0, (images, y))[0], oracle.cutmix(images, plan.box, plan.permutation)
    )


@pytest.mark.filterwarnings("ignore:.*CutMix:UserWarning")
def test_case_15_a_warning_changes_nothing():
    x, y = data(6, (28, 28)), one_hot(ids())
    assert_near(bare().at_step(3, (x, y)), cutmix().at_step(3, (x, y)), atol=0)


def test_case_15_the_docstring_says_how_clips_are_read():
    text = kmix.CutMix.__doc__
    assert "channels_first" in text
    assert "(B, T, C, H, W)" in text


# Case 17: float ids.


FLOAT_IDS = {
    "binary": ids(6, 2).astype("float32"),
    "ids": ids().astype("float32"),
    "column": ids(6, 2).astype("float32")[:, None],
    "float16": ids().astype("float16"),
    "float64": ids(6, 2)[:, None].astype("float64"),
    "probabilities": data(6, (), 1),
    "all zero": np.zeros(6, "float32"),
    "nested": {"a": one_hot(ids()), "b": ids(6, 2).astype("float32")},
    "nested column": (ids(), ids(6, 2).astype("float32")[:, None]),
}


@pytest.mark.parametrize("name", FLOAT_IDS)
def test_case_17_float_ids_with_num_classes_are_refused(name):
    refused_by_all({"num_classes": 3}, (data(), FLOAT_IDS[name]), "num_classes", "float", good=(data(), ids()))


def test_case_17_in_every_form():
    y, two = FLOAT_IDS["binary"], {"num_classes": 2}
    refused_by_all(two, {"images": data(), "labels": y}, "num_classes", "float")
    refused_by_all(two, (data(), y, np.ones(6, "float32")), "num_classes", "float")
    refused_by_all({"num_classes": {"a": 2}}, (data(), {"a": y, "b": y}), "num_classes", "float")


@every_road
def test_case_17_where_their_output_has_no_classes_they_are_mixed(road):
    y = {"a": ids(), "b": ids(6, 2).astype("float32"), "c": data(6, (1,)) * 9}
    layer = mixup(num_classes={"a": 3})
    plan = plan_of(layer)
    expected = {n: oracle.mixup(oracle.one_hot(v, 3) if n == "a" else v, *plan[:2]) for n, v in y.items()}
    assert_near(at_step(road, layer, 0, (data(), y))[1], expected)


def test_case_17_what_a_directory_gives(tmp_path):
    """`image_dataset_from_directory(label_mode="binary")`: float32 of shape (B, 1)."""
    for kind, value in (("a", 0), ("b", 200)):
        (tmp_path / kind).mkdir()
        for i in range(3):
            image = np.full((8, 8, 3), value + i, "uint8")
            keras.utils.save_img(tmp_path / kind / f"{i}.png", image, scale=False)
    load = keras.utils.image_dataset_from_directory
    settings = {"image_size": (8, 8), "batch_size": 6, "seed": 1, "verbose": False}
    binary = load(str(tmp_path), label_mode="binary", **settings)
    raises(lambda: next(iter(binary.map(mixup(num_classes=2)))), "num_classes", "float")
    x, y = to_numpy(next(iter(binary.map(mixup()))))
    assert (x.shape, y.shape) == ((6, 8, 8, 3), (6, 1))
    for mode, layer in (("int", mixup(num_classes=2)), ("categorical", mixup())):
        assert to_numpy(next(iter(load(str(tmp_path), label_mode=mode, **settings).map(layer))))[1].shape == (6, 2)


# Cases 23 and 24: masks that Keras carries along with embedded tokens.


TOKENS = np.array(
    [[4, 2, 7, 0, 0], [1, 9, 0, 0, 0], [3, 0, 0, 0, 0], [5, 6, 7, 8, 9], [2, 2, 0, 0, 0], [8, 0, 0, 0, 0]]
)


def text_layers():
    embed = keras.layers.Embedding(10, 4, mask_zero=True)
    embed.build((None, 5))
    return embed, keras.layers.GlobalAveragePooling1D()


def pooled(embed, plan):
    """The mean of the mixed embeddings over positions where one of the partners has a token."""
    table = np.asarray(to_numpy(embed.embeddings.value))
    mask = TOKENS != 0
    united = mask | (mask[plan.permutation] & (plan.lam < 1)[:, None])
    values = oracle.mixup(table[TOKENS], plan.lam, plan.permutation)
    return np.einsum("bt,btd->bd", united / united.sum(axis=1, keepdims=True), values)


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_case_24_a_mask_is_united_at_a_step(rate):
    embed, pool = text_layers()
    for mix in (embedding(num_classes=3, rate=rate), kmix.EmbeddingMixup(1.0, per="batch", num_classes=3, seed=8)):
        for step in (0, 3):
            x, y = mix.at_step(step, (embed(to_native(TOKENS)), to_native(ids())))
            plan = mix.plan(step, 6)
            assert_near((pool(x), y), (pooled(embed, plan), oracle.mixup(oracle.one_hot(ids(), 3), *plan[:2])))


def test_case_23_a_mask_is_united_in_an_eager_call():
    embed, pool = text_layers()
    mix = embedding(num_classes=3)
    for step in range(2):
        x, _ = mix(embed(to_native(TOKENS)), to_native(ids()))
        assert_near(pool(x), pooled(embed, mix.plan(step, 6)))


def test_case_24_with_weights_dictionaries_and_several_inputs():
    embed, pool = text_layers()
    mix, w = embedding(num_classes=3), to_native(np.ones(6, "float32"))
    tokens, y, plan = to_native(TOKENS), to_native(ids()), embedding().plan(1, 6)
    assert_near(pool(mix.at_step(1, (embed(tokens), y, w))[0]), pooled(embed, plan))
    assert_near(pool(mix.at_step(1, {"images": embed(tokens), "labels": y})["images"]), pooled(embed, plan))
    other = text_layers()[0]
    vectors = to_native(data(6, (3,)))
    mixed = mix.at_step(1, ({"a": embed(tokens), "b": other(tokens), "c": vectors}, y))[0]
    assert_near(pool(mixed["a"]), pooled(embed, plan))
    assert_near(pool(mixed["b"]), pooled(other, plan))
    assert_near(mixed["c"], oracle.mixup(data(6, (3,)), *plan[:2]))


@on("jax", "jax.jit compiles JAX alone")
def test_case_24_a_mask_is_united_under_jit():
    import jax

    embed, pool = text_layers()
    mix = embedding(num_classes=3)

    @jax.jit
    def run(step, tokens, y):
        x, y = mix.at_step(step, (embed(tokens), y))
        return pool(x), y

    for step in (0, 3):
        plan = mix.plan(step, 6)
        expected = pooled(embed, plan), oracle.mixup(oracle.one_hot(ids(), 3), *plan[:2])
        assert_near(run(step, TOKENS, ids()), expected)


@on("tensorflow", "a graph of TensorFlow runs its own layers alone")
@pytest.mark.parametrize("fuse", [True, False])
def test_case_23_a_mask_is_united_in_a_graph(fuse):
    embed, pool = text_layers()
    for counted in (True, False):
        mix = embedding(num_classes=3)
        mix.fuse = fuse

        def run(step, batch, mix=mix, counted=counted):
            tokens, y = batch
            x, y = mix(embed(tokens), y) if counted else mix.at_step(step, (embed(tokens), y))
            return pool(x), y

        ds = tf.data.Dataset.from_tensors((TOKENS, ids())).repeat(3)
        for step, ours in enumerate(ds.enumerate().map(run)):
            plan = mix.plan(step, 6)
            assert_near(ours, (pooled(embed, plan), oracle.mixup(oracle.one_hot(ids(), 3), *plan[:2])))


@on("tensorflow", "JAX asks for a step, PyTorch runs eagerly")
def test_case_23_a_mask_is_united_in_a_training_step_of_ones_own():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.embed, self.pool = text_layers()
            self.mix = embedding(num_classes=3)

        def call(self, tokens):
            return self.pool(self.embed(tokens))

        def train_step(self, data):
            tokens, y = data
            x, _ = self.mix(self.embed(tokens), y)
            return {"sum": tf.reduce_sum(self.pool(x) ** 2)}

    model = Own()
    model.compile("sgd")
    logs = model.fit(tf.data.Dataset.from_tensors((TOKENS, ids())).repeat(2), verbose=0).history
    assert logs["sum"][0] == pytest.approx(np.sum(pooled(model.embed, model.mix.plan(1, 6)) ** 2), rel=1e-4)


# Case 30: values that both partners share.


SHARED = [-10.0, -99.0, -0.1, 0.3, 77.0, 1e30, 1e-30]


@every_road
@pytest.mark.parametrize(
    ("make", "dtype"),
    [(mixup, "float32"), (embedding, "float32"), (mixup, "float16"), (mixup, "float64"), (mixup, "uint8")],
)
def test_case_30_what_both_partners_share_comes_back_exactly(make, dtype, road):
    if (BACKEND, road, dtype) == ("jax", "native", "float64"):
        pytest.skip("JAX holds 32 bits")
    layer, values = make(dtype="float32" if dtype == "uint8" else dtype), np.array(SHARED)
    values = values[values == 77] if dtype == "uint8" else values[:-2] if dtype == "float16" else values
    x = (data(64, (3 + len(values), 2)) * 5).astype(dtype)
    x[:, 3:] = values[:, None]
    mixed = at_step(road, layer, 0, (x, one_hot(ids(64))), fuse=True)[0]
    np.testing.assert_array_equal(mixed[:, 3:], x[:, 3:].astype(mixed.dtype))
    expected = oracle.mixup(x[:, :3], *layer.plan(0, 64)[:2])
    assert_near(mixed[:, :3].astype("float64"), expected, atol=0.01 if dtype == "float16" else 1e-4)


@every_road
@blending
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_case_30_shared_infinities_come_back_too(value, make, road):
    """Logits are masked with this. The difference of two such values is NaN."""
    x = data(64, (5, 2))
    x[:, 2:] = value
    np.testing.assert_array_equal(at_step(road, make(), 0, (x, one_hot(ids(64))))[0][:, 2:], x[:, 2:])


@every_road
def test_case_30_ragged_padding_is_there_where_both_have_it(road):
    """Series of different lengths, as `Masking` reads them."""
    lengths = np.arange(32) % 7 + 1
    padded = np.arange(9) >= lengths[:, None]
    for value in (-10.0, -0.1):
        x = data(32, (9, 2)) * 5
        x[padded] = value
        mixed = at_step(road, mixup(), 0, (x, one_hot(ids(32))))[0]
        shared = padded & padded[mixup().plan(0, 32).permutation]
        assert (mixed[shared] == np.float32(value)).all()
        assert (mixed[~shared] != np.float32(value)).all()


@on("jax", "jax.jit compiles JAX alone")
def test_case_30_under_jit():
    import jax

    x = data(64, (9, 2))
    x[:, 5:] = -0.1
    mixed = jax.jit(lambda step, x, y: mixup().at_step(step, (x, y)))(2, x, one_hot(ids(64)))[0]
    assert (np.asarray(mixed)[:, 5:] == np.float32(-0.1)).all()


@every_road
@blending
def test_case_30_a_sample_that_is_kept_is_not_touched_by_its_partner(make, road):
    x = data(64, (5,))
    x[::3] = np.nan
    x[1::3, 2] = np.inf
    layer = make(rate=0.5)
    kept = layer.plan(0, 64).lam == 1
    assert kept.any()
    np.testing.assert_array_equal(at_step(road, layer, 0, (x, one_hot(ids(64))))[0][kept], x[kept])


# Case 31: a mask or lengths along with a wave.


@pytest.mark.parametrize(
    ("name", "other", "words"),
    [
        ("mask", (data(6, (50,)) > 0.3).astype("int32"), ["bool", "EmbeddingMixup"]),
        ("mask", data(6, (50,)) > 0.3, ["bool", "EmbeddingMixup"]),
        ("attention_mask", (data(6, (50,)) > 0.3).astype("int64"), ["bool", "EmbeddingMixup"]),
        ("lengths", ids(6) + 40, ["length"]),
        ("lengths", (ids(6) + 40).astype("int32")[:, None], ["length"]),
    ],
)
def test_case_31_a_mask_or_lengths_beside_a_wave(name, other, words):
    wave, good = data(6, (50,)), (data(6, (50,)), one_hot(ids()))
    for x in ({"wave": wave, name: other}, (wave, other)):
        refused(mixup(), (x, one_hot(ids())), *words, good=good)


def test_case_31_integer_masks_by_an_embedding_mixup():
    mask = (data(6, (50,)) > 0.3).astype("int32")
    refused(embedding(), ({"wave": data(6, (50,)), "mask": mask}, one_hot(ids())), "bool")


@every_road
def test_case_31_boolean_masks_are_united(road):
    wave, mask, y = data(6, (50,)), data(6, (50,), 1) > 0.5, one_hot(ids())
    layer = embedding(rate=0.5)
    plan = layer.plan(0, 6)
    united = mask | (mask[plan.permutation] & (plan.lam < 1)[:, None])
    ours = at_step(road, layer, 0, ({"wave": wave, "mask": mask}, y))[0]
    np.testing.assert_array_equal(ours["mask"], united)
    assert_near(ours["wave"], oracle.mixup(wave, *plan[:2]))


# Case 34a: waves of unequal length.


@pytest.mark.parametrize("make", [mixup, embedding], ids=["MixUp", "EmbeddingMixup"])
@pytest.mark.parametrize("shapes", [[(100,), (80,)], [(100, 2), (80, 2)], [(5,), (7,), (9,)]], ids=str)
def test_case_34_a_list_of_waves_is_no_batch(make, shapes):
    waves = [np.ones(shape, "float32") for shape in shapes]
    y, layer = one_hot(ids(len(waves), 2), 2), make()
    for x, labels in ((waves, y), (tuple(waves), y), (to_native(waves), to_native(y))):
        for way in (
            lambda x=x, labels=labels: layer(x, labels),
            lambda x=x, labels=labels: layer.at_step(0, (x, labels)),
        ):
            raises(way, "pad", errors=ValueError)


@pytest.mark.parametrize("make", [mixup, embedding, cutmix], ids=["MixUp", "EmbeddingMixup", "CutMix"])
def test_case_34_an_array_of_waves_is_no_batch(make):
    waves = np.empty(2, object)
    waves[:] = [np.ones((100, 1), "float32"), np.ones((80, 1), "float32")]
    raises(lambda: make().at_step(0, (waves, one_hot(ids(2, 2), 2))), "pad", errors=(ValueError, TypeError))


def test_case_34_a_data_set_that_was_not_batched_is_still_told_so():
    ds = tf.data.Dataset.from_tensor_slices((data(), one_hot(ids())))
    raises(lambda: ds.map(mixup()), "batched")


# Nothing is counted when a check fails, not even while the graph runs.


@pytest.mark.parametrize("make", [mixup, cutmix, choice], ids=["MixUp", "CutMix", "RandomChoice"])
def test_a_refused_batch_of_a_running_graph_is_not_counted(make):
    layer, x = make(num_classes=3), data()
    y = np.stack([ids(), ids() + 1, ids()])
    batches = iter(tf.data.Dataset.from_tensor_slices((np.stack([x] * 3), y)).map(layer))
    next(batches)
    raises(lambda: next(batches), "num_classes=3")
    assert_near(next(batches), to_numpy(layer.at_step(1, (x, ids()))))


# What was already correct.


@every_layer_and_road
def test_one_hot_labels_with_an_axis_more(make, road):
    """One-hot `(B, 1, C)`, as some data sets have them."""
    x, y = data(), one_hot(ids())[:, None]
    layer = make()
    plan = plan_of(layer)
    assert_near(at_step(road, layer, 0, (x, y)), (mixed_inputs(x, plan), oracle.mixup(y, *plan[:2])))


@pytest.mark.parametrize("make", [mixup, cutmix], ids=["MixUp", "CutMix"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_of_large_images_and_many_classes(make, dtype):
    """Half precision cannot count 300 x 300 pixels or class 999 exactly."""
    x = data(2, (300, 300, 1))
    y = np.array([999, 998])
    layer = make(num_classes=1000, dtype=dtype)
    plan = plan_of(layer, n=2, spatial=(300, 300))
    native = keras.ops.cast(to_native(x), dtype)
    ours, labels = layer.at_step(0, (native, to_native(y)))
    assert keras.backend.standardize_dtype(ours.dtype) == dtype
    assert_near(labels, oracle.mixup(oracle.one_hot(y, 1000), *plan[:2]), atol=1e-6)
    rounded = to_numpy(keras.ops.cast(native, "float32"))
    assert_near(keras.ops.cast(ours, "float32"), mixed_inputs(rounded, plan), atol=0.01)
    if plan.box is not None:
        np.testing.assert_allclose(plan.lam, oracle.kept_share(plan.box, (300, 300)), atol=1e-6)
