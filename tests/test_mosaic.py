"""Mosaic against plain NumPy: every pixel, every share."""

import keras
import numpy as np
import pytest
from contract import PROMISES
from helpers import at_step, every_path, to_native, to_numpy

import kmix
from kmix.mixing import mix_inputs
from kmix.targets import BoundingBoxes, Labels

N, CLASSES = 7, 5


def images(height=12, width=9, dtype="float32", channels=3):
    return np.random.default_rng(0).integers(0, 256, (N, height, width, channels)).astype(dtype)


def ids(n=N):
    return np.arange(n) % CLASSES


WEIGHTS = np.linspace(0.5, 2.0, N).astype("float32")


def centres_of(plan):
    """The centre of each mixed image: where the window of the sample itself ends."""
    return plan.region.window[:, 0, 2:]


def mosaic(x, plan):
    """`out[r, s] = x_q[(r - cy) mod H, (s - cx) mod W]`, with q the quadrant, pixel by pixel."""
    out = np.empty_like(x)
    height, width = x.shape[1:3]
    for i, (cy, cx) in enumerate(centres_of(plan)):
        images = [i, *plan.partners[:, i]]
        for r in range(height):
            for s in range(width):
                quadrant = 2 * (r >= cy) + (s >= cx)
                out[i, r, s] = x[images[quadrant], (r - cy) % height, (s - cx) % width]
    return out


def shares(plan, height, width):
    """The share of each image of the batch in each mixed one, `(B, B)`."""
    count = np.zeros((len(plan.lam), len(plan.lam)))
    for i, (cy, cx) in enumerate(centres_of(plan)):
        sizes = [cy * cx, cy * (width - cx), (height - cy) * cx, (height - cy) * (width - cx)]
        for j, size in zip([i, *plan.partners[:, i]], sizes, strict=True):
            count[i, j] += size / (height * width)
    return count


def layer(**settings):
    classes = {} if "target" in settings else {"num_classes": CLASSES}
    return kmix.Mosaic(**{"data_format": "channels_last", "seed": 3, **classes, **settings})


BATCHES = {
    "ids": lambda: (layer(), (images(), ids())),
    "weights": lambda: (layer(), (images(dtype="uint8"), ids(), WEIGHTS)),
    "a dictionary": lambda: (layer(rate=0.7), {"images": images(), "labels": ids()}),
    "class weights": lambda: (layer(target=Labels(CLASSES, class_weight={1: 3.0})), (images(), ids())),
    "two labels": lambda: (
        layer(target={"a": Labels(CLASSES), "b": Labels()}),
        (images(), {"a": ids(), "b": images(channels=2)[:, 0, 0] / 255}),
    ),
    "union": lambda: (layer(target="union"), (images(), np.eye(N, dtype="int64"))),
    "keep": lambda: (layer(target="keep"), (images(), np.arange(N, dtype="int32"))),
    "two inputs": lambda: (layer(), ({"a": images(), "b": images(dtype="float16", channels=1)}, ids())),
    "a choice": lambda: (
        kmix.RandomChoice(
            [layer(), kmix.CutMix(num_classes=CLASSES, seed=1), kmix.MixUp(num_classes=CLASSES, seed=1)], seed=5
        ),
        (images(), ids(), WEIGHTS),
    ),
}


@pytest.mark.in_turn
@pytest.mark.slow
@pytest.mark.parametrize("name", BATCHES)
def test_the_layer_keeps_the_promises_of_every_mixer(name):
    mixer, batch = BATCHES[name]()
    for promise in PROMISES:
        # A second batch brings one partner.
        if promise.__name__ != "check_second_batch":
            promise(mixer, batch)


@pytest.mark.fast("*numpy", "*native")
@every_path
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_every_pixel_label_and_weight(data_format, path):
    for step, (height, width) in enumerate([(12, 9), (5, 28), (1, 4)]):
        x, mixer = images(height, width), layer(data_format=data_format)
        plan = mixer.plan(step, N, spatial_shape=(height, width))
        expected, share = mosaic(x, plan), shares(plan, height, width)
        if data_format == "channels_first":
            x, expected = (np.ascontiguousarray(array.transpose(0, 3, 1, 2)) for array in (x, expected))
        mixed, y, w = at_step(path, mixer, step, (x, ids(), WEIGHTS))
        np.testing.assert_array_equal(mixed, expected)
        np.testing.assert_allclose(w, share @ WEIGHTS, rtol=1e-5)
        np.testing.assert_allclose(
            y, (share * WEIGHTS) @ np.eye(CLASSES)[ids()] / (share @ WEIGHTS)[:, None], atol=1e-5
        )
        np.testing.assert_allclose(plan.lam, centres_of(plan).prod(axis=1) / (height * width), atol=1e-6)


def test_the_parts_show_what_is_pasted():
    x = images()
    plan = layer().plan(4, N, spatial_shape=(12, 9))
    out = np.zeros_like(x)
    for part in plan.parts():
        for i in range(N):
            (top, left, bottom, right), (down, across) = part.window[i], part.shift[i]
            shown = x[part.source[i], top - down : bottom - down, left - across : right - across]
            out[i, top:bottom, left:right] = shown
            assert part.share[i] == pytest.approx((bottom - top) * (right - left) / 108)
    np.testing.assert_array_equal(out, mix_inputs(x, plan))
    np.testing.assert_array_equal(out, to_numpy(mix_inputs(to_native(x), plan)))


def test_the_centre_lies_in_the_middle_half_and_partners_are_three_permutations():
    centres, partners = [], []
    for step in range(300):
        plan = layer().plan(step, 16, spatial_shape=(40, 100))
        centres.append(centres_of(plan))
        partners.append(plan.partners)
        np.testing.assert_array_equal(np.sort(plan.partners), np.tile(np.arange(16), (3, 1)))
        np.testing.assert_array_equal(plan.permutation, plan.partners[0])
    centres, partners = np.concatenate(centres), np.stack(partners)
    assert centres.min(axis=0).tolist() == [10, 25]
    assert centres.max(axis=0).tolist() == [30, 75]
    np.testing.assert_allclose(centres.mean(axis=0), [20, 50], rtol=0.02)
    # Uniform: each pair of quadrants shows the same partner once in 16 times.
    same = [np.mean(partners[:, i] == partners[:, j]) for i, j in [(0, 1), (0, 2), (1, 2)]]
    np.testing.assert_allclose(same, 1 / 16, atol=0.01)


def test_no_weight_at_all_counts_the_shares_and_nan_stays_where_it_is():
    x, y = images(), np.eye(N, dtype="float32")
    y[2, 2] = np.nan
    plan = layer().plan(1, N, spatial_shape=(12, 9))
    share = shares(plan, 12, 9)
    _, mixed, w = layer(target="labels").at_step(1, (x, y, np.zeros(N, "float32")))
    np.testing.assert_array_equal(w, 0)
    untouched = share[:, 2] == 0
    np.testing.assert_allclose(mixed[untouched], (share @ np.eye(N))[untouched], atol=1e-6)
    assert np.isnan(mixed[~untouched, 2]).all()
    assert untouched.any()


@pytest.mark.slow
def test_a_training_step_is_one_on_the_mixed_batch():
    x, model = images() / 255, keras.Sequential([keras.Input((12, 9, 3)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(CLASSES, kernel_initializer="zeros"))
    trainer = kmix.MixTrainer(model, layer(num_classes=None))
    loss = kmix.losses.SoftLabelCrossentropy(from_logits=True)
    trainer.compile(keras.optimizers.SGD(1.0), loss)
    trainer.fit(x, ids(), batch_size=N, shuffle=False, verbose=0)
    mixed, y = layer().at_step(0, (x, ids()))
    # The gradient of the crossentropy at equal logits.
    expected = mixed.reshape(N, -1).T @ (y - 1 / CLASSES) / N
    np.testing.assert_allclose(to_numpy(model.layers[-1].kernel.value), expected, atol=1e-5)
    with pytest.raises(ValueError, match="Mosaic has no alpha"):
        trainer.alpha = 0.1
    with pytest.raises(AttributeError):
        trainer.alpha  # noqa: B018


REFUSED = {
    "pairs": lambda: kmix.Mosaic(target=kmix.targets.LabelPairs(9)),
    "volumes": lambda: layer()(np.zeros((N, 4, 4, 4, 1), "float32"), ids()),
    "sequences": lambda: layer()(np.zeros((N, 4, 4), "float32"), ids()),
    "a plan of a volume": lambda: layer().plan(0, N, spatial_shape=(4, 4, 4)),
    "a plan without sizes": lambda: layer().plan(0, N),
    "setting alpha": lambda: setattr(layer(), "alpha", 0.2),
    "a scheduler": lambda: kmix.callbacks.AlphaScheduler(layer(), kmix.schedules.Constant(0.2)),
    "a second batch": lambda: layer().at_step(0, (images(), ids()), partner=(images(), ids())),
    "at places of a model": lambda: kmix.MixTrainer(
        keras.Sequential([keras.Input((4, 4, 1))]), layer(), places=["input"]
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_mosaic_cannot_do_is_refused(name):
    with pytest.raises(ValueError, match=r"Mosaic|mosaic|spatial"):
        REFUSED[name]()


@pytest.mark.parametrize("name", ["alpha", "per", "lam_at_least_half"])
def test_arguments_of_other_mixers_are_refused(name):
    with pytest.raises(TypeError, match=name):
        kmix.Mosaic(**{name: 1})


def test_partners_are_chosen_by_the_rule_of_pairing():
    plan = layer(pairing=kmix.pairing.RandomPairs(allow_self=False)).plan(2, N, spatial_shape=(12, 9))
    drawn = layer().plan(2, N, spatial_shape=(12, 9))
    for ours, permutation in zip(plan.partners, drawn.partners, strict=True):
        np.testing.assert_array_equal(ours, np.roll(permutation, -1)[np.argsort(permutation)])
    np.testing.assert_array_equal(plan.region.window, drawn.region.window)
    with pytest.raises(ValueError, match="no rule with a score"):
        layer(num_classes=None, pairing="similar_labels")


def test_a_target_for_two_partners_is_refused():
    class Halves(kmix.targets.Target):
        def mix(self, xp, y, weight, plan, info):
            return y, weight

    for target in (Halves(), {"a": Labels(), "b": [Halves()]}):
        with pytest.raises(ValueError, match=r"Mosaic .* 3 partners\. .* a target Halves"):
            layer(target=target)


@pytest.mark.in_turn
@pytest.mark.xla("everywhere")
@pytest.mark.fast("11-numpy", "22-native", "47-numpy")
@every_path
@pytest.mark.parametrize("size", [11, 22, 47])
def test_a_sample_that_is_not_mixed_keeps_its_label_and_boxes_exactly(size, path):
    """Also where XLA multiplies by a reciprocal: 121 times that of 121 is not 1 in float32."""
    x = np.zeros((N, size, size, 1), "float32")
    boxes = {
        # The second lies beyond the image, and stays where nothing is mixed.
        "boxes": np.tile(np.array([[1.1, 2.2, 7.7, 8.8], [-9.3, -9.1, -2.0, -1.0]], "float32"), (N, 1, 1)),
        "labels": np.zeros((N, 2), "float32"),
    }
    _, y = at_step(path, layer(rate=0.0), 0, (x, ids()))
    np.testing.assert_array_equal(y, np.eye(CLASSES)[ids()])
    _, mixed = at_step(path, layer(rate=0.0, target=BoundingBoxes("xyxy")), 0, (x, boxes))
    np.testing.assert_array_equal(mixed["boxes"][:, :2], boxes["boxes"])
    np.testing.assert_array_equal(mixed["labels"][:, :2], 0)
