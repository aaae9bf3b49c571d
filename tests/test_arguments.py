"""Arguments that cannot be meant: refused early, with a ValueError or TypeError that names them."""

import numpy as np
import pytest
from helpers import at_step, data, every_path

import kmix
from kmix import plan
from kmix.mixing import mix_inputs
from kmix.pairing import SimilarLabels
from kmix.targets import BoundingBoxes

NAN = float("nan")


def raises_naming(word, function, *args, **kwargs):
    with pytest.raises((ValueError, TypeError), match=word) as caught:
        function(*args, **kwargs)
    assert "Received" in str(caught.value) or "Invalid dtype" in str(caught.value)


SAMPLERS = {
    "mixup": lambda seed=1, step=0, alpha=0.4, batch_size=4, **settings: plan.sample_mixup(
        seed, step, alpha, batch_size, **settings
    ),
    "cutmix": lambda seed=1, step=0, alpha=0.4, batch_size=4, **settings: plan.sample_cutmix(
        seed, step, alpha, batch_size, (8, 8), **settings
    ),
    "mosaic": lambda seed=1, step=0, batch_size=4, **settings: plan.sample_mosaic(
        seed, step, batch_size, (8, 8), **settings
    ),
}
OF_ALL = [
    ("seed", -1), ("seed", 1.5), ("seed", None), ("seed", 2**32), ("seed", True),
    ("step", -1), ("step", 1.5), ("step", "a"), ("step", None), ("step", True), ("step", np.array([1, 2])),
    ("step", np.float32(2)),
    ("batch_size", -4), ("batch_size", 1.5), ("batch_size", None), ("batch_size", [4]), ("batch_size", np.array([4])),
    ("rate", 2), ("rate", NAN), ("rate", None), ("rate", lambda step: 0.5), ("rate", float),
    ("replica", -1), ("replica", 2**16), ("replica", 1.5), ("replica", "a"),
    ("stream", 1.5), ("stream", -1), ("stream", "a"),
    ("pair", "a"), ("pair", lambda words: np.arange(2)),
    ("xp", np), ("xp", "numpy"),
]  # fmt: skip
OF_LAM = [
    ("per", "zz"), ("per", None), ("lam_at_least_half", "abc"), ("lam_at_least_half", 1),
    ("alpha", NAN), ("alpha", -1), ("alpha", "a"), ("alpha", None), ("alpha", [0.1]), ("alpha", np.ones(4, "float32")),
    ("alpha", np.float32("nan")), ("alpha", np.int64(-1)), ("alpha", lambda step: 0.1), ("alpha", float),
]  # fmt: skip


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_functions_that_draw_plans(sampler):
    assert SAMPLERS[sampler]().lam.shape == (4,)
    for name, value in OF_ALL + OF_LAM * (sampler != "mosaic"):
        raises_naming(name, SAMPLERS[sampler], **{name: value})


def test_partners_may_be_a_list():
    drawn = plan.sample_mixup(1, 0, 0.4, 3, pair=lambda words: [1, 2, 0])
    np.testing.assert_array_equal(drawn.permutation, [1, 2, 0])


@pytest.mark.parametrize(
    "sizes", [(), (1, 2, 3, 4), (0, 8), (8.5, 8), ("8", 8), (None, 8), 8, (True, 8), None], ids=repr
)
def test_sizes_to_draw_boxes_for(sizes):
    raises_naming("spatial_shape", plan.sample_cutmix, 1, 0, 0.4, 4, sizes)
    raises_naming("spatial_shape", plan.sample_mosaic, 1, 0, 4, sizes)


@pytest.mark.parametrize("cut", [(5,), (-1,), (), "a", 0, (0, 0), (0.5,)], ids=repr)
def test_axes_to_cut(cut):
    raises_naming("cut", plan.sample_cutmix, 1, 0, 0.4, 4, (8, 8), cut=cut)


@pytest.mark.parametrize("probabilities", [[], [-1, 2], [0, 0], [NAN, 1], [1e308, 1e308], "ab", 3, ["a", 1]], ids=repr)
def test_probabilities(probabilities):
    raises_naming("probabilities", plan.sample_choice, 1, 0, probabilities)
    raises_naming("probabilities", kmix.RandomChoice, [kmix.MixUp(), kmix.CutMix()], probabilities)


def test_depths_and_streams():
    for depth in (0, 1.5, "a"):
        raises_naming("depth", plan.sample_choice, 1, 0, [1, 1], depth=depth)
    for owner, first, word in ((None, 5000, "owner"), (1, 5000, "owner"), ("A", -1, "first"), ("A", 1.5, "first")):
        raises_naming(word, plan.reserve, owner, first)


LAM, PARTNERS = np.array([0.5, 0.25, 1, 0.75], "float32"), np.array([1, 0, 3, 2])
BOX = np.array([[0, 0, 4, 4]] * 4)
X, IMAGES = data(4, (3,)), data(4, (8, 8, 3))


@pytest.mark.parametrize(
    ("x", "lam", "partners", "settings"),
    [
        (X[:2], LAM, PARTNERS, {}),
        (np.concatenate([X, X]), LAM, PARTNERS, {}),
        (X, LAM[:2], PARTNERS, {}),
        (X, LAM[:, None], PARTNERS, {}),
        (X, np.float32(0.5), PARTNERS, {}),
        (X, 0.5, PARTNERS, {}),
        (X, LAM, PARTNERS[:2], {}),
        (X, LAM, PARTNERS - 1, {}),
        (X, LAM, PARTNERS + 9, {}),
        (X, LAM, PARTNERS * 1.0, {}),
        (X, LAM, PARTNERS, {"data_format": "abc"}),
        (X, LAM, PARTNERS, {"data_format": None}),
        (X, LAM, PARTNERS, {"dtype": "int32"}),
        (X, LAM, PARTNERS, {"dtype": "abc"}),
        (X > 0, LAM, PARTNERS, {}),
        (X, LAM, PARTNERS, {"box": BOX}),
        (IMAGES[:2], LAM, PARTNERS, {"box": BOX}),
        (IMAGES, LAM, PARTNERS, {"box": BOX[:2]}),
        (IMAGES, LAM, PARTNERS, {"box": BOX[:, :2]}),
        (IMAGES, LAM, PARTNERS, {"box": BOX * 1.0}),
        (IMAGES, LAM, PARTNERS, {"region": "abc"}),
    ],
)
def test_plans_and_inputs_that_do_not_match(x, lam, partners, settings):
    fields = {name: settings.pop(name) for name in ("box", "region") if name in settings}
    drawn = kmix.MixPlan(lam, partners, **fields)
    with pytest.raises((ValueError, TypeError), match=r"Received|Invalid dtype"):
        mix_inputs(x, drawn, **settings)


def test_plans_for_other_sizes():
    drawn = kmix.Mosaic(seed=1).plan(0, 4, spatial_shape=(8, 8))
    assert mix_inputs(IMAGES, drawn).shape == IMAGES.shape
    for x in (IMAGES[:, :4, :4], np.tile(IMAGES, (1, 2, 2, 1)), IMAGES[:2], X):
        with pytest.raises(ValueError, match="Received"):
            mix_inputs(x, drawn)
    for none in (None, "plan", kmix.MixPlan):
        raises_naming("MixPlan", mix_inputs, X, none)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: kmix.MixUp(alpha=kmix.schedules.Linear), "alpha"),
        (lambda: kmix.MixUp(float), "alpha"),
        (lambda: kmix.MixUp(num_classes=int), "num_classes"),
        (lambda: kmix.MixUp(rate=float), "rate"),
        (lambda: kmix.MixUp(dtype="int32"), "dtype"),
        (lambda: kmix.CutMix(dtype="bool"), "dtype"),
        (lambda: kmix.MixUp(inputs_key=()), "inputs_key"),
        (lambda: kmix.MixUp(inputs_key="labels"), "inputs_key"),
        (lambda: kmix.MixUp(inputs_key=("a", "sample_weight")), "inputs_key"),
        (lambda: kmix.MixUp(inputs_key=("a", "a")), "inputs_key"),
        (lambda: BoundingBoxes("xyxy", keep=("boxes",)), "keep"),
        (lambda: BoundingBoxes("xyxy", keep=("labels", "weights")), "keep"),
        (lambda: BoundingBoxes("xyxy", keep=("a", "a")), "keep"),
        (lambda: SimilarLabels("a"), "bandwidth.* > 0"),
        (lambda: SimilarLabels(0), "bandwidth.* > 0"),
        (lambda: SimilarLabels(-1), "bandwidth.* > 0"),
    ],
)
def test_constructors(make, word):
    raises_naming(word, make)


@pytest.mark.parametrize("value", [True, np.bool_(True), None, NAN, -1.0, "a", np.ones(2)], ids=repr)
@every_path
def test_what_a_schedule_returns(path, value):
    layer = kmix.MixUp(lambda step: value, seed=1)
    with pytest.raises(ValueError, match="one finite number >= 0") as caught:
        at_step(path, layer, 0, (X, X))
    assert ".." not in str(caught.value)
    assert "In a graph" not in str(caught.value)
