"""A copy of a folder of images whose short sides have at most a given number of pixels, for
machines that cannot decode the originals as fast as their GPU trains.

The copy's images are different ones, and so are the runs on them: a spec asks for it with
`resized`.
"""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ghostgrad.checks import InputError
from ghostgrad.data import decoding, folders
from ghostgrad.data.image_sets import folder_manifest, load_folder
from ghostgrad.data.manifests import configured_path, read_manifest, write_manifest
from ghostgrad.files import write_atomically

JPEG_QUALITY = 95
JPEG_SUFFIXES, PNG_SUFFIX = (".jpg", ".jpeg"), ".png"
SOURCE_MANIFEST = "source.json"  # in the copy: the manifest of the images that it was made from


def make(name: str, short_side: int, source: Path, manifest: Path, threads: int = 1) -> None:
    """Copy the images of the data set `name` that the manifest `source` describes, and write the
    copy's `manifest`; the copy lies beside it, in a folder of its name.

    A copy that was interrupted is continued, one of other images is deleted first. InputError where
    the originals have changed or a copy is damaged.
    """
    target = manifest.with_suffix("")
    folder, _ = load_folder(name, source, configured_path(name))
    expected = read_manifest(source)
    kept = target / SOURCE_MANIFEST
    if target.exists() and not (
        kept.exists() and json.loads(kept.read_text(encoding="utf-8")) == expected
    ):
        shutil.rmtree(target)
    # Before any image is copied: a later process must know what the images are copies of.
    write_atomically(kept, json.dumps(expected))
    paths, root = folder.train.paths() + folder.test.paths(), folder.train.root
    with ThreadPoolExecutor(threads) as pool:
        # list: an exception of a copy is raised when its result is asked for.
        list(pool.map(lambda path: _copy(path, target / path.relative_to(root), short_side), paths))
    copy = folders.scan(name, str(target))
    if (len(copy.train), len(copy.test)) != (len(folder.train), len(folder.test)):
        message = f"the copy has not as many images as {folder.title}"
        raise InputError(f"{target}: {message}; delete it and build again")
    if names := decoding.damaged(target, copy.train.paths() + copy.test.paths()):
        for damaged_name in names:
            (target / damaged_name).unlink()
        message = f"{len(names)} damaged copies were deleted"
        raise InputError(f"{target}: {message}; build again to make new ones")
    title = f"{folder.title}, short side {short_side}"
    write_manifest(manifest, folder_manifest(name, copy) | {"title": title})


def _copy(path: Path, target: Path, short_side: int) -> None:
    """Copy one image: a JPEG to a JPEG, its bytes unchanged where it is small enough, any other
    format to a PNG, which loses nothing."""
    from torchvision import io
    from torchvision.transforms.v2 import functional

    suffix = path.suffix.lower()
    if suffix not in (*JPEG_SUFFIXES, PNG_SUFFIX):
        # The old suffix stays, so that a.gif and a.png of one folder keep their own copies.
        target = target.with_name(f"{target.name}{PNG_SUFFIX}")
    if target.exists():
        return
    x = decoding.decode(path)
    is_large = min(x.shape[1:]) > short_side
    if is_large:
        # As uint8: the copy is stored in whole grey levels anyway.
        x = functional.resize(x, [short_side], antialias=True).contiguous()
    if suffix not in JPEG_SUFFIXES:
        content = io.encode_png(x).numpy().tobytes()
    elif is_large:
        content = io.encode_jpeg(x, JPEG_QUALITY).numpy().tobytes()
    else:
        content = path.read_bytes()
    # Not durable: waiting for the disk a million times would take hours, and `make` checks every
    # copy before it writes the manifest.
    write_atomically(target, content, durable=False)
