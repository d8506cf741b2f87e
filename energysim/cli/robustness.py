"""What ``energysim train`` has for networks that are rewired and for images under attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from energysim.cli import options

if TYPE_CHECKING:
    from energysim.cli.render import Grid
    from energysim.train.attacked import Strike
    from energysim.train.attacks import Attack
    from energysim.train.grid import Row

NESTED = ("rewire", "density", "adversarial")
"""Options that make a group of fields of a recipe."""

adversarial = click.option(
    "--adversarial",
    metavar="RADIUS",
    help="Learn from images as they are and from what PGD makes of them, each pixel changed by "
    "up to this share of its range. More behind it: 8/255,steps=7,clean_share=0.5",
)
nested_options = options.together(
    click.option(
        "--rewire",
        metavar="irregular|channel",
        help="Train a sparse network and move its live weights between epochs: single ones, or "
        "all of an input channel. More behind it: irregular,share=0.5,decline=cosine,rho=1e-4",
    ),
    click.option(
        "--density",
        type=click.FloatRange(0, 1, min_open=True),
        help="Share of the weights that are live, with --rewire.  [default: 0.1]",
    ),
    adversarial,
)

attack_images = click.option(
    "--attack-images",
    type=click.IntRange(1),
    metavar="COUNT",
    help="Attack the first so many test images.  [default: all]",
)
attack_options = options.together(
    click.option(
        "--attack",
        "attack_words",
        multiple=True,
        metavar="fgsm:RADIUS|pgd:RADIUS",
        help="Measure accuracy on changed test images too; again for more attacks. More behind it: "
        "pgd:8/255,steps=50,restarts=5,length=0.01",
    ),
    attack_images,
)


def nested_fields(
    given: Mapping[str, Any], rewire: str | None, density: float | None, adversarial: str | None
) -> dict[str, Any]:
    """Groups of fields of a recipe, with what the options say otherwise.

    Parameters
    ----------
    given : mapping
        Fields of the recipe so far.
    rewire, adversarial : str, optional
        Mode or radius, and further settings behind it.
    density : float, optional

    Raises
    ------
    UsageError
        If a word is no setting, or a density has nothing to belong to.
    """
    found = {}
    if rewire is not None:
        mode, settings = _settings("--rewire", rewire)
        found["rewire"] = (given["rewire"] or {}) | {"mode": mode} | settings
    if density is not None:
        before = found.get("rewire", given["rewire"])
        if before is None:
            raise click.UsageError("--density belongs to --rewire: say irregular or channel")
        found["rewire"] = before | {"density": density}
    if adversarial is not None:
        radius, settings = _settings("--adversarial", adversarial)
        own = {"radius": _value(radius)} | settings
        found["adversarial"] = (given["adversarial"] or {}) | own
    return found


def _settings(option: str, text: str) -> tuple[str, dict[str, Any]]:
    """Split what stands first from ``name=value`` behind it."""
    first, *others = (word.strip() for word in text.split(","))
    found = {}
    for word in others:
        name, sign, value = word.partition("=")
        if not sign:
            such = "share=0.5" if option == "--rewire" else "steps=7"
            raise click.BadParameter(
                f"'{word}' is no setting, such as {such}",
                param_hint=f"'{option}'",
            )
        found[name] = _value(value)
    return first, found


def _value(text: str) -> Any:
    """Read a number as what it is; a word stays one."""
    from energysim.train.attacks import share

    for read in (int, share):
        try:
            return read(text)
        except (ValueError, ZeroDivisionError):
            continue
    return text


def attacks_of(words: Sequence[str], images: int | None) -> tuple[Attack, ...]:
    """Read attacks, each once.

    Raises
    ------
    UsageError
        If images are to be attacked and nothing says how.
    InputError
        If a word is no attack.
    """
    if images is not None and not words:
        raise click.UsageError("--attack-images belongs to --attack")
    if not words:
        return ()
    from energysim.train.attacks import Attack

    return tuple(dict.fromkeys(Attack.named(word) for word in words))


def struck_words(news: Strike) -> str:
    """Say how an attack went, or how far it is."""
    if news.record is None:
        return f"{news.attack.name}: {news.done:,} of {news.images:,} images"
    clean, robust = news.record["clean_top1"], news.record["robust_top1"]
    return f"{news.attack.name}: {robust:.2%} of {news.images:,} images, {clean:.2%} as they are"


def robust_text(
    rows: Sequence[Row], asked: Sequence[Attack], images: int | None, target: options.Target
) -> str:
    """The table of :func:`robust_grid`, below another one; nothing in other forms."""
    from energysim.cli.render import grid_text

    if not asked or target.form not in ("table", "md"):
        return ""
    return "\n" + grid_text(robust_grid(rows, asked, images), target)


def robust_grid(rows: Sequence[Row], asked: Sequence[Attack], images: int | None) -> Grid:
    """One row a network and attack; several seeds as mean and spread.

    Parameters
    ----------
    rows : sequence of dict
        Of finished runs.
    asked : sequence of Attack
        Others that the records have are not shown.
    images : int, optional
        Test images that were attacked; by default all.
    """
    from energysim.cli.render import Column, Grid
    from energysim.train.attacked import settings

    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        many = min(images or row["test_images"], row["test_images"])
        wanted = [settings(each, many) for each in asked]
        for record in row.get("robust", ()):
            if any(each.items() <= record.items() for each in wanted):
                key = row["network"], row["pattern"], record["attack"], row["recipe_sha256"]
                groups.setdefault(key, []).append(record)
    shown = list(groups.values())
    columns = (
        Column("network", [key[0] for key in groups], right=False, narrow="cut"),
        Column("pattern", [key[1] for key in groups], right=False),
        Column("attack", [key[2] for key in groups], right=False, narrow="wrap"),
        Column("clean [%]", [_spread(each, "clean_top1") for each in shown]),
        Column("robust [%]", [_spread(each, "robust_top1") for each in shown]),
        Column("images", [f"{each[0]['images']:,}" for each in shown]),
    )
    footer = (
        "clean, robust: top-1 of the same test images as they are, and after the attack",
        "radius: largest change of a pixel, as a share of its range; other attacks may find more",
    )
    return Grid(columns, "accuracy under attack", footer)


def _spread(records: Sequence[Mapping[str, Any]], word: str) -> str:
    from statistics import mean, stdev

    values = [100 * record[word] for record in records]
    spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{mean(values):.2f}{spread}"
