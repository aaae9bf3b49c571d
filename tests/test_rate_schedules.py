"""`rate` and `probabilities` as schedules: on every code path and in training, mixing ends at the step it should."""

import copy
import json
import pickle

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    CLASSES,
    at_step,
    boxes,
    cutmix,
    data,
    embedding,
    every_path,
    fit,
    ids,
    mixup,
    network,
    on,
    one_hot,
    raises,
    tf,
    to_native,
    to_numpy,
)
from test_mosaic import mosaic as paint
from test_mosaic import shares
from test_pairing import NAMESPACES

import kmix
from kmix import _backend, prng
from kmix.schedules import Constant, Linear, Piecewise
from kmix.targets import BoundingBoxes, Keypoints

N, END = 6, 3
X, Y = data(N), ids(N)
# Weights that are not equal show which labels they belong to.
W = np.linspace(0.5, 2.0, N).astype("float32")


def mosaic(**settings):
    return kmix.Mosaic(**{"data_format": "channels_last", "seed": 7, **settings})


def off_at_end(value=1.0):
    return Piecewise([value, 0.0], [END])


def keras_off_at_end():
    """Keras' own holds a value up to and with its boundary."""
    return keras.optimizers.schedules.PiecewiseConstantDecay([END - 1], [1.0, 0.0])


def choice_of(*probabilities, first=mosaic, **settings):
    return kmix.RandomChoice(
        [first(num_classes=CLASSES), kmix.MixUp(0.0, num_classes=CLASSES)], list(probabilities), seed=2, **settings
    )


@keras.saving.register_keras_serializable(package="test_rate_schedules")
def own_schedule(step):
    """1, then 0: arithmetic that numbers and tensors have in common."""
    return 1.0 - 0.0 ** (END // (step + 1))


def at(path, layer, steps, batch):
    """`layer.at_step` for some steps on a code path, as a list; in tf.data with one graph."""
    if path != "tfdata":
        return [at_step(path, layer, step, batch) for step in steps]
    return list(map(to_numpy, tf.data.Dataset.from_tensor_slices(list(steps)).map(lambda s: layer.at_step(s, batch))))


# Mosaics that end before step 3, by name.
ENDING = {
    "rate": lambda: mosaic(num_classes=CLASSES, rate=off_at_end()),
    "a Keras schedule": lambda: mosaic(num_classes=CLASSES, rate=keras_off_at_end()),
    "a function": lambda: mosaic(num_classes=CLASSES, rate=own_schedule),
    "probabilities": lambda: choice_of(off_at_end(5.0), Piecewise([0.0, 2.0], [END])),
    "a number among them": lambda: choice_of(off_at_end(3e38), 1e-3),
    "a choice of choices": lambda: kmix.RandomChoice(
        [choice_of(1.0, 0.0), kmix.MixUp(0.0, num_classes=CLASSES)],
        [off_at_end(), Piecewise([0.0, 1.0], [END])],
        seed=2,
    ),
}


@pytest.mark.in_turn
@pytest.mark.fast("rate-tfdata", "probabilities-*", "*-numpy")
@every_path
@pytest.mark.parametrize("name", ENDING)
def test_a_mosaic_ends_at_exactly_the_step(name, path):
    layer = ENDING[name]()
    # Keras' own count in int32.
    steps = (0, END - 1, END, END + 1, 9 if "Keras" in name else 2**31 + 1)
    for step, (x, y, w) in zip(steps, at(path, layer, steps, (X, Y, W)), strict=True):
        plan = layer.plan(step, N, spatial_shape=(8, 8))
        if step < END:
            share = shares(plan, 8, 8)
            assert (plan.lam < 1).all()
            np.testing.assert_array_equal(x, paint(X, plan))
            np.testing.assert_allclose(w, share @ W, rtol=1e-5)
            expected = (share * W) @ one_hot(Y) / (share @ W)[:, None]
        else:
            assert (plan.lam == 1).all()
            np.testing.assert_array_equal(x, X)
            np.testing.assert_array_equal(w, W)
            expected = one_hot(Y)
        np.testing.assert_allclose(y, expected, atol=1e-5 if step < END else 0)


@pytest.mark.slow
@pytest.mark.alike
@pytest.mark.xla
@pytest.mark.parametrize("name", ENDING)
def test_a_mosaic_ends_in_a_compiled_pipeline(name):
    layer = ENDING[name]()
    batch = (X[:, :4, :4], Y)
    steps = (END - 1, END)
    for step, (x, y) in zip(steps, at("tfdata", layer, steps, batch), strict=True):
        expected = layer.at_step(step, batch)
        np.testing.assert_array_equal(x, expected[0])
        np.testing.assert_allclose(y, expected[1], atol=1e-5)
        assert np.array_equal(x, batch[0]) == (step == END)


@pytest.mark.slow
@pytest.mark.alike
@pytest.mark.xla
def test_programs_that_are_alike_hold_no_rate():
    """Programs are shared between layers of equal settings: what differs must be an argument, or tell them apart."""
    batch = (data(N, (4, 4, 3)), Y)
    made = [mosaic(num_classes=CLASSES, rate=rate) for rate in (1.0, Constant(1.0), 0.0, Constant(0.0), off_at_end())]
    made += [choice_of(*each) for each in ((1, 0), (0, 1), (Constant(1.0), 0), (Constant(0.0), 1))]
    clean = [np.array_equal(at_step("tfdata", layer, 1, batch)[0], batch[0]) for layer in made]
    assert clean == [False, False, True, True, False, False, True, False, True]


MIXERS = {"MixUp": mixup, "EmbeddingMixup": embedding, "CutMix": cutmix, "Mosaic": mosaic}


@pytest.mark.in_turn
@pytest.mark.fast("*-numpy", "MixUp-native", "CutMix-tfdata")
@every_path
@pytest.mark.parametrize("make", MIXERS.values(), ids=MIXERS)
def test_a_rate_that_rises_mixes_as_that_number_does(make, path):
    layer = make(num_classes=CLASSES, rate=Linear(0.0, 1.0, 4))
    rates = {0: 0.0, 1: 0.25, 2: 0.5, 4: 1.0}
    for (step, rate), mixed in zip(rates.items(), at(path, layer, rates, (X, Y)), strict=True):
        fixed = make(num_classes=CLASSES, rate=rate)
        plan = layer.plan(step, 400, spatial_shape=(32, 32))
        for ours, other in zip(plan[:3], fixed.plan(step, 400, spatial_shape=(32, 32))[:3], strict=True):
            np.testing.assert_array_equal(ours, other)
        assert (plan.lam < 1).mean() == pytest.approx(rate, abs=0.1)
        for ours, other in zip(mixed, fixed.at_step(step, (X, Y)), strict=True):
            np.testing.assert_allclose(ours, other, atol=1e-4)


@pytest.mark.fast("numpy")
@every_path
def test_probabilities_that_change_draw_in_proportion(path):
    rising, constant = choice_of(Linear(0.0, 3.0, 4), 1.0), choice_of(Constant(2.0), Constant(6.0))
    drawn = {name: [] for name in ("rising", "constant")}
    for step in range(600):
        drawn["rising"].append(int(rising.plan(step, 1, spatial_shape=(8, 8)).choice))
        drawn["constant"].append(int(constant.plan(step, 1, spatial_shape=(8, 8)).choice))
    assert np.mean(drawn["constant"]) == pytest.approx(0.75, abs=0.06)
    assert np.mean(drawn["rising"][4:]) == pytest.approx(0.25, abs=0.06)
    numbers = choice_of(2, 6)
    assert drawn["constant"] == [int(numbers.plan(step, 1, spatial_shape=(8, 8)).choice) for step in range(600)]
    for step in (0, 1, 7):
        ours, expected = at_step(path, rising, step, (X, Y)), rising.layers[drawn["rising"][step]].at_step(step, (X, Y))
        np.testing.assert_allclose(ours[1], expected[1], atol=1e-5)


# What is no rate, and what are no probabilities.

WRONG = {
    "NaN": float("nan"),
    "beyond 1": 1.2,
    "negative": -0.1,
}


def bad(value):
    """A schedule that goes wrong in step 3. In a graph its values are not known before it runs."""

    def schedule(step):
        if not hasattr(step, "dtype"):
            return value if step >= END else 0.5
        return _backend.namespace(step).where(step < END, 0.5, value)

    return schedule


def nan_everywhere(path, layer, batch=(X, Y, W)):
    """Assert that labels and weights are NaN where the value cannot be read, and that the others refuse the step."""
    if path != "tfdata":
        at_step(path, layer, 0, batch)
        raises(lambda: at_step(path, layer, END, batch), "finite")
        raises(lambda: layer.plan(END, N, spatial_shape=(8, 8)), "finite")
        return
    (_, *before), (_, *after) = at(path, layer, (0, END), batch)
    assert not any(np.isnan(array).any() for array in before)
    assert all(np.isnan(array).all() for array in after)


@pytest.mark.in_turn
@pytest.mark.fast("MixUp-NaN-*", "Mosaic-beyond 1-*", "CutMix-negative-*", "EmbeddingMixup-*-numpy")
@every_path
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("make", MIXERS.values(), ids=MIXERS)
def test_what_is_no_rate_is_never_the_identity(make, wrong, path):
    nan_everywhere(path, make(num_classes=CLASSES, rate=bad(WRONG[wrong])))


@pytest.mark.in_turn
@pytest.mark.fast("*-numpy", "a sum of 0-tfdata")
@every_path
@pytest.mark.parametrize("case", ["a sum of 0", "NaN", "negative", "infinite", "nested"])
def test_what_are_no_probabilities_is_never_the_first_branch(case, path):
    probabilities = {
        "a sum of 0": [off_at_end(), off_at_end()],
        "NaN": [bad(float("nan")), 1.0],
        "negative": [1.0, bad(-2.0)],
        "infinite": [3e38, Piecewise([0.0, 3e38], [END])],
        "nested": [off_at_end(), 0.0],
    }[case]
    first = mosaic if case != "nested" else lambda **settings: kmix.RandomChoice([mosaic(**settings)])
    with np.errstate(over="ignore"):
        nan_everywhere(path, choice_of(*probabilities, first=first))


def test_a_single_sample_and_its_own_partner_show_an_error():
    for layer in (mixup(num_classes=CLASSES, rate=bad(2.0)), choice_of(off_at_end(), 0.0, first=mixup)):
        _, y = at_step("tfdata", layer, END, (X[:1], Y[:1]))
        assert np.isnan(y).all()


@pytest.mark.slow
@pytest.mark.alike
def test_boxes_points_and_tags_show_an_error():
    images, objects = data(N), boxes()
    for make in (mosaic, mixup):
        layer = make(rate=bad(1.2), target={"bounding_boxes": BoundingBoxes("xyxy")})
        batch = {"images": images, "bounding_boxes": objects}
        real = (objects["classes"] >= 0).sum()
        mixed = at_step("tfdata", layer, END, batch)["bounding_boxes"]
        shown = mixed["classes"] >= 0
        assert shown.sum() >= real
        assert np.isnan(mixed["boxes"][shown]).all()
        points = np.full((N, 2, 3, 3), 2, "float32")
        _, points = at_step("tfdata", make(rate=bad(1.2), target=Keypoints()), END, (images, points))
        assert np.isnan(points).all()
        _, tags = at_step("tfdata", make(rate=bad(1.2), target="union"), END, (images, one_hot(Y)))
        assert np.isnan(tags).all()


def test_rounding_is_that_of_float32():
    """A sum of tenths is 1 in a graph, so it is 1 elsewhere."""
    layer = mixup(num_classes=CLASSES, rate=lambda step: 1.0 + 1e-12 * (step + 1))
    for path in ("numpy", "tfdata"):
        np.testing.assert_allclose(
            at_step(path, layer, 1, (X, Y))[1], mixup(num_classes=CLASSES).at_step(1, (X, Y))[1], atol=1e-5
        )


@pytest.mark.parametrize("xp", NAMESPACES, ids=lambda xp: type(xp).__name__)
def test_a_branch_of_probability_0_is_never_drawn(monkeypatch, xp):
    """Not even for the largest and the smallest uniform that there are."""
    random = np.random.default_rng(0)
    for u in (1 - 2**-24, 2**-24):
        uniform = np.full((1, 1), u, "float32")
        assert 0 < uniform < 1
        monkeypatch.setattr(prng, "uniform", lambda xp, words, uniform=uniform: xp.asarray(uniform))
        for _ in range(50 if xp is _backend.NUMPY else 5):
            given = random.uniform(0, 10, 3)
            zero = 3 if u > 0.5 else 0
            given = np.insert(given, [zero, zero], 0.0)
            for numbers in ([xp.asarray(np.float32(value)) for value in given], given.tolist()):
                drawn = int(kmix.plan.sample_choice(1, 0, numbers, xp=xp))
                assert given[drawn] > 0
    monkeypatch.undo()


def test_errors_say_what_to_write():
    for rate, error in (
        (-0.1, ValueError),
        (1.1, ValueError),
        ("1", TypeError),
        (None, TypeError),
        (Linear, TypeError),
    ):
        with pytest.raises(error, match="`rate`"):
            mosaic(rate=rate)
    with pytest.raises(AttributeError, match="schedule of the step"):
        mosaic().rate = 0.0
    with pytest.raises(AttributeError, match="schedule of the step"):
        choice_of(1, 1).probabilities = [1, 0]
    for given in (off_at_end(), lambda step: [1, 0]):
        with pytest.raises(TypeError, match="`probabilities` must be a list"):
            kmix.RandomChoice([mixup(), cutmix()], given)
    for given in ([off_at_end()], [Linear, 1], ["1", off_at_end()], [off_at_end(), -1]):
        with pytest.raises((TypeError, ValueError), match="`probabilities`"):
            kmix.RandomChoice([mixup(), cutmix()], given)
    with pytest.raises(ValueError, match=r"<= 1.*1\.5.*step 4"):
        mixup(rate=lambda step: 1.5).plan(4, 2)
    with pytest.raises(ValueError, match=r"sum > 0.*step 3.*MixUp\(0\.0\)"):
        choice_of(off_at_end(), 0.0).plan(3, 2, spatial_shape=(8, 8))


# Config and copies.


@pytest.mark.parametrize("schedule", [off_at_end, keras_off_at_end, lambda: own_schedule], ids=["kmix", "Keras", "own"])
def test_schedules_go_through_json_pickles_and_copies(schedule):
    choice = choice_of(schedule(), Piecewise([0, 1], [END]))
    for layer in (mosaic(num_classes=CLASSES, rate=schedule()), choice):
        config = json.loads(json.dumps(layer.get_config()))
        rebuilt = type(layer).from_config(config)
        assert json.loads(json.dumps(rebuilt.get_config())) == config
        serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
        again = keras.saving.deserialize_keras_object(serialized)
        copies = (rebuilt, again, copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)))
        for step in (END - 1, END):
            expected = layer.at_step(step, (X, Y))[0]
            assert np.array_equal(expected, X) == (step == END)
            for one in copies:
                np.testing.assert_array_equal(one.at_step(step, (X, Y))[0], expected)
    assert choice.probabilities[0] is not None
    assert callable(mosaic(rate=schedule()).rate)


def test_calls_count_the_batches_that_are_drawn():
    layer = mosaic(num_classes=CLASSES, rate=off_at_end())
    clean = [np.array_equal(layer(X, Y)[0], X) for _ in range(END + 1)]
    assert clean == [False] * END + [True]
    layer = mosaic(num_classes=CLASSES, rate=off_at_end())
    batches = tf.data.Dataset.from_tensors((X, Y)).repeat(END + 1).map(layer)
    assert [np.array_equal(x, X) for x, _ in batches] == clean


def test_inspect_reads_plans_of_a_rate_that_changes():
    layer = mixup(num_classes=CLASSES, rate=off_at_end())
    batches = [(data(N, seed=i), ids(N, seed=i)) for i in range(2 * END)]
    report = kmix.diagnostics.inspect(batches, mixer=layer)
    assert "throughout" not in str(report)
    report = kmix.diagnostics.inspect(batches, mixer=mixup(num_classes=CLASSES, rate=Constant(0.0)))
    assert "lam is 1 throughout" in str(report)


# In training steps.


class Seen(keras.losses.Loss):
    """The largest label: 1 where nothing is mixed. With no gradient."""

    def call(self, y, y_pred):
        return keras.ops.max(y, axis=-1) + 0.0 * keras.ops.sum(y_pred, axis=-1)


def images_network():
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(N)])


def placed():
    """A model that mixes inside."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    return keras.Model(inputs, keras.layers.Dense(N)(embedding(rate=off_at_end())(inputs)))


EYE = np.eye(N, dtype="float32")
TRAINERS = {
    "rate": lambda: (kmix.MixTrainer(images_network(), mosaic(rate=off_at_end())), X),
    "probabilities": lambda: (
        kmix.MixTrainer(
            images_network(),
            kmix.RandomChoice([mosaic(), kmix.MixUp(0.0)], [off_at_end(), Piecewise([0.0, 1.0], [END])], seed=1),
        ),
        X,
    ),
    "a layer in the model": lambda: (kmix.MixTrainer(placed()), data(N, (5,))),
    "places": lambda: (
        kmix.MixTrainer(network(N, None, hidden=(4,)), embedding(rate=off_at_end()), places=["input", "hidden_0"]),
        data(N, (5,)),
    ),
}


@pytest.mark.in_turn
@pytest.mark.fast("rate")
@pytest.mark.parametrize("name", TRAINERS)
def test_mixing_ends_in_fit_at_exactly_the_step(name):
    trainer, x = TRAINERS[name]()
    trainer.compile(keras.optimizers.SGD(0.0), Seen())
    for step in range(END + 2):
        plan = trainer.plan(step, N, spatial_shape=(8, 8))
        assert (plan.lam == 1).all() == (step >= END)
        own = plan.permutation == np.arange(N)
        largest = np.where(own, 1.0, np.maximum(plan.lam, 1 - plan.lam))
        if plan.partners is not None:
            largest = shares(plan, 8, 8).max(axis=1)
        assert fit(trainer, x, EYE)["loss"] == pytest.approx(largest.mean(), rel=1e-5)
    again = kmix.MixTrainer.from_config(trainer.get_config())
    for step in (END - 1, END):
        np.testing.assert_array_equal(
            again.plan(step, N, spatial_shape=(8, 8)).lam, trainer.plan(step, N, spatial_shape=(8, 8)).lam
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rate", "probabilities"])
def test_what_is_no_rate_shows_in_the_loss_of_fit(name):
    mixer = mosaic(rate=bad(1.2))
    if name == "probabilities":
        mixer = kmix.RandomChoice([mosaic(), kmix.MixUp(0.0)], [off_at_end(), 0.0], seed=1)
    trainer = kmix.MixTrainer(images_network(), mixer)
    trainer.compile(keras.optimizers.SGD(0.0), Seen())
    for _ in range(END):
        assert 0 < fit(trainer, X, EYE)["loss"] <= 1
    if BACKEND == "torch":
        raises(lambda: fit(trainer, X, EYE), "finite")
    else:
        assert np.isnan(fit(trainer, X, EYE)["loss"])


@pytest.mark.slow
@on("jax", why="`jax.jit` compiles functions of one's own")
@pytest.mark.parametrize("name", ["rate", "probabilities"])
def test_a_step_that_is_an_argument_of_a_compiled_function(name):
    import jax

    layer, batch = ENDING[name](), to_native((X, one_hot(Y)))
    function = jax.jit(lambda step: layer.at_step(step, batch))
    for step in (END - 1, END):
        for ours, expected in zip(to_numpy(function(step)), layer.at_step(step, (X, one_hot(Y))), strict=True):
            np.testing.assert_allclose(ours, expected, atol=1e-5)
