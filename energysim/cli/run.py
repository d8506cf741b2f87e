"""``energysim run``: one network on one accelerator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from energysim.cli import options, render
from energysim.errors import DoesNotFitError, EnergysimError

if TYPE_CHECKING:
    from energysim.hardware import Hardware
    from energysim.network import Layer, Network
    from energysim.result import Result

TRADE, FLOWS, EXPLAIN = "two objectives", "--dataflow all", "--explain"
UNCERTAIN = "--uncertainty"
"""Answers other than the cost of a network."""


@click.command("run")
@options.run_options
@click.pass_context
def command(
    context: click.Context,
    /,
    net: str,
    hw: str | None,
    pattern: str | None,
    mapping: Path | None,
    activations: Path | None,
    print_format: str | None,
    output: Path | None,
    **settings: Any,
) -> None:
    """Cost of a network on an accelerator, layer by layer.

    For each layer the best of all mappings is taken: tile sizes, loop orders, unrolling and what
    each memory holds, as far as the dataflow leaves them open. What was found is kept for the next
    run (see 'energysim cache'). Two objectives give every trade-off between them that no other
    beats.
    Numbers go to stdout or to the file of -o, notes to stderr. JSON holds everything: layers,
    levels, mappings and all that is needed to repeat the run.

    \b
    Example:
      energysim run --net vgg16_ps --hw edge_tpu
      energysim run --net digits_cnn --pattern PS4_P4 --hw eyeriss --levels
      energysim run --net resnet18 --hw edge_tpu --batch 8 -o resnet18.csv
      energysim run --net vgg16_ps --hw edge_tpu --explain conv3_2
      energysim run --net vgg16_ps --hw edge_tpu --objective energy,latency
      energysim run --net digits_cnn --hw eyeriss --activations densities.csv
      energysim run --net vgg16_ps --hw edge_tpu --phase training --batch 8
      energysim run --net vgg16_ps --hw edge_tpu --uncertainty
      energysim run --net vgg16_ps --model yang2019
      energysim run --net vgg16 --hw edge_tpu --model systolic
    """  # noqa: D301 - click's mark is a backspace
    from energysim.cache import Cache, folder
    from energysim.catalog import load_hardware, load_network
    from energysim.network import Scale
    from energysim.simulate import simulate

    target = options.target(output, print_format)
    if settings.pop("model") != "counts":
        _closed_form(context, net, hw, target)
        return
    hw = _needed(context, hw)
    quiet, verbose, levels = (settings.pop(word) for word in ("quiet", "verbose", "levels"))
    layer, pair = settings.pop("explain"), settings.pop("objectives")
    settings["objective"], uncertain = pair[0], settings.pop("uncertainty")
    what = _asked(pair, settings["dataflow"], layer, levels=levels, uncertain=uncertain)
    _check_asked(what, target, mapping)
    if verbose:
        render.say_files(nets=net, hw=hw)
    scale = Scale(*(settings.pop(word) for word in ("width", "side", "classes")))
    masks, norm = settings.pop("masks"), settings.pop("norm")
    network = load_network(net, pattern=pattern, scale=scale, masks=masks, norm=norm)
    hardware = load_hardware(hw)
    settings["cache"] = None if settings.pop("no_cache") else Cache(folder())
    settings |= settings_from_files(network, mapping, activations)
    if layer is not None:
        from energysim.network import check_layer

        check_layer(network.name, _layers(network, settings), layer, where="--explain")
        settings["explain"] = layer
    with render.progress(visible=not quiet) as tell:
        settings["progress"] = tell
        if what == FLOWS:
            found = compare_dataflows(network, hardware, settings)
            render.print_dataflows(network.name, hardware, found, target)
            return
        if what == TRADE:
            from energysim.tradeoff import trade

            del settings["objective"]
            render.print_front(trade(network, hardware, (pair[0], pair[1]), **settings), target)
            return
        result = simulate(network, hardware, **settings)
        dense = None
        if target.form in ("table", "md") and not what:
            dense = dense_result(network, hardware, settings)
    if layer is not None:
        from energysim.cli.explain import explain

        text = explain(result, layer)
        render.print_text(f"```text\n{text}```\n" if target.form == "md" else text, target)
        return
    if what == UNCERTAIN:
        from energysim.cli import uncertain as table
        from energysim.uncertainty import uncertainty

        table.show(uncertainty(result), target)
        return
    if verbose and not quiet:
        render.say(f"searched for {result.search.seconds:.2f} s")
    render.deliver(result, dense, target, levels=levels, quiet=quiet)


def _layers(network: Network, settings: dict[str, Any]) -> tuple[Layer, ...]:
    """What has a row of its own: layers, or steps of training."""
    if settings["phase"] == "inference":
        return network.layers
    from energysim.training import training_of

    return training_of(network, settings["batch"], recompute=settings["recompute"]).steps


def settings_from_files(
    network: Network, mapping: Path | None, activations: Path | None
) -> dict[str, Any]:
    """What the files of a mapping and of densities say, as settings of a simulation."""
    from energysim.activations import load_activations
    from energysim.mapping import MappingFile
    from energysim.yamlio import load_model

    found: dict[str, Any] = {}
    if mapping is not None:
        found["mapping"], source = load_model(mapping, MappingFile)
        found["where"] = source.where
    if activations is not None:
        found["activations"] = load_activations(activations, network)
    return found


def _closed_form(context: click.Context, net: str, hw: str | None, target: options.Target) -> None:
    from energysim.catalog import load_hardware, load_network
    from energysim.cli.closed_form import check_options, show_systolic, show_yang2019
    from energysim.network import Scale

    check_options(context, target)
    given = context.params
    scale = Scale(given["width"], given["side"], given["classes"])
    network = load_network(
        net, pattern=given["pattern"], scale=scale, masks=given["masks"], norm=given["norm"]
    )
    if given["model"] == "yang2019":
        show_yang2019(network, given["weight_format"], target)
        return
    hardware = load_hardware(_needed(context, hw))
    show_systolic(network, hardware, given["dataflow"], given["batch"], target)


def _needed(context: click.Context, hw: str | None) -> str:
    """The hardware, which only another model can do without.

    Raises
    ------
    MissingParameter
        If it was not given.
    """
    if hw is None:
        missing = next(each for each in context.command.params if each.name == "hw")
        raise click.MissingParameter(ctx=context, param=missing)
    return hw


def _asked(
    pair: tuple[str, ...],
    dataflow: str | None,
    layer: str | None,
    *,
    levels: bool,
    uncertain: bool,
) -> str:
    """What kind of answer is asked for.

    Raises
    ------
    UsageError
        If it is more than one.
    """
    kinds = {
        TRADE: len(pair) > 1,
        FLOWS: dataflow == "all",
        EXPLAIN: layer is not None,
        "--levels": levels,
        UNCERTAIN: uncertain,
    }
    asked = [kind for kind, wanted in kinds.items() if wanted]
    if len(asked) > 1:
        raise click.UsageError(f"{' and '.join(asked)} ask for different answers: give one of them")
    return asked[0] if asked else ""


def _check_asked(what: str, target: options.Target, mapping: Path | None) -> None:
    """Refuse what an answer can't be written as, before any work."""
    forms = {TRADE: ("table", "md", "csv", "json"), FLOWS: ("table", "md", "csv", "json"),
             EXPLAIN: ("table", "md"), UNCERTAIN: ("table", "md", "csv", "json")}  # fmt: skip
    if what in forms and target.form not in forms[what]:
        allowed = ", ".join(forms[what])
        raise click.UsageError(f"{what} gives no {target.form}; choose one of {allowed}")
    if what == TRADE and mapping is not None:
        raise click.UsageError(f"{what} needs a search: leave --mapping out")


def compare_dataflows(
    network: Network, hardware: Hardware, settings: dict[str, Any]
) -> dict[str, Result | DoesNotFitError]:
    """Run every dataflow; its result, or why it fits no mapping.

    Raises
    ------
    DoesNotFitError
        If none does.
    """
    from energysim.mapper.dataflows import CUSTOM, DATAFLOWS
    from energysim.simulate import simulate

    names = [name for name in DATAFLOWS if name != CUSTOM or hardware.dataflow == CUSTOM]
    found: dict[str, Result | DoesNotFitError] = {}
    for name in names:
        try:
            found[name] = simulate(network, hardware, **settings | {"dataflow": name})
        except DoesNotFitError as error:
            found[name] = error
    errors = [each for each in found.values() if isinstance(each, DoesNotFitError)]
    if len(errors) == len(found):
        raise errors[0]
    return found


def dense_result(
    network: Network, hardware: Hardware, settings: dict[str, Any]
) -> Result | EnergysimError | None:
    """Cost of the dense network that a variant is made of, or why there is none."""
    from energysim.simulate import simulate

    if network.base is None:
        return None
    try:
        return simulate(network.dense(), hardware, **settings | {"weight_format": "auto"})
    except EnergysimError as error:
        return error
