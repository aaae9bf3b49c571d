"""CutMix along some axes, without channels, and by the share of real tokens; against plain NumPy."""

import keras
import numpy as np
import pytest
from contract import PROMISES, check_mixer
from helpers import at_step, every_path, to_numpy
from oracle import mixup

import kmix
from kmix.targets import SegmentationMasks

N, CLASSES = 7, 3
GENERATOR = np.random.default_rng(0)
IDS = np.arange(N) % CLASSES
WEIGHTS = np.linspace(0.5, 2, N).astype("float32")


def layer(axes, **settings):
    classes = {} if "target" in settings else {"num_classes": CLASSES}
    return kmix.CutMix(1.0, axes=axes, seed=3, **{"data_format": "channels_last", **classes, **settings})


def data(*shape, dtype="float32"):
    return GENERATOR.integers(0, 9, (N, *shape)).astype(dtype)


def one_hot():
    return np.eye(CLASSES)[IDS]


# Shape of a sample, the axes to cut, the axes of the batch that are spatial, the form of the channels.
CASES = {
    "time of a spectrogram": ((12, 9, 1), 1, (1, 2), "channels_last"),
    "frequency of a spectrogram": ((12, 9, 1), 2, (1, 2), "channels_last"),
    "both, written out": ((12, 9, 1), (1, 2), (1, 2), "channels_last"),
    "time, channels first": ((2, 12, 9), (2,), (2, 3), "channels_first"),
    "video in space": ((3, 8, 6, 2), (2, 3), (1, 2, 3), "channels_last"),
    "video in time": ((6, 4, 4, 1), 1, (1, 2, 3), "channels_last"),
    "two axes apart": ((6, 4, 5, 1), (1, 3), (1, 2, 3), "channels_last"),
    "waves": ((40,), 1, (1,), "channels_last"),
    "waves, channels first": ((40,), 1, (1,), "channels_first"),
    "grey images": ((8, 6), (1, 2), (1, 2), "channels_last"),
}


def cut_by_hand(x, plan, spatial, axes):
    """The partner where all of the axes lie in the box, and the share of the rest."""
    sizes, out, share = [x.shape[axis] for axis in spatial], x.copy(), np.ones(N)
    for i, j in enumerate(plan.permutation):
        window, area = [slice(None)] * (x.ndim - 1), 1.0
        for k, axis in enumerate(spatial):
            start, stop = plan.box[i, k], plan.box[i, k + len(spatial)]
            if axis in axes:
                window[axis - 1], area = slice(start, stop), area * (stop - start) / sizes[k]
            else:
                assert (start, stop) == (0, sizes[k])
        out[i][tuple(window)] = x[j][tuple(window)]
        share[i] = 1 - area
    return out, share


@pytest.mark.fast("*numpy", "*native", "two axes apart-tfdata")
@every_path
@pytest.mark.parametrize("name", CASES)
def test_only_the_named_axes_are_cut(name, path):
    shape, axes, spatial, data_format = CASES[name]
    x, mixer = data(*shape), layer(axes, data_format=data_format)
    plan = mixer.plan(2, N, spatial_shape=tuple(x.shape[axis] for axis in spatial))
    mixed, y, w = at_step(path, mixer, 2, (x, IDS, WEIGHTS))
    expected, share = cut_by_hand(x, plan, spatial, axes if isinstance(axes, tuple) else (axes,))
    np.testing.assert_array_equal(mixed, expected)
    np.testing.assert_allclose(plan.lam, share, atol=1e-6)
    np.testing.assert_allclose(w, mixup(WEIGHTS, share, plan.permutation), rtol=1e-5)
    weighted = mixup(one_hot() * WEIGHTS[:, None], share, plan.permutation)
    np.testing.assert_allclose(y * w[:, None], weighted, atol=1e-5)
    assert ((share > 0) & (share < 1)).any()


def test_the_box_has_the_drawn_share_of_the_axes_that_are_cut():
    """Along one axis, the length is (1 - lam) of it: not its root, as for an image."""
    mixer = layer(1)
    plans = [mixer.plan(step, 64, spatial_shape=(1000, 7)) for step in range(40)]
    lengths = np.concatenate([plan.box[:, 2] - plan.box[:, 0] for plan in plans]) / 1000
    # Uniform lam, and a uniform centre: the mean of what is left of u after clipping is u - u**2 / 4.
    assert lengths.mean() == pytest.approx(1 / 2 - 1 / 12, abs=0.02)


@pytest.mark.in_turn
@pytest.mark.fast("time of a spectrogram")
@pytest.mark.parametrize("name", ["time of a spectrogram", "waves", "grey images"])
def test_the_contract_holds(name):
    shape, axes, _, data_format = CASES[name]
    mixer, batch = layer(axes, data_format=data_format), (data(*shape), IDS, WEIGHTS)
    if name == "time of a spectrogram":
        check_mixer(mixer, batch)
        return
    # The values and shares of the contract are those of inputs with channels; see above for these.
    for promise in PROMISES:
        promise(mixer, batch)


def test_masks_are_cut_along_the_same_axes():
    x = data(12, 9, 1, dtype="uint8")
    mixer = layer(2, target="segmentation_masks")
    mixed, masks = mixer.at_step(1, (x, x[..., 0]))
    np.testing.assert_array_equal(mixed[..., 0], masks)
    waves = data(30, dtype="uint8")
    mixed, masks = layer(1, target=SegmentationMasks()).at_step(1, (waves, waves))
    np.testing.assert_array_equal(mixed, masks)


def test_a_choice_of_time_and_frequency_and_a_trainer():
    x = data(12, 9, 1)
    choice = kmix.RandomChoice([layer(1), layer(2)], seed=1)
    plans = [choice.plan(step, N, spatial_shape=(12, 9)) for step in range(8)]
    assert {int(plan.choice) for plan in plans} == {0, 1}
    for step, plan in enumerate(plans):
        expected, _ = cut_by_hand(x, plan, (1, 2), ((1,), (2,))[int(plan.choice)])
        np.testing.assert_array_equal(choice.at_step(step, (x, IDS))[0], expected)
    model = keras.Sequential([keras.Input((40,)), keras.layers.Dense(CLASSES, activation="softmax")])
    trainer = kmix.MixTrainer(model, layer(1))
    trainer.compile("sgd", kmix.losses.SoftLabelCrossentropy())
    x = data(40)
    mixed = layer(1).at_step(0, (x, IDS))
    expected = float(to_numpy(kmix.losses.SoftLabelCrossentropy()(mixed[1], model(mixed[0]))))
    assert trainer.train_on_batch(x, IDS) == pytest.approx(expected, rel=1e-5)


# Token ids.


def tokens():
    """Ids of sentences of different lengths, padded with 0; one of padding alone."""
    ids = GENERATOR.integers(1, 50, (N, 20))
    lengths = np.array([20, 3, 11, 0, 7, 1, 15])
    return np.where(np.arange(20) < lengths[:, None], ids, 0).astype("int32")


def shares_of_tokens(ids, plan):
    share = np.array(plan.lam, "float64")
    for i, (j, (start, stop)) in enumerate(zip(plan.permutation, plan.box, strict=True)):
        inside = (np.arange(20) >= start) & (np.arange(20) < stop)
        kept, added = (ids[i] != 0)[~inside].sum(), (ids[j] != 0)[inside].sum()
        if kept + added and plan.lam[i] != 1:
            share[i] = kept / (kept + added)
    return share


@pytest.mark.fast("*numpy", "*native")
@every_path
def test_the_share_counts_real_tokens(path):
    ids, mixer = tokens(), layer(1, padding_id=0, rate=0.8)
    for step in range(3):
        plan = mixer.plan(step, N, spatial_shape=(20,))
        mixed, y, w = at_step(path, mixer, step, (ids, IDS, WEIGHTS))
        expected, _ = cut_by_hand(ids, plan, (1,), (1,))
        np.testing.assert_array_equal(mixed, expected)
        share = shares_of_tokens(ids, plan)
        np.testing.assert_allclose(w, mixup(WEIGHTS, share, plan.permutation), rtol=1e-5)
        weighted = mixup(one_hot() * WEIGHTS[:, None], share, plan.permutation)
        np.testing.assert_allclose(y * w[:, None], weighted, atol=1e-5)
        assert not np.allclose(share, plan.lam)


def test_a_mask_next_to_the_ids_is_cut_along():
    ids = tokens()
    x = {"ids": ids, "mask": ids != 0}
    mixed, y = layer(1, padding_id=0).at_step(0, (x, IDS))
    np.testing.assert_array_equal(mixed["mask"], mixed["ids"] != 0)
    np.testing.assert_array_equal(y, layer(1, padding_id=0).at_step(0, (ids, IDS))[1])


REFUSED = {
    "waves without axes": (lambda: layer(None)(data(40), IDS), "axes=1"),
    "an axis that is not there": (lambda: layer(4)(data(12, 9, 1), IDS), "spatial axes"),
    "the channels": (lambda: layer((1, 5))(data(12, 9, 1), IDS), "spatial axes"),
    "the batch": (lambda: layer(0), "axes"),
    "twice": (lambda: layer((1, 1)), "each once"),
    "none": (lambda: layer(()), "axes"),
    "two arrays of ids": (lambda: layer(1, padding_id=0)({"a": tokens(), "b": tokens()}, IDS), "one array of ids"),
    "no ids": (lambda: layer(1, padding_id=0)(data(40), IDS), "one array of ids"),
    "a plan of other sizes": (lambda: layer(2).plan(0, N, spatial_shape=(4,)), "axes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_axes_that_cannot_be_cut_are_refused(name):
    function, match = REFUSED[name]
    with pytest.raises(ValueError, match=match):
        function()
