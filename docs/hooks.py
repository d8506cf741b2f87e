"""Hooks of mkdocs: references made from the program, formulas without JavaScript.

In all pages

- ``<!-- made: NAME -->`` is replaced by what :data:`MADE` writes;
- ``repo:PATH`` is a link to a file of the repository, which must exist;
- a formula becomes MathML, which browsers draw by themselves;
- roles of Sphinx in docstrings become plain code.
"""

from __future__ import annotations

import ast
import inspect
import json
import logging
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from functools import partial
from html import unescape
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from pydantic import BaseModel

from energysim import load_hardware, load_network, simulate
from energysim.axes import Action, Dim, Tensor
from energysim.cli import EXIT_BUG, EXIT_INTERRUPTED, inventory, main
from energysim.errors import DoesNotFitError, EnergysimError
from energysim.hardware import Hardware
from energysim.mapping import MappingFile
from energysim.network import NetworkSpec
from energysim.plot import gallery_figure, mapping_figure, save
from energysim.plot.style import new_figure
from energysim.sparsity import PATTERNS
from energysim.sweeps import SweepSpec
from energysim.train.recipe import Recipe
from energysim.units import COLUMNS

ROOT = Path(__file__).parent.parent
LOG = logging.getLogger("mkdocs.hooks")

# -- the command line ------------------------------------------------------------------------------


def commands() -> Iterator[str]:
    """All commands, with the words of their own help."""
    yield from _command(main, click.Context(main, info_name="energysim"), 2)


def _command(command: click.Command, context: click.Context, depth: int) -> Iterator[str]:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"{'#' * depth} {context.command_path}\n"
    yield f"```text\n{usage}\n```\n"
    yield from map(_paragraph, _paragraphs(command.help or ""))
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1] and "--help" not in parameter.opts:
            names, meaning = record
            yield f"`{names}`\n:   {_plain(meaning)}\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _command(inner, click.Context(inner, context, info_name=name), depth + 1)


def _paragraphs(text: str) -> list[str]:
    return [each for each in re.split(r"\n\s*\n", inspect.cleandoc(text)) if each]


def _paragraph(text: str) -> str:
    """Write a paragraph; what click is told to leave alone is code if its lines are set in."""
    if not text.startswith("\b"):
        return _plain(text) + "\n"
    head, *rest = text.removeprefix("\b\n").splitlines()
    if not any(line.startswith("  ") for line in rest):
        return _plain(text.removeprefix("\b\n")) + "\n"
    return f"{_plain(head)}\n\n```sh\n{textwrap.dedent(chr(10).join(rest))}\n```\n"


def _plain(text: str) -> str:
    """Keep Markdown from seeing marks in plain words."""
    words = re.sub(r"([\\`*_\[\]|{}])", r"\\\1", " ".join(text.split()))
    return words.replace("<", "&lt;")


def statuses() -> Iterator[str]:
    """Exit statuses, from the classes of errors."""
    return _table(
        ("status", "meaning"),
        (
            (0, "done"),
            (EXIT_BUG, "a bug in energysim; `ENERGYSIM_DEBUG=1` prints where"),
            (EnergysimError.exit_code, "wrong usage or input, or a file that can't be written"),
            (DoesNotFitError.exit_code, "a layer fits no mapping, or training came to nothing"),
            (EXIT_INTERRUPTED, "interrupted (Ctrl-C)"),
        ),
    )


# -- files -----------------------------------------------------------------------------------------

FILES: Sequence[tuple[str, str, type[BaseModel]]] = (
    ("Hardware", "`--hw FILE.yaml`, [examples](repo:hw_configs)", Hardware),
    ("Network", "`--net FILE.yaml`, [examples](repo:networks)", NetworkSpec),
    ("Mapping", "`run --mapping FILE.yaml`", MappingFile),
    ("Sweep", "`energysim sweep FILE.yaml`", SweepSpec),
    ("Recipe of training", "`train --recipe FILE.yaml`", Recipe),
)


def fields() -> Iterator[str]:
    """Fields of all files that a user writes, from the types that read them."""
    for title, use, model in FILES:
        yield f"## {title}\n\n{use}.\n"
        schema = model.model_json_schema()
        blocks = {model.__name__: schema, **schema.get("$defs", {})}
        meanings = _meanings(model)
        for name, block in blocks.items():
            if "properties" in block:
                if name != model.__name__:
                    words = name.removesuffix("Spec")
                    yield f"### {title}: {words} {{ #{_anchor(title, name)} }}\n"
                yield from _block(title, block, meanings[name], blocks)


def _block(
    title: str,
    block: Mapping[str, Any],
    meanings: tuple[str, Mapping[str, str]],
    blocks: Mapping[str, Any],
) -> Iterator[str]:
    own, of_fields = meanings
    yield f"{_docstring(own)}\n"
    for field, schema in sorted(block["properties"].items(), key=lambda each: each[0] in _LAST):
        required = field in block.get("required", ())
        kind = _kind(title, schema, blocks)
        yield f"`{field}` <small>{kind}; {'required' if required else _default(schema)}</small>"
        yield f":   {_docstring(of_fields[field])}\n"


_LAST = ("ranges", "from_tables")
"""Fields that blocks have in common stand behind their own."""


def _anchor(title: str, name: str) -> str:
    return f"{title}-{name}".lower().replace(" ", "-")


def _docstring(text: str) -> str:
    """Write a docstring as Markdown."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", " ".join(text.split()))
    return text.replace("``", "`").replace("|", "\\|") or "-"


def _default(schema: Mapping[str, Any]) -> str:
    if "default" not in schema:
        return "may be left out"
    value = schema["default"]
    if value is None or value in ([], {}, ""):
        return "may be left out"
    return f"default `{json.dumps(value).replace(chr(34), '')}`"


def _kind(title: str, schema: Mapping[str, Any], blocks: Mapping[str, Any]) -> str:  # noqa: PLR0911
    """Say what a field takes."""

    def inner(one: Mapping[str, Any]) -> str:
        return _kind(title, one, blocks)

    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        known = "properties" in blocks[name]
        return (
            f"[{name.removesuffix('Spec')}](#{_anchor(title, name)})"
            if known
            else inner(blocks[name])
        )
    for several in ("anyOf", "oneOf"):
        if several in schema:
            each = [inner(one) for one in schema[several] if one.get("type") != "null"]
            return " or ".join(dict.fromkeys(each))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{word}`" for word in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type", "any")
    if kind == "array" and "prefixItems" in schema:
        return f"\\[{', '.join(map(inner, schema['prefixItems']))}\\]"
    if kind == "array":
        return f"list of {inner(schema['items'])}"
    if kind == "object":
        names = inner(schema["propertyNames"]) if "propertyNames" in schema else "name"
        return f"{names}: {inner(schema.get('additionalProperties', {}))}"
    return f"{_TYPES.get(kind, kind)}{_limits(schema)}"


_TYPES = {"string": "text", "boolean": "true or false"}


FAR = 2**20
"""Limits from here on only keep products in 64 bits."""


def _limits(schema: Mapping[str, Any]) -> str:
    words = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"),
             ("exclusiveMaximum", "<"))  # fmt: skip
    words = [(word, sign) for word, sign in words if schema.get(word, 0) < FAR]
    told = [f"{sign} {schema[word]:,}".removesuffix(".0") for word, sign in words if word in schema]
    return f" {', '.join(told)}" if told else ""


def _meanings(model: type[BaseModel]) -> dict[str, tuple[str, dict[str, str]]]:
    """Docstrings of a type of file, of its blocks, and of the fields of each."""
    found = {}
    for each in vars(inspect.getmodule(model)).values():
        if inspect.isclass(each) and issubclass(each, BaseModel) and each is not BaseModel:
            of_fields: dict[str, str] = {}
            for base in reversed(each.__mro__[: each.__mro__.index(BaseModel)]):
                of_fields |= _field_docstrings(base)
            found[each.__name__] = (inspect.getdoc(each) or "", of_fields)
    return found


def _field_docstrings(model: type) -> dict[str, str]:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            told = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
            found[field.target.id] = inspect.cleandoc(str(text.value.value)) if told else ""
    return found


# -- what comes along, and the words ---------------------------------------------------------------


def bundled() -> Iterator[str]:
    """Networks, hardware, dataflows and patterns, as ``energysim list`` tells them."""
    for name, take in inventory.TABLES.items():
        table = take()
        yield f"## {table.title[0].upper()}{table.title[1:]} {{ #{name} }}\n"
        columns = table.grid().columns
        cells = zip(*(map(_plain, column.cells) for column in columns), strict=True)
        heads = [_plain(column.heading) for column in columns]
        yield from _table(heads, cells, [column.right for column in columns])
        yield ""
        yield from (f"- {_plain(note)}" for note in table.notes)


def words(kind: type[IntEnum]) -> Iterator[str]:
    """Members of an enum with their meanings."""
    for name, meaning in _member_docstrings(kind).items():
        yield f"`{name if kind is Dim else name.lower()}`\n:   {_docstring(meaning)}\n"


def columns() -> Iterator[str]:
    """Columns of result files."""
    rows = ((f"`{name}`", _plain(each.heading), each.meaning) for name, each in COLUMNS.items())
    return _table(("column", "heading", "meaning"), rows)


def _member_docstrings(kind: type) -> dict[str, str]:
    (tree,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(tree, ast.ClassDef)
    return {
        field.targets[0].id: str(text.value.value)
        for field, text in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(field, ast.Assign) and isinstance(field.targets[0], ast.Name)
        and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }  # fmt: skip


def modelled() -> Iterator[str]:
    """README's table of what is modelled and what is not."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    _, _, section = text.partition("## What is modelled, and what is not yet\n")
    yield section.partition("\n## ")[0]


def _table(
    heads: Sequence[str], rows: Iterable[Sequence[Any]], right: Iterable[bool] = repeat(False)
) -> Iterator[str]:
    rule = ["---:" if each else "---" for _, each in zip(heads, right, strict=False)]
    for cells in (heads, rule, *rows):
        yield f"| {' | '.join(map(str, cells))} |"


MADE: Mapping[str, Callable[[], Iterator[str]]] = {
    "commands": commands,
    "statuses": statuses,
    "fields": fields,
    "bundled": bundled,
    "dims": partial(words, Dim),
    "tensors": partial(words, Tensor),
    "actions": partial(words, Action),
    "columns": columns,
    "modelled": modelled,
}
"""What is made, by the word that stands in the page."""


# -- pictures --------------------------------------------------------------------------------------


def tiles(axes: Axes) -> None:
    """Draw which inputs four tiles of a convolution of 16 outputs and 3 taps hold and fetch."""
    outputs, taps, count = 16, 3, 4
    size, held = outputs // count, set[int]()
    for step in range(count):
        needed = {p + r for p in range(step * size, (step + 1) * size) for r in range(taps)}
        for element in needed:
            look = {"color": "#bbbbbb"} if element in held else {"color": "#0072b2"}
            axes.add_patch(Rectangle((element + 0.05, step + 0.1), 0.9, 0.8, **look))
        axes.text(
            outputs + taps, step + 0.5, f"{len(needed - held)} new", va="center", color="#0072b2"
        )
        held = needed
    axes.set(xlim=(0, outputs + taps + 3), ylim=(count, 0), xlabel="input element")
    axes.set_xticks([0.5, 5.5, 9.5, 13.5, 17.5], ["0", "5", "9", "13", "17"])
    axes.set_yticks(
        [step + 0.5 for step in range(count)], [f"step {step}" for step in range(count)]
    )
    axes.spines[:].set_visible(False)


def tiles_figure() -> Figure:
    """Make the figure of :func:`tiles`."""
    figure = new_figure(6, 1.9)
    tiles(figure.add_subplot())
    return figure


PICTURES: Mapping[str, Callable[[], Figure]] = {
    "explanation/tiles.svg": tiles_figure,
    "explanation/mapping.svg": lambda: mapping_figure(
        simulate(load_network("digits_cnn"), load_hardware("edge_tpu")), "conv2"
    ),
    "explanation/patterns.svg": lambda: gallery_figure(
        [each for each in PATTERNS.values() if not each.dense]
    ),
}
"""What is drawn, by its path."""


# -- hooks -----------------------------------------------------------------------------------------


def on_files(files: Any, *, config: Any) -> Any:
    """Add the pictures that are drawn."""
    from mkdocs.structure.files import File

    with TemporaryDirectory() as folder:
        for path, draw in PICTURES.items():
            drawn = Path(folder) / Path(path).name
            save(draw(), drawn)
            files.append(File.generated(config, path, content=drawn.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Put in what is made, and turn ``repo:PATH`` into a link to the repository."""

    def link(found: re.Match[str]) -> str:
        if not (ROOT / found[1].partition("#")[0]).exists():
            LOG.warning("%s: there is no %s in the repository", page.file.src_path, found[1])
        return f"]({config.extra['files']}{found[1]})"

    return re.sub(r"\]\(repo:([^)\s]+)\)", link, filled(markdown))


def filled(markdown: str) -> str:
    """Put in what is made."""
    return re.sub(r"<!-- made: (\w+) -->", lambda found: "\n".join(MADE[found[1]]()), markdown)


def on_page_content(html: str, *, page: Any, **_: Any) -> str:
    """Draw formulas, and show roles of Sphinx as code."""
    from latex2mathml.converter import convert

    def formula(found: re.Match[str]) -> str:
        display = "block" if found[1] == "div" else "inline"
        latex = unescape(found[2]).strip()[2:-2]
        drawn = convert(latex, display=display)
        if re.search(r">\\[A-Za-z]", drawn):  # a command that it does not know stands as it was
            LOG.warning("%s: this is no formula: %s", page.file.src_path, latex)
        return f'<{found[1]} class="formula">{drawn}</{found[1]}>'

    html = re.sub(r'<(div|span) class="arithmatex">(.*?)</\1>', formula, html, flags=re.DOTALL)
    return re.sub(r":\w+:<code>~?([^<]+)</code>", r"<code>\1</code>", html)
