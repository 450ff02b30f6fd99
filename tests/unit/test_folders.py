"""Folders of images: the layout and its mistakes, and batches that are the same from memory, from files, by any number
of workers and from any step on."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ghostgrad import batches, data, folders, models
from ghostgrad.checks import InputError
from ghostgrad.figures import style
from ghostgrad.initialize import initialize
from ghostgrad.parallel import ALONE, Group
from ghostgrad.spec import expand
from tests.conftest import ROOT
from tests.unit.fabricate import one_line

# torchvision means to leave the decoding of images to TorchCodec; see CHANGELOG.md.
pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities:DeprecationWarning")

CPU = torch.device("cpu")
BASE = {"model": "preact_resnet", "data": "images", "batch": 8, "length": 5, "lr": 0.1, "seed": 3}
CLASSES = ("ant", "bee")
PADDED = {"augment": ["crop", "flip"], "pad": 2}
WINDOWS = {"augment": ["resized_crop", "flip"], "size": 6}


def spec(**changes) -> dict:
    return expand("classify", {**BASE, **changes})


def picture(path: Path, seed: int, width: int = 8, height: int = 8, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(values).convert(mode).save(path)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """20 training images and 6 of `val`, of two classes, and GHOSTGRAD_DATA_IMAGES set to them."""
    folder = tmp_path / "insects"
    for index in range(26):
        split = "train" if index < 20 else "val"
        picture(folder / split / CLASSES[index % 2] / f"{index:02}.png", index)
    monkeypatch.setenv("GHOSTGRAD_DATA_IMAGES", str(folder))
    return folder


def loaded(root: Path, **changes) -> data.Images:
    """The images as a run with these changes of its spec gets them."""
    manifest = root.parent / "images.json"
    if not manifest.exists():
        data.make("images", manifest)
    return data.load("images", manifest, spec(**changes))


def opened(root: Path, group: Group = ALONE, **changes):
    return batches.open_batches(spec(**changes), loaded(root, **changes), CPU, group)


def refused(call, *arguments, **more) -> str:
    with pytest.raises(InputError) as error:
        call(*arguments, **more)
    return one_line(error)


def test_the_layout_is_read_and_the_manifest_tells_it_without_a_path(root):
    (root / "train/ant/notes.txt").write_text("no image")
    (root / "train/.cache").mkdir()
    picture(root / "train/bee/deeper/1.png", 99)
    images = loaded(root)
    said = json.loads((root.parent / "images.json").read_text())
    assert (said["title"], said["train"], said["test"], said["classes"]) == ("insects", 21, 6, ["ant", "bee"])
    assert str(root.parent) not in json.dumps(said)
    assert images.train_x.shape == (21, 3, 8, 8)
    assert Counter(images.train_y.tolist()) == {0: 10, 1: 11}
    with Image.open(root / "train/ant/04.png") as image:
        assert (images.train_x[2] == np.asarray(image).transpose(2, 0, 1)).all()
    assert images.channels[0] == pytest.approx(images.train_x.mean((0, 2, 3)) / 255, abs=1e-6)
    assert images.channels[1] == pytest.approx(images.train_x.std((0, 2, 3)) / 255, abs=1e-6)


def test_test_is_read_where_there_is_no_val(root):
    (root / "val").rename(root / "test")
    assert len(loaded(root).test_y) == 6


def test_a_folder_that_was_renamed_is_the_same_and_one_that_changed_is_not(root, monkeypatch):
    loaded(root)
    moved = root.rename(root.with_name("beetles"))
    monkeypatch.setenv("GHOSTGRAD_DATA_IMAGES", str(moved))
    assert len(loaded(root).train_y) == 20
    picture(moved / "train/ant/77.png", 77)
    assert re.search(r"images has changed since the data rule checked it; delete .*images\.json", refused(loaded, root))
    (moved.parent / "images.json").write_text("{}")
    assert "images.json: images is damaged; delete" in refused(loaded, root)


def test_any_file_becomes_rgb(tmp_path):
    """Grey, palette, transparent, CMYK, 16 bits, and the formats beside PNG."""
    for name, mode in (("a.jpg", "L"), ("b.JPEG", "CMYK"), ("c.png", "L"), ("d.png", "P"), ("e.png", "LA")):
        picture(tmp_path / name, 1, 9, 7, mode)
    picture(tmp_path / "f.webp", 1, 9, 7)
    picture(tmp_path / "g.gif", 1, 9, 7)
    Image.fromarray((np.arange(63, dtype=np.uint16) * 1000).reshape(7, 9)).save(tmp_path / "h.png")
    for path in sorted(tmp_path.iterdir()):
        x = folders.decode(path)
        assert (tuple(x.shape), x.dtype) == ((3, 7, 9), torch.uint8), path.name
        if path.name in ("a.jpg", "c.png", "h.png"):
            assert torch.equal(x[0], x[2])
    assert folders.decode(tmp_path / "h.png")[0].flatten().tolist() == [1000 * n // 256 for n in range(63)]


def keep_only(root: Path, name: str) -> None:
    for path in (root / name).iterdir():
        path.unlink()


def flat_val(root: Path) -> None:
    for path in list((root / "val").glob("*/*")):
        path.rename(root / "val" / path.name)
    for name in CLASSES:
        (root / "val" / name).rmdir()


LAYOUTS = {
    "no train": (lambda r: (r / "train").rename(r / "training"), "images: no folder train in {}; put the images into"),
    "no test": (lambda r: (r / "val").rename(r / "v"), "no folder val or test in {}; put the images into val/<class>/"),
    "flat val": (flat_val, "{}/val holds images and no folders of classes; sort the images into one folder per class"),
    "empty train": (lambda r: (r / "train").rename(r / "x") and (r / "train").mkdir(), "train holds no folders of"),
    "class of train": (
        lambda r: (r / "val/bee").rename(r / "val/wasp"),
        "'bee' is in {}/train and not in {}/val; both",
    ),
    "class of val": (lambda r: picture(r / "val/cat/1.png", 1), "class 'cat' is in {}/val and not in {}/train; both"),
    "empty class": (
        lambda r: keep_only(r, "val/ant"),
        "images: no images in {}/val/ant; a class has at least one (png,",
    ),
    "other format": (
        lambda r: (r / "val/ant/1.bmp").touch(),
        "{}/val/ant/1.bmp: BMP cannot be read; convert it to PNG",
    ),
    "broken link": (lambda r: (r / "val/ant/1.png").symlink_to("gone"), "{}/val/ant/1.png: No such file or directory"),
}


@pytest.mark.parametrize(("change", "said"), LAYOUTS.values(), ids=LAYOUTS)
def test_another_layout_is_one_line_from_the_data_rule(root, change, said):
    change(root)
    text = refused(data.make, "images", root.parent / "images.json")
    assert said.replace("{}", str(root)) in text
    assert not (root.parent / "images.json").exists()


def test_imagenet_has_the_genuine_counts(root, monkeypatch):
    monkeypatch.setenv("GHOSTGRAD_DATA_IMAGENET", str(root))
    text = refused(data.make, "imagenet", root.parent / "imagenet.json")
    assert text.endswith("data.imagenet: 20 train images, expected 1281167; is this the genuine data set?")
    monkeypatch.setitem(data.FOLDERS, "imagenet", data.Dataset(folders.scan, 20, 6, 2))
    (root / "train/ant/00.png").write_bytes(b"nothing is decoded")
    data.make("imagenet", root.parent / "imagenet.json")
    assert data.load("imagenet", root.parent / "imagenet.json", spec(input="files")).channels[0][0] == 0.485


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_image_of_another_size_is_named_and_size_mends_it(root, split):
    odd = root / split / "bee/odd.png"
    picture(odd, 50, 9, 12)
    text = refused(loaded, root)
    assert text.startswith(f"{odd}: 9 x 12 pixels, but {root}/train/ant/00.png has 8 x 8; set the spec's key size: to")
    images = loaded(root, size=6)
    assert (images.train_x.shape[1:], images.test_x.shape[1:]) == ((3, 6, 6), (3, 6, 6))
    x = folders.decode(odd)
    wanted = torch.nn.functional.interpolate(x[None].float(), size=(8, 6), mode="bilinear", antialias=True)[0, :, 1:-1]
    assert (folders.fit(x, 6).float() - wanted).abs().max() <= 1


@pytest.mark.parametrize("name", ["cut.png", "cut.jpg", "empty.png", "text.png", "film.gif"])
def test_a_damaged_image_is_named(root, name, monkeypatch):
    """By the data rule where it measures it, by a run in memory, and by one from files, from whichever process."""
    loaded(root)
    path = root / "train/bee/19.png"
    if name.startswith("cut"):
        picture(root / name, 5, 64, 64)
        path.write_bytes((root / name).read_bytes()[:-1000])
    elif name == "film.gif":
        Image.new("RGB", (8, 8)).save(root / name, save_all=True, append_images=[Image.new("RGB", (8, 8), "red")])
        path.write_bytes((root / name).read_bytes())
    else:
        path.write_bytes(b"no image" * (name == "text.png"))
    (root.parent / "images.json").unlink()
    texts = [refused(data.make, "images", root.parent / "images.json")]
    monkeypatch.setattr(folders, "MEASURED", 2)
    monkeypatch.setattr(np, "linspace", lambda _first, _last, count: np.arange(count))
    texts.append(refused(loaded, root))
    for workers in "01":
        monkeypatch.setenv("GHOSTGRAD_LOADER_WORKERS", workers)
        texts.append(refused(opened(root, input="files", batch=20), 0))
    assert len(set(texts)) == 1
    told = "holds 2 images in one file; give each" if name == "film.gif" else "cannot be read as an image ("
    assert texts[0].startswith(f"{path}: {told}")


@pytest.mark.parametrize("changes", [{}, PADDED, {"size": 5}, {"standardize": "per_channel"}], ids=str)
def test_memory_and_files_make_the_same_batches(root, changes, monkeypatch):
    """Without workers, whatever the augmentation that both can do."""
    monkeypatch.setenv("GHOSTGRAD_LOADER_WORKERS", "0")
    memory, files = (opened(root, input=kind, **changes) for kind in ("memory", "files"))
    assert (type(memory), type(files)) == (batches.InMemory, batches.Streamed)
    assert memory.per_epoch == files.per_epoch == 2
    for step in range(5):
        assert all(torch.equal(a, b) for a, b in zip(memory(step), files(step), strict=True))
    for one, other in zip(memory.test(), files.test(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def stream(root: Path, steps, group: Group = ALONE, **changes) -> list[tuple]:
    source = opened(root, group, input="files", **changes)
    return [source(step) for step in steps]


def same(one: list[tuple], other: list[tuple]) -> bool:
    return all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


@pytest.mark.parametrize("changes", [PADDED, WINDOWS], ids=["crop", "resized_crop"])
def test_workers_and_a_start_in_the_middle_change_nothing(root, changes, monkeypatch):
    """None against two; run through, resumed at step 3, asked twice as at a probe, and back."""
    monkeypatch.setenv("GHOSTGRAD_LOADER_WORKERS", "0")
    through = stream(root, range(6), **changes)
    assert len({x.sum().item() for x, _ in through}) == 6, "every step has another batch"
    monkeypatch.setenv("GHOSTGRAD_LOADER_WORKERS", "2")
    assert same(stream(root, [3, 3, 4, 5, 1], **changes), [through[step] for step in (3, 3, 4, 5, 1)])
    state = torch.get_rng_state()
    stream(root, [0], **changes)
    assert torch.equal(state, torch.get_rng_state()), "nothing is drawn from torch's own generator"


@pytest.mark.parametrize("changes", [PADDED, WINDOWS], ids=["crop", "resized_crop"])
def test_the_shares_of_two_processes_make_the_single_batch(root, changes, monkeypatch):
    """And each decodes its own images alone; of the test images every chunk is one process's."""
    monkeypatch.setenv("GHOSTGRAD_LOADER_WORKERS", "0")
    monkeypatch.setattr(batches, "TEST_BATCH", 4)
    read = []
    decode = folders.decode
    monkeypatch.setattr(folders, "decode", lambda path: read.append(path) or decode(path))
    whole = stream(root, range(3), **changes)
    read.clear()
    shares = [stream(root, range(3), Group(rank, 2), **changes) for rank in range(2)]
    assert len([path for path in read if "train" in path.parts]) == 24 + 2 * ("size" not in changes)
    joined = [tuple(torch.cat(parts) for parts in zip(*pair, strict=True)) for pair in zip(*shares, strict=True)]
    assert same(joined, whole)
    sources = [opened(root, Group(rank, 2), input="files", **changes) for rank in range(2)]
    assert sorted(len(y) for source in sources for _, y in source.test()) == [2, 4]


def test_evaluation_with_resized_crop_is_the_centre_of_a_larger_image(root):
    """As in torchvision's recipe: the short side at size 256/224, then the centre."""
    picture(root / "val/ant/20.png", 20, 16, 16)
    images = loaded(root, input="files", size=7, augment=["resized_crop"])
    x = folders.decode(images.test_x.path(0))
    larger = torch.nn.functional.interpolate(x[None].float(), size=(8, 8), mode="bilinear", antialias=True)[0]
    assert (images.test_x[0].float() - larger[:, :7, :7]).abs().max() <= 1
    assert images.test_x.shape == (6, 3, 7, 7)


def test_windows_have_the_area_and_the_ratio_of_random_resized_crop():
    draws = torch.rand(2000, 2 * batches.TRIES + 2, generator=torch.Generator().manual_seed(0)).tolist()
    found = np.array([batches.window(300, 400, one) for one in draws])
    top, left, height, width = found.T
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= 300).all() and (left + width <= 400).all()
    area, ratio = height * width / 120000, width / height
    assert 0.079 < area.min() < 0.09 and 0.95 < area.max() <= 1
    assert 0.74 < ratio.min() < 0.77 and 1.3 < ratio.max() < 1.35
    counts = np.histogram(area, bins=[0.08, 0.24, 0.4, 0.56])[0]  # there any ratio fits
    assert counts == pytest.approx(counts.mean(), rel=0.1)
    assert np.log(ratio[area < 0.5]).mean() == pytest.approx(0, abs=0.03)
    assert batches.window(10, 100, [0.99] * 22) == (0, 43, 10, 13), "none fits: the middle, at the ratio 4/3"
    assert batches.window(100, 10, [0.99] * 22) == (43, 0, 13, 10)


REFUSED = {
    "windows of memory": (WINDOWS, "augment: resized_crop cuts windows out of image files; set input: files"),
    "windows of any size": ({"augment": ["resized_crop"], "input": "files"}, "image files; set size: 224"),
    "batch": ({"batch": 21}, "images: 20 training images do not fill one batch of 21"),
    "batch of files": ({"batch": 21, "input": "files"}, "images: 20 training images do not fill one batch of 21"),
}


@pytest.mark.parametrize(("changes", "said"), REFUSED.values(), ids=REFUSED)
def test_batches_that_cannot_be_made_are_refused(root, changes, said):
    assert refused(opened, root, **changes).endswith(said)


def test_files_of_a_data_set_that_has_none(tmp_path):
    text = refused(data.load, "digits", tmp_path / "digits.json", spec(data="digits", input="files"))
    assert text == "input: files: data digits is no folder of images; take images or imagenet, or memory"


def test_more_images_than_memory_are_refused(root, monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda _name: 50)
    assert "20 images take 0 GiB of memory" in refused(loaded, root)
    assert len(loaded(root, input="files").train_x) == 20


@pytest.mark.parametrize("text", ["two", "-1", "1.5"])
def test_a_wrong_number_of_workers(root, text, monkeypatch):
    monkeypatch.setenv("GHOSTGRAD_LOADER_WORKERS", text)
    said = f"GHOSTGRAD_LOADER_WORKERS: '{text}' is no number of processes; give 0 or more, or unset it"
    assert refused(opened, root, input="files") == said


def test_a_worker_that_is_killed_is_one_line(root, monkeypatch):
    """As by a system without memory."""
    monkeypatch.setenv("GHOSTGRAD_LOADER_WORKERS", "2")
    monkeypatch.setattr(batches, "augment", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    text = refused(opened(root, input="files"), 0)
    assert "a process that reads images has ended (DataLoader worker" in text
    assert text.endswith("give the run more memory, or set GHOSTGRAD_LOADER_WORKERS to fewer")
    assert multiprocessing.active_children() == [], "its fellows do not outlive it"


def first_batch(root: Path, pipe) -> None:
    """A run with two workers that sends their numbers and waits."""
    os.environ["GHOSTGRAD_LOADER_WORKERS"] = "2"
    source = opened(root, input="files")
    source(0)
    pipe.send([child.pid for child in multiprocessing.active_children()])
    time.sleep(60)


def test_workers_end_with_a_run_that_is_killed(root):
    """They look for it every five seconds."""
    loaded(root)
    here, there = multiprocessing.Pipe()
    run = multiprocessing.get_context("fork").Process(target=first_batch, args=(root, there))
    run.start()
    workers = here.recv()
    run.kill()
    run.join()
    assert len(workers) == 2
    wait_for_the_end_of(workers, 20)


SCRIPT = """
import multiprocessing, sys
from pathlib import Path
import torch
from ghostgrad import batches, data
from ghostgrad.spec import parse_spec
from ghostgrad.state import StopRequest

stop = StopRequest().listen()
task, spec = parse_spec(sys.argv[1])
source = batches.open_batches(spec, data.load("images", Path(sys.argv[2]), spec), torch.device("cpu"))
source(0)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
sys.stdin.readline()
for step in range(1, 10):
    source(step)
print("stopped by", stop.signal, flush=True)
"""


def test_workers_leave_a_stop_to_the_run_and_end_with_it(root):
    """A signal to all processes of a run, as Slurm's, is answered by process 0 when it has saved itself."""
    loaded(root)
    text = json.dumps({"task": "classify", **BASE, "input": "files"})
    env = {**os.environ, "PYTHONPATH": str(ROOT / "workflow"), "GHOSTGRAD_LOADER_WORKERS": "2"}
    command = [sys.executable, "-c", SCRIPT, text, str(root.parent / "images.json")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=env, start_new_session=True, **pipes) as run:
        workers = [int(number) for number in run.stdout.readline().split()]
        os.killpg(run.pid, signal.SIGTERM)
        out, _ = run.communicate("go on\n", timeout=60)
    assert (run.returncode, out, len(workers)) == (0, "stopped by SIGTERM\n", 2)
    wait_for_the_end_of(workers, 1)


def wait_for_the_end_of(processes: list[int], seconds: float) -> None:
    began = time.monotonic()
    while any(status(process) not in ("", "Z") for process in processes):
        assert time.monotonic() - began < seconds, "a worker outlives its run"
        time.sleep(0.05)


def status(process: int) -> str:
    """The kernel's letter for what a process does, empty where there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def test_a_network_that_cannot_run_on_the_images_is_refused_before_training():
    """torch would say that an output is too small, layers deep."""
    text = refused(models.build, spec(model="vgg19_bn"), 2, (3, 28, 28))
    assert text.startswith("model: vgg19_bn cannot run on images of 28 x 28 pixels; set the spec's key size: to 32")
    vit = expand("initialize", {"model": "vit_b_16", "data": "images", "batch": 2, "repeats": 2, "seed": 0})
    assert refused(models.build, vit, 2, (3, 32, 40)).endswith(
        "32 pixels; set the spec's key size: to a multiple of 16"
    )
    mlp = models.build(spec(model="mlp", depth=2, width=4, size=5), 2, (3, 28, 28))
    assert mlp(torch.zeros(2, 3, 5, 5)).shape == (2, 2)


def test_initialize_takes_them_too(root):
    """Resized while they are read."""
    settings = {"model": "mlp", "depth": 3, "data": "images", "size": 4, "batch": 8, "repeats": 2, "seed": 0}
    images = loaded(root, size=4)
    state = SimpleNamespace(load=lambda: None, pause=lambda *_: None)
    assert initialize(expand("initialize", settings), state, CPU, images).metrics["places"] == 2
    settings["batch"] = 21
    text = refused(initialize, expand("initialize", settings), state, CPU, images)
    assert text == "images: 20 training images do not fill one batch of 21"


def test_a_figure_names_the_folder(tmp_path, monkeypatch):
    """`data fashion-mnist`; without a manifest the data set's name."""
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
        figure, _axes = style.panels()
        style.note(figure, results)
        texts.append(figure.get_supxlabel().replace("\n", " "))
        Path("results/data").mkdir(parents=True, exist_ok=True)
        Path("results/data/images.json").write_text('{"title": "fashion-mnist"}')
    assert texts == [f"scale substitute, not the paper's: data {name}" for name in ("images", "fashion-mnist")]
