"""The page of a report: whole in itself, right in its numbers, and safe whatever files say."""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from importlib import resources
from math import inf
from typing import Any

import pytest
from machines import bundled, conv, looked_up, machine, memory, network

import energysim as es
from energysim import catalog
from energysim.activations import Activations, Density
from energysim.errors import DoesNotFitError, InputError, MissingExtraError
from energysim.mapping import MappingFile
from energysim.report import Report, page
from energysim.report.constants import constants
from energysim.report.facts import stored_bytes, what_was_run
from energysim.report.page import SCRIPT, STYLE_SHEET, _hash_of
from energysim.report.table import NOTHING, Cell, Table
from energysim.report.tables import accesses, layers, levels, sensitivity, variants
from energysim.result import Result
from energysim.uncertainty import uncertainty
from energysim.units import BITS_PER_BYTE
from energysim.yamlio import to_yaml

pytest.importorskip("jinja2")

EVIL = "</title></script><script>alert('\"&1')</script><!--"
VOID = {"meta", "link", "img", "br", "hr", "input"}

CHIP = machine(
    memory("SRAM", capacity_kib=64, ranges={"read_pj_per_bit": [0.5, 2.0]}, assumed=["per"]),
    memory("RF", "regfile", per=["rows", "cols"], capacity_bytes=64),
    mac={"energy_pj": 0.5, "source": "a paper", "assumed": ["energy_pj"]},
    assumed=["bits"],
    technology={"node_nm": 45},
    vector={"lanes": 4, "source": "a book"},
)
NET = network(
    conv("a", 6),
    conv("b", 8),
    {"name": "p", "kind": "pool", "kernel": 2},
    {"name": "f", "kind": "linear", "out": 5},
    size=(4, 6, 6),
)


class Parsed(HTMLParser):
    """Elements of a page; fails where they are not properly nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.styles: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        (self.styles if inside == "style" else self.texts).append(data)

    def values(self, name: str) -> list[str]:
        """All values of one attribute."""
        return [attrs[name] or "" for _, attrs in self.elements if name in attrs]


@cache
def sparse() -> Result:
    return looked_up(NET.with_pattern("PS4_P4"), CHIP)


@cache
def dense() -> Result:
    return looked_up(NET, CHIP)


@cache
def written(*, several: bool = False) -> str:
    results = (dense(), sparse()) if several else (sparse(),)
    return page(Report(results, dense(), "energysim report --net 'a b.yaml' --hw chip"))


def keys(table: Table, name: str) -> list[float | None]:
    (column,) = [each for each in table.columns if each.name == name]
    return [cell.key for cell in column.cells]


def texts(table: Table, name: str) -> list[str]:
    (column,) = [each for each in table.columns if each.name == name]
    return [cell.text for cell in column.cells]


# -- the page is whole in itself -------------------------------------------------------------------


@pytest.mark.parametrize("several", [False, True])
def test_nothing_is_loaded_from_outside(*, several: bool) -> None:
    text = written(several=several)
    parsed = Parsed(text)
    assert not parsed.values("src")
    assert not parsed.values("action")
    assert not {tag for tag, _ in parsed.elements} & {"link", "img", "iframe", "object", "base"}
    links = parsed.values("href") + parsed.values("xlink:href")
    assert links
    assert all(link.startswith("#") for link in links)
    styles = "".join([*parsed.styles, *parsed.values("style"), *parsed.values("clip-path")])
    assert "@import" not in styles
    assert all(link.startswith("#") for link in re.findall(r"url\(['\"]?(.*?)['\"]?\)", text))
    elsewhere = {tag for tag, attrs in parsed.elements for name, value in attrs.items()
                 if "//" in (value or "") and not name.startswith("xmlns")}  # fmt: skip
    assert not elsewhere


def test_a_browser_is_told_to_load_nothing_and_to_run_one_script() -> None:
    parsed = Parsed(written())
    headers = {each.get("http-equiv"): each.get("content") for _, each in parsed.elements}
    policy = headers["Content-Security-Policy"] or ""
    assert "default-src 'none'" in policy
    (script,) = re.findall(r"<script>(.*?)</script>", written(), re.DOTALL)
    assert f"script-src '{_hash_of(script)}'" in policy
    assert (resources.files("energysim.report") / SCRIPT).read_text("utf-8").strip() in script


@pytest.mark.parametrize("several", [False, True])
def test_links_lead_somewhere_and_ids_are_unique(*, several: bool) -> None:
    parsed = Parsed(written(several=several))
    ids = parsed.values("id")
    assert [name for name, times in Counter(ids).items() if times > 1] == []
    used = [link[1:] for link in parsed.values("href") + parsed.values("xlink:href")]
    used += re.findall(r"url\(#(.*?)\)", written(several=several))
    used += parsed.values("aria-labelledby")
    assert set(used) <= set(ids)


def test_same_results_give_the_same_text() -> None:
    again = looked_up(NET.with_pattern("PS4_P4"), CHIP)
    report = Report((again,), looked_up(NET, CHIP), "energysim report --net 'a b.yaml' --hw chip")
    assert page(report) == written()


def test_a_large_network_stays_small() -> None:
    result = bundled("vgg16", "edge_tpu")
    assert len(page(Report((result,))).encode()) < 2e6


# -- the page is right -----------------------------------------------------------------------------


def test_layers_add_up_and_lead_to_their_mappings() -> None:
    result = sparse()
    table = layers(result, dense(), "m-")
    energies = keys(table, "energy")
    assert sum(each for each in energies if each) == pytest.approx(result.total_energy_pj)
    assert texts(table, "layer") == ["a", "b", "p", "f"]
    assert [cell.link for cell in table.columns[0].cells] == ["m-0", "m-1", "m-2", "m-3"]
    for i, row in enumerate(result.layer_rows):
        assert keys(table, "MACs")[i] == row.macs
        assert keys(table, "effective")[i] == row.effective_macs
        assert keys(table, "cycles")[i] == row.cycles
        assert keys(table, "DRAM")[i] == pytest.approx(row.dram_bytes)
        assert keys(table, "SRAM")[i] == pytest.approx(row.sram_bytes)
        base = dense().layer_rows[i].energy_pj
        assert keys(table, "energy vs dense")[i] == pytest.approx(row.energy_pj / base)
        if row.dram_bytes:
            over = row.dram_bytes / row.dram_bound_bytes
            assert keys(table, "over bound")[i] == pytest.approx(over)
        else:
            assert texts(table, "over bound")[i] == NOTHING


def test_a_dense_network_is_not_beside_itself() -> None:
    names = [column.name for column in layers(dense(), dense(), "m-").columns]
    assert "energy vs dense" not in names
    assert "effective" not in names


@pytest.mark.parametrize("table", [levels, accesses])
def test_levels_add_up(table: Any) -> None:
    made = table(sparse())
    assert sum(keys(made, "energy")) == pytest.approx(sparse().total_energy_pj)
    bits = sum(row.bits for row in sparse().access_rows)
    assert sum(keys(made, "data")) == pytest.approx(bits / BITS_PER_BYTE)
    assert sum(keys(made, "elements")) == sum(row.elements for row in sparse().access_rows)
    assert sum(keys(made, "share")) == pytest.approx(1)
    if table is levels:
        rows = {(row.level, row.tensor, row.action) for row in sparse().access_rows}
        assert len(made.rows) == len(rows)
        assert texts(made, "level")[0] == "DRAM"
    else:
        assert len(made.rows) == len(sparse().access_rows)


def test_variants_are_relative_to_dense() -> None:
    table = variants([dense(), sparse()], dense())
    relative = [column for column in table.columns if column.name == "rel."]
    energy = relative[-1]
    ratio = sparse().total_energy_pj / dense().total_energy_pj
    assert [cell.key for cell in energy.cells] == [1, pytest.approx(ratio)]
    assert keys(table, "parameters") == [dense().inputs[0].parameters,
                                         sparse().inputs[0].parameters]  # fmt: skip
    stored = [sum(row.weight_bits for row in each.layer_rows) / 8 for each in (dense(), sparse())]
    assert keys(table, "stored weights") == stored
    alone = variants([dense(), sparse()], None)
    assert not [column for column in alone.columns if column.name == "rel."]


def test_sensitivity_is_that_of_the_library() -> None:
    found = uncertainty(sparse())
    table = sensitivity(found)
    assert texts(table, "constant") == [each.constant for each in found.effects]
    assert keys(table, "value") == [each.value for each in found.effects]
    assert keys(table, "per 10 %") == [each.step_pj for each in found.effects]
    place = texts(table, "constant").index("SRAM.read_pj_per_bit")
    assert (texts(table, "low")[place], texts(table, "high")[place]) == ("0.500", "2.00")
    place = texts(table, "constant").index("DRAM.read_pj_per_bit")
    assert texts(table, "low")[place] == NOTHING


def constant(name: str) -> list[str]:
    """One row of the table of constants."""
    table, sources = constants(CHIP)
    part, field = name.split(".")
    (row,) = [row for row in table.rows if [cell.text for cell in row[:2]] == [part, field]]
    *cells, reference = [cell.text for cell in row]
    told = {f"[{each.number}]": each.text for each in sources}
    return [*cells[2:], told.get(reference, "")]


def test_constants_have_value_unit_range_and_source() -> None:
    assert constant("SRAM.read_pj_per_bit") == ["1", "pJ/bit", "0.5 to 2", "published", "a test"]
    assert constant("mac.energy_pj") == ["0.5", "pJ", NOTHING, "assumed", "a paper"]
    assert constant("bits.psum") == ["24", "bit", NOTHING, "assumed", "a test"]
    assert constant("machine.clock_mhz") == ["100", "MHz", NOTHING, "published", "a test"]
    assert constant("SRAM.halo") == ["keep", NOTHING, NOTHING, "default", ""]
    assert constant("array.axes") == ["rows 2; cols 3", NOTHING, NOTHING, "published", "a test"]
    value, unit, _, status, source = constant("vector.energy_pj")
    assert (unit, status) == ("pJ", "looked up")
    assert float(value) == pytest.approx(CHIP.vector.energy_pj if CHIP.vector else 0)
    assert source == (CHIP.vector.from_tables["energy_pj"] if CHIP.vector else "")


@pytest.mark.parametrize("name", catalog.names("hw"))
def test_every_energy_constant_is_there(name: str) -> None:
    hardware = es.load_hardware(name)
    table, _ = constants(hardware)
    there = set(zip(texts(table, "part"), texts(table, "constant"), strict=True))
    for level in hardware.levels:
        assert {(level.name, "read_pj_per_bit"), (level.name, "write_pj_per_bit")} <= there
    assert {("mac", "energy_pj"), ("machine", "static_mw"), ("array", "hop_pj_per_bit")} <= there
    assert "" not in texts(table, "status")


def test_what_the_page_says() -> None:
    said = " ".join(Parsed(written()).texts)
    for text in (
        "net+PS4_P4 on chip",
        "relative to net, which is dense",
        "energysim report --net 'a b.yaml' --hw chip",
        sparse().settings()["network_sha256"],
        sparse().settings()["hardware_sha256"],
        "a paper",
        to_yaml(CHIP).splitlines()[-1],
        *(note.text for note in sparse().warnings),
        *(row.mapping for row in sparse().layer_rows),
    ):
        assert text in said


def test_mappings_are_told_loop_by_loop() -> None:
    said = Parsed(written()).texts
    for loops in sparse().mappings.values():
        for row in loops:
            for dim, trips, axis in row.spatial:
                assert any(f"{dim}{trips} on {axis}" in text for text in said)
            in_time = " ".join(f"{dim}{trips}" for dim, trips in row.temporal)
            assert in_time in "".join(said)


def test_pictures_are_there_with_words_for_those_who_cannot_see_them() -> None:
    parsed = Parsed(written())
    pictures = [attrs for tag, attrs in parsed.elements if tag == "svg"]
    assert len(pictures) >= 4
    for attrs in pictures:
        assert attrs["role"] == "img"
        assert "net" in (attrs["aria-label"] or "")


def test_several_have_a_section_each() -> None:
    ids = Parsed(written(several=True)).values("id")
    assert {"run-1", "run-2", "variants"} <= set(ids)
    assert "run-3" not in ids


def test_why_there_is_no_dense_one() -> None:
    text = page(Report((sparse(),), DoesNotFitError("SRAM is 3 bytes too small")))
    assert "No comparison with the dense network: SRAM is 3 bytes too small" in text
    assert 'id="variants"' not in text


def test_training_shows_its_phases() -> None:
    result = looked_up(NET, CHIP, phase="training", batch=2)
    said = " ".join(Parsed(page(Report((result,)))).texts)
    assert "Phases of the iteration" in said
    assert "one iteration of training, activations kept" in said
    assert "energy for 2 images" in said
    assert "an image" in said
    assert "of 50,000 images" in said
    weights = sum(row.weight_bits for row in dense().layer_rows) / BITS_PER_BYTE
    assert stored_bytes(result) == weights == stored_bytes(dense())


def test_given_mappings_densities_and_early_stops_are_told() -> None:
    given = MappingFile(layers={"f": dense().mappings["f"]})
    densities = Activations({"b": Density(0.4, 0.7)}, file="d.csv")
    result = looked_up(NET, CHIP, mapping=given, activations=densities)
    said = " ".join(Parsed(page(Report((result,)))).texts)
    assert "the mapping was given" in said
    assert "those of 1 layers were given" in said
    assert "densities of d.csv" in said
    every = MappingFile(layers=dict(dense().mappings))
    (fact,) = [each for each in what_was_run(looked_up(NET, CHIP, mapping=every))
               if each.name == "objective"]  # fmt: skip
    assert fact.more == "all mappings were given"
    hurried = es.simulate(NET, CHIP, budget_s=0)
    assert "stopped early among" in page(Report((hurried,)))


# -- what files say is text ------------------------------------------------------------------------


def test_what_is_infinite_sorts_as_a_number_of_the_script() -> None:
    ends = Cell("∞", inf), Cell("3", 3.0), Cell(NOTHING)
    assert [each.sorted_by for each in ends] == ["Infinity", "3.0", ""]
    first, *rest = dense().layer_rows
    row = replace(first, dram_bytes=8.0, dram_bound_bytes=0.0)
    table = layers(replace(dense(), layer_rows=(row, *rest)), None, "x")
    column = next(each for each in table.columns if each.name == "over bound")
    assert column.cells[0] == Cell("∞", inf)
    text = page(Report((replace(dense(), layer_rows=(row, *rest)),)))
    assert 'data-key="Infinity"' in text
    assert 'data-key="inf"' not in text


def test_markup_in_files_is_shown_and_not_obeyed() -> None:
    named = tuple(replace(layer, name=f"{EVIL}{i}", inputs=()) for i, layer in
                  enumerate(NET.layers[:1]))  # fmt: skip
    net = replace(NET, name=EVIL, source=EVIL, layers=named, missing=(EVIL,))
    chip = CHIP.model_copy(
        update={"name": EVIL, "source": EVIL, "note": EVIL,
                "mac": CHIP.mac.model_copy(update={"source": EVIL})}
    )  # fmt: skip
    result = looked_up(net, chip)
    text = page(Report((result,), InputError(EVIL), EVIL))
    parsed = Parsed(re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL))
    assert sum(tag == "script" for tag, _ in parsed.elements) == 1
    assert sum(tag == "title" for tag, _ in parsed.elements) == 1
    assert EVIL in "".join(parsed.texts)
    # comments that a picture has inside must end where they seem to
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    comments = [each for picture in pictures for each in re.findall(r"<!--(.*?)-->", picture,
                                                                    re.DOTALL)]  # fmt: skip
    assert all("--" not in each for each in comments)


# -- how it looks ----------------------------------------------------------------------------------


def schemes() -> dict[str, dict[str, str]]:
    """Colours of the style sheet by scheme."""
    sheet = (resources.files("energysim.report") / STYLE_SHEET).read_text("utf-8")
    blocks = re.findall(r":root \{(.*?)\}", sheet, re.DOTALL)
    found = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in blocks]
    assert len(found) == 3
    return dict(zip(("light", "dark", "print"), found, strict=True))


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
              for part in parts]  # fmt: skip
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    brighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_colours_have_enough_contrast(scheme: str) -> None:
    colours = schemes()[scheme]
    assert colours.keys() == schemes()["light"].keys()
    words = [(ink, ground) for ink in ("ink", "soft", "link") for ground in ("paper", "panel")]
    words += [("ink", "bar"), ("soft", "bar"), ("ink", "warn-panel")]
    marks = [("edge", "paper"), ("edge", "panel"), ("warn", "warn-panel"), ("link", "bar")]
    for pairs, least in ((words, 4.5), (marks, 3.0)):
        for ink, ground in pairs:
            found = contrast(colours[ink], colours[ground])
            assert found >= least, (ink, ground, found)


def test_every_colour_of_the_sheet_has_a_name() -> None:
    sheet = (resources.files("energysim.report") / STYLE_SHEET).read_text("utf-8")
    outside = re.sub(r":root \{.*?\}", "", sheet, flags=re.DOTALL)
    assert set(re.findall(r"#[0-9a-fA-F]{3,8}\b", outside)) == {"#ffffff", "#222222"}
    assert contrast("#ffffff", "#222222") > 4.5


# -- what is refused -------------------------------------------------------------------------------


def test_without_jinja(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'energysim\[report\]'"):
        page(Report((dense(),)))


def test_a_report_needs_results_of_one_machine() -> None:
    with pytest.raises(InputError, match="at least one result"):
        Report(())
    faster = CHIP.model_copy(update={"clock_mhz": 200.0})
    with pytest.raises(InputError, match="about one machine"):
        Report((dense(), looked_up(NET, faster)))
