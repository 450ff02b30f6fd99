"""What training costs, in parts that are compared with a reference.

a  images per second of the engine, beside torchvision's reference training loop (goal: 1.1 times as
   many on two cores of a CPU, 3 times on a GPU)
b  the input pipeline, beside a step on a batch that is in memory (at most 5 %)
c  one update of ResNet50's 161 tensors under each rule, beside torch.optim.SGD(foreach) (at most
   1.5 times)
d  a step with CLARS's per-sample norms, beside one without (at most 1.5 times the time, 1.3 times
   the memory)
e  the probes at every 100th step (at most 3 %)
f  a step of ResNet50 and SeqNet50 at 224 x 224, beside that of torchvision's reference script on
   the same network and batch (goal: as many images on a CPU; on a GPU, in bfloat16, channels-last
   and compiled, 1.5 times as many as the script's in float32; the script with --amp is shown too)
g  orthogonal regularization, beside a step of SeqNet50 without it (at most 5 %)

    python benchmarks/train.py [--only a,b,c,d,e,f,g] [--rounds 15] [--threads 2] [--device cpu]

Every round measures all of a part in turn; the ratios are those of the medians. The images are
random.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from ghostgrad.data.images import Images
from ghostgrad.models.build import build_network
from ghostgrad.registry.datasets import CIFAR10_MEAN_STD
from ghostgrad.registry.spec import expand
from ghostgrad.tasks import classify
from ghostgrad.tasks.run import keep_memory
from ghostgrad.training import orthogonal, probes
from ghostgrad.training.distributed import SINGLE_PROCESS
from ghostgrad.training.engine import Network, configure
from ghostgrad.training.loader import InMemoryLoader
from ghostgrad.training.optimizers.build import build_optimizer
from ghostgrad.training.per_sample import SampleNorms

RULES = {
    "sgd": {},
    "lars": {"optimizer": "lars"},
    "larc": {"optimizer": "larc"},
    "lalc": {"optimizer": "lalc"},
    "lamb": {"optimizer": "lamb"},
}
BASE = {
    "data": "cifar10",
    "batch": 32,
    "length": 1,
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "seed": 0,
}
RESNET50 = {"model": "resnet50", "cifar_stem": True, "init": "default"}
AUGMENT = {"augment": ["crop", "flip"], "pad": 4, "standardize": "per_channel"}
NETS = {
    "Resnet-15, batch 128": {"model": "preact_resnet", "batch": 128, **AUGMENT},
    "ResNet50, batch 16": {**RESNET50, "batch": 16, **AUGMENT},
}
PROBES = {  # kinds that the experiments with these nets record at the paper's scale
    "Resnet-15, batch 128": ["gradients", "activations", "bn_offset", "weight_norm"],
    "ResNet50, batch 16": ["updates", "statistics"],
}
FASTER = {
    "cpu": {"channels_last": True},
    "cuda": {"channels_last": True, "precision": "bf16", "compile": True},
}
WORKERS, STEPS = 2, 3
LARGE = {"cpu": 16, "cuda": 64}  # images of 224 x 224 per step
# The images per GPU and step in the experiment `imagenet`. The cost of the regularization does not
# depend on their number.
OF_A_GPU = 64
STILL = 1e-4  # a learning rate at which many steps on one batch hardly change a network


def medians(
    ways: dict[str, Callable[[], Any]], rounds: int, device: torch.device
) -> dict[str, float]:
    """Return the median seconds of each way, measured in turn after one round of warm-up.

    A way that returns a float has measured its seconds itself.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            seconds = way()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if not isinstance(seconds, float):
                seconds = time.perf_counter() - started
            times[name].append(seconds)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def random_images(count: int = 2048, side: int = 32) -> Images:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (count, 3, side, side), dtype=np.uint8), rng.integers(0, 10, count)
    return Images(x, y, x[:10], y[:10], [str(n) for n in range(10)], CIFAR10_MEAN_STD)


class Engine:
    """The training loop's pieces for one spec."""

    def __init__(self, images: Images, device: torch.device, **changes: Any):
        self.spec = expand("classify", {**BASE, **changes})
        configure(self.spec)
        self.batches = InMemoryLoader(self.spec, images, device)
        self.network = Network(
            self.spec, classify.new_model(self.spec, images), device, SINGLE_PROCESS
        )
        self.model = self.network.model.train()
        self.optimizer = build_optimizer(self.spec, self.model)
        self.number = 0

    def input(self) -> tuple[torch.Tensor, torch.Tensor]:
        self.number += 1
        return self.batches(self.number)

    def step(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.network.forward_backward(x, y, self.number)
        self.optimizer.step()

    def steps(self) -> None:
        for _ in range(STEPS):
            self.step(*self.input())


class Pictures(Dataset):
    """A dataset like torchvision's CIFAR10: an image is made from its bytes, then transformed."""

    def __init__(self, images: Images):
        self.x, self.y = np.ascontiguousarray(images.train_x.transpose(0, 2, 3, 1)), images.train_y
        steps = [
            transforms.RandomCrop(32, 4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
        ]
        self.transform = transforms.Compose([*steps, transforms.Normalize(*CIFAR10_MEAN_STD)])

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.x[index])), int(self.y[index])


def reference(images: Images, device: torch.device, **changes: Any) -> Callable[[], float]:
    """Return a function that returns the seconds of STEPS steps of torchvision's reference loop.

    The loop is that of references/classification/train.py; its workers run at the same time.
    """
    spec = expand("classify", {**BASE, **changes})
    model = classify.new_model(spec, images).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    criterion = torch.nn.CrossEntropyLoss()
    loader = DataLoader(
        Pictures(images),
        spec.batch,
        shuffle=True,
        num_workers=WORKERS,
        pin_memory=device.type == "cuda",
    )

    def steps() -> float:
        started = 0.0
        for index, (image, target) in enumerate(loader):
            if index == 2:  # the workers have filled their queues
                started = time.perf_counter()
            image, target = (
                image.to(device, non_blocking=True),
                target.to(device, non_blocking=True),
            )
            output = model(image)
            loss = criterion(output, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for k in (1, 5):
                (output.topk(k, 1).indices == target[:, None]).float().sum().item()
            loss.item()
            if index == 1 + STEPS:
                break
        return time.perf_counter() - started

    return steps


def speed(rounds: int, device: torch.device) -> None:
    """Part a: images per second of the engine and of torchvision's loop."""
    for name, changes in NETS.items():
        images = random_images()
        ways = {
            "ours": Engine(images, device, **changes).steps,
            "ours, faster": Engine(images, device, **changes, **FASTER[device.type]).steps,
            "torchvision's": reference(images, device, **changes),
        }
        times = medians(ways, max(3, rounds // 5), device)
        for way, seconds in times.items():
            ratio = times["torchvision's"] / seconds
            images_per_s = STEPS * changes["batch"] / seconds
            print(
                f"(a) {name}: {images_per_s:8.1f} images/s {way:14} {ratio:5.2f} times"
                " torchvision's",
                flush=True,
            )


def pipeline(rounds: int, device: torch.device) -> None:
    """Part b: the input pipeline beside a step."""
    for name, changes in NETS.items():
        engine = Engine(random_images(), device, **changes)
        batch = engine.input()
        times = medians(
            {"input": engine.input, "step": lambda e=engine, b=batch: e.step(*b)}, rounds, device
        )
        share = 100 * times["input"] / times["step"]
        print(
            f"(b) {name}: input {1000 * times['input']:.2f} ms, {share:.2f} % of a step"
            " (goal: at most 5)",
            flush=True,
        )


def probing(rounds: int, device: torch.device) -> None:
    """Part e: the probes beside a step."""
    for name, changes in NETS.items():
        engine = Engine(random_images(), device, **changes)
        batch = engine.input()

        def measured(engine=engine, batch=batch, name=name) -> None:
            list(probes.measure(PROBES[name], engine.model, *batch))
            if "updates" in PROBES[name]:
                list(
                    probes.measure_update(
                        probes.copy_weights(engine.model), engine.model, engine.optimizer
                    )
                )

        times = medians(
            {"probes": measured, "step": lambda e=engine, b=batch: e.step(*b)},
            max(3, rounds // 5),
            device,
        )
        ratio = times["probes"] / times["step"]
        print(
            f"(e) {name}: probes cost {ratio:.2f} steps, {ratio:.2f} % at every 100th"
            " (goal: at most 3)",
            flush=True,
        )


def updates(rounds: int, device: torch.device) -> None:
    """Part c: the update alone, on given gradients."""
    steps = {}
    for name, changes in RULES.items():
        spec = expand("classify", {**BASE, **RESNET50, **changes})
        model = build_network(spec, 10, (3, 32, 32)).to(device)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        steps[name] = build_optimizer(spec, model).step
    times = medians(steps, rounds, device)
    for name, seconds in times.items():
        goal = " (goal: at most 1.5)" if name in ("lars", "lalc") else ""
        print(
            f"(c) update, {name:5} {1000 * seconds:8.2f} ms "
            f" {seconds / times['sgd']:5.2f} times sgd's{goal}",
            flush=True,
        )


def clars(rounds: int, device: torch.device) -> None:
    """Part d: forward and backward of Resnet-15 and ResNet50 at 32 x 32, with and without norms."""
    for name, changes in {
        "preact_resnet": {"model": "preact_resnet"},
        "resnet50": RESNET50,
    }.items():
        spec = expand("classify", {**BASE, **changes})
        model = build_network(spec, 10, (3, 32, 32)).to(device).train()
        x, y = (
            torch.randn(spec.batch, 3, 32, 32, device=device),
            torch.arange(spec.batch, device=device) % 10,
        )
        norms = SampleNorms(model)

        def plain(model=model, x=x, y=y) -> None:
            model.zero_grad()
            F.cross_entropy(model(x), y).backward()

        def with_norms(norms=norms, plain=plain) -> None:
            with norms.collect():
                plain()
            norms.means()

        peaks = {}
        for what, way in (("plain", plain), ("clars", with_norms)):
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            way()
            cuda = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
            peaks[what] = cuda or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        times = medians({"plain": plain, "clars": with_norms}, max(3, rounds // 5), device)
        ratio, memory = times["clars"] / times["plain"], peaks["clars"] / peaks["plain"]
        print(
            f"(d) step, {name}: clars {ratio:.2f} times the time (goal: 1.5),"
            f" {memory:.2f} times the memory (1.3)"
        )


def large(rounds: int, device: torch.device) -> None:
    """Part f: a step on a batch that is in memory, beside the reference script's."""
    count = LARGE[device.type]
    images, base = (
        random_images(count, 224),
        {"init": "default", "standardize": "per_channel", "batch": count},
    )
    for model in ("resnet50", "seqnet50"):
        ways, engines = {}, {"ours": {}, "ours, faster": FASTER[device.type]}
        for name, changes in engines.items():
            engine = Engine(images, device, model=model, lr=STILL, **base, **changes)
            x, y = engine.input()
            ways[name] = lambda engine=engine, x=x, y=y: engine.step(x, y)
        for name, amp in {"reference": False, "reference, amp": True}.items():
            if device.type == "cuda" or not amp:
                net = classify.new_model(engine.spec, images).to(device).train()
                ways[name] = reference_step(net, x, y, amp)
        times = medians(ways, max(3, rounds // 3), device)
        for way, seconds in times.items():
            ratio = times["reference"] / seconds
            print(
                f"(f) {model}: {count / seconds:7.2f} images/s {way:14} {ratio:5.2f} times the"
                " reference's",
                flush=True,
            )


def reference_step(
    net: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, amp: bool = False
) -> Callable[[], None]:
    """Return a function that does a step of torchvision's references/classification/train.py.

    A step is the loss, the update, and the top-1 and top-5 accuracy of the batch.
    """
    optimizer = torch.optim.SGD(net.parameters(), lr=STILL, momentum=0.9, weight_decay=1e-4)
    loss_of = torch.nn.CrossEntropyLoss()
    scaler = torch.amp.GradScaler(x.device.type, enabled=amp)

    def step() -> None:
        with torch.autocast(x.device.type, torch.float16, enabled=amp):
            output = net(x)
            loss = loss_of(output, y)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        with torch.inference_mode():
            best = output.topk(5, 1)[1].t().eq(y[None])
            [best[:k].flatten().sum(dtype=torch.float32).item() for k in (1, 5)]
        loss.item()

    return step


def regularization(rounds: int, device: torch.device) -> None:
    """Part g: orthogonal regularization beside a step."""
    images = random_images(OF_A_GPU, 224)
    engine = Engine(images, device, model="seqnet50", init="default", batch=OF_A_GPU, lr=STILL)
    x, y = engine.input()
    weights = orthogonal.regularized_weights(engine.model)
    ways = {
        "step": lambda: engine.step(x, y),
        "regularization": lambda: orthogonal.penalty(weights, 1e-4).backward(),
    }
    times = medians(ways, max(3, rounds // 3), device)
    share = 100 * times["regularization"] / times["step"]
    print(
        f"(g) orthogonal regularization: {share:.1f} % of a step of {OF_A_GPU} images"
        " (goal: at most 5)",
        flush=True,
    )


PARTS = {
    "a": speed,
    "b": pipeline,
    "c": updates,
    "d": clars,
    "e": probing,
    "f": large,
    "g": regularization,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    device = torch.device(options.device)
    keep_memory()
    torch.set_num_threads(options.threads)
    for part in options.only.split(","):
        PARTS[part](options.rounds, device)


if __name__ == "__main__":
    main()
