"""A copy of a folder of images whose short sides are at most so many pixels, for machines that cannot decode the
originals as fast as their GPU trains. Its images are other ones: the spec that asks for it (`resized`) says so.
"""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ghostgrad.checks import InputError
from ghostgrad.data import builtin as data
from ghostgrad.data import folders
from ghostgrad.files import write_atomically

QUALITY = 95  # of the JPEGs
JPEG, PNG = (".jpg", ".jpeg"), ".png"
SOURCE = "source.json"  # in the copy: the manifest of what it was made from


def make(name: str, short: int, source: Path, manifest: Path, threads: int = 1) -> None:
    """Copy the images of the data set `name`, which the manifest `source` tells of, into the folder of `manifest`'s own
    name, and write that. A copy that was cut off goes on; one of other images is made anew."""
    target = manifest.with_suffix("")
    folder, _ = data.checked_folder(name, source, data.path_of(name))
    expected = json.loads(source.read_text(encoding="utf-8"))
    kept = target / SOURCE
    if target.exists() and not (kept.exists() and json.loads(kept.read_text(encoding="utf-8")) == expected):
        shutil.rmtree(target)
    target.mkdir(parents=True, exist_ok=True)
    write_atomically(kept, json.dumps(expected))
    paths, root = folder.train.paths() + folder.test.paths(), folder.train.root
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda path: _copy(path, target / path.relative_to(root), short), paths))
    copy = folders.scan(name, str(target))
    if (len(copy.train), len(copy.test)) != (len(folder.train), len(folder.test)):
        raise InputError(f"{target}: not as many images as {folder.title} has; delete it, and the next build renews it")
    if broken := folders.damaged(target, copy.train.paths() + copy.test.paths()):
        for one in broken:
            (target / one).unlink()
        raise InputError(f"{target}: {len(broken)} copies were damaged and are deleted; the next build renews them")
    title = f"{folder.title}, short side {short}"
    data.write_manifest(manifest, data.folder_manifest(name, copy) | {"title": title})


def _copy(path: Path, target: Path, short: int) -> None:
    """One image, as a JPEG where it is one, as it is if it is small enough, else as a PNG."""
    from torchvision import io
    from torchvision.transforms.v2 import functional

    suffix = path.suffix.lower()
    target = target if suffix in (*JPEG, PNG) else target.with_name(f"{target.name}{PNG}")
    if target.exists():
        return
    x = folders.decode(path)
    large = min(x.shape[1:]) > short
    if large:
        x = functional.resize(x, [short], antialias=True).contiguous()
    if suffix not in JPEG:
        content = io.encode_png(x).numpy().tobytes()
    else:
        content = io.encode_jpeg(x, QUALITY).numpy().tobytes() if large else path.read_bytes()
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}")
    unfinished.write_bytes(content)
    unfinished.replace(target)
