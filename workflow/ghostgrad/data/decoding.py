"""From an image file to a tensor, and which files are damaged.

An image becomes RGB, uint8 (3, H, W), whatever its file holds: grey, palette, CMYK, 16 bits. A
transparent one is read as if it were opaque.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ghostgrad.checks import InputError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

log = logging.getLogger(__name__)

READABLE = ("png", "jpg", "jpeg", "webp", "gif")  # by torchvision.io
# Images too. To skip them silently would change the data set.
UNREADABLE = ("bmp", "tif", "tiff", "ppm", "pgm")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
END_MARKERS = {".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9"}  # near the end of every whole file
END_BYTES = 1024  # some writers append a few bytes after the end marker
READING_THREADS = 16  # a network file system answers many requests at a time


def decode(path: Path) -> Tensor:
    """The image in a file, uint8 (3, H, W); InputError where it is damaged or holds several."""
    from torchvision.io import ImageReadMode, decode_image

    # By content, as decode_image does: ImageNet has a PNG with the suffix JPEG.
    if _is_png(path):
        return _decode_png(path)
    try:
        x: Tensor = decode_image(str(path), ImageReadMode.RGB)
    except (RuntimeError, ValueError) as error:
        # torch puts the place in its C++ source before the reason and a stack behind it.
        message = str(error).splitlines()[0]
        raise _unreadable(
            path, message.partition(".cpp:")[2].partition(", ")[2] or message
        ) from None
    if x.ndim != 3:
        raise InputError(f"{path}: contains {len(x)} images; store each image in its own file")
    return x


def _unreadable(path: Path, reason: str | None) -> InputError:
    return InputError(f"{path}: cannot be read as an image ({reason}); replace or delete it")


def _is_png(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(PNG_SIGNATURE)) == PNG_SIGNATURE
    except OSError as error:
        raise _unreadable(path, error.strerror) from None


def _decode_png(path: Path) -> Tensor:
    import torch
    from PIL import Image

    with _verified_png(path) as image:
        image.load()
        if image.mode == "P" and image.palette is None:
            raise ValueError("it has no palette")
        if image.mode.startswith("I"):  # 16-bit grey; the upper 8 bits are kept
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image.info.pop("transparency", None)  # convert would warn that it ignores it
        # The same strides as a decoded JPEG: rows of RGB pixels in memory, channels first by view.
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


@contextmanager
def _verified_png(path: Path) -> Iterator[Image]:
    """A PNG, opened by Pillow after its checksums were found right. What is raised inside the
    context becomes InputError as well.

    torchvision's PNG decoder does not raise where a file is damaged but ends the whole process, and
    Pillow alone reads pixels behind a flipped bit without checking their checksum. Pixels that the
    writer of a PNG left out are black.
    """
    from PIL import Image, PngImagePlugin, UnidentifiedImageError

    # Pillow's limits protect from images that strangers send; these are the user's own.
    Image.MAX_IMAGE_PIXELS = None
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**31
    try:
        content = path.read_bytes()
        with Image.open(BytesIO(content), formats=["PNG"]) as image:
            image.verify()  # an image cannot be read after verify, so it is opened again
        with Image.open(BytesIO(content), formats=["PNG"]) as image:
            yield image
    except UnidentifiedImageError:  # its text is the address of the BytesIO
        raise _unreadable(path, "its header or a chunk is damaged") from None
    except Exception as error:  # Pillow raises many types for damaged files
        raise _unreadable(path, str(error) or type(error).__name__) from None


def _is_whole(path: Path) -> bool:
    """True where a file is a PNG whose checksums are right, has its format's end marker, or can be
    decoded. Decoding is the slow way, for formats without an end marker, and for JPEGs whose writer
    appended more than END_BYTES."""
    end_marker = END_MARKERS.get(path.suffix.lower())
    try:
        if _is_png(path):
            with _verified_png(path):
                return True
        if end_marker:
            with path.open("rb") as stream:
                stream.seek(max(0, path.stat().st_size - END_BYTES))
                if end_marker in stream.read():
                    return True
        decode(path)
    except InputError:
        return False
    return True


def damaged(root: Path, paths: Sequence[Path]) -> list[str]:
    """Names, relative to `root`, of the images that end too early or cannot be read."""
    with ThreadPoolExecutor(READING_THREADS) as pool:
        whole = list(pool.map(_is_whole, paths))
    return [
        str(path.relative_to(root)) for path, good in zip(paths, whole, strict=True) if not good
    ]


def names_to_skip(name: str, root: Path, paths: Sequence[Path]) -> frozenset[str]:
    """Names of the damaged images of the data set `name`, which config.yaml asks to skip;
    InputError where there are any and it does not."""
    names = sorted(damaged(root, paths))
    if names and os.environ.get("GHOSTGRAD_DAMAGED_IMAGES") != "skip":
        found = f"{len(names)} of {len(paths)} images are damaged (first: {names[0]})"
        raise InputError(
            f"config.yaml: data.{name}: {found}; replace them or set damaged_images: skip"
        )
    if names:
        log.warning("%s: skipping %d damaged images: %s", name, len(names), ", ".join(names[:20]))
    return frozenset(names)
