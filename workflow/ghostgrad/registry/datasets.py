"""The table of data sets. Everything that depends on which data sets there are reads it: schemas,
config.yaml's checks, estimates, the data rule and the loaders.

A new data set is a row here. One of the form `arrays` also needs a module in `ghostgrad/data` that
reads it, and that reader's entry in `ARRAY_READERS` of `ghostgrad/data/image_sets.py`; folders and
scenes need no new code. Imports neither torch nor pandas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

MeanStd: TypeAlias = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of each channel, of values in [0, 1]."""

IMAGENET_MEAN_STD: MeanStd = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # torchvision's
# Close to those of the training images, 0.3055 and 0.3760.
DIGITS_MEAN_STD: MeanStd = ((0.3054,) * 3, (0.3760,) * 3)
CIFAR10_MEAN_STD: MeanStd = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))  # LALC app. B


class Counts(NamedTuple):
    """The sizes of a genuine copy of a data set."""

    train: int
    test: int
    classes: int


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One data set, or one file of published weights."""

    name: str
    form: Literal["arrays", "image_folder", "scenes", "weights"]
    """arrays: read whole; image_folder: files in ImageFolder layout; scenes: images with objects in
    COCO's format; weights: a file of published weights."""
    read_by: tuple[str, ...]
    """Tasks that may name it."""
    shipped: bool = False
    """Made by the data rule from an installed package; the others are keys of `data` in
    config.yaml."""
    location: str = ""
    """What the path in config.yaml points to."""
    counts: Counts | None = None
    """What must be found; None accepts any sizes."""
    mean_std: MeanStd | None = None
    """Constants of `standardize: per_channel`. If they are None, the data rule measures them on the
    images, which must be a folder."""
    side: int | None = None
    """Side in pixels of the images that a network sees where a spec sets no size."""
    scene: tuple[int, int] | None = None
    """Short and long side in pixels of most scenes."""

    @property
    def is_file(self) -> bool:
        """True where config.yaml names a file, not a folder."""
        return self.form == "weights"


DATA_SETS = {
    data_set.name: data_set
    for data_set in (
        DataSet(
            name="digits",
            form="arrays",
            read_by=("classify", "initialize"),
            shipped=True,
            counts=Counts(1497, 300, 10),
            mean_std=DIGITS_MEAN_STD,
            side=8,
        ),
        DataSet(
            name="photographs",
            form="arrays",
            read_by=("classify",),
            shipped=True,
            counts=Counts(84, 6, 2),
            mean_std=IMAGENET_MEAN_STD,
            side=224,
        ),
        DataSet(
            name="cifar10",
            form="arrays",
            read_by=("classify", "initialize"),
            location="the folder that holds cifar-10-batches-py/",
            counts=Counts(50_000, 10_000, 10),
            mean_std=CIFAR10_MEAN_STD,
            side=32,
        ),
        DataSet(
            name="images",
            form="image_folder",
            read_by=("classify", "initialize"),
            location="a folder of images (PNG, JPEG, WebP, GIF) in ImageFolder layout: "
            "train/<class>/* and val/<class>/*, or test/<class>/* where there is no val/",
        ),
        DataSet(
            name="imagenet",
            form="image_folder",
            read_by=("classify", "initialize"),
            location="ImageNet (ILSVRC 2012) in ImageFolder layout, train/<class>/* and "
            "val/<class>/*",
            counts=Counts(1_281_167, 50_000, 1000),
            mean_std=IMAGENET_MEAN_STD,
            side=224,
        ),
        DataSet(
            name="digit_scenes",
            form="scenes",
            read_by=("detect",),
            shipped=True,
            counts=Counts(400, 60, 10),
            mean_std=DIGITS_MEAN_STD,
            scene=(64, 64),
        ),
        DataSet(
            name="coco",
            form="scenes",
            read_by=("detect",),
            location="COCO 2017: train2017/, val2017/, annotations/instances_train2017.json and "
            "instances_val2017.json",
            counts=Counts(118_287, 5_000, 80),
            mean_std=IMAGENET_MEAN_STD,
            scene=(480, 640),
        ),
        DataSet(
            name="scenes",
            form="scenes",
            read_by=("detect",),
            location="any images with objects in COCO's format and the same layout",
            mean_std=IMAGENET_MEAN_STD,
        ),
        DataSet(
            name="vgg19_bn",
            form="weights",
            read_by=("weights",),
            location="torchvision's weights of VGG19-BN, the file vgg19_bn-c79401a0.pth",
        ),
    )
}


def readable_by(task: str) -> tuple[str, ...]:
    """The data sets that a run of the task may name."""
    return tuple(name for name, data_set in DATA_SETS.items() if task in data_set.read_by)


def of_form(form: str) -> tuple[str, ...]:
    """The data sets of one form."""
    return tuple(name for name, data_set in DATA_SETS.items() if data_set.form == form)


def is_shipped(name: str | None) -> bool:
    """True where nothing has to be set in config.yaml: a shipped data set, or none at all."""
    return name is None or DATA_SETS[name].shipped


CONFIG_KEYS = tuple(name for name, data_set in DATA_SETS.items() if not data_set.shipped)


def path_variable(name: str) -> str:
    """The environment variable that carries a data set's path from config.yaml to a job."""
    return f"GHOSTGRAD_DATA_{name.upper()}"
