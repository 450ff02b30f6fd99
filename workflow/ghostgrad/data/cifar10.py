"""CIFAR-10 (Krizhevsky 2009), from the files of its archive cifar-10-python.tar.gz.

Its sizes, mean and deviation are its row in `registry/datasets.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ghostgrad.checks import InputError
from ghostgrad.data.images import Images
from ghostgrad.data.manifests import configured_path
from ghostgrad.registry.datasets import DATA_SETS

ARCHIVE = "cifar-10-python.tar.gz"


def cifar10() -> Images:
    """CIFAR-10 from the folder cifar-10-batches-py below the configured path; InputError where a
    file is missing or does not have its published MD5 checksum."""
    from torchvision.datasets import CIFAR10

    key, root = "config.yaml: data.cifar10", configured_path("cifar10")
    folder = Path(root) / CIFAR10.base_folder
    # torchvision says "not found or corrupted" for all of these; say which it is.
    if not folder.is_dir():
        raise InputError(
            f"{key}: no folder {CIFAR10.base_folder} in {root}; unpack {ARCHIVE} there"
        )
    files = [name for name, _ in (*CIFAR10.train_list, *CIFAR10.test_list)]
    for name in (*files, CIFAR10.meta["filename"]):
        if not (folder / name).is_file():
            raise InputError(f"{key}: {folder / name} is missing; unpack {ARCHIVE} again")
    try:
        train, test = CIFAR10(root, train=True), CIFAR10(root, train=False)
    except RuntimeError:
        message = f"a file in {folder} is damaged (MD5); unpack {ARCHIVE} again"
        raise InputError(f"{key}: {message}") from None
    (train_x, train_y), (test_x, test_y) = (
        (
            np.ascontiguousarray(split.data.transpose(0, 3, 1, 2)),  # stored as (N, H, W, C)
            np.asarray(split.targets, dtype=np.int64),
        )
        for split in (train, test)
    )
    classes, mean_std = list(train.classes), DATA_SETS["cifar10"].mean_std
    return Images(train_x, train_y, test_x, test_y, classes, mean_std)
