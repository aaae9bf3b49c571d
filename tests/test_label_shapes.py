"""Which labels need no `target=`, by their shapes alone; and NaN where only values tell and no step can raise."""

import keras
import numpy as np
import oracle
import pytest
from helpers import BACKEND, at_step, every_path, on, tf, to_numpy

import kmix
from kmix.targets import LabelPairs, Labels, SegmentationMasks

N, H, W, CLASSES = 6, 8, 10, 3
GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.random((N, H, W, 3)).astype("float32")
SERIES = GENERATOR.random((N, H, 2)).astype("float32")


def floats(*shape):
    return GENERATOR.normal(size=(N, *shape)).astype("float32")


def mixup(**settings):
    return kmix.MixUp(1.0, seed=1, **settings)


def cutmix(**settings):
    return kmix.CutMix(1.0, data_format="channels_last", seed=2, **settings)


def mosaic(**settings):
    return kmix.Mosaic(data_format="channels_last", seed=3, **settings)


def choice(**settings):
    return kmix.RandomChoice([mixup(**settings), cutmix(**settings)], seed=4)


MIXERS = {"MixUp": mixup, "CutMix": cutmix, "Mosaic": mosaic, "RandomChoice": choice}
every_mixer = pytest.mark.parametrize("make", MIXERS.values(), ids=MIXERS)

# Labels that need a target whatever the mixer. No value says what they are.
HIGHER_RANK = {
    "numbers outside [0, 1]": floats(4, 5),
    "class ids of tokens": np.ones((N, 12, 1), "int32"),
    "probabilities of tokens": np.full((N, 12, CLASSES), 1 / CLASSES, "float32"),
    "frames of another rate": floats(H // 4, 5),
    "a mask of half the size": np.zeros((N, H // 2, W // 2, 2), "float32"),
    "a soft mask": np.ones((N, H, W, 2), "float32"),
    "rows of one class and a box": GENERATOR.random((N, 4, 5)).astype("float32"),
    "keypoints": GENERATOR.random((N, 7, 2)).astype("float32"),
    "boxes by another name": {"bboxes": GENERATOR.random((N, 3, 4)).astype("float32"), "labels": np.zeros((N, 3), "f")},
    "boxes": {"boxes": GENERATOR.random((N, 3, 4)).astype("float32"), "labels": np.zeros((N, 3), "float32")},
    "one of several": {"class": np.eye(N, dtype="float32"), "mask": np.zeros((N, H, W), "uint8")},
    "images": IMAGES,
}


def compiled(layer, x, y):
    """A step that cannot read values: of JAX, or of TensorFlow with XLA."""
    if BACKEND == "jax":
        import jax

        return jax.jit(lambda step, x, y: layer.at_step(step, (x, y)))(0, x, y)
    return tf.function(lambda x, y: layer.at_step(0, (x, y)), jit_compile=True, autograph=False)(
        *keras.tree.map_structure(tf.constant, (x, y))
    )


@pytest.mark.parametrize("name", HIGHER_RANK)
@every_mixer
def test_labels_of_higher_rank_need_a_target(make, name):
    layer, y = make(), HIGHER_RANK[name]
    for step in (lambda: layer(IMAGES, y), lambda: compiled(layer, IMAGES, y)):
        with pytest.raises(ValueError, match="target="):
            step()


# Labels with one column for each position of what is pasted.
POSITIONS = {"frames": (SERIES, H), "a flattened mask": (IMAGES, H * W)}


@pytest.mark.parametrize("dtype", ["float32", "int32"])
@pytest.mark.parametrize("name", POSITIONS)
@pytest.mark.parametrize("make", [cutmix, mosaic, choice])
def test_a_column_for_each_position_needs_a_target_under_a_paste(make, name, dtype):
    x, columns = POSITIONS[name]
    if make is mosaic and x is SERIES:
        x, columns = IMAGES, H * W
    y = GENERATOR.integers(0, 2, (N, columns)).astype(dtype)
    for step in (lambda: make()(x, y), lambda: compiled(make(), x, y)):
        with pytest.raises(ValueError, match=f"{columns} positions"):
            step()
    for settings in ({"num_classes": columns}, {"target": Labels(any_shape=True)}):
        layer = make(**settings)
        plan = layer.plan(0, N, spatial_shape=x.shape[1:-1])
        lam, permutation = plan[:2]
        expected = oracle.mixup(y, lam, permutation)
        if make is mosaic:
            expected = sum(oracle.rows(part.share, y) * y[part.source] for part in plan.parts())
        np.testing.assert_allclose(layer.at_step(0, (x, y))[1], expected, atol=1e-6)
    np.testing.assert_array_equal(make(target="keep").at_step(0, (x, y))[1], y)


def unknown(*known):
    """Inputs and flattened masks in a data set that knows no sizes but these of the inputs and of the masks."""
    sizes, columns = known
    batch = IMAGES, floats(H * W)
    spec = tf.TensorSpec((None, *sizes, IMAGES.shape[-1])), tf.TensorSpec(columns)
    return tf.data.Dataset.from_generator(lambda: iter([batch]), output_signature=spec), batch


@pytest.mark.slow
@pytest.mark.alike
@pytest.mark.parametrize("make", [cutmix, mosaic, choice])
@pytest.mark.parametrize(
    "sizes", [((H, W), (None, None)), ((None, None), (None, H * W)), ((None, W), (None, None))], ids=str
)
def test_a_column_for_each_position_needs_a_target_where_sizes_are_unknown(make, sizes):
    ds, (x, y) = unknown(*sizes)
    with pytest.raises(tf.errors.InvalidArgumentError, match="one column for each position"):
        list(ds.map(make()))
    layer = make(target=Labels(any_shape=True))
    _, mixed = next(iter(ds.enumerate().map(layer.at_step)))
    np.testing.assert_allclose(mixed, layer.at_step(0, (x, y))[1], atol=1e-6)
    # Fewer columns are labels, and one is no row of them.
    for columns in (3, 1):
        few = ds.map(lambda x, y, columns=columns: (x, y[:, :columns]))
        assert next(iter(few.map(make())))[1].shape[1] == columns


def test_labels_of_unknown_rank_are_refused():
    ds, _ = unknown((None, None), None)
    for make in (mixup, cutmix):
        with pytest.raises(ValueError, match="rank of labels must be known"):
            ds.map(make())


def test_a_blend_takes_any_number_of_columns():
    for x, columns in POSITIONS.values():
        y = floats(columns)
        plan = mixup().plan(0, N)
        np.testing.assert_allclose(mixup().at_step(0, (x, y))[1], oracle.mixup(y, *plan[:2]), atol=1e-6)


@pytest.mark.fast("*-native", "cutmix-tfdata")
@every_path
@pytest.mark.parametrize("make", [mixup, cutmix])
def test_labels_of_any_shape_are_blended_by_the_shares(make, path):
    """Probabilities of tokens, numbers outside [0, 1], and masks: as the user says."""
    layer = make(target=Labels(any_shape=True))
    plan, weights = layer.plan(1, N, spatial_shape=(H, W)), np.linspace(0.5, 2, N).astype("float32")
    for y in (floats(12, CLASSES), floats(H, W, 2)):
        _, mixed, w = at_step(path, layer, 1, (IMAGES, y, weights))
        labels, total = oracle.weighted(y, weights, *plan[:2])
        np.testing.assert_allclose(mixed, labels, atol=1e-4)
        np.testing.assert_allclose(w, total, rtol=1e-5)


def test_integers_of_any_shape_are_refused():
    with pytest.raises(ValueError, match="one-hot encode"):
        mixup(target=Labels(any_shape=True))(IMAGES, np.ones((N, 12, 2), "int32"))


# Where values alone tell.

VALUES = {
    "ids outside the classes": (Labels(CLASSES), np.array([0, 1, 3, 2, 1, 0])),
    "negative ids": (Labels(CLASSES), np.array([0, 1, -1, 2, 1, 0])),
    "ids of pairs": (LabelPairs(5), np.array([0, 1, 5, 2, 1, 0])),
    "counts as multi-hot": (Labels(), np.array([[0, 1], [1, 1], [2, 0], [0, 0], [1, 0], [0, 1]])),
    "tags beyond 1": (
        kmix.targets.LabelUnion(),
        np.array([[0, 1], [1, 1], [1.5, 0], [0, 0], [1, 0], [0, 1]], "float32"),
    ),
    "soft masks beyond 1": (
        SegmentationMasks(),
        np.where(np.arange(N) == 2, 1.5, 0.5)[:, None, None, None] + np.zeros((N, H, W, 2)),
    ),
    "ids of masks": (
        SegmentationMasks(CLASSES),
        np.where(np.arange(N) == 2, 7, 1)[:, None, None] + np.zeros((N, H, W), "int32"),
    ),
}


@pytest.mark.slow
@on("jax", "tensorflow", why="PyTorch reads the values")
@pytest.mark.parametrize("name", VALUES)
def test_wrong_values_that_cannot_be_read_are_nan(name):
    """In each row that shows the third sample, and in no other."""
    target, y = VALUES[name]
    y = y.astype("float32" if y.dtype == "float64" else y.dtype)
    layer = mixup(target=target)
    with pytest.raises(ValueError, match="Received"):
        layer.at_step(0, (IMAGES, y))
    mixed = to_numpy(compiled(layer, IMAGES, y))[1]
    plan = layer.plan(0, N)
    wrong = (np.arange(N) == 2) | ((plan.permutation == 2) & (plan.lam < 1))
    np.testing.assert_array_equal(np.isnan(mixed.reshape(N, -1)).any(axis=1), wrong)


CLIPS = GENERATOR.random((N, 4, H, W, 3)).astype("float32")
# The inputs, the axes that are cut, and how many positions they have.
CUT = {
    "frames": (CLIPS, 1, 4),
    "frames with channels first": (np.moveaxis(CLIPS, -1, 1), 2, 4),
    "pixels": (CLIPS, (2, 3), H * W),
    "spectra without channels": (GENERATOR.random((N, H, W)).astype("float32"), 1, H),
}


@pytest.mark.in_turn
@pytest.mark.fast("*-native")
@every_path
@pytest.mark.parametrize("name", CUT)
def test_a_column_for_each_position_of_the_axes_that_are_cut_needs_a_target(name, path):
    x, axes, columns = CUT[name]
    data_format = "channels_first" if "first" in name else "channels_last"

    def layer(**settings):
        cut = kmix.CutMix(1.0, axes=axes, data_format=data_format, seed=2, **settings)
        return kmix.RandomChoice([cut], seed=3) if name == "pixels" else cut

    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="one column for each position"):
        at_step(path, layer(), 0, (x, floats(columns)))
    assert to_numpy(at_step(path, layer(), 0, (x, floats(columns + 1)))[1]).shape == (N, columns + 1)
    assert to_numpy(at_step(path, layer(num_classes=columns), 0, (x, floats(columns)))[1]).shape == (N, columns)
