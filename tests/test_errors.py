"""Bad input: a clear error, and nothing has changed."""

import keras
import numpy as np
import pytest
from helpers import tf, to_native, to_numpy

import kmix
from kmix.pairing import RandomPairs, SimilarLabels
from kmix.targets import BoundingBoxes, LabelPairs, Labels, SegmentationMasks

X = np.zeros((6, 8, 8, 3), "float32")
Y = np.array([0, 1, 2, 0, 1, 2])
SOFT = np.eye(3, dtype="float32")[Y]


@pytest.mark.parametrize("convert", [lambda a: a, to_native], ids=["numpy", "native"])
@pytest.mark.parametrize(
    ("layer", "batch", "message"),
    [
        (kmix.MixUp(), (X, Y), "needs `num_classes`"),
        (kmix.CutMix(), (X, Y[:, None]), "needs `num_classes`"),
        (kmix.MixUp(num_classes=2), (X, Y), "num_classes=2"),
        (kmix.MixUp(num_classes=3), (X, Y - 1), "first class is 0"),
        (kmix.MixUp(num_classes=3), (X, Y.astype("float32")), "cast labels to float"),
        (kmix.MixUp(num_classes=3), (X, Y.astype("int64") * 2 + 2**31 - 8), "num_classes=3"),
        (kmix.MixUp(), (X, np.full((6, 3), 2)), "multi-hot"),
        (kmix.MixUp(), (X, np.zeros((6, 2, 2), "int32")), "class ids"),
        (kmix.MixUp(), (X.astype("int32"), SOFT), "Ids cannot be interpolated"),
        (kmix.MixUp(), (X > 0, SOFT), "float, or uint8"),
        (kmix.MixUp(), (X, SOFT[:4]), "same batch size"),
        (kmix.MixUp(), (X, SOFT, np.ones(4, "float32")), "same batch size"),
        (kmix.MixUp(), (X, SOFT, np.ones((6, 2), "float32")), "leading axes of the labels|Sample weights"),
        (kmix.MixUp(), (X, {"a": SOFT, "b": SOFT, "c": SOFT}, {"a": Y * 1.0, "z": Y * 1.0}), "same structure"),
        (kmix.MixUp(), (X, (SOFT, SOFT), {"a": Y * 1.0}), "same structure"),
        (kmix.MixUp(), (X, (SOFT, SOFT), (Y * 1.0,)), "same structure"),
        (kmix.CutMix(), (np.zeros((6, 4), "float32"), SOFT), "spatial axes"),
        (kmix.CutMix(), (np.zeros((6, 2, 2, 2, 2, 1), "float32"), SOFT), "one to three spatial axes"),
        (kmix.CutMix(), ([X, X[:, :4]], SOFT), "same spatial sizes"),
        (kmix.MixUp(num_classes=3), (X[0], np.array(1)), "Was the data set batched"),
        (kmix.MixUp(), (X[0], SOFT[0]), "Was the data set batched"),
        (kmix.MixUp(num_classes=3), (X, np.zeros((6, 5), "float32")), "num_classes=3.* have 3 columns"),
        (kmix.MixUp(num_classes=3), (X, np.zeros((6, 5), "int32")), "num_classes=3.* have 3 columns"),
        (kmix.MixUp(), (X, np.zeros((6, 4, 3), "float32")), "Say what this is with `target=`"),
        (kmix.CutMix(), (X, np.zeros((6, 8, 8), "float32")), "would have to paste"),
        (kmix.CutMix(), (X, np.zeros((6, 64), "float32")), "one column for each position"),
        (kmix.CutMix(axes=1), (X[..., 0, 0], np.zeros((6, 8), "float32")), "one column for each position"),
        (kmix.MixUp(target=LabelPairs(4)), (X, Y + 2), "num_classes=4"),
        (kmix.CutMix(target=LabelPairs(4)), (X, SOFT), "`LabelPairs` takes class ids"),
        (kmix.MixUp(target=LabelPairs(4)), (X, SOFT.astype("int32")), "class ids .* integer dtype"),
        (kmix.MixUp(target=LabelPairs(4)), (X, Y > 0), "class ids .* integer dtype"),
        (kmix.MixUp(target=LabelPairs(4)), (X, {"a": Y, "b": Y * 0.5}), "class ids .* integer dtype"),
    ],
)
def test_batches(layer, batch, message, convert):
    # Each test counts from 0, and the seed makes the two batches differ.
    layer = type(layer).from_config({**layer.get_config(), "seed": 1})
    with pytest.raises(ValueError, match=message):
        layer(*convert(batch))
    with pytest.raises(ValueError, match=message):
        layer.at_step(0, convert(batch))
    x = np.random.default_rng(0).normal(size=X.shape if layer.get_config().get("axes") is None else (6, 8))
    good = convert((x, SOFT if layer.num_classes is None and layer.target is None else Y % 2))
    first, second = (to_numpy(layer.at_step(step, good))[0] for step in range(2))
    assert np.abs(first - second).max() > 0.01
    # Nothing was counted: the next call is the first.
    np.testing.assert_allclose(to_numpy(layer(*good))[0], first, atol=1e-6)


def test_layers_refuse_the_same_batches_in_tf_data():
    ds = tf.data.Dataset.from_tensor_slices((X, Y))
    for layer, message in ((kmix.MixUp(num_classes=3), "batched"), (kmix.CutMix(num_classes=3), "batched")):
        with pytest.raises(ValueError, match=message):
            ds.map(layer)
        with pytest.raises(ValueError, match=message):
            ds.enumerate().map(layer.at_step)
    with pytest.raises(ValueError, match="num_classes"):
        ds.batch(2).map(kmix.MixUp())
    with pytest.raises(ValueError, match="labelled batch"):
        ds.batch(2).map(lambda x, y: x).enumerate().map(kmix.MixUp().at_step)


def test_ragged_and_sparse_tensors():
    ragged, sparse = tf.ragged.constant([[1.0], [2.0, 3.0]]), tf.sparse.eye(2)
    soft = tf.eye(2)
    for tensor, message in ((ragged, "ragged"), (sparse, "sparse")):
        with pytest.raises(ValueError, match=message):
            kmix.MixUp()(tensor, soft)
        with pytest.raises(ValueError, match=message):
            kmix.MixUp().at_step(0, (tensor, soft))
        with pytest.raises(ValueError, match=message):
            tf.data.Dataset.from_tensors((tensor, soft)).map(kmix.MixUp())
    if keras.backend.backend() == "torch":
        import torch

        with pytest.raises(ValueError, match="sparse"):
            kmix.MixUp()(torch.eye(2).to_sparse(), torch.eye(2))
    if keras.backend.backend() == "jax":
        from jax.experimental import sparse as jax_sparse

        with pytest.raises(ValueError, match="sparse"):
            kmix.MixUp()(jax_sparse.BCOO.fromdense(np.eye(2)), np.eye(2))


def test_things_that_are_no_arrays():
    with pytest.raises(TypeError, match=r"np\.asarray"):
        kmix.MixUp().at_step(0, ([[1.0, 2.0]], [0.5]))
    for batch in (((X, None), SOFT), (X, (SOFT, None))):
        with pytest.raises(TypeError, match="NoneType"):
            kmix.MixUp().at_step(0, batch)
    with pytest.raises(ValueError, match="Labels must be float or integer"):
        kmix.MixUp().at_step(0, (np.zeros((2, 2)), np.array(["a", "b"])))


@pytest.mark.parametrize("batch", [X, (X,), {"images": X}, (X, None)], ids=["array", "one", "dictionary", "None"])
def test_inputs_alone(batch):
    for layer in (kmix.MixUp(), kmix.CutMix(), kmix.RandomChoice([kmix.MixUp()])):
        with pytest.raises(ValueError, match=r"without '?labels"):
            layer(batch, training=True)
        with pytest.raises(ValueError, match=r"labelled batch|without 'labels'"):
            layer.at_step(0, batch)


def test_weights_without_labels():
    for training in (None, True):
        with pytest.raises(ValueError, match="Sample weights belong to labels"):
            kmix.MixUp()(X, sample_weight=np.ones(6), training=training)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"segmentation_masks": Y}, "spatial sizes of the inputs"),
        ({"segmentation_masks": np.zeros((6, 8, 8), "uint8")}, "Class ids of pixels"),
        ({"bounding_boxes": {"boxes": X}}, "their format must be known"),
        ({"id": Y}, r"target=\{'id': \.\.\.\}.*\"keep\""),
    ],
)
def test_keys(extra, message):
    with pytest.raises(ValueError, match=message):
        kmix.MixUp()({"images": X, "labels": SOFT, **extra})


def test_keys_of_the_inputs():
    with pytest.raises(ValueError, match=r"under 'images'.*inputs_key="):
        kmix.MixUp().at_step(0, {"audio": X, "labels": SOFT})
    with pytest.raises(ValueError, match="under 'audio' and 'lengths'"):
        kmix.MixUp(inputs_key=("audio", "lengths")).at_step(0, {"audio": X, "labels": SOFT})
    layer = kmix.MixUp(target={"bounding_boxes": BoundingBoxes("xyxy")})
    with pytest.raises(ValueError, match="boxes and their labels"):
        layer({"images": X, "labels": SOFT, "bounding_boxes": {"boxes": X}})


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"alpha": -1}, ValueError),
        ({"alpha": float("nan")}, ValueError),
        ({"alpha": float("inf")}, ValueError),
        ({"alpha": "0.2"}, TypeError),
        ({"alpha": None}, TypeError),
        ({"alpha": True}, TypeError),
        ({"rate": -0.1}, ValueError),
        ({"rate": 1.1}, ValueError),
        ({"rate": "1"}, TypeError),
        ({"per": "image"}, ValueError),
        ({"num_classes": 0}, ValueError),
        ({"num_classes": 2.5}, TypeError),
        ({"target": "pairs"}, ValueError),
        ({"target": []}, ValueError),
        ({"target": 3}, TypeError),
        ({"target": LabelPairs}, TypeError),
        ({"target": {"a": Labels}}, TypeError),
        ({"num_classes": 3, "target": "union"}, ValueError),
        ({"num_classes": 3, "target": {"labels": "keep"}}, ValueError),
        ({"pairing": "label"}, ValueError),
        ({"pairing": RandomPairs}, TypeError),
        ({"pairing": None}, TypeError),
        ({"lam_at_least_half": 1}, TypeError),
        ({"include_clean": None}, TypeError),
        ({"jit_compile": "auto"}, TypeError),
        ({"inputs_key": None}, TypeError),
        ({"inputs_key": [1]}, TypeError),
        ({"seed": -1}, ValueError),
        ({"seed": 2**32}, ValueError),
        ({"seed": 1.5}, TypeError),
        ({"alpha": np.array([0.1, 0.2])}, TypeError),
    ],
)
def test_arguments(arguments, error):
    name = next(iter(arguments))
    for layer in (kmix.MixUp, kmix.CutMix):
        with pytest.raises(error, match=f"`{name}"):
            layer(**arguments)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: LabelPairs(3), ValueError, "more than 3 classes"),
        (lambda: LabelPairs(2**24 + 1), ValueError, r"at most 2\*\*24"),
        (lambda: LabelPairs(None), TypeError, "num_classes"),
        (lambda: Labels(0), ValueError, "num_classes"),
        (lambda: Labels(3, class_weight={3: 1.0}), ValueError, "class 3 of 3"),
        (lambda: Labels(3, class_weight=[1, 2, 3]), TypeError, "dictionary"),
        (lambda: Labels(3, class_weight={0: -1.0}), ValueError, "class_weight"),
        (lambda: Labels(class_weight={0: 1.0}, nan_is_missing=True), ValueError, "one of them"),
        (lambda: SegmentationMasks(1.5), TypeError, "num_classes"),
        (lambda: BoundingBoxes("corners"), ValueError, "format"),
        (lambda: BoundingBoxes("xyxy", weights="abc"), TypeError, "weights"),
        (lambda: BoundingBoxes("xyxy", min_visibility=2), ValueError, "min_visibility"),
        (lambda: BoundingBoxes("xyxy", max_boxes=0), ValueError, "max_boxes"),
        (lambda: BoundingBoxes("xyxy", keep="track"), TypeError, r"keep=\['track'\]"),
        (lambda: RandomPairs(within="device"), ValueError, "within"),
        (lambda: RandomPairs(allow_self=None), TypeError, "allow_self"),
        (lambda: SimilarLabels(0), ValueError, "bandwidth"),
        (lambda: SimilarLabels(label=1.5), TypeError, "label"),
    ],
)
def test_arguments_of_targets_and_pairing_rules(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_other_arguments():
    with pytest.raises(ValueError, match="data_format"):
        kmix.CutMix(data_format="NHWC")
    with pytest.raises(ValueError, match="their format must be known"):
        kmix.CutMix(target="bounding_boxes")
    with pytest.raises(ValueError, match="at least one"):
        kmix.RandomChoice([])
    with pytest.raises(TypeError, match="mixing layers"):
        kmix.RandomChoice([keras.layers.Dense(1)])
    for one, other in (({"num_classes": 2}, {"num_classes": 3}), ({"target": LabelPairs(9)}, {"target": "union"})):
        with pytest.raises(ValueError, match=f"agree on `{next(iter(one))}`"):
            kmix.RandomChoice([kmix.MixUp(**one), kmix.CutMix(**other)])
    with pytest.raises(ValueError, match="agree on `include_clean`"):
        kmix.RandomChoice([kmix.MixUp(include_clean=True), kmix.CutMix()])
    with pytest.raises(ValueError, match="agree on `inputs_key`"):
        kmix.RandomChoice([kmix.MixUp(inputs_key="image"), kmix.CutMix()])
    with pytest.raises(ValueError, match="agree on `within`"):
        kmix.RandomChoice([kmix.MixUp(pairing=RandomPairs(within="shard")), kmix.CutMix()])
    for probabilities in ([1], [0, 0], [1, -1], [1e308, 1e308], [float("nan"), 1]):
        with pytest.raises(ValueError, match="`probabilities`"):
            kmix.RandomChoice([kmix.MixUp(), kmix.CutMix()], probabilities)
    for step in (-1, np.int32(-1)):
        with pytest.raises(ValueError, match="step"):
            kmix.MixUp().at_step(step, (X, SOFT))
    for step in (1.0, np.float32(1), np.arange(2)):
        with pytest.raises((TypeError, ValueError), match="step"):
            kmix.MixUp().at_step(step, (X, SOFT))
    with pytest.raises(ValueError, match="spatial_shape"):
        kmix.CutMix().plan(0, 4)
    for shape in (8, (0, 8), ("a", 8)):
        with pytest.raises((TypeError, ValueError), match="spatial_shape"):
            kmix.CutMix().plan(0, 4, spatial_shape=shape)
    with pytest.raises(ValueError, match="replica"):
        kmix.MixUp().plan(0, 4, replica=-1)
    with pytest.raises(TypeError, match="layers"):
        kmix.RandomChoice(kmix.MixUp())
    with pytest.raises(TypeError, match="`probabilities`"):
        kmix.RandomChoice([kmix.MixUp()], probabilities=1.0)
    with pytest.raises(ValueError, match="batch_size"):
        kmix.MixUp().plan(0, 0)


def test_setting_alpha():
    layer = kmix.MixUp(0.3, num_classes=3)
    for bad, error in ((-1, ValueError), (float("nan"), ValueError), ("0.2", TypeError)):
        with pytest.raises(error, match="alpha"):
            layer.alpha = bad
    assert layer.alpha == 0.3
    schedule = kmix.schedules.Linear(0.0, 1.0, 5)
    layer.alpha = schedule
    assert layer.alpha is schedule
    with pytest.raises(ValueError, match="follows a schedule"):
        layer.alpha = 0.1
    traced = kmix.MixUp(0.3, num_classes=3)
    tf.data.Dataset.from_tensor_slices((X, Y)).batch(2).map(traced)
    with pytest.raises(ValueError, match="before the layer is first used"):
        traced.alpha = schedule
    choice = kmix.RandomChoice([kmix.MixUp(name="inner")])
    with pytest.raises(ValueError, match="inner"):
        choice.alpha = 0.1
    with pytest.raises(AttributeError):
        _ = choice.alpha


def test_forms_that_are_not_read_as_a_batch():
    for batch in ([X, X, X, Y], (X, SOFT), [X, SOFT], (X, SOFT, Y * 1.0)):
        with pytest.raises(ValueError, match=r"layer\(\*batch\).*at_step"):
            kmix.MixUp(num_classes=3)(batch)
    for batch in ((X, SOFT, Y, Y), [X, SOFT, Y, Y]):
        with pytest.raises(ValueError, match="4 parts"):
            kmix.MixUp()(*batch)
        with pytest.raises(ValueError, match="4 parts"):
            kmix.MixUp().at_step(0, batch)
        with pytest.raises(ValueError, match="4 parts"):
            tf.data.Dataset.from_tensors(tuple(batch)).map(kmix.MixUp())
        with pytest.raises(ValueError, match="4 parts"):
            tf.data.Dataset.from_tensors(tuple(batch)).enumerate().map(kmix.MixUp().at_step)
    for training in ("abc", 1.5, []):
        with pytest.raises(TypeError, match="`training` must be True or False"):
            kmix.MixUp()(X, SOFT, training=training)


def test_labels_that_hold_nothing():
    for empty in ({}, (), []):
        with pytest.raises(ValueError, match="must hold labels"):
            kmix.MixUp().at_step(0, (X, empty))
    with pytest.raises(ValueError, match="must hold labels"):
        kmix.MixUp().at_step(0, (X, {"a": SOFT, "b": {}}))


def test_functions_that_cannot_be_evaluated_in_a_graph():
    layer = kmix.MixUp(lambda step: 0.4 if step < 3 else 0.0)
    assert layer.at_step(5, (X, SOFT))[0].shape == X.shape
    with pytest.raises(ValueError, match=r"kmix\.schedules"):
        tf.data.Dataset.from_tensors((X, SOFT)).enumerate().map(layer.at_step)


@pytest.mark.slow
def test_labels_of_unknown_rank_with_weights():
    ds = tf.data.Dataset.from_tensors((X, SOFT, SOFT[:, 0])).map(
        lambda x, y, w: (x, tf.numpy_function(lambda v: v, [y], "float32"), w)
    )
    with pytest.raises(ValueError, match="rank of labels must be known"):
        ds.map(kmix.MixUp())


@pytest.mark.parametrize("value", [np.array([0.1, 0.2]), None, float("nan"), -0.1, float("inf"), "0.2"], ids=repr)
def test_schedules_return_one_number(value):
    layer = kmix.MixUp(lambda step: value if step == 1 else 0.4, num_classes=3, seed=1)
    first = layer(X, Y)
    for _ in range(2):
        with pytest.raises(ValueError, match="one finite number >= 0"):
            layer(X, Y)
    with pytest.raises(ValueError, match="one finite number >= 0"):
        layer.at_step(1, (X, Y))
    np.testing.assert_array_equal(first[1], layer.at_step(0, (X, Y))[1])


def test_what_is_kept_may_be_anything():
    boxes = tf.ragged.constant([[1.0], [2.0, 3.0]])
    layer = kmix.MixUp(target={"boxes": "keep", "name": "keep"})
    data = {"images": X[:2], "labels": SOFT[:2], "boxes": boxes, "name": ["a", "b"]}
    mixed = next(iter(tf.data.Dataset.from_tensors(data).map(layer)))
    assert mixed["boxes"].to_list() == boxes.to_list()
    assert mixed["name"].numpy().tolist() == [b"a", b"b"]


def test_integer_labels_of_unknown_width():
    ds = tf.data.Dataset.from_tensors((X, Y[:, None])).map(
        lambda x, y: (x, tf.ensure_shape(tf.numpy_function(lambda v: v, [y], "int64"), (None, None)))
    )
    with pytest.raises(ValueError, match="last dimension of integer labels"):
        ds.map(kmix.MixUp(num_classes=3))


def test_weights_of_unknown_rank():
    ds = tf.data.Dataset.from_tensors((X, SOFT, SOFT[:, 0])).map(
        lambda x, y, w: (x, y, tf.numpy_function(lambda v: v, [w], "float32"))
    )
    with pytest.raises(ValueError, match="that of the labels must be known"):
        ds.map(kmix.MixUp())


def test_pairs_of_what_cannot_be_paired():
    for labels, message in (
        (Y + 8, "num_classes=9"),
        (SOFT, "integer dtype"),
        (Y.astype("float32"), "integer dtype"),
    ):
        with pytest.raises(ValueError, match=message):
            kmix.MixUp(target=LabelPairs(9)).at_step(0, (X, labels))
    ds = tf.data.Dataset.from_tensors((X, Y + 8)).map(kmix.MixUp(target=LabelPairs(9)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="num_classes=9"):
        next(iter(ds))


def test_the_last_ids_that_float32_holds():
    layer = kmix.MixUp(1.0, target=LabelPairs(2**24), seed=1)
    ids = 2**24 - 1 - np.arange(6)
    pairs = layer.at_step(0, (X, ids))[1]
    np.testing.assert_array_equal(pairs[:, 0].astype("int64"), ids)
    np.testing.assert_array_equal(pairs[:, 1].astype("int64"), ids[layer.plan(0, 6).permutation])
