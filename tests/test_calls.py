"""The forms of a call, in a pipeline and in a model; counting; and what a layer keeps when it is saved or copied."""

import copy
import json
import multiprocessing
import pickle
import subprocess
import sys
from collections import OrderedDict
from typing import NamedTuple

import keras
import numpy as np
import pytest
from helpers import BACKEND, CODE_PATHS, assert_near, call, tf, to_native, to_numpy

import kmix
from kmix.layers.training_step import TrainingStep, run_step
from kmix.targets import LabelPairs, Labels

X = np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype("float32")
Y = np.array([0, 1, 2, 0, 1, 2])


def layers(num_classes=3):
    mixup = kmix.MixUp(0.5, num_classes=num_classes, seed=1)
    cutmix = kmix.CutMix(num_classes=num_classes, seed=2, data_format="channels_last")
    return [mixup, cutmix, kmix.RandomChoice([mixup, cutmix], seed=3)]


every_layer = pytest.mark.parametrize("index", range(3), ids=["mixup", "cutmix", "choice"])


class Batch(NamedTuple):
    x: np.ndarray
    y: np.ndarray


class Triple(NamedTuple):
    x: np.ndarray
    y: np.ndarray
    sample_weight: np.ndarray


def unchanged(structure):
    return structure


def to_tensorflow(structure):
    return tf.nest.map_structure(tf.constant, structure)


def flat(structure):
    return tuple(tf.nest.flatten(structure))


@every_layer
@pytest.mark.parametrize("convert", [unchanged, to_native], ids=["numpy", "native"])
def test_all_forms_mix_alike(index, convert):
    x, y, w = convert((X, Y, np.ones(6, "float32")))
    data = {"images": x, "labels": y}
    forms = {
        "arguments": lambda layer: layer(x, y),
        "keyword": lambda layer: layer(x, y=y),
        "keywords": lambda layer: layer(y=y, x=x),
        "weights": lambda layer: layer(x, y, w)[:2],
        "weights by name": lambda layer: layer(x, y, sample_weight=w)[:2],
        "dictionary": lambda layer: tuple(layer(data).values()),
        "dictionary in training": lambda layer: tuple(layer(data, training=True).values()),
        "training": lambda layer: layer(x, y, training=True),
        "at_step": lambda layer: layer.at_step(0, (x, y)),
        "at_step with weights": lambda layer: layer.at_step(0, (x, y, w))[:2],
        "at_step with a list": lambda layer: layer.at_step(0, [x, y]),
        "at_step with a named tuple": lambda layer: layer.at_step(np.int64(0), Batch(x, y)),
        "at_step with a dictionary": lambda layer: tuple(layer.at_step(0, data).values()),
        "at_step with a tensor": lambda layer: layer.at_step(keras.ops.convert_to_tensor(0), (x, y)),
    }
    expected = to_numpy(layers()[index].at_step(0, (X, Y)))
    for name, form in forms.items():
        for a, b in zip(to_numpy(tuple(form(layers()[index]))), expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6, err_msg=name)
    layer = layers()[0]
    assert type(layer.at_step(0, [x, y])) is tuple
    assert isinstance(layer.at_step(0, Batch(x, y)), Batch)
    assert isinstance(layer.at_step(0, Triple(x, y, w)), Triple)
    assert layer.at_step(0, (x, y, None))[2] is None


FORMS = {
    "an array": lambda x, y: x,
    "a tuple": lambda x, y: (x, y),
    "a tuple of one": lambda x, y: (x,),
    "a list": lambda x, y: [x, y],
    "a named tuple": lambda x, y: Batch(x, y),
    "a dictionary without labels": lambda x, y: {"images": x, "size": y},
    "a nested structure": lambda x, y: [(x, {"labels": y})],
}
every_form = pytest.mark.parametrize("form", FORMS)


@every_form
@pytest.mark.parametrize("convert", [unchanged, to_native, to_tensorflow], ids=["numpy", "native", "tensorflow"])
def test_inputs_alone(form, convert):
    """One argument that is no labelled dictionary is inputs alone, whatever it holds."""
    given = FORMS[form](*convert((X, Y)))
    native = convert is to_native or (convert is to_tensorflow and BACKEND == "tensorflow")
    for index in range(3):
        layer = layers()[index]
        assert_near(flat(layer(given, training=False)), flat(to_numpy(given)))
        with pytest.raises(ValueError, match=r"without '?labels"):
            layer(given, training=True)
        if form == "an array" and native:
            # Nothing tells it from inference within a model.
            np.testing.assert_array_equal(to_numpy(layer(given)), X)
        else:
            with pytest.raises(ValueError, match=r"without '?labels"):
                layer(given)
        # Nothing was counted.
        np.testing.assert_array_equal(layer(X, Y)[0], layer.at_step(0, (X, Y))[0])


@pytest.mark.fast("an array", "a named tuple")
@every_form
def test_inputs_alone_in_a_pipeline(form):
    """Also within scopes of names, as a layer of Keras opens them."""
    ds = tf.data.Dataset.from_tensors((X, Y))

    def alone(x, y, training=None):
        return flat(layer(FORMS[form](x, y), training=training))

    def scoped(x, y):
        with tf.name_scope("model"), tf.name_scope("layer"):
            return alone(x, y)

    for index in range(3):
        layer = layers()[index]
        for function in (alone, scoped, lambda x, y: alone(x, y, True)):
            with pytest.raises(ValueError, match=r"without '?labels"):
                ds.map(function)
        assert_near(next(iter(ds.map(lambda x, y: alone(x, y, False)))), flat(FORMS[form](X, Y)))


@pytest.mark.slow
def test_batches_in_a_pipeline():
    w = np.linspace(0, 1, 6).astype("float32")

    def scoped(layer):
        def function(*batch):
            with tf.name_scope("model"), tf.name_scope("layer"):
                return layer(*batch)

        return function

    for batch in ((X, Y), (X, Y, w), {"images": X, "labels": Y, "sample_weight": w}):
        ds = tf.data.Dataset.from_tensors(batch)
        expected = layers()[0].at_step(0, batch)
        for wrap in (unchanged, scoped, lambda layer: lambda *parts: layer(*parts, training=True)):
            assert_near(flat(next(iter(ds.map(wrap(layers()[0]))))), flat(expected))
        layer = layers()[0]
        unmixed = next(iter(ds.map(lambda *parts, layer=layer: layer(*parts, training=False))))
        assert_near(flat(unmixed), flat(batch))


@every_layer
def test_training_false_advances_nothing(index):
    layer, w = layers()[index], np.ones(6, "float32")
    dictionaries = {"images": X, "labels": Y}, {"images": X, "labels": Y, "other": w}
    for convert in (unchanged, to_native, to_tensorflow):
        for batch in ((X, Y), (X, Y, w), *((one,) for one in dictionaries)):
            ours = layer(*convert(batch), training=False)
            assert_near(ours, batch[0] if len(batch) == 1 else batch)
    np.testing.assert_allclose(layer(X, Y)[0], layers()[index].at_step(0, (X, Y))[0])


@pytest.mark.parametrize("convert", [unchanged, to_native], ids=["numpy", "native"])
def test_what_a_call_does_not_take(convert):
    x, y, w = convert((X, Y, np.ones(6, "float32")))
    layer = kmix.MixUp(0.5, num_classes=3, seed=1)
    for arguments in ((x, y, w, True), (x, y, w, w), (x, y, w, w, w)):
        with pytest.raises(ValueError, match=f"{len(arguments)} parts"):
            layer(*arguments)
    for training in ("abc", 2, "False"):
        with pytest.raises(TypeError, match="`training` must be True or False"):
            layer(x, y, training=training)
    with pytest.raises(TypeError, match="weights"):
        layer(x, y, weights=w)
    for unknown in ({"images": x, "labels": y, "id": w}, {"images": x, "label": y}):
        with pytest.raises(ValueError, match=r"'id': |'labels'"):
            layer(unknown)
    np.testing.assert_array_equal(layer(X, Y)[0], layer.at_step(0, (X, Y))[0])


@pytest.mark.slow
def test_a_dictionary_with_keys_of_its_own():
    """The keys of TFDS, several inputs, and what is kept."""
    tfds = kmix.MixUp(0.2, inputs_key="image", target={"label": Labels(3), "id": "keep"}, seed=1)
    several = kmix.MixUp(0.2, inputs_key=("left", "right"), num_classes=3, seed=1)
    expected = kmix.MixUp(0.2, num_classes=3, seed=1).at_step(0, (X, Y))
    for path in CODE_PATHS:
        mixed = call(path, copy.deepcopy(tfds), {"id": np.arange(6), "image": X, "label": Y})
        assert list(mixed) == ["id", "image", "label"]
        assert_near((mixed["image"], mixed["label"], mixed["id"]), (*expected, np.arange(6)))
        mixed = call(path, copy.deepcopy(several), {"right": X[:, :4], "labels": Y, "left": X})
        assert list(mixed) == ["right", "labels", "left"]
        assert_near((mixed["left"], mixed["right"], mixed["labels"]), (expected[0], expected[0][:, :4], expected[1]))
    ordered = tfds.at_step(0, OrderedDict(label=Y, image=X))
    assert type(ordered) is OrderedDict
    assert list(ordered) == ["label", "image"]


# In a model.


def sequential(layer):
    return keras.Sequential([keras.Input((8, 8, 3)), layer, keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])


def functional(layer):
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, keras.layers.Dense(3, "softmax")(keras.layers.Flatten()(layer(inputs))))


@keras.saving.register_keras_serializable(package="calls")
class Subclassed(keras.Model):
    def __init__(self, mixing, hands_on=True, **settings):
        super().__init__(**settings)
        self.mixing, self.hands_on = mixing, hands_on
        self.flatten, self.top = keras.layers.Flatten(), keras.layers.Dense(3, "softmax")

    def call(self, x, training=None):
        x = self.mixing(x, training=training) if self.hands_on else self.mixing(x)
        return self.top(self.flatten(x))

    def get_config(self):
        mixing = keras.saving.serialize_keras_object(self.mixing)
        return {**super().get_config(), "mixing": mixing, "hands_on": self.hands_on}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "mixing": keras.saving.deserialize_keras_object(config["mixing"])})


MODELS = {
    "Sequential": sequential,
    "functional": functional,
    "subclassed": Subclassed,
    "subclassed, training not handed on": lambda layer: Subclassed(layer, hands_on=False),
    "nested": lambda layer: keras.Sequential([keras.Input((8, 8, 3)), functional(layer)]),
}


def agree(model, expected):
    """Assert that a model predicts what is expected, and refuses to train on inputs alone."""
    for x in (X, to_native(X)):
        for settings in ({}, {"training": None}, {"training": False}):
            np.testing.assert_allclose(to_numpy(model(x, **settings)), expected, atol=1e-6)
        with pytest.raises(ValueError, match="without labels"):
            model(x, training=True)


@pytest.mark.in_turn
@pytest.mark.fast("mixup-functional", "choice-Sequential")
@pytest.mark.parametrize("kind", MODELS)
@every_layer
def test_a_layer_in_a_model_is_the_identity_until_it_trains(kind, index, tmp_path):
    model, plain = MODELS[kind](layers()[index]), MODELS[kind](keras.layers.Identity())
    expected = to_numpy(plain(to_native(X)))
    model(to_native(X))
    model.set_weights(plain.get_weights())
    agree(model, expected)
    model.save(tmp_path / "model.keras")
    agree(keras.models.load_model(tmp_path / "model.keras"), expected)
    if not isinstance(model, Subclassed):
        clone = keras.models.clone_model(model)
        clone.set_weights(model.get_weights())
        agree(clone, expected)
    # Eagerly, since to compile takes long.
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    np.testing.assert_allclose(model.predict(X, verbose=0), expected, atol=1e-6)
    loss = -np.log(expected[np.arange(6), Y]).mean()
    np.testing.assert_allclose(model.evaluate(X, Y, verbose=0), loss, rtol=1e-4)
    if BACKEND != "jax" or "not handed on" not in kind:
        # On JAX, `fit` does not tell a layer that it trains: the model has to hand it on.
        with pytest.raises(ValueError, match=r"kmix\.MixTrainer"):
            model.fit(X, Y, verbose=0)


@keras.saving.register_keras_serializable(package="calls")
class Own(keras.Model):
    """Makes its own mixing layer, of two inputs."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.mixing, self.top = kmix.MixUp(0.5, seed=1), keras.layers.Dense(3)

    def call(self, x, training=None):
        first, second = self.mixing((x, x + 1), training=training)
        return self.top(first + second)


def test_a_subclassed_model_that_makes_its_layer_is_saved_and_loaded(tmp_path):
    """Keras then calls the `call` of the model, outside of the model, to learn what it returns."""
    model, x = Own(), to_native(X[:, 0, 0])
    expected = to_numpy(model(x))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(to_numpy(loaded(x)), expected)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, atol=1e-6)
    with pytest.raises(ValueError, match="without labels"):
        loaded(x, training=True)
    with pytest.raises(ValueError, match="without labels"):
        tf.data.Dataset.from_tensors(X).map(kmix.MixUp())


@pytest.mark.in_turn
@pytest.mark.fast("cutmix-*")
@pytest.mark.parametrize("kind", MODELS)
@every_layer
def test_a_layer_may_mix_batches_before_it_enters_a_model(kind, index):
    layer = layers()[index]
    layer(X, Y), layer(*to_native((X, Y)))
    layer(to_native(X))
    model = MODELS[kind](layer)
    expected = to_numpy(model(to_native(X)))
    agree(model, expected)
    # It still mixes batches, and goes on counting.
    assert_near(layer(*to_native((X, Y))), layers()[index].at_step(2, (X, Y)))


@pytest.mark.in_turn
@pytest.mark.fast("mixup-dictionary")
@pytest.mark.parametrize(
    "pack", [tuple, list, lambda pair: dict(zip("ab", pair, strict=True))], ids=["tuple", "list", "dictionary"]
)
@every_layer
def test_a_structure_in_a_model_is_several_inputs(index, pack):
    """Never a batch: in a model, labels are a second argument."""
    layer = layers(num_classes=None)[index]
    symbols = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    model = keras.Model(symbols, flat(layer(pack(symbols))))
    given = X, X[::-1].copy()
    arrays = to_native(given)
    stateless = {
        "model": lambda *inputs, **settings: model.stateless_call([], [], inputs, **settings)[0],
        "layer": lambda *inputs, **settings: layer.stateless_call([], [], pack(inputs), **settings)[0],
    }
    for settings in ({}, {"training": None}, {"training": False}):
        assert_near(flat(model(given, **settings)), given, 0)
        assert_near(flat(model(arrays, **settings)), given, 0)
        # The layer by itself, which stands in a model.
        assert_near(flat(layer(pack(arrays), **settings)), given, 0)
        for function in stateless.values():
            assert_near(flat(function(*arrays, **settings)), given, 0)
    for function in stateless.values():
        with pytest.raises(ValueError, match="without labels"):
            function(*arrays, training=True)
    model.compile("sgd", "mse", run_eagerly=True)
    assert_near(flat(model.predict(given, verbose=0)), given, 0)
    with pytest.raises(ValueError, match="without labels"):
        model.fit(given, given, verbose=0)


@every_layer
def test_a_dictionary_of_symbols_is_refused(index):
    inputs = {"images": keras.Input((8, 8, 3)), "labels": keras.Input((), dtype="int32")}
    for settings in ({}, {"training": True}, {"training": False}):
        with pytest.raises(ValueError, match="second argument"):
            layers()[index](inputs, **settings)


@pytest.mark.parametrize("training", [None, True])
def test_inputs_in_a_training_step_are_mixed_with_its_plan(training):
    """Whatever their structure: what looks like a labelled batch is inputs, too."""
    layer = kmix.MixUp(0.5, num_classes=3, seed=1)
    plan = layer.plan(4, 6)
    x, other = to_native((X, X[::-1].copy()))
    expected = layer.at_step(4, (X, Y))[0], layer.at_step(4, (X[::-1].copy(), Y))[0]
    for given in ((x, other), [x, other], Batch(x, other), {"images": x, "labels": other}):
        with run_step(TrainingStep(plan)):
            mixed = layer(given, training=training)
        keras.tree.assert_same_structure(mixed, given)
        assert_near(flat(mixed), expected)
    with run_step(TrainingStep(plan)):
        assert_near(layer(x, training=training), expected[0])
        # With labels, it is a batch of its own.
        assert_near(layer(x, to_native(Y))[1], layer.at_step(0, (X, Y))[1])
    with pytest.raises(ValueError, match="the inputs were not"), run_step(TrainingStep(plan)):
        layer(x, training=False)


@every_layer
def test_integer_label_columns(index):
    layer = layers()[index]
    expected = layer.at_step(0, (X, Y))[1]
    for dtype in ("int8", "int32", "uint8", "uint16"):
        np.testing.assert_array_equal(layer.at_step(0, (X, Y.astype(dtype)))[1], expected)
        np.testing.assert_array_equal(layer.at_step(0, (X, Y[:, None].astype(dtype)))[1], expected)
    one_hot = np.eye(3)[Y]
    for dtype in ("float16", "float64", "int32", "bool"):
        np.testing.assert_allclose(layer.at_step(0, (X, one_hot.astype(dtype)))[1], expected, atol=1e-6)
    for shape in ((6,), (6, 1)):
        values = np.linspace(0, 1, 6).reshape(shape)
        with pytest.raises(ValueError, match="With `num_classes`"):
            layer.at_step(0, (X, values))
        mixed = layers(num_classes=None)[index].at_step(0, (X, values))[1]
        assert mixed.shape == shape
        assert mixed.dtype == "float32"


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_weights_in_a_column(shape):
    w = np.linspace(1, 2, 6).astype("float32")
    layer = kmix.MixUp(1.0, num_classes=3, seed=1)
    expected = layer.at_step(0, (X, Y, w))
    _, y, mixed = layer.at_step(0, (X, Y, w.reshape(shape)))
    assert mixed.shape == shape
    np.testing.assert_allclose(y, expected[1], atol=1e-6)
    values, layer = Y.astype("float32") / 3, kmix.MixUp(1.0, seed=1)
    np.testing.assert_allclose(
        layer.at_step(0, (X, values, w.reshape(shape)))[1], layer.at_step(0, (X, values, w))[1], atol=1e-6
    )


def test_one_weight_for_each_of_several_labels():
    w = np.linspace(1, 2, 6).astype("float32")
    layer = kmix.MixUp(1.0, num_classes=3, seed=1)
    y = {"a": Y, "b": Y}
    _, both, shared = layer.at_step(0, (X, y, w))
    _, own, weights = layer.at_step(0, (X, y, {"a": w, "b": None}))
    np.testing.assert_array_equal(both["a"], own["a"])
    np.testing.assert_array_equal(own["b"], layer.at_step(0, (X, Y))[1])
    np.testing.assert_array_equal(weights["a"], shared)
    assert weights["b"] is None


def test_weights_find_their_labels_by_key():
    a, b = np.linspace(1, 2, 6).astype("float32"), np.linspace(0, 1, 6).astype("float32")
    layer = kmix.MixUp(1.0, num_classes=3, seed=1)
    y = {"a": Y, "b": Y}
    expected = layer.at_step(0, (X, y, {"a": a, "b": b}))[1]
    mixed = layer.at_step(0, (X, y, OrderedDict(b=b, a=a)))[1]
    alone = layer.at_step(0, (X, y, {"b": b}))[1]
    for name in y:
        np.testing.assert_array_equal(mixed[name], expected[name])
    np.testing.assert_array_equal(alone["b"], expected["b"])
    np.testing.assert_array_equal(alone["a"], layer.at_step(0, (X, Y))[1])


@every_layer
def test_symbolic_calls_know_their_output(index):
    layer = layers()[index]
    x, y = keras.Input((8, 8, 3), dtype="uint8"), keras.Input((), dtype="int32")
    w = keras.Input((), dtype="float32")
    out_x, out_y, out_w = layer(x, y, w)
    assert (tuple(out_x.shape), tuple(out_y.shape), tuple(out_w.shape)) == ((None, 8, 8, 3), (None, 3), (None,))
    assert out_x.dtype == ("uint8" if index == 1 else "float32")
    pairs = kmix.RandomChoice([kmix.CutMix(target=LabelPairs(9))])(x, y)[1]
    assert (tuple(pairs.shape), pairs.dtype) == ((None, 3), "float32")
    assert tuple(layer(x, training=True).shape) == (None, 8, 8, 3)
    model = keras.Model([x, y, w], [out_x, out_y, out_w])
    values = [np.zeros((6, 8, 8, 3), "uint8"), Y.astype("int32"), np.ones(6, "float32")]
    assert [tuple(v.shape) for v in model(values, training=True)] == [(6, 8, 8, 3), (6, 3), (6,)]


@every_layer
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_mix_alike(index, duplicate):
    layer = layers()[index]
    for a, b in zip(duplicate(layer).at_step(4, (X, Y)), layer.at_step(4, (X, Y)), strict=True):
        np.testing.assert_array_equal(a, b)


def _third(step):
    return 0.3


@pytest.mark.parametrize("mixer", [kmix.MixUp, kmix.CutMix, kmix.EmbeddingMixup, kmix.Mosaic])
def test_copies_keep_every_setting(mixer):
    target = {"labels": Labels(3, class_weight={1: 2.0}), "id": "keep"}
    pairing = kmix.pairing.RandomPairs(within="shard", allow_self=mixer is kmix.Mosaic)
    layer = mixer(target=target, pairing=pairing, jit_compile=False, inputs_key=["a", "b"], seed=1, dtype="float16")
    copies = {
        "copy": copy.copy(layer),
        "deepcopy": copy.deepcopy(layer),
        "pickle": pickle.loads(pickle.dumps(layer)),
        "config": mixer.from_config(json.loads(json.dumps(layer.get_config()))),
        "choice": copy.deepcopy(kmix.RandomChoice([layer])).layers[0],
    }
    for name, duplicate in copies.items():
        assert duplicate.jit_compile is False, name
        assert duplicate.target == target if name != "config" else duplicate.target["id"] == "keep", name
        assert duplicate.target["labels"] == target["labels"], name
        assert duplicate.pairing == pairing, name
        assert tuple(duplicate.inputs_key) == ("a", "b"), name
        assert duplicate.dtype_policy.name == "float16", name
        assert duplicate.get_config() == layer.get_config(), name
    choice = kmix.RandomChoice([layer], jit_compile=False)
    assert pickle.loads(pickle.dumps(choice)).jit_compile is False


def test_a_copy_gives_the_warnings_of_the_layer():
    """The data format as it was given: a copy did not confirm it."""
    frames = np.zeros((6, 8, 9), "float32")
    layer = kmix.CutMix(num_classes=3, seed=1)
    for duplicate in (layer, kmix.CutMix.from_config(layer.get_config()), copy.deepcopy(layer)):
        assert duplicate.data_format is None
        with pytest.warns(UserWarning, match="data_format"):
            duplicate(frames, Y)


def test_copies_go_on_counting_and_keep_functions():
    layer = kmix.RandomChoice([kmix.MixUp(_third, num_classes=3, seed=1)], seed=1)
    layer(X, Y)
    for duplicate in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert duplicate.layers[0].alpha is _third
        np.testing.assert_array_equal(duplicate(X, Y)[0], layer.at_step(1, (X, Y))[0])
    assert copy.deepcopy(kmix.MixUp(lambda step: 0.3)).alpha(0) == 0.3


def _fails_at_two(step):
    return 0.5 if step != 2 else None


class Failing(kmix.targets.Target):
    """Fails where the labels are negative."""

    def mix(self, xp, y, weight, plan, info):
        if float(to_numpy(y).min()) < 0:
            raise RuntimeError("own target")
        return y, weight


class NoPartners(kmix.pairing.Pairing):
    """Fails where the labels are negative."""

    needs_targets = True

    def partners(self, xp, words, key, targets):
        if float(to_numpy(targets["labels"]).min()) < 0:
            raise RuntimeError("own rule")
        return xp.argsort(words)


def _own(y, plan):
    return y if float(to_numpy(y).min()) >= 0 else None


@pytest.mark.parametrize("convert", [unchanged, to_native, to_tensorflow], ids=["numpy", "native", "tensorflow"])
@pytest.mark.parametrize(
    "settings",
    [{"alpha": _fails_at_two}, {"target": _own}, {"target": Failing()}, {"pairing": NoPartners()}],
    ids=["schedule", "callable", "target", "pairing"],
)
def test_a_call_that_raises_is_not_counted(settings, convert):
    layer = kmix.MixUp(**{"alpha": 0.5, "seed": 1, **settings})
    good, bad = convert((X, Y.astype("float32"))), convert((X, Y.astype("float32") - (settings.keys() != {"alpha"})))
    for step in range(2):
        assert_near(layer(*good), to_numpy(layer.at_step(step, (X, Y.astype("float32")))))
    for _ in range(2):
        with pytest.raises((ValueError, RuntimeError), match=r"one finite number|must return|own"):
            layer(*bad)
    if "alpha" not in settings:
        assert_near(layer(*good), to_numpy(layer.at_step(2, (X, Y.astype("float32")))))


def test_choices_among_choices_with_one_seed():
    inner = kmix.RandomChoice([kmix.MixUp(0.0), kmix.MixUp(1.0)], seed=42)
    outer = kmix.RandomChoice([kmix.CutMix(), inner], seed=42)
    choices = [
        (int(outer.plan(step, 2, spatial_shape=(4, 4)).choice), int(inner.plan(step, 2).choice)) for step in range(400)
    ]
    assert min(choices.count(pair) for pair in [(0, 0), (0, 1), (1, 0), (1, 1)]) > 60


def test_cutmix_of_long_sequences_is_off_at_alpha_zero():
    plan = kmix.CutMix(0.0).plan(0, 4, spatial_shape=(3_000_000,))
    assert (plan.lam == 1).all()
    assert (plan.box[:, 0] == plan.box[:, 1]).all()


def test_the_seed_comes_from_pythons_generator():
    keras.utils.set_random_seed(7)
    first = [kmix.MixUp().seed, kmix.CutMix().seed, kmix.RandomChoice([kmix.MixUp()]).seed]
    keras.utils.set_random_seed(7)
    assert [kmix.MixUp().seed, kmix.CutMix().seed, kmix.RandomChoice([kmix.MixUp()]).seed] == first
    assert len(set(first)) == 3
    config = json.loads(json.dumps(kmix.MixUp().get_config()))
    assert kmix.MixUp.from_config(config).seed == config["seed"]


def test_layers_of_one_seed_differ_by_kind():
    lam = kmix.MixUp(1.0, seed=1).plan(0, 50).lam
    cut = kmix.CutMix(1.0, seed=1).plan(0, 50, spatial_shape=(64, 64))
    assert abs(np.corrcoef(lam, cut.lam)[0, 1]) < 0.5
    assert (kmix.MixUp(1.0, seed=1).plan(0, 50).permutation != cut.permutation).any()


def test_plan_is_what_entered_and_replicas_differ():
    layer = kmix.RandomChoice([kmix.MixUp(seed=1), kmix.CutMix(seed=1)], [1, 0], seed=1)
    plan = layer.plan(3, 6)
    assert isinstance(plan, kmix.MixPlan)
    assert int(plan.choice) == 0
    assert plan.lam.dtype == "float32"
    inner = layer.layers[0]
    np.testing.assert_array_equal(plan.lam, inner.plan(3, 6).lam)
    assert (inner.plan(3, 6, replica=1).lam != plan.lam).any()
    np.testing.assert_array_equal(inner.plan(3, 6, replica=0).lam, plan.lam)


def _mix_in_worker(layer, queue):
    try:
        layer(X, Y)
        queue.put("mixed")
    except ValueError as error:
        queue.put(str(error))
    queue.put(layer.at_step(1, (X, Y))[0].sum())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn"])
def test_a_copy_in_a_worker_process_may_not_count(method):
    """Every worker would draw the same plans."""
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    layer = kmix.MixUp(0.5, num_classes=3, seed=1)
    process = context.Process(target=_mix_in_worker, args=(layer, queue))
    process.start()
    assert "worker process" in queue.get(timeout=120)
    np.testing.assert_allclose(queue.get(timeout=120), layer.at_step(1, (X, Y))[0].sum(), rtol=1e-5)
    process.join()


_UNPICKLED = """
import copy, pickle, sys
import numpy as np
layer, batch = pickle.load(sys.stdin.buffer)
mixed = [layer.at_step(1, batch)[0]]
try:
    layer(*batch)
except ValueError as error:
    mixed.append(str(error))
mixed.append(copy.deepcopy(layer)(*batch)[0])
sys.stdout.buffer.write(pickle.dumps((mixed, layer)))
"""


@pytest.mark.slow
def test_a_copy_in_a_process_that_is_no_child_may_not_count():
    """As the workers of Ray, which unpickle the layer for each of their tasks. Sent back, the copy counts again."""
    layer = kmix.MixUp(0.5, num_classes=3, seed=1)
    layer(X, Y)
    run = subprocess.run(
        [sys.executable, "-c", _UNPICKLED], input=pickle.dumps((layer, (X, Y))), stdout=subprocess.PIPE
    )
    (there, error, copied), returned = pickle.loads(run.stdout)
    expected = layer.at_step(1, (X, Y))[0]
    assert "worker process" in error
    assert "deepcopy" in error
    for mixed in (there, copied, returned(X, Y)[0]):
        np.testing.assert_array_equal(mixed, expected)


def test_a_forked_copy_may_not_count(monkeypatch):
    layer = kmix.MixUp(0.5, num_classes=3, seed=1)
    layer(X, Y)
    monkeypatch.setattr("os.getpid", lambda: -1)
    with pytest.raises(ValueError, match="worker process"):
        layer(X, Y)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="jax.jit traces JAX arrays alone")
def test_inside_jax_jit():
    import jax

    layer = kmix.MixUp(0.5, num_classes=3, seed=1)
    x, y = to_native((X, Y))
    with pytest.raises(ValueError, match="at_step"):
        jax.jit(lambda x, y: layer(x, y))(x, y)
    compiled = jax.jit(lambda step, x, y: layer.at_step(step, (x, y)))
    for step in (0, 3):
        np.testing.assert_allclose(compiled(step, x, y)[0], layer.at_step(step, (X, Y))[0], atol=1e-5)
    with pytest.raises(ValueError, match="holds alpha as a constant"):
        layer.alpha = 0.1
    layer.alpha = 0.5
    choice = kmix.RandomChoice([kmix.MixUp(seed=1), kmix.CutMix(seed=1, data_format="channels_last")], seed=1)
    soft = np.eye(3, dtype="float32")[Y]
    compiled = jax.jit(lambda step, x, y: choice.at_step(step, (x, y)))
    for step in range(4):
        np.testing.assert_allclose(compiled(step, x, soft)[0], choice.at_step(step, (X, soft))[0], atol=1e-5)
    scheduled = kmix.MixUp(kmix.schedules.Linear(1.0, 0.0, 3), num_classes=3, seed=1)
    compiled = jax.jit(lambda step, x, y: scheduled.at_step(step, (x, y)))
    np.testing.assert_array_equal(compiled(3, x, y)[0], X)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="other backends convert PyTorch tensors to NumPy")
def test_torch_tensors_stay_on_their_device_and_keep_gradients():
    import torch

    x = torch.tensor(X, requires_grad=True)
    mixed, _ = kmix.MixUp(0.5, num_classes=3, seed=1)(x, torch.tensor(Y))
    mixed.sum().backward()
    np.testing.assert_allclose(x.grad.sum().item(), X.size, rtol=1e-4)
    assert mixed.device == x.device


def test_grain():
    grain = pytest.importorskip("grain", reason="grain is not installed")
    layer = kmix.MixUp(0.5, num_classes=3, seed=1)
    source = grain.MapDataset.source([(x, y) for x, y in zip(X, Y, strict=True)]).batch(3)
    mixed = list(source.map_with_index(layer.at_step))
    for step, batch in enumerate(mixed):
        expected = layer.at_step(step, (X[3 * step : 3 * step + 3], Y[3 * step : 3 * step + 3]))
        for a, b in zip(batch, expected, strict=True):
            assert isinstance(a, np.ndarray)
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_torch_loader():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (make test-all installs it)")
    pairs = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    layer = kmix.MixUp(0.5, num_classes=3, seed=1)
    for step, batch in enumerate(torch.utils.data.DataLoader(pairs, batch_size=3)):
        x, y = to_numpy(layer.at_step(step, batch))
        expected = layer.at_step(step, (X[3 * step : 3 * step + 3], Y[3 * step : 3 * step + 3]))
        np.testing.assert_allclose(x, expected[0], atol=1e-6)
        np.testing.assert_allclose(y, expected[1], atol=1e-6)
