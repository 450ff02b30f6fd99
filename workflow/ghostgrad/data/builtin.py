"""The data sets that scikit-learn ships: handwritten digits and two photographs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ghostgrad.data.images import Images, Labels, Pixels
from ghostgrad.registry.datasets import DATA_SETS


def grey_digits() -> tuple[Pixels, Labels, NDArray[np.bool_]]:
    """1,797 handwritten digits (Alpaydin and Kaynak 1998), grey (N, 8, 8) with scikit-learn's
    levels 0 to 16 scaled to 0 to 255, their labels (N,), and which of them are test images: every
    sixth."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    return grey, labels, np.arange(len(labels)) % 6 == 0


def digits() -> Images:
    """The digits as RGB images (N, 3, 8, 8)."""
    grey, labels, test = grey_digits()
    images = np.repeat(grey[:, None], 3, axis=1)
    classes = [str(digit) for digit in range(10)]
    mean_std = DATA_SETS["digits"].mean_std
    return Images(images[~test], labels[~test], images[test], labels[test], classes, mean_std)


def photographs() -> Images:
    """Windows of 224x224 pixels, every 48 pixels, from the two photographs of 640x427; the
    photograph is the class, and every 15th window is a test image.

    For networks at initialization, which need images of ImageNet's size and kind; neighbouring
    windows overlap, so that a test accuracy on them means nothing.
    """
    from sklearn.datasets import load_sample_images

    bunch, side, stride = load_sample_images(), 224, 48
    windows = [
        image[y : y + side, x : x + side].transpose(2, 0, 1)
        for image in bunch.images
        for y in range(0, image.shape[0] - side + 1, stride)
        for x in range(0, image.shape[1] - side + 1, stride)
    ]
    images = np.stack(windows)
    labels = np.repeat(np.arange(2), len(windows) // 2)
    test = np.arange(len(windows)) % 15 == 0
    mean_std = DATA_SETS["photographs"].mean_std
    return Images(
        images[~test], labels[~test], images[test], labels[test], ["china", "flower"], mean_std
    )
