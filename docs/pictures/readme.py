"""The picture of the README and of the first page: two photographs, mixed in three ways, with their labels.

    python docs/pictures/readme.py     # writes docs/_static/mixed-light.webp and mixed-dark.webp

The photographs are china.jpg and flower.jpg of scikit-learn, by danielbuechele and vultilion, CC BY 2.0.
"""

import pathlib

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_images

import kmix

STATIC = pathlib.Path(__file__).parent.parent / "_static"
CLASSES = ["temple", "flower"]
SIZE = 400
# Top left corners of the crops of the two photographs, and of two more for the Mosaic.
CROPS = [(0, 27, 120), (1, 10, 150), (0, 0, 0), (1, 27, 170)]


def batch():
    """Four crops of the photographs, and their class ids."""
    photographs = load_sample_images().images
    x = np.stack([photographs[i][top : top + SIZE, left : left + SIZE] for i, top, left in CROPS])
    return x, np.array([i for i, _, _ in CROPS])


def panels():
    """Title, image and label of each panel: the first sample, mixed in steps that show a good part of each partner."""
    x, y = batch()
    settings, images = {"num_classes": 2, "seed": 0}, {"sample": (x[0], np.eye(2)[0]), "partner": (x[1], np.eye(2)[1])}
    for layer, step, size in [
        (kmix.MixUp(1.0, **settings), 38, 2),
        (kmix.CutMix(1.0, data_format="channels_last", **settings), 42, 2),
        (kmix.Mosaic(data_format="channels_last", **settings), 36, 4),
    ]:
        mixed, label = layer.at_step(step, (x[:size], y[:size]))
        images[type(layer).__name__] = (mixed[0], label[0])
    return images


def draw(images, color):
    figure = Figure(figsize=(11, 3.05), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.12)
    for ax, (title, (image, label)) in zip(figure.subplots(1, len(images)), images.items(), strict=True):
        ax.imshow(np.asarray(image).clip(0, 255).astype("uint8"))
        ax.set_title(title, color=color, fontsize=14)
        weights = [f"{name} {weight:.2f}" for name, weight in zip(CLASSES, label, strict=True) if weight > 0]
        ax.set_xlabel("\n".join(weights), color=color, fontsize=13)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    return figure


if __name__ == "__main__":
    images = panels()
    for name, color in {"light": "#1f2328", "dark": "#f0f6fc"}.items():
        draw(images, color).savefig(
            STATIC / f"mixed-{name}.webp", dpi=110, transparent=True, pil_kwargs={"quality": 85, "method": 6}
        )
