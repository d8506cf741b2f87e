"""``energysim import``: a model of another tool as a network file."""

from __future__ import annotations

from pathlib import Path

import click

from energysim.cli import options


@click.command("import")
@click.argument("model", type=click.Path(path_type=Path), metavar="MODEL.onnx")
@options.network_file
@options.open_batch
@options.input_shapes
@options.weights_sparsity
@options.strict
@options.quiet
def command(
    model: Path,
    output: Path | None,
    batch: int | None,
    sizes: dict[str, tuple[int, ...]],
    quiet: bool,
    **asked: bool,
) -> None:
    """A network file from an ONNX model.

    Needs pip install 'energysim[onnx]'. Activation functions are part of the layer before them,
    batch norms are folded into it; reshapes, transposes and quantisation only relabel. What costs
    something and has no layer is told with its share of the data, here and in the file.
    'run --net MODEL.onnx' takes a model as it is.

    \b
    Example:
      energysim import model.onnx -o net.yaml
      energysim import model.onnx --input-shape image=1x3x224x224 -o net.yaml
      energysim import model.onnx --weights-sparsity --strict -o net.yaml
    """  # noqa: D301 - click's mark is a backspace
    from energysim.cli import imported, render

    if asked["weights_sparsity"] and output is None:
        raise click.UsageError("--weights-sparsity writes masks beside the network: give -o too")
    found = imported.read(model, batch=batch, sizes=sizes, **asked)
    if output is None:
        click.echo(imported.text(found), nl=False)
    else:
        imported.write(found, output)
    for line in () if quiet else imported.notes(found):
        render.say(line)
