"""Folders of images: their layout and mistakes in it, damaged images, and what depends on the size
and the name of the images."""

from __future__ import annotations

import dataclasses
import json
import re
import struct
import zlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ghostgrad.data import decoding, folders, transforms
from ghostgrad.data.make import make
from ghostgrad.figures import panels
from ghostgrad.models.build import build_network
from ghostgrad.registry.datasets import DATA_SETS, Counts
from ghostgrad.registry.spec import expand
from ghostgrad.tasks.classify import load_data
from ghostgrad.tasks.initialize import initialize
from tests.unit.image_folder import (
    CLASSES,
    CPU,
    DECODERS,
    loaded,
    opened,
    picture,
    refused,
    spec,
)

pytestmark = pytest.mark.filterwarnings(DECODERS)


def test_the_layout_is_read_and_the_manifest_names_no_path(root):
    (root / "train/ant/notes.txt").write_text("no image")
    (root / "train/.cache").mkdir()
    picture(root / "train/bee/deeper/1.png", 99)
    images = loaded(root)
    content = json.loads((root.parent / "images.json").read_text())
    assert (content["title"], content["train"], content["test"], content["classes"]) == (
        "insects",
        21,
        6,
        ["ant", "bee"],
    )
    assert str(root.parent) not in json.dumps(content)
    assert images.train_x.shape == (21, 3, 8, 8)
    assert Counter(images.train_y.tolist()) == {0: 10, 1: 11}
    with Image.open(root / "train/ant/04.png") as image:
        assert (images.train_x[2] == np.asarray(image).transpose(2, 0, 1)).all()
    assert images.mean_std[0] == pytest.approx(images.train_x.mean((0, 2, 3)) / 255, abs=1e-6)
    assert images.mean_std[1] == pytest.approx(images.train_x.std((0, 2, 3)) / 255, abs=1e-6)


def test_the_folder_test_is_read_if_there_is_no_val(root):
    (root / "val").rename(root / "test")
    assert len(loaded(root).test_y) == 6


def test_a_renamed_folder_is_accepted_and_a_changed_one_is_refused(root, monkeypatch):
    loaded(root)
    moved = root.rename(root.with_name("beetles"))
    monkeypatch.setenv("GHOSTGRAD_DATA_IMAGES", str(moved))
    assert len(loaded(root).train_y) == 20
    picture(moved / "train/ant/77.png", 77)
    assert re.search(
        r"images has changed since the data rule checked it; delete .*images\.json",
        refused(loaded, root),
    )
    (moved.parent / "images.json").write_text("{}")
    assert "images.json: images is damaged; delete" in refused(loaded, root)


def test_any_file_becomes_rgb(tmp_path):
    """Images in greyscale, with a palette, with transparency, in CMYK and with 16 bits are read
    as RGB, and so are JPEG, WebP and GIF."""
    for name, mode in (
        ("a.jpg", "L"),
        ("b.JPEG", "CMYK"),
        ("c.png", "L"),
        ("d.png", "P"),
        ("e.png", "LA"),
    ):
        picture(tmp_path / name, 1, 9, 7, mode)
    picture(tmp_path / "f.webp", 1, 9, 7)
    picture(tmp_path / "g.gif", 1, 9, 7)
    Image.fromarray((np.arange(63, dtype=np.uint16) * 1000).reshape(7, 9)).save(tmp_path / "h.png")
    for path in sorted(tmp_path.iterdir()):
        x = decoding.decode(path)
        assert (tuple(x.shape), x.dtype) == ((3, 7, 9), torch.uint8), path.name
        if path.name in ("a.jpg", "c.png", "h.png"):
            assert torch.equal(x[0], x[2])
    assert decoding.decode(tmp_path / "h.png")[0].flatten().tolist() == [
        1000 * n // 256 for n in range(63)
    ]


def remove_images(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def flat_val(root: Path) -> None:
    for path in list((root / "val").glob("*/*")):
        path.rename(root / "val" / path.name)
    for name in CLASSES:
        (root / "val" / name).rmdir()


LAYOUTS = {
    "no train": (
        lambda r: (r / "train").rename(r / "training"),
        "images: no folder train in {}; put the images into",
    ),
    "no test": (
        lambda r: (r / "val").rename(r / "v"),
        "no folder val or test in {}; put the images into val/<class>/",
    ),
    "flat val": (
        flat_val,
        "{}/val contains images but no class folders; sort the images into one folder per class",
    ),
    "half-flat val": (
        lambda r: (r / "val/ant/20.png").rename(r / "val/20.png"),
        "{}/val contains 1 images beside its class folders; sort or remove them",
    ),
    "empty train": (
        lambda r: (r / "train").rename(r / "x") and (r / "train").mkdir(),
        "train contains no class folders",
    ),
    "class of train": (
        lambda r: (r / "val/bee").rename(r / "val/wasp"),
        "'bee' is in {}/train but not in {}/val; both",
    ),
    "class of val": (
        lambda r: picture(r / "val/cat/1.png", 1),
        "class 'cat' is in {}/val but not in {}/train; both",
    ),
    "empty class": (
        lambda r: remove_images(r / "val/ant"),
        "images: no images in {}/val/ant; a class needs at least one (png,",
    ),
    "other format": (
        lambda r: (r / "val/ant/1.bmp").touch(),
        "{}/val/ant/1.bmp: BMP cannot be read; convert it to PNG",
    ),
    "broken link": (
        lambda r: (r / "val/ant/1.png").symlink_to("gone"),
        "{}/val/ant/1.png: No such file or directory",
    ),
}


@pytest.mark.parametrize(("change", "message"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_wrong_layout_is_one_line_from_the_data_rule(root, change, message):
    change(root)
    text = refused(make, "images", root.parent / "images.json")
    assert message.replace("{}", str(root)) in text
    assert not (root.parent / "images.json").exists()


def test_imagenet_must_have_the_genuine_counts(root, monkeypatch):
    monkeypatch.setenv("GHOSTGRAD_DATA_IMAGENET", str(root))
    text = refused(make, "imagenet", root.parent / "imagenet.json")
    assert text.endswith(
        "data.imagenet: 20 train images, expected 1281167; is this the genuine data set?"
    )
    small = dataclasses.replace(DATA_SETS["imagenet"], counts=Counts(20, 6, 2))
    monkeypatch.setitem(DATA_SETS, "imagenet", small)
    make("imagenet", root.parent / "imagenet.json")
    assert (
        load_data(spec(data="imagenet", input="files"), root.parent / "imagenet.json").mean_std[0][
            0
        ]
        == 0.485
    )


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_image_of_another_size_is_named_and_accepted_with_size_set(root, split):
    odd = root / split / "bee/odd.png"
    picture(odd, 50, 9, 12)
    text = refused(loaded, root)
    assert text.startswith(
        f"{odd}: 9 x 12 pixels, but {root}/train/ant/00.png has 8 x 8; set size in the spec to"
    )
    images = loaded(root, size=6)
    assert (images.train_x.shape[1:], images.test_x.shape[1:]) == ((3, 6, 6), (3, 6, 6))
    x = decoding.decode(odd)
    wanted = torch.nn.functional.interpolate(
        x[None].float(), size=(8, 6), mode="bilinear", antialias=True
    )[0, :, 1:-1]
    assert (transforms.resize_center_crop(x, 6).float() - wanted).abs().max() <= 1


@pytest.mark.parametrize(
    "name", ["cut.png", "flipped.png", "cut.jpg", "empty.png", "text.png", "film.gif"]
)
def test_a_damaged_image_is_named(root, name, monkeypatch):
    """The data rule names it. If it is damaged later, so does a run, whether it reads the images
    into memory or from files, in its own process or in a worker."""
    loaded(root)
    path = root / "train/bee/19.png"
    if name.startswith("cut"):
        picture(root / name, 5, 64, 64)
        path.write_bytes((root / name).read_bytes()[:-1000])
    elif name == "flipped.png":
        content = bytearray(path.read_bytes())
        content[content.index(b"IDAT") + 10] ^= 255
        path.write_bytes(content)
    elif name == "film.gif":
        Image.new("RGB", (8, 8)).save(
            root / name, save_all=True, append_images=[Image.new("RGB", (8, 8), "red")]
        )
        path.write_bytes((root / name).read_bytes())
    else:
        path.write_bytes(b"no image" * (name == "text.png"))
    (root.parent / "images.json").unlink()
    text = refused(make, "images", root.parent / "images.json")
    assert text.startswith(
        "config.yaml: data.images: 1 of 26 images are damaged (first: train/bee/19.png); replace"
    )
    monkeypatch.setattr(decoding, "damaged", lambda _root, _paths: [])
    monkeypatch.setattr(folders, "MEASURED", 2)
    monkeypatch.setattr(np, "linspace", lambda _first, _last, count: np.arange(count))
    texts = [refused(loaded, root)]
    for workers in "01":
        monkeypatch.setenv("GHOSTGRAD_LOADER_WORKERS", workers)
        texts.append(refused(opened(root, input="files", batch=20), 0))
    assert len(set(texts)) == 1
    reason = (
        "contains 2 images; store each image in its own file"
        if name == "film.gif"
        else "cannot be read as an image ("
    )
    assert texts[0].startswith(f"{path}: {reason}")


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def test_pngs_that_are_damaged_in_other_ways(tmp_path):
    """A PNG cannot be read if it has no pixels, no palette, or a flipped bit that only the checksum
    shows."""
    path, end = tmp_path / "a.png", chunk(b"IEND")
    path.write_bytes(decoding.PNG_SIGNATURE)
    assert "(its header or a chunk is damaged); replace" in refused(decoding.decode, path)
    palette = chunk(b"tRNS", b"\0") + chunk(b"IDAT", zlib.compress(bytes(72)))
    for kind, chunks, names in ((2, b"", ["a.png"]), (3, palette, [])):
        path.write_bytes(
            decoding.PNG_SIGNATURE
            + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, kind, 0, 0, 0))
            + chunks
            + end
        )
        assert f"{path}: cannot be read as an image (" in refused(decoding.decode, path)
        assert decoding.damaged(tmp_path, [path]) == names
    pixels = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    Image.fromarray(np.dstack([pixels] * 3)).save(path)
    content = bytearray(path.read_bytes())
    place = content.index(b"IDAT") + 26
    content[place] ^= 1 << place % 8
    path.write_bytes(content)
    with Image.open(path) as image:
        image.load()
    assert decoding.damaged(tmp_path, [path]) == ["a.png"]
    assert "cannot be read as an image (" in refused(decoding.decode, path)


def test_large_and_decorated_pngs_are_whole(tmp_path):
    """PNGs beyond Pillow's limits for images from unknown sources do not count as damaged."""
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path, icc_profile=bytes(2**20 + 1))
    assert decoding.decode(path).shape == (3, 8, 8)
    Image.new("1", (14_000, 14_000)).save(path)
    assert decoding.damaged(tmp_path, [path]) == []


def test_damaged_images_are_skipped_and_counted_if_config_says_so(root, monkeypatch):
    """The data rule skips them, so that all runs have the same images however they read them. The
    title, which is shown with every result, gives their number."""
    for name in ("train/bee/19.png", "val/ant/20.png"):
        (root / name).write_bytes((root / name).read_bytes()[:60])
    monkeypatch.setenv("GHOSTGRAD_DAMAGED_IMAGES", "skip")
    images = loaded(root)
    assert (len(images.train_y), len(images.test_y)) == (19, 5)
    content = json.loads((root.parent / "images.json").read_text())
    assert content["skipped"] == ["train/bee/19.png", "val/ant/20.png"]
    assert content["title"] == "insects, without 2 damaged images"
    monkeypatch.delenv("GHOSTGRAD_DAMAGED_IMAGES")  # a run skips what the manifest names
    assert len(opened(root, input="files", batch=19).images.train_y) == 19


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize(("count", "is_decoded"), [(8, False), (5000, True)])
def test_bytes_after_the_end_of_an_image_do_no_harm(root, monkeypatch, suffix, count, is_decoded):
    """Some of ImageNet's JPEGs have a few bytes after the end marker. Only a JPEG with more of them
    than END_BYTES is decoded by the data rule, which is slow."""
    path = root / f"train/bee/19.{suffix}"
    (root / "train/bee/19.png").unlink()
    picture(path, 19)
    path.write_bytes(path.read_bytes() + b"\0" * count)
    decoded, decode = [], decoding.decode
    monkeypatch.setattr(decoding, "decode", lambda image: decoded.append(image) or decode(image))
    assert decoding.damaged(root, [path]) == []
    assert decoded == ([path] if is_decoded and suffix == "jpg" else [])
    assert len(loaded(root).train_y) == 20


def test_a_network_that_cannot_run_on_the_images_is_refused_before_training():
    """Otherwise torch reports only that the output of some layer is too small."""
    text = refused(build_network, spec(model="vgg19_bn"), 2, (3, 28, 28))
    assert text.startswith(
        "model: vgg19_bn cannot run on images of 28 x 28 pixels; set size in the spec to 32"
    )
    vit = expand(
        "initialize", {"model": "vit_b_16", "data": "images", "batch": 2, "repeats": 2, "seed": 0}
    )
    assert refused(build_network, vit, 2, (3, 32, 40)).endswith(
        "32 pixels; set size in the spec to a multiple of 16"
    )
    mlp = build_network(spec(model="mlp", depth=2, width=4, size=5), 2, (3, 28, 28))
    assert mlp(torch.zeros(2, 3, 5, 5)).shape == (2, 2)


def test_initialize_reads_folders_too(root):
    """The images are resized while they are read, and fewer images than one batch are refused."""
    settings = {
        "model": "mlp",
        "depth": 3,
        "data": "images",
        "size": 4,
        "batch": 8,
        "repeats": 2,
        "seed": 0,
    }
    images = loaded(root, size=4)
    state = SimpleNamespace(load=lambda: None, checkpoint_if_due=lambda *_: None)
    assert initialize(expand("initialize", settings), state, CPU, images).metrics["places"] == 2
    settings["batch"] = 21
    text = refused(initialize, expand("initialize", settings), state, CPU, images)
    assert text == "images: 20 training images do not fill one batch of 21"


def test_a_figure_names_the_folder(tmp_path, monkeypatch):
    """The note names the data set by the title in its manifest, such as fashion-mnist, or by its
    own name if there is no manifest."""
    monkeypatch.chdir(tmp_path)
    experiment = SimpleNamespace(scaled=lambda *_: {"data": "images"})
    cell = SimpleNamespace(experiment="nets", variant="a")
    results = SimpleNamespace(
        artifact=SimpleNamespace(cells=[cell]),
        registry=SimpleNamespace(experiments={"nets": experiment}),
        scale="substitute",
        measured_cells=[cell],
    )
    texts = []
    for _ in range(2):
        texts.append(panels.scale_note(results))
        Path("results/data").mkdir(parents=True, exist_ok=True)
        Path("results/data/images.json").write_text('{"title": "fashion-mnist"}')
    assert texts == [
        f"scale substitute, unlike the paper: data {name}" for name in ("images", "fashion-mnist")
    ]
