"""The number of classes: one for each output, ids of no class, binary labels, and class ids that came as floats."""

import itertools
import json
from collections import OrderedDict

import keras
import numpy as np
import oracle
import pytest
from helpers import (
    CODE_PATHS,
    LAYERS,
    assert_near,
    at_step,
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
    refused_by_all,
    tf,
    to_numpy,
    tree,
)

import kmix
from kmix.targets import LabelPairs, Labels

SOFT = data(), one_hot(ids())


STRUCTURES = {
    "dictionary": ({"root": 7, "vowel": 3}, {"root": ids(14, 7), "vowel": ids(14, 3)}),
    "another order": ({"vowel": 3, "root": 7}, OrderedDict(vowel=ids(14, 3), root=ids(14, 7))),
    "tuple": ((7, 3), (ids(14, 7), ids(14, 3)[:, None])),
    "nested": ({"a": {"b": 7}, "c": 3}, {"a": {"b": ids(14, 7).astype("uint8")}, "c": ids(14, 3)}),
    "a column to regress": ({"root": 7, "size": None}, {"root": ids(14, 7), "size": data(14, (1,)) * 9}),
    "a value to regress": ({"root": 7, "size": None}, {"root": ids(14, 7), "size": data(14, ()) * 9}),
    "soft labels": ({"root": 7, "soft": None}, {"root": ids(14, 7), "soft": one_hot(ids(14))}),
    "equal numbers": ({"left": 3, "right": 3}, {"left": ids(14, 3), "right": ids(14, 3, 2)}),
    "one output": ({"root": 7}, {"root": ids(14, 7)}),
}


def target_of(num_classes, kind=Labels):
    """The targets for a structure of numbers of classes."""
    if isinstance(num_classes, dict):
        return {name: target_of(number, kind) for name, number in num_classes.items()}
    if isinstance(num_classes, tuple):
        return tuple(target_of(number, kind) for number in num_classes)
    return kind(num_classes)


def encoded(y, num_classes):
    """Class ids, one-hot encoded with a separate number of classes for each leaf."""
    if isinstance(y, dict):
        return {name: encoded(y[name], num_classes[name]) for name in y}
    if isinstance(y, tuple):
        return tuple(itertools.starmap(encoded, zip(y, num_classes, strict=True)))
    return y if num_classes is None else oracle.one_hot(y, num_classes)


@pytest.mark.fast("*numpy", "*native", "tuple-tfdata")
@pytest.mark.parametrize(
    ("name", "path"),
    [(name, path) for i, name in enumerate(STRUCTURES) for path in dict.fromkeys(("numpy", CODE_PATHS[i % 3]))],
)
def test_a_number_of_classes_for_each_output(name, path):
    (num_classes, y), x = STRUCTURES[name], data(14, (4, 4, 1))
    turn = list(LAYERS)[(list(STRUCTURES).index(name) + CODE_PATHS.index(path)) % len(LAYERS)]
    for make in dict.fromkeys([mixup, LAYERS[turn]]) if path == "numpy" else [LAYERS[turn]]:
        layer = make(target=target_of(num_classes))
        plan = plan_of(layer, n=14, spatial=(4, 4))
        expected = tree.map_structure(lambda y, plan=plan: oracle.mixup(y, *plan[:2]), encoded(y, num_classes))
        ours = at_step(path, layer, 0, (x, y))[1]
        if isinstance(y, dict):
            ours, expected = dict(ours), dict(expected)
        assert_near(ours, expected)


@pytest.mark.slow
@every_path
def test_several_numbers_with_weights_and_in_a_dictionary(path):
    num_classes, y = STRUCTURES["dictionary"]
    x, w = data(14, (4,)), np.linspace(0.5, 2, 14, dtype="float32")
    layer = mixup(target=target_of(num_classes))
    plan = plan_of(layer, n=14)
    expected = {name: oracle.weighted(oracle.one_hot(y[name], num_classes[name]), w, *plan[:2])[0] for name in y}
    assert_near(at_step(path, layer, 0, (x, y, w))[1], expected)
    mixed = at_step(path, layer, 0, {"images": x, **y, "sample_weight": w})
    assert_near({name: mixed[name] for name in y}, expected)
    nested = mixup(target={"labels": target_of(num_classes)})
    mixed = at_step(path, nested, 0, {"images": x, "labels": y, "sample_weight": w})
    assert_near(mixed["labels"], expected)


@every_path
def test_pairs_of_many_outputs(path):
    num_classes = {"root": 7, "vowel": 5}
    x, y = data(14, (4,)), {"root": ids(14, 7), "vowel": ids(14, 5)}
    layer = mixup(target=target_of(num_classes, LabelPairs))
    plan = plan_of(layer, n=14)
    for name, pairs in at_step(path, layer, 0, (x, y))[1].items():
        assert pairs.shape == (14, 3)
        one_hots = oracle.one_hot(y[name], num_classes[name])
        assert_near(oracle.dense(pairs, num_classes[name]), oracle.mixup(one_hots, *plan[:2]))


def test_keys_and_structures_that_the_labels_lack():
    x, y = data(14), STRUCTURES["dictionary"][1]
    for num_classes, labels, words in (
        ({"root": 7, "vowel": 3, "tone": 2}, y, ("tone", "root", "vowel")),
        ({"root": 7, "vowel": 3}, {"root": y["root"]}, ("vowel",)),
        ({"root": 7}, y["root"], ()),
        ((7, 3), y, ()),
        ({"root": 7, "vowel": 3}, tuple(y.values()), ()),
    ):
        refused_by_all({"target": target_of(num_classes)}, (x, labels), "target", *words)


@pytest.mark.slow
def test_ids_are_checked_by_their_own_number():
    x, y = data(14), STRUCTURES["dictionary"][1]
    wrong = {"root": y["root"], "vowel": y["root"]}
    refused_by_all({"target": target_of({"root": 7, "vowel": 3})}, (x, wrong), "num_classes=3", good=(x, y))
    refused_by_all({"target": {"root": Labels(7), "vowel": "labels"}}, (x, y), "num_classes", "vowel")


@pytest.mark.parametrize("num_classes", [0, 2.5, "3", True, -1, {"a": 3}, [3, 2]], ids=repr)
def test_numbers_that_are_none(num_classes):
    for takes in (kmix.MixUp, kmix.CutMix, kmix.EmbeddingMixup, Labels, LabelPairs):
        raises(lambda takes=takes: takes(num_classes=num_classes), "num_classes", errors=(TypeError, ValueError))


def test_the_number_is_given_once():
    for target in (Labels(3), "labels", "keep", {"labels": "union"}):
        raises(lambda target=target: mixup(num_classes=3, target=target), "num_classes", errors=ValueError)


def test_choices_agree_on_the_number():
    for name in ("dictionary", "nested"):
        num_classes, y = STRUCTURES[name]
        layer, x = choice(target=target_of(num_classes)), data(14)
        copy = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(layer))))
        for step in range(3):
            assert_near(copy.at_step(step, (x, y)), layer.at_step(step, (x, y)), atol=0)
    raises(
        lambda: kmix.RandomChoice([mixup(target={"a": Labels(7)}), cutmix(target={"a": Labels(3)})]),
        "agree",
        "target",
        errors=ValueError,
    )


@pytest.mark.slow
@pytest.mark.parametrize("make", [mixup, cutmix], ids=["MixUp", "CutMix"])
def test_two_outputs_in_fit(make):
    num_classes, y = STRUCTURES["dictionary"]
    x, inputs = data(14), keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()(inputs)
    model = keras.Model(inputs, {n: keras.layers.Dense(c, "softmax", name=n)(flat) for n, c in num_classes.items()})
    model.compile(keras.optimizers.SGD(0.0), dict.fromkeys(num_classes, "categorical_crossentropy"))
    layer = make(target=target_of(num_classes))
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


@pytest.mark.in_turn
@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "value"), [("uint8", 255), ("int32", -1), ("int64", -100)])
def test_ids_of_no_class_are_refused(dtype, value):
    y, w = ids().astype(dtype), np.ones(6, "float32")
    y[[1, 4]], w[[1, 4]] = value, 0
    for batch in ((data(), y, w), (data(), y), (data(), y[:, None])):
        refused_by_all({"num_classes": 3}, batch, "num_classes=3", "sample weight of 0", good=(data(), ids()))


def test_rows_of_zeros_have_no_class():
    """What to write until then: a sample without a class has no share in any class."""
    y, w = one_hot(ids()), np.ones(6, "float32")
    y[[1, 4]], w[[1, 4]] = 0, 0
    for path in CODE_PATHS:
        expected = oracle.weighted(y, w, *plan_of(mixup())[:2])
        assert_near(at_step(path, mixup(), 0, (data(), y, w))[1:], expected)


@pytest.mark.parametrize("shape", [(6,), (6, 1)], ids=str)
@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "bool"])
def test_binary_labels_are_told_of_the_cast(dtype, shape):
    y = ids(6, 2).astype(dtype).reshape(shape)
    refused_by_all({}, (data(), y), "num_classes", "binary", "float", good=SOFT)


@every_layer_and_path
def test_the_cast_does_what_it_says(make, path):
    for shape in ((6,), (6, 1)):
        y = ids(6, 2).astype("float32").reshape(shape)
        expected = oracle.mixup(y, *plan_of(make())[:2])
        assert_near(at_step(path, make(), 0, (data(), y))[1], expected)


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
def test_float_ids_with_num_classes_are_refused(name):
    refused_by_all({"num_classes": 3}, (data(), FLOAT_IDS[name]), "num_classes", "float", good=(data(), ids()))


def test_float_ids_are_refused_in_every_form_of_a_batch():
    y, two = FLOAT_IDS["binary"], {"num_classes": 2}
    refused_by_all(two, {"images": data(), "labels": y}, "num_classes", "float")
    refused_by_all(two, (data(), y, np.ones(6, "float32")), "num_classes", "float")
    refused_by_all({"target": {"a": Labels(2), "b": Labels()}}, (data(), {"a": y, "b": y}), "num_classes", "float")


@every_path
def test_floats_of_an_output_without_classes_are_mixed(path):
    y = {"a": ids(), "b": ids(6, 2).astype("float32"), "c": data(6, (1,)) * 9}
    layer = mixup(target={"a": Labels(3), "b": Labels(), "c": Labels()})
    plan = plan_of(layer)
    expected = {n: oracle.mixup(oracle.one_hot(v, 3) if n == "a" else v, *plan[:2]) for n, v in y.items()}
    assert_near(at_step(path, layer, 0, (data(), y))[1], expected)


@pytest.mark.slow
def test_what_image_dataset_from_directory_gives(tmp_path):
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
