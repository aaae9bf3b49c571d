"""The target "union": the larger label of the partners if both have a share."""

import keras
import numpy as np
import oracle
import pytest
from helpers import assert_near, at_step, data, every_path, raises, refused, tf

import kmix


def mixup(**settings):
    return kmix.MixUp(**{"alpha": 0.01, "target": "union", "seed": 3, **settings})


def cutmix(**settings):
    return kmix.CutMix(**{"alpha": 0.05, "target": "union", "seed": 4, "data_format": "channels_last", **settings})


def choice(**settings):
    return kmix.RandomChoice([mixup(**settings), cutmix(**settings)], seed=5)


every_layer = pytest.mark.parametrize("make", [mixup, cutmix, choice])


def union(y, lam, permutation):
    """The larger value of the partners, or the value of the one with the whole share."""
    pairs = zip(np.asarray(y, "float64"), np.asarray(y, "float64")[permutation], lam, strict=True)
    return [own if lam == 1 else partner if lam == 0 else np.maximum(own, partner) for own, partner, lam in pairs]


@pytest.mark.fast("mixup-numpy", "cutmix-numpy", "choice-numpy", "mixup-native", "cutmix-native", "choice-native")
@every_path
@every_layer
def test_union_is_the_larger_of_those_that_are_there(make, path):
    x, soft, w = data(64, (4, 4, 1)), data(64, (5,), 1), data(64, (), 2)
    y = {"soft": soft, "half": soft.astype("float16"), "bool": soft > 0.5}
    y |= {dtype: soft.round().astype(dtype) for dtype in ("uint8", "int32", "int64")}
    layer, seen = make(), set()
    for step in range(4):
        plan = layer.plan(step, 64, spatial_shape=(4, 4))
        _, mixed, weights = at_step(path, layer, step, (x, y, w))
        lam = plan.lam if plan.box is None else oracle.kept_share(plan.box, (4, 4))
        lam = np.where(plan.permutation == np.arange(64), 1, lam)
        assert {labels.dtype.name for labels in mixed.values()} == {"float32"}
        assert_near(mixed, {name: np.stack(union(labels, lam, plan.permutation)) for name, labels in y.items()})
        # As bits, with and without weights: the shares have no influence.
        assert set(np.unique(mixed["bool"])) == {0.0, 1.0}
        np.testing.assert_array_equal(at_step(path, layer, step, (x, y["bool"]))[1], mixed["bool"])
        assert_near(weights, oracle.mixup(w, lam, plan.permutation))
        seen |= set(np.where(lam % 1 > 0, 0.5, lam).tolist())
    assert seen == {0.0, 0.5, 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("make", [mixup, cutmix])
def test_union_in_a_step(make):
    x, y = data(16, (4, 4, 1)), data(16, (3,), 1).round().astype("int32")
    layers = [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3, "sigmoid")]
    trainer = kmix.MixTrainer(keras.Sequential(layers), make(alpha=1.0, target=None), target="union")
    trainer.compile(keras.optimizers.SGD(0.0), kmix.losses.SoftLabelCrossentropy(multi_label=True))
    fit = {"batch_size": 16, "shuffle": False, "verbose": 0}
    for step, w in enumerate((None, np.linspace(0.2, 2, 16, dtype="float32"))):
        logged = trainer.fit(x, y, sample_weight=w, **fit).history["loss"][0]
        plan = trainer.plan(step, 16) if make is mixup else make(alpha=1.0).plan(step, 16, spatial_shape=(4, 4))
        mixed = oracle.mixup(x, *plan[:2]) if make is mixup else oracle.cutmix(x, plan.box, plan.permutation)
        p = trainer.model.predict(mixed.astype("float32"), verbose=0)
        losses = oracle.binary_crossentropy(np.stack(union(y, *plan[:2])), p)
        weights = 1.0 if w is None else oracle.mixup(w, *plan[:2])
        assert logged == pytest.approx((weights * losses).mean(), rel=1e-4)


@pytest.mark.slow
def test_what_a_compiled_step_cannot_refuse_makes_the_loss_nan():
    trainer = kmix.MixTrainer(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "sigmoid")]), mixup())
    trainer.compile("sgd", "binary_crossentropy", jit_compile=keras.backend.backend() != "torch")
    if keras.backend.backend() == "torch":
        raises(lambda: trainer.fit(data(8, (4,)), np.full((8, 3), 2), verbose=0), "union")
    else:
        assert np.isnan(trainer.fit(data(8, (4,)), np.full((8, 3), 2), verbose=0).history["loss"][0])


@every_layer
def test_symbolic_union(make):
    for dtype in ("int32", "bool", "float32"):
        _, y = make()(keras.Input((4, 4, 1)), keras.Input((5,), dtype=dtype))
        assert (tuple(y.shape), y.dtype) == ((None, 5), "float32")


@pytest.mark.in_turn
@pytest.mark.fast("2")
@pytest.mark.parametrize("bad", [2, -1, 1.5, -0.5, np.nan], ids=repr)
def test_values_outside_are_refused(bad):
    y = np.zeros((6, 3), "int32" if isinstance(bad, int) else "float32")
    y[4, 1] = bad
    for make in (mixup, cutmix, choice):
        words = r"LabelUnion.*multi-hot.*\[0, 1\].*Received: values.*Labels\(\)"
        refused(make(), (data(), y), words, every_way=make is mixup)


@pytest.mark.parametrize("shape", [(6,), (6, 2, 3)], ids=repr)
def test_other_shapes_are_refused(shape):
    words = r"LabelUnion.*\(B, C\)", r"Received: .*\(6.* float32", r"Labels\(\)"
    for make in (mixup, cutmix, choice):
        batch, good = (data(), np.zeros(shape, "float32")), (data(), np.zeros((6, 3)))
        refused(make(), batch, *words, good=good, every_way=make is mixup)


def test_other_dtypes_and_unknown_ranks_are_refused():
    raises(lambda: mixup()(tf.zeros((2, 4)), tf.constant([["a", "b"]] * 2)), "LabelUnion", "string", errors=ValueError)
    signature = [tf.TensorSpec((None, 4)), tf.TensorSpec(None)]
    raises(lambda: tf.function(mixup(), input_signature=signature).get_concrete_function(), "set_shape")


def test_union_is_no_key_of_a_batch():
    raises(lambda: mixup()({"images": data(), "labels": np.zeros((6, 3)), "union": np.zeros((6, 3))}), "union")
