"""Pictures for TensorBoard, without TensorFlow."""

import io
import time

import numpy as np

from kmix import _checks, plots
from kmix.plots.canvas import pyplot


def write_batch(log_dir, step, x, y):
    """Write mixed images with their labels. Inputs of other shapes have no picture."""
    x, y = np.asarray(x), np.asarray(y)
    images = x.ndim == 3 or (x.ndim == 4 and x.shape[-1] in (1, 3))
    if images and y.ndim == 2 and y.shape[1] > 1:
        _write(log_dir, step, "mixed batch", plots.mixed_batch(x, y))


def write_reliability(log_dir, step, y_true, y_pred, num_bins):
    """Write a reliability diagram."""
    figure = pyplot().figure(figsize=(4.0, 4.0), layout="constrained")
    ax = plots.reliability_diagram(y_true, y_pred, num_bins, ax=figure.subplots())
    ax.legend(loc="upper left")
    _write(log_dir, step, "reliability", figure)


def _write(log_dir, step, tag, figure):
    """Write a figure as a PNG, and close it."""
    with _checks.installed("TensorBoard", "diagnostics"):
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=80)
    pyplot().close(figure)
    width, height = (round(inches * 80) for inches in figure.get_size_inches())
    image = summary_pb2.Summary.Image(encoded_image_string=file.getvalue(), height=height, width=width, colorspace=3)
    summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, image=image)])
    writer = EventFileWriter(str(log_dir))
    writer.add_event(event_pb2.Event(wall_time=time.time(), step=step, summary=summary))
    writer.close()
