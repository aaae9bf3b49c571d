"""Keypoints against pixels: each point is painted in a channel of its own, and looked for in the mixed image."""

import keras
import numpy as np
import pytest
from helpers import at_step, every_path, raises, refused, tf, to_native, to_numpy
from outside import RowMix

import kmix
from kmix._backend import xla
from kmix._backend.execution import Programs
from kmix.targets import BoundingBoxes, Keypoints
from kmix.targets.point_geometry import FORMATS

# Images, objects in each, points on each object.
B, N, K = 8, 3, 4


def scene(generator, height, width, rows=N):
    """Points `(x, y, v)` in pixels, some beyond the borders, and some in rows of padding.

    Some lie on the edges of pixels.
    """
    points = np.zeros((B, rows, K, 3))
    points[..., 0] = generator.uniform(-3, width + 3, (B, rows, K))
    points[..., 1] = generator.uniform(-3, height + 3, (B, rows, K))
    on_edges = generator.random((B, rows, K)) < 0.3
    points[on_edges] = np.floor(points[on_edges])
    # What is at (-1, -1) is padding.
    points[(points[..., :2] == -1).all(axis=-1), 0] = -2
    points[..., 2] = generator.integers(0, 3, (B, rows, K))
    points[generator.random((B, rows)) < 0.2] = -1
    return points


def written(points, name, height, width):
    """Points in a format, float32."""
    points = points.copy()
    if name.startswith("rel_"):
        points[(points[..., :2] != -1).any(axis=-1)] /= [width, height, 1]
    if name.endswith("yx"):
        points[..., :2] = points[..., 1::-1]
    return points.astype("float32")


def painted(points, height, width, rows=N):
    """Images with a channel for each point: the number of the sample at the pixel of the point, else 0."""
    images = np.zeros((B, height, width, rows * K), "float32")
    for (i, n, k), _ in np.ndenumerate(points[..., 0]):
        x, y = np.floor(points[i, n, k, :2]).astype(int)
        if 0 <= x < width and 0 <= y < height:
            images[i, y, x, n * K + k] = i + 1
    return images


def sources(plan, i, height, width):
    """The samples that picture `i` has points of, and how far they are moved, `(dx, dy)`."""
    if not isinstance(plan.region, kmix.plan.Tiles):
        return [(i, (0, 0)), (plan.permutation[i], (0, 0))]
    # The centre is where the window of the sample itself ends.
    cy, cx = plan.region.window[i, 0, 2:]
    moves = [(cx - width, cy - height), (cx, cy - height), (cx - width, cy), (cx, cy)]
    return list(zip([i, *plan.partners[:, i]], moves, strict=True))


def expected_of(points, images, plan, hidden):
    """The mixed points in pixels, read from the mixed images."""
    (height, width), pictures = images.shape[1:3], []
    for i in range(B):
        rows = []
        unmixed = plan.lam[i] == 1 or (plan.partners is None and plan.permutation[i] == i)
        for part, (source, move) in enumerate(sources(plan, i, height, width)):
            own = points[source].copy()
            rows.append(np.full_like(own, -1) * [1, 1, 0] if part and unmixed else own)
            for (n, k), v in np.ndenumerate(own[..., 2]):
                if v <= 0 or unmixed:
                    continue
                was = np.floor(own[n, k, :2]).astype(int)
                own[n, k, :2] += move
                x, y = now = np.floor(own[n, k, :2]).astype(int)
                if not all(0 <= at[0] < width and 0 <= at[1] < height for at in (was, now)):
                    own[n, k, 2] = 0
                elif images[i, y, x, n * K + k] != source + 1:
                    # Another sample covers the sample; a partner does not show there.
                    own[n, k, 2] = 0 if part else hidden
        pictures.append(np.concatenate(rows))
    return np.stack(pictures)


def assert_points(mixed, expected, name, height, width):
    np.testing.assert_array_equal(mixed[..., 2], expected[..., 2])
    np.testing.assert_allclose(mixed, written(expected, name, height, width), atol=1e-4)


def with_boxes(points, label=0.0):
    """Points in boxes of the whole image, which stay wherever anything of it shows."""
    rows = points.shape[:2]
    boxes = np.tile(np.array([0, 0, 30, 20], "float32"), (*rows, 1))
    return {"boxes": boxes, "labels": np.full(rows, label, "float32"), "keypoints": points}


def layer(kind, name="xy", hidden=0, **settings):
    settings = {"target": Keypoints(name, hidden=hidden), "seed": 5, **settings}
    if kind == "RowMix":
        return RowMix(1.0, **settings)
    return getattr(kmix, kind)(**settings, **({} if kind == "MixUp" else {"data_format": "channels_last"}))


def assert_follows_the_pixels(path, step, kind, name, hidden, height, width):
    points = scene(np.random.default_rng(step), height, width)
    mixer = layer(kind, name, hidden, rate=0.9)
    plan = mixer.plan(step, B, spatial_shape=(height, width))
    batch = painted(points, height, width), written(points, name, height, width)
    images, mixed = at_step(path, mixer, step, batch)
    assert mixed.shape == (B, (4 if kind == "Mosaic" else 2) * N, K, 3)
    assert mixed.dtype == np.float32
    assert_points(mixed, expected_of(points, images, plan, hidden), name, height, width)


pasting = pytest.mark.parametrize("kind", ["CutMix", "Mosaic", "RowMix"])


@pytest.mark.alike
@pasting
def test_many_scenes_show_what_their_pixels_show(kind):
    generator = np.random.default_rng(0)
    for step in range(60):
        assert_follows_the_pixels("numpy", step, kind, FORMATS[step % 4], step % 3, *generator.integers(9, 50, 2))


@pytest.mark.fast("*native")
@pytest.mark.parametrize("path", ["native", "tfdata"])
@pasting
def test_every_path_shows_the_same_points(kind, path):
    for step, name in enumerate(FORMATS[:: 1 if path == "native" else 3]):
        assert_follows_the_pixels(path, step, kind, name, step % 3, 20, 30)


@pytest.mark.fast("numpy", "native")
@every_path
def test_a_blend_has_the_points_of_both(path):
    for step, (name, columns) in enumerate([("xy", 3), ("rel_yx", 3), ("yx", 2)]):
        points = written(scene(np.random.default_rng(step), 20, 30), name, 20, 30)[..., :columns]
        mixer = layer("MixUp", name, rate=0.7)
        mixed, plan = at_step(path, mixer, step, (np.zeros((B, 20, 30, 1), "float32"), points))[1], mixer.plan(step, B)
        padding = np.full_like(points[0], -1) * np.array([1, 1, 0], "float32")[:columns]
        for i, (lam, j) in enumerate(zip(plan.lam, plan.permutation, strict=True)):
            partner = padding if lam == 1 or i == j else points[j]
            np.testing.assert_array_equal(mixed[i], np.concatenate([points[i], partner]))


def pixels(generator, height, width):
    """Boxes of one pixel, with one point in each, and labels, -1 for padding."""
    places = generator.integers(0, [width, height], (B, 6, 2)).astype("float32")
    points = np.concatenate([places + 0.5, generator.integers(1, 3, (B, 6, 1))], axis=-1)[:, :, None].astype("float32")
    labels = np.where(generator.random((B, 6)) < 0.3, -1, np.arange(6)).astype("float32")
    return {"boxes": np.concatenate([places, places + 1], axis=-1), "labels": labels, "keypoints": points}


@pytest.mark.fast("*numpy", "CutMix-native")
@every_path
@pytest.mark.parametrize("kind", ["CutMix", "Mosaic", "MixUp"])
def test_points_drop_with_their_box(kind, path):
    """A box of one pixel shows where its point does."""
    x = np.zeros((B, 20, 30, 1), "float32")
    for step, most in enumerate([None, 5, 30][: None if path == "numpy" else 1]):
        batch = pixels(np.random.default_rng(step), 20, 30)
        target = BoundingBoxes("xyxy", keypoints=Keypoints(), max_boxes=most, keep=["track"])
        mixer = layer(kind, target=target, rate=0.8)
        given = {**batch, "track": np.arange(B * 6, dtype="int32").reshape(B, 6)}
        mixed = at_step(path, mixer, step, (x, given))[1]
        assert mixed["keypoints"].shape == (B, most or (24 if kind == "Mosaic" else 12), 1, 3)
        plan = mixer.plan(step, B, spatial_shape=None if kind == "MixUp" else (20, 30))
        alone = layer(kind, rate=0.8).at_step(step, (x, batch["keypoints"]))[1].reshape(B, -1, 6, 1, 3)
        for i in range(B):
            shown = [
                (*alone[i, part, n, 0], source * 6 + n)
                for part, (source, _) in enumerate(sources(plan, i, 20, 30))
                for n in range(6)
                if batch["labels"][source, n] >= 0 and alone[i, part, n, 0, 2] > 0
            ][:most]
            expected = np.array(shown + [(-1, -1, 0, -1)] * (mixed["track"].shape[1] - len(shown)))
            np.testing.assert_array_equal(mixed["keypoints"][i, :, 0], expected[:, :3])
            np.testing.assert_array_equal(mixed["track"][i], expected[:, 3])


@pytest.mark.fast("CutMix")
@pytest.mark.alike
@pytest.mark.parametrize("kind", ["CutMix", "Mosaic", "MixUp"])
def test_points_with_boxes_are_those_without(kind):
    target = BoundingBoxes("xyxy", min_visibility=0, keypoints=Keypoints("rel_yx", hidden=1))
    for step in range(4):
        points = written(scene(np.random.default_rng(step), 20, 30), "rel_yx", 20, 30)
        x = np.zeros((B, 20, 30, 1), "float32")
        alone = layer(kind, "rel_yx", hidden=1).at_step(step, (x, points))[1]
        mixed = layer(kind, target=target).at_step(step, (x, with_boxes(points)))[1]
        rows = mixed["labels"] >= 0
        assert rows.sum() > rows.size / 2
        np.testing.assert_array_equal(mixed["keypoints"][rows], alone[rows])


@pytest.mark.in_turn
@pytest.mark.fast("*float16")
@pytest.mark.parametrize("dtype", ["float16", "float64", "int32", "int64"])
def test_the_dtype_stays_and_coordinates_are_exact(dtype):
    points = np.floor(scene(np.random.default_rng(0), 20, 30))
    x = np.zeros((B, 20, 30, 1), "float32")
    for kind in ("CutMix", "Mosaic", "MixUp"):
        mixed = layer(kind).at_step(1, (x, points.astype(dtype)))[1]
        assert mixed.dtype == dtype
        np.testing.assert_array_equal(mixed, layer(kind).at_step(1, (x, points))[1])


def test_a_float64_stays_in_its_pixel():
    """In float32, it would lie in the next one, which is outside of the image."""
    points, mixer, counts = np.tile(np.array([8 - 1e-9, 3, 2]), (B, 1, 1, 1)), layer("CutMix", hidden=1), []
    for step in range(16):
        plan, (_, mixed) = mixer.plan(step, B, spatial_shape=(8, 8)), mixer.at_step(step, (images(B, 8, 8, 1), points))
        top, left, bottom, right = plan.box.T
        covered = (top <= 3) & (bottom > 3) & (left <= 7) & (right > 7) & (plan.permutation != np.arange(B))
        np.testing.assert_array_equal(mixed[:, 0, 0, 2], np.where(covered, 1, 2))
        counts.append(covered.sum())
    assert 0 < sum(counts) < 16 * B


@pytest.mark.fast("numpy", "native")
@every_path
def test_a_point_written_as_a_part_belongs_to_its_pixel(path):
    """In float32, k / 41 * 41 is less than k for 1, 2, 4, 8, 16 and 32."""
    n, columns = 64, np.arange(41)
    points = np.full((n, 41, 1, 3), 0.5, "float32")
    points[..., 0, 0], points[..., 0, 2] = columns / 41, 2
    mixer = layer("CutMix", "rel_xy", hidden=1)
    mixed = at_step(path, mixer, 0, (images(n, 8, 41, 1), points))[1]
    plan = mixer.plan(0, n, spatial_shape=(8, 41))
    top, left, bottom, right = plan.box.T[..., None]
    covered = (columns >= left) & (columns < right) & (top <= 4) & (bottom > 4)
    covered &= (plan.permutation != np.arange(n))[:, None]
    assert np.isin(left[covered.any(axis=1)], [1, 2, 4, 8, 16, 32]).any()
    np.testing.assert_array_equal(mixed[:, :41, 0, 2], np.where(covered, 1, 2))


def test_what_is_not_mixed_keeps_its_bits():
    points = scene(np.random.default_rng(0), 20, 30)
    points[0, 0] = np.nan, np.nan, 0
    points[1, 0, :, 2] = 2
    for kind in ("CutMix", "Mosaic", "MixUp"):
        mixed = layer(kind, rate=0.0).at_step(0, (np.zeros((B, 20, 30, 1), "float32"), points))[1]
        np.testing.assert_array_equal(mixed[:, :N], points)
        np.testing.assert_array_equal(mixed[:, N:], np.full_like(mixed[:, N:], -1) * [1, 1, 0])


def test_a_point_without_a_label_stays_where_it_is():
    """Wherever a paste moves or covers the others."""
    points = np.array([3.0, 4.0, 0.0]) * np.ones((B, 1, 1, 1))
    for kind in ("CutMix", "Mosaic"):
        mixed = layer(kind, hidden=1).at_step(2, (np.zeros((B, 8, 8, 1), "float32"), points))[1]
        assert {tuple(point) for point in mixed.reshape(-1, 3)} <= {(3, 4, 0), (-1, -1, 0)}


@pytest.mark.parametrize("path", ["numpy", "native"])
@pytest.mark.parametrize("kind", ["MixUp", "CutMix"])
def test_points_of_a_second_batch_and_clean_samples(kind, path):
    x = np.zeros((B, 20, 30, 1), "float32")
    first, second = (scene(np.random.default_rng(seed), 20, 30).astype("float32") for seed in (1, 2))
    mixer, to = layer(kind, include_clean=True), to_native if path == "native" else lambda batch: batch
    mixed = to_numpy(mixer.at_step(0, to((x, first)), partner=to((x, second))))[1]
    assert mixed.shape == (2 * B, 2 * N, K, 3)
    np.testing.assert_array_equal(mixed[:B, :N], first)
    np.testing.assert_array_equal(mixed[:B, N:, :, 2], 0)
    plan = mixer.plan(0, B, spatial_shape=None if kind == "MixUp" else (20, 30))
    np.testing.assert_array_equal(mixed[B:, N:, :, :2], second[plan.permutation][..., :2])
    if kind == "MixUp":
        np.testing.assert_array_equal(mixed[B:], np.concatenate([first, second[plan.permutation]], axis=1))


def test_a_choice_has_room_for_the_widest():
    x, points = np.zeros((B, 20, 30, 1), "float32"), scene(np.random.default_rng(1), 20, 30)
    mixer = kmix.RandomChoice([layer("MixUp"), layer("Mosaic")], seed=1)
    found = [mixer.at_step(step, (x, points))[1] for step in range(6)]
    assert {each.shape for each in found} == {(B, 4 * N, K, 3)}
    narrow = [each for each in found if (each[:, 2 * N :] == [-1, -1, 0]).all()]
    assert 0 < len(narrow) < 6


@pytest.mark.slow
@pytest.mark.xla
@pytest.mark.alike
@pytest.mark.parametrize(
    ("kind", "target"),
    [
        ("CutMix", Keypoints()),
        ("Mosaic", Keypoints("rel_yx")),
        ("MixUp", BoundingBoxes("xyxy", keypoints=Keypoints())),
        ("Mosaic", BoundingBoxes("xyxy", keypoints=Keypoints(), max_boxes=9)),
    ],
    ids=str,
)
def test_batches_of_several_widths_share_a_program(kind, target, monkeypatch):
    """The padding that makes their widths equal is taken out again."""
    made, program = [], xla._Program
    monkeypatch.setattr(xla, "PROGRAMS", Programs())
    monkeypatch.setattr(xla, "_Program", lambda *arguments: made.append(program(*arguments)) or made[-1])
    mixer = layer(kind, target=target)

    def batches():
        for step, rows in enumerate([12, 0, 1, 16, 17]):
            points = scene(np.random.default_rng(step), 20, 30, rows).astype("float32")
            yield np.zeros((B, 20, 30, 1), "float32"), points if isinstance(target, Keypoints) else with_boxes(points)

    def unknown(array):
        return tf.TensorSpec((B, None, *array.shape[2:]), array.dtype)

    x, y = next(batches())
    spec = tf.TensorSpec(x.shape, x.dtype), tf.nest.map_structure(unknown, y)
    ds = tf.data.Dataset.from_generator(batches, output_signature=spec)
    for step, (mixed, batch) in enumerate(zip(ds.enumerate().map(mixer.at_step), batches(), strict=True)):
        expected = mixer.at_step(step, batch)
        for ours, other in zip(*map(tf.nest.flatten, (mixed, expected)), strict=True):
            np.testing.assert_allclose(ours.numpy(), other, atol=1e-4)
    assert len(made) == 1


@pytest.mark.slow
@pytest.mark.alike
def test_no_size_is_known():
    points = scene(np.random.default_rng(1), 20, 30).astype("float32")
    x = painted(points, 20, 30)
    spec = tf.TensorSpec((None, None, None, N * K), "float32"), tf.TensorSpec((None, None, None, 3), "float32")
    ds = tf.data.Dataset.from_generator(lambda: iter([(x, points)]), output_signature=spec)
    mixers = [layer(kind, hidden=1) for kind in ("CutMix", "Mosaic", "MixUp", "RowMix")]
    for mixer in (*mixers, kmix.RandomChoice(mixers[:3], seed=4)):
        for ours, other in zip(next(iter(ds.map(mixer))), mixer.at_step(0, (x, points)), strict=True):
            np.testing.assert_allclose(ours.numpy(), other, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "jax", reason="jax.jit traces JAX arrays alone")
def test_inside_jax_jit():
    import jax

    points = scene(np.random.default_rng(1), 20, 30).astype("float32")
    boxes, x = with_boxes(points), painted(points, 20, 30)
    for kind, y in (("CutMix", points), ("RowMix", points), ("Mosaic", boxes)):
        mixer = layer(kind, target=Keypoints() if y is points else BoundingBoxes("xyxy", keypoints=Keypoints()))
        mixed = jax.jit(lambda step, x, y, mixer=mixer: mixer.at_step(step, (x, y)))(3, x, y)
        expected = mixer.at_step(3, (x, y))
        for ours, other in zip(*map(keras.tree.flatten, (mixed, expected)), strict=True):
            np.testing.assert_allclose(ours, other, atol=1e-4)
        # What cannot be read cannot raise, so it is NaN.
        broken = keras.tree.map_structure(np.copy, y)
        (broken if y is points else broken["keypoints"])[0, :, :, 2] = 7
        mixed = jax.jit(lambda x, y, mixer=mixer: mixer.at_step(3, (x, y)))(x, broken)[1]
        assert np.isnan(mixed if y is points else mixed["keypoints"]).any()


def images(*shape):
    return np.zeros(shape or (2, 8, 8, 3), "float32")


def given(*shape, dtype="float32", v=2, x=1):
    points = np.ones(shape or (2, 3, 4, 3), dtype)
    points[..., 0], points[..., -1] = x, v
    return points


REFUSED = {
    "an unknown format": (lambda: Keypoints("xyv"), "format"),
    "an unknown visibility": (lambda: Keypoints(hidden=3), "hidden"),
    "no integer": (lambda: Keypoints(hidden="0"), "hidden"),
    "a class": (lambda: layer("CutMix", target=Keypoints), r"Keypoints\(\.\.\.\)"),
    "one object without an axis": (lambda: layer("CutMix")(images(), given(2, 4, 3)), r"y\[:, None\]"),
    "flat": (lambda: layer("CutMix")(images(), given(2, 12)), "shape"),
    "four columns": (lambda: layer("CutMix")(images(), given(2, 3, 4, 4)), r"\(B, N, K, 3\)"),
    "without visibility under a paste": (lambda: layer("CutMix")(images(), given(2, 3, 4, 2)), "column of visibility"),
    "without visibility in a Mosaic": (lambda: layer("Mosaic")(images(), given(2, 3, 4, 2)), "column of visibility"),
    "without visibility in a choice": (
        lambda: kmix.RandomChoice([layer("MixUp"), layer("CutMix")])(images(), given(2, 3, 4, 2)),
        "column of visibility",
    ),
    "relative integers": (lambda: layer("CutMix", "rel_xy")(images(), given(dtype="int32")), 'write `"xy"`'),
    "unsigned": (lambda: layer("MixUp")(images(), given(dtype="uint8")), "signed"),
    "booleans": (lambda: layer("MixUp")(images(), given(dtype="bool")), "signed"),
    "a video": (lambda: layer("CutMix")(images(2, 5, 8, 8, 3), given()), "images"),
    "unlike a visibility": (lambda: layer("MixUp")(images(), given(v=0.5)), "visibility"),
    "depths": (lambda: layer("MixUp")(images(), given(v=17)), "visibility"),
    "NaN": (lambda: layer("CutMix")(images(), given(x=np.nan)), "NaN"),
    "NaN without visibility": (lambda: layer("MixUp")(images(), given(2, 3, 4, 2, x=np.nan)), "NaN"),
    "kept with boxes": (lambda: BoundingBoxes("xyxy", keep=["keypoints"]), r"keypoints=kmix.targets.Keypoints\(\)"),
    "no object": (lambda: BoundingBoxes("xyxy", keypoints="xy"), r"keypoints=kmix.targets.Keypoints\(\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    raises(REFUSED[name][0], REFUSED[name][1], errors=(ValueError, TypeError))


def test_what_is_refused_with_boxes():
    target = BoundingBoxes("xyxy", keypoints=Keypoints())
    mixer = layer("CutMix", target=target)
    raises(lambda: layer("CutMix", target=BoundingBoxes("xyxy"))(images(), with_boxes(given())), r"keypoints=kmix")
    raises(lambda: mixer(images(), {"boxes": np.ones((2, 3, 4)), "labels": np.ones((2, 3))}), "no.*keypoints")
    raises(lambda: mixer(images(), {**with_boxes(given()), "keypoints": given(2, 2, 4, 3)}), "one row")
    raises(lambda: mixer(images(), with_boxes(given(2, 3, 4, 2))), "column of visibility")
    raises(lambda: mixer(images(), with_boxes(given(v=9))), "visibility")
    # Padding may hold anything.
    mixer(images(), with_boxes(given(v=9), label=-1.0))


@pytest.mark.slow
def test_bad_values_are_refused_on_every_way():
    refused(layer("CutMix"), (images(), given(v=9)), "visibility", good=(images(), given()))


def test_a_point_outside_of_its_image_does_not_show():
    points = given(x=9)
    mixed = layer("CutMix", hidden=1).at_step(0, (images(), points))[1]
    np.testing.assert_array_equal(mixed[..., 2], 0)
    np.testing.assert_array_equal(mixed[:, :3, :, 0], 9)


@pytest.mark.slow
def test_a_trainer_passes_mixed_points_to_the_loss():
    x, points = np.random.default_rng(0).random((B, 20, 30, 1), "float32"), scene(np.random.default_rng(1), 20, 30)
    points = points.astype("float32")
    inputs = keras.Input((20, 30, 1))
    outputs = keras.layers.Reshape((K, 3))(keras.layers.Dense(K * 3)(keras.layers.Flatten()(inputs)))
    model, mixer = keras.Model(inputs, outputs), layer("CutMix", hidden=1)

    def loss(y, prediction):
        """Of any number of rows: evaluation data has fewer than a training step."""
        return keras.ops.mean(keras.ops.abs(keras.ops.mean(y, axis=1) - prediction), axis=(1, 2))

    trainer = kmix.MixTrainer(model, mixer)
    trainer.compile(keras.optimizers.SGD(0.0), loss)
    found = trainer.train_on_batch(x, points, return_dict=True)["loss"]
    mixed_x, mixed = mixer.at_step(0, (x, points))
    expected = np.abs(mixed.mean(axis=1) - to_numpy(model(to_native(mixed_x)))).mean()
    assert np.isclose(found, expected, rtol=1e-4)
