"""The plots show what they say. Each test looks at what was drawn."""

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

import kmix
from kmix import plots
from kmix.pairing import RandomPairs
from kmix.targets import BoundingBoxes, SegmentationMasks

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="plots draw NumPy arrays")


def images(channels=3):
    return np.random.default_rng(0).random((4, 12, 10, channels), dtype="float32")


def rectangles(ax):
    return [patch for patch in ax.patches if patch.get_gid() == "kmix-box"]


# Masks and boxes.


def test_a_dictionary_batch_is_drawn_with_its_masks_and_boxes():
    masks = np.zeros((4, 12, 10), "int32")
    masks[0, 2:5, 3:7] = 2
    boxes = np.tile(np.array([[1, 2, 5, 8], [0, 0, 3, 3]], "float32"), (4, 1, 1))
    batch = {
        "images": images(),
        "labels": np.array([0, 1, 1, 0]),
        "segmentation_masks": masks,
        "bounding_boxes": {"boxes": boxes, "labels": np.array([[3, -1]] * 4)},
    }
    figure = plots.mixed_batch(batch, bounding_box_format="xyxy")
    assert [ax.get_title() for ax in figure.axes] == ["0", "1", "1", "0"]
    for ax in figure.axes:
        (box,) = rectangles(ax)
        # Pixels have their centres at whole numbers.
        assert (box.get_x(), box.get_y(), box.get_width(), box.get_height()) == (0.5, 1.5, 4, 6)
        assert [text.get_text() for text in ax.texts] == ["3"]
    first, second = figure.axes[:2]
    (overlay,) = first.images[1:]
    np.testing.assert_array_equal(overlay.get_array()[..., 3] > 0, masks[0] == 2)
    assert not second.images[1:]


@pytest.mark.parametrize("name", ["yxyx", "center_xywh", "rel_xyxy"])
def test_boxes_of_every_format(name):
    corners = {"yxyx": [2, 1, 8, 5], "center_xywh": [3, 5, 4, 6], "rel_xyxy": [0.1, 2 / 12, 0.5, 8 / 12]}[name]
    boxes = {"boxes": np.array([[corners]] * 4, "float32"), "classes": np.zeros((4, 1))}
    figure = plots.mixed_batch(images(), boxes=boxes, bounding_box_format=name, class_names=["cat"])
    (box,) = rectangles(figure.axes[0])
    np.testing.assert_allclose(
        [box.get_x(), box.get_y(), box.get_width(), box.get_height()], [0.5, 1.5, 4, 6], atol=1e-5
    )
    assert figure.axes[0].texts[0].get_text() == "cat"
    assert figure.axes[0].get_title() == ""


def test_shares_of_masks_and_weights_of_boxes_after_mixing():
    masks, boxes = np.zeros((4, 12, 10, 1), "int32"), np.array([[[1, 2, 5, 8]]] * 4, "float32")
    masks[:2, :4], masks[2:, 8:] = 1, 1
    batch = {
        "images": images(),
        "segmentation_masks": masks,
        "bounding_boxes": {"boxes": boxes, "labels": np.zeros((4, 1))},
    }
    targets = {"segmentation_masks": SegmentationMasks(2), "bounding_boxes": BoundingBoxes("xyxy", weights=True)}
    layer = kmix.MixUp(1.0, target=targets, pairing=RandomPairs(allow_self=False), seed=1)
    mixed = layer.at_step(0, batch)
    figure = plots.mixed_batch(mixed, bounding_box_format="xyxy")
    for i, ax in enumerate(figure.axes):
        np.testing.assert_allclose(
            ax.images[1].get_array()[..., 3], 0.5 * mixed["segmentation_masks"][i, ..., 1], atol=1e-6
        )
        weights = mixed["bounding_boxes"]["weights"][i]
        assert [text.get_text() for text in ax.texts] == [f"0 {weight:.2f}" for weight in weights]


def test_pixels_without_a_class_are_not_drawn():
    masks = np.full((4, 12, 10), 255, "uint8")
    masks[:, :, :5] = 1
    figure = plots.mixed_batch(images(), masks=masks)
    np.testing.assert_array_equal(figure.axes[0].images[1].get_array()[..., 3] > 0, masks[0] == 1)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"masks": np.zeros((4, 6, 10), "int32")}, "size of the images"),
        ({"boxes": {"boxes": np.zeros((4, 1, 4)), "labels": np.zeros((4, 1))}}, "format must be known"),
        (
            {"boxes": {"boxes": np.zeros((4, 1, 4)), "labels": np.zeros((4, 1))}, "bounding_box_format": "xxyy"},
            "bounding_box_format",
        ),
        (
            {"boxes": {"boxes": np.zeros((4, 2, 4)), "labels": np.zeros((4, 1))}, "bounding_box_format": "xyxy"},
            "boxes and",
        ),
    ],
)
def test_masks_and_boxes_that_do_not_match(settings, match):
    with pytest.raises(ValueError, match=match):
        plots.mixed_batch(images(), **settings)


# Schedules and logs.


def test_a_schedule_and_the_lam_that_it_implies():
    schedule = kmix.schedules.Linear(0.0, 2.0, 10)
    left, right = plots.alpha_schedule(schedule, 20).axes[:2]
    np.testing.assert_allclose(left.lines[0].get_ydata(), [schedule(step) for step in range(20)])
    shares = right.images[0].get_array()
    # At first lam is 1.
    np.testing.assert_allclose(shares[:, 0], np.eye(20)[-1])
    np.testing.assert_allclose(shares[:, 15], np.diff(stats.beta.cdf(np.linspace(0, 1, 21), 2, 2)))
    np.testing.assert_allclose(shares.sum(axis=0), 1)
    constant = plots.alpha_schedule(0.4, 3, figure=Figure()).axes[0]
    np.testing.assert_allclose(constant.lines[0].get_ydata(), 0.4)
    with pytest.raises(ValueError, match="alpha"):
        plots.alpha_schedule(lambda step: -1.0, 3)
    with pytest.raises(ValueError, match="steps"):
        plots.alpha_schedule(schedule, 0)


def test_curves_of_one_training_and_of_several():
    logs = {"loss": [1.0, 0.5], "val_loss": [1.2, 0.9], "accuracy": [0.1, 0.7]}
    history = keras.callbacks.History()
    history.history = logs
    figure = plots.training_curves(history)
    assert [ax.get_title() for ax in figure.axes] == ["loss", "accuracy"]
    assert [line.get_label() for line in figure.axes[0].lines] == ["training", "validation"]
    figure = plots.training_curves({"a": history, "b": {"loss": [2.0, 1.0, 0.5]}}, metrics=["loss"])
    (ax,) = figure.axes
    assert [line.get_label() for line in ax.lines] == ["a", "a, validation", "b"]
    np.testing.assert_array_equal(ax.lines[2].get_xydata(), [[1, 2.0], [2, 1.0], [3, 0.5]])
    # Without colours, trainings differ by their lines, and validation by its width.
    assert ax.lines[0].get_linestyle() != ax.lines[2].get_linestyle()
    assert ax.lines[0].get_linewidth() < ax.lines[1].get_linewidth()
    for wrong in (3, {}):
        with pytest.raises(ValueError, match="histories"):
            plots.training_curves(wrong)
    with pytest.raises(ValueError, match="nothing"):
        plots.training_curves(logs, metrics=["nothing"])


# Boundaries.


def test_a_boundary_lies_where_the_model_changes_its_mind():
    def model(x):
        p = 1 / (1 + np.exp(-4 * (x[:, :1] - 0.5)))
        return np.concatenate([1 - p, p], axis=1)

    x, y = np.random.default_rng(0).random((30, 2)), np.arange(30) % 2
    ax = plots.decision_boundary(model, x, y, points=50)
    line = next(c for c in ax.collections if hasattr(c, "levels"))
    points = np.concatenate([path.vertices for path in line.get_paths()])
    np.testing.assert_allclose(points[:, 0], 0.5, atol=0.03)
    mesh = ax.collections[0].get_array().reshape(50, 50)
    # Confidence grows away from the boundary.
    assert mesh[0, 0] > mesh[0, 25]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["0", "1"]
    one = plots.decision_boundary(lambda x: model(x)[:, 1:], x, y[:, None], points=50, ax=Figure().subplots())
    np.testing.assert_allclose(one.collections[0].get_array(), ax.collections[0].get_array())


@pytest.mark.parametrize(
    ("model", "x", "y", "match"),
    [
        (None, np.ones((4, 3)), np.arange(4), "two features"),
        (None, np.ones((4, 2)), np.arange(3), "class ids"),
        (None, np.ones((4, 2)), np.ones(4), "class ids"),
        (lambda x: 3 * x, np.ones((4, 2)), np.arange(4), "probabilities"),
    ],
)
def test_wrong_arguments_of_a_boundary(model, x, y, match):
    with pytest.raises(ValueError, match=match):
        plots.decision_boundary(model, x, y, points=5)


# Labels and calibration.


def test_titles_name_the_three_largest_shares():
    y = np.array([[0.5, 0.3, 0.15, 0.05], [0, 1, 0, 0], [0.996, 0.004, 0, 0], [0.25, 0.75, 0, 0]])
    figure = plots.mixed_batch(images(1), y, class_names=list("abcd"), count=4, columns=2)
    assert [ax.get_title() for ax in figure.axes] == ["a: 0.50 / b: 0.30 / c: 0.15", "b", "a", "b: 0.75 / a: 0.25"]
    np.testing.assert_allclose(figure.axes[0].images[0].get_array().shape[:2], (12, 10))
    assert len(plots.mixed_batch(images(1), y, count=3, columns=2).axes) == 3


@pytest.mark.parametrize(
    ("x", "y", "settings", "match"),
    [
        (np.ones((4, 3)), np.arange(4), {}, "must hold images"),
        (np.ones((4, 3, 3)), np.arange(3), {}, "a label for each"),
        (np.ones((4, 3, 3)), np.ones(4), {}, "a label for each"),
        (np.ones((4, 3, 3)), np.arange(4), {"class_names": ["a"]}, "name each class"),
        (np.ones((4, 3, 3)), np.arange(4), {"count": 0}, "count"),
    ],
)
def test_wrong_batches(x, y, settings, match):
    with pytest.raises(ValueError, match=match):
        plots.mixed_batch(x, y, **settings)


def test_a_reliability_diagram_has_the_points_of_scikit_learn():
    calibration = pytest.importorskip("sklearn.calibration")
    generator = np.random.default_rng(0)
    p = generator.uniform(0.5, 1, 400)
    y = (generator.random(400) < p**2).astype(int)
    ax = plots.reliability_diagram(y, np.stack([1 - p, p], axis=1), num_bins=10)
    accuracy, confidence = calibration.calibration_curve(y, p, n_bins=10)
    np.testing.assert_allclose(ax.lines[1].get_xydata(), np.stack([confidence, accuracy], axis=1), atol=1e-6)
    again = plots.reliability_diagram(y, np.stack([1 - p, p], axis=1), ax=ax, label="again")
    assert again is ax
    # One diagonal, and a line for each model.
    assert len(ax.lines) == 3
    for wrong in (np.array([[3.0, -2.0]] * 2), np.zeros((0, 2))):
        with pytest.raises(ValueError, match="probabilities"):
            plots.reliability_diagram(np.zeros(len(wrong), int), wrong)
