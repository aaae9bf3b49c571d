"""What CutMix reads as channels: video, series, images without channels; large images in half precision."""

import warnings

import keras
import numpy as np
import oracle
import pytest
from helpers import (
    WITH_TENSORFLOW,
    assert_near,
    at_step,
    cutmix,
    data,
    embedding,
    every_path,
    ids,
    mixed_inputs,
    mixup,
    one_hot,
    plan_of,
    to_native,
    to_numpy,
    ways,
)
from keras import ops

import kmix


@every_path
def test_a_box_of_video_cuts_time_unless_that_is_folded_into_the_channels(path):
    x, y = data(6, (4, 8, 6, 2)), one_hot(ids())
    plan = plan_of(cutmix(), spatial=(4, 8, 6))
    assert plan.box.shape == (6, 6)
    np.testing.assert_array_equal(at_step(path, cutmix(), 0, (x, y))[0], oracle.cutmix(x, plan.box, plan.permutation))
    folded = np.moveaxis(x, 1, 3).reshape(6, 8, 6, 8)
    mixed, labels = at_step(path, cutmix(), 0, (folded, y))
    plan = plan_of(cutmix(), spatial=(8, 6))
    unfolded = np.moveaxis(mixed.reshape(6, 8, 6, 4, 2), 3, 1)
    for frame in range(4):
        np.testing.assert_array_equal(unfolded[:, frame], oracle.cutmix(x[:, frame], plan.box, plan.permutation))
    assert_near(labels, oracle.mixup(y, oracle.kept_share(plan.box, (8, 6)), plan.permutation))


WAYS = ["call with NumPy", *["ds.map(layer)"] * WITH_TENSORFLOW]


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


@pytest.mark.fast("(28, 28)-float32")
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((28, 28), "float32"), ((100, 5), "float16"), ((2, 100), "float32"), ((7, 640), "float64")],
    ids=str,
)
def test_inputs_without_channels_are_warned_of(shape, dtype):
    batch = data(6, shape).astype(dtype), one_hot(ids())
    for name in ways(bare(), batch) if shape == (28, 28) else WAYS:
        # A warning may come only once per layer, so each way has its own layer.
        texts = warned(ways(bare(), batch)[name])
        assert texts, name
        for word in ("x[..., None]", 'data_format="channels_last"'):
            assert word in texts[0], name


def test_every_form_of_a_batch_is_warned_of():
    x, y = data(6, (28, 28)), one_hot(ids())
    for function in (
        lambda: bare()({"images": x, "labels": y}),
        lambda: bare()(x, y, np.ones(6, "float32")),
        lambda: bare()({"a": x, "b": data(6, (28, 2))}, y),
        lambda: kmix.RandomChoice([bare(), bare(seed=1)], seed=1)(x, y),
    ):
        assert warned(function)


@pytest.mark.in_turn
@pytest.mark.fast("bare-shape2", "bare-shape6")
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
def test_what_is_clear_is_not_warned_of(make, shape):
    keras.config.set_image_data_format("channels_last")
    for name in WAYS:
        assert not warned(ways(make(), (data(6, shape), one_hot(ids())))[name])


@pytest.mark.filterwarnings("ignore:.*CutMix:UserWarning")
@every_path
def test_with_the_format_the_box_lies_along_time(path):
    y = one_hot(ids())
    x = data(6, (2, 100))
    layer = cutmix(data_format="channels_first")
    plan = plan_of(layer, spatial=(100,))
    expected = oracle.cutmix(x, plan.box, plan.permutation, "channels_first")
    np.testing.assert_array_equal(at_step(path, layer, 0, (x, y))[0], expected)
    images = data(6, (28, 28, 1))
    plan = plan_of(cutmix(), spatial=(28, 28))
    np.testing.assert_array_equal(
        at_step(path, bare(), 0, (images, y))[0], oracle.cutmix(images, plan.box, plan.permutation)
    )


@pytest.mark.filterwarnings("ignore:.*CutMix:UserWarning")
def test_a_warning_changes_nothing():
    x, y = data(6, (28, 28)), one_hot(ids())
    assert_near(bare().at_step(3, (x, y)), cutmix().at_step(3, (x, y)), atol=0)


@pytest.mark.parametrize("make", [mixup, cutmix], ids=["MixUp", "CutMix"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_of_large_images_and_many_classes(make, dtype):
    """Half precision cannot count 300 x 300 pixels or class 999 exactly."""
    x = data(2, (300, 300, 1))
    y = np.array([999, 998])
    layer = make(num_classes=1000, dtype=dtype)
    plan = plan_of(layer, n=2, spatial=(300, 300))
    half = ops.cast(to_native(x), dtype)
    ours, labels = layer.at_step(0, (half, to_native(y)))
    assert keras.backend.standardize_dtype(ours.dtype) == dtype
    assert_near(labels, oracle.mixup(oracle.one_hot(y, 1000), *plan[:2]), atol=1e-6)
    rounded = to_numpy(ops.cast(half, "float32"))
    assert_near(ops.cast(ours, "float32"), mixed_inputs(rounded, plan), atol=0.01)
    if plan.box is not None:
        np.testing.assert_allclose(plan.lam, oracle.kept_share(plan.box, (300, 300)), atol=1e-6)
