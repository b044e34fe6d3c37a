"""`edgewise compress`: one recipe, for those who know what they want."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewise.cli import derive, given
from edgewise.cli.fit import finish, print_away, search, writable


def command_for(arguments: Sequence[str]) -> Callable[..., Any]:
    """The command with the options of the task that `arguments` name."""
    from edgewise.fitting import follow

    named = given.named_task(arguments)
    following = derive.options(follow, panel="Recipe", leave_out=("device", "out", "progress", "weights"))
    pictures = given.task_options(named)

    def command(
        model: Annotated[
            str,
            typer.Argument(
                help="model.onnx, model.pt2, a Hugging Face folder, package.module:callable or file.py:callable.", metavar="MODEL"
            ),
        ],
        recipe: Annotated[str, typer.Option(help="Steps in order: prune(speedup=2) > distill(epochs=3) > quantize().", metavar="STEPS")],
        out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the package, the report and the study.", metavar="DIR")] = Path(
            "out"
        ),
        data: Annotated[str | None, typer.Option(help=given.DATA)] = None,
        task: Annotated[str, typer.Option(help="What the model is for; or your own, as module:function.")] = given.USUAL_TASK,
        weights: Annotated[Path | None, typer.Option(help="A .safetensors file, for a callable.")] = None,
        device: Annotated[str, typer.Option(help="Where it has to run, and is measured: a name of `edgewise devices`.")] = "local",
        **options: Any,
    ) -> None:
        """Send a model through the steps of a recipe, measure what comes out against the dense model, and pack it.

        Example: edgewise compress net.py:build --data pictures/ --recipe 'prune(operations=2) > distill(epochs=3) > quantize()' -o out/
        """
        writable(out)
        made = given.make_task(task, data, options, defaults=given.model_options(model))
        given.import_from_here()
        where = given.device(device, print_away)
        arguments = {"device": where, "weights": weights, "recipe": recipe, **derive.collect(following, options)}
        finish(search(follow, model, made, out, arguments), out)

    command.__doc__ = f"{command.__doc__}\n\n{steps()}"
    return derive.with_options(command, [*following, *pictures])


def steps() -> str:
    """Every step with the arguments that it takes, from the signatures of the passes; of one that isn't installed, its name."""
    from edgewise import recipe, registry
    from edgewise.errors import MissingExtra

    lines = ["Steps:", ""]
    for name in registry.names("pass"):
        try:
            taken = ", ".join(recipe.options(registry.load("pass", name)))
        except MissingExtra:
            taken = "…"
        lines.append(f"  {name}({taken})")
    return "\n".join(f"        {line}".rstrip() for line in lines)
