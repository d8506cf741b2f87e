"""Masks that layers bring along: exact counts of a run, files of every kind, what is shown."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from command_line import call
from machines import conv, loops, machine, memory, network

from energysim.axes import Shape
from energysim.catalog import load_network
from energysim.cli.describe import network_yaml
from energysim.errors import InputError, InputErrors
from energysim.hardware import Hardware
from energysim.mapping import MappingFile
from energysim.network import Layer, NetworkSpec, build_network
from energysim.result import Result
from energysim.simulate import simulate
from energysim.sparsity import Mask, MaskFile, cheapest, get_format

Bools = npt.NDArray[np.bool_]

NET = """\
name: own
source: a test
masks: masks.npz
input: [4, 6, 6]
layers:
  - {name: plain, kind: conv, out: 8, kernel: 3, pad: 1}
  - {name: grouped, kind: conv, out: 8, kernel: [3, 1], pad: [1, 0], groups: 2}
  - {name: deep, kind: depthwise, kernel: 3, pad: 1}
  - {name: periodic, kind: conv, out: 8, kernel: 3, pad: 1, pattern: PS2_P6}
  - {name: point, kind: conv, out: 6, kernel: 1}
  - {name: small, kind: pool, kernel: 2}
  - {name: fc, kind: linear, out: 5}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENERGYSIM_PATH", raising=False)
    return tmp_path


def drawn(*shape: int, seed: int = 0, density: float = 0.3) -> Bools:
    mask = np.random.default_rng(seed).random(shape) < density
    mask.flat[0] = True  # never a mask without a live weight
    return mask


def save(masks: Mapping[str, npt.ArrayLike], text: str = NET) -> None:
    Path("own.yaml").write_text(text)
    arrays = {name: np.asarray(mask) for name, mask in masks.items()}
    np.savez_compressed("masks.npz", allow_pickle=False, **arrays)


# -- a run with a mask made by hand ----------------------------------------------------------------

HAND = np.zeros((2, 2, 3, 3), dtype=bool)
"""Four live taps: 4 of kernel (0, 0), 0 and 8 of (1, 0), 1 of (1, 1)."""
HAND[0, 0, 1, 1] = HAND[1, 0, 0, 0] = HAND[1, 0, 2, 2] = HAND[1, 1, 0, 1] = True


def chip(weights: str = "gate", rows: int = 1, cols: int = 1) -> Hardware:
    return machine(
        memory("BUF", capacity_kib=8),
        array={"axes": {"rows": rows, "cols": cols}},
        mac={"energy_pj": 1.0, "source": "a test"},
        sparsity={
            "weights": weights,
            "formats": ["dense", "csr", "periodic", "bitmap", "rle", "cp", "nm"],
        },
    )


def run(hardware: Hardware, **options: Any) -> Result:
    rows, cols = hardware.axis_sizes
    spatial = [("C", 2, "rows")] * (rows > 1) + [("K", 2, "cols")] * (cols > 1)
    temporal = [("C", 2)] * (rows == 1) + [("K", 2)] * (cols == 1)
    row = {
        "level": "BUF",
        "temporal": [*temporal, ("P", 4), ("Q", 4), ("R", 3), ("S", 3)],
        "spatial": spatial,
    }
    net = network(conv("a", 2), size=(2, 4, 4)).with_masks({"a": HAND})
    return simulate(net, hardware, mapping=MappingFile(layers={"a": loops(row)}), **options)


@pytest.mark.parametrize(
    ("form", "values", "metadata"),
    [
        ("dense", 36 * 8, 0),
        ("csr", 4 * 8, 4 * 5 + 3 * 3),  # 18 columns; three starts of up to 4
        ("bitmap", 4 * 8, 36),
        ("rle", 4 * 8, 4 * 5),  # runs of 4, 13, 7 and 1 zeros
        ("cp", 4 * 8, 4 * (1 + 1 + 2 + 2)),
        ("auto", 4 * 8, 4 * 5),
    ],
)
def test_exact_bits_of_a_run(form: str, values: int, metadata: int) -> None:
    result = run(chip(), weight_format=form)
    (row,) = result.layer_rows
    assert row.weight_bits == values + metadata
    assert row.weight_format == ("rle" if form == "auto" else form)
    (read,) = [
        each.bits
        for each in result.access_rows
        if (each.level, each.tensor, each.action) == ("DRAM", "weight", "read")
    ]
    assert read == pytest.approx(values + metadata, rel=1e-12)
    assert (row.macs, row.effective_macs) == (36 * 16, 4 * 16)
    (compute,) = [each for each in result.access_rows if each.level == "MAC"]
    assert compute.energy_pj == 4 * 16 * 1.0


@pytest.mark.parametrize("form", ["periodic", "nm"])
def test_formats_that_cannot_hold_it_are_refused(form: str) -> None:
    with pytest.raises(InputError, match=rf"\({form}\) can hold a irregular mask; add one of"):
        run(chip(), weight_format=form)


@pytest.mark.parametrize(("run_bits", "pairs"), [(5, 4), (4, 4), (3, 5), (2, 9), (1, 15)])
def test_runs_that_overflow_their_field_take_more_pairs(run_bits: int, pairs: int) -> None:
    layer = network(conv("a", 2), size=(2, 4, 4)).with_masks({"a": HAND}).layers[0]
    # Zeros before the live weights: 4, 13, 7 and 1.
    assert pairs == 4 + sum(zeros >> run_bits for zeros in (4, 13, 7, 1))
    _, stored = cheapest(layer.mask, 8, ["rle"], run_bits=run_bits)
    assert (stored.values, stored.metadata) == (8 * pairs, run_bits * pairs)


@pytest.mark.parametrize(
    ("rows", "cols", "steps", "dense"),
    [
        (1, 1, 4, 36),
        (1, 2, 3 + 1, 18),  # a port delivers what either filter needs: {4, 0, 8} and {1}
        (2, 1, 1 + 2, 18),  # channels wait for each other: max(1, 0) and max(2, 1)
        (2, 2, 3, 9),
    ],
)
def test_lock_step_on_the_exact_mask(rows: int, cols: int, steps: int, dense: int) -> None:
    result = run(chip("skip", rows, cols))
    skipped = result.skipped["a"]
    assert (skipped.steps, skipped.lock.dense_steps * 16) == (steps * 16, dense * 16)
    assert run(chip("gate", rows, cols)).layer_rows[0].cycles >= dense * 16


def test_a_mask_with_all_weights_live_costs_what_a_dense_layer_costs() -> None:
    plain = network(conv("a", 2), size=(2, 4, 4))
    full = replace(plain.with_masks({"a": np.ones((2, 2, 3, 3), dtype=bool)}), name=plain.name)
    for weights in ("gate", "skip"):
        one, other = (simulate(net, chip(weights, 2, 2)) for net in (plain, full))
        assert one.access_rows == other.access_rows
        assert one.total_cycles == other.total_cycles


def test_a_mask_that_spells_a_pattern_counts_as_the_pattern_does() -> None:
    plain = network(conv("first", 4), conv("a", 8), size=(3, 6, 6))
    named = plain.with_pattern("PSD4_P8")
    own = plain.with_masks({"a": named.layer("a").mask.array()})
    hardware = machine(
        memory("BUF", capacity_kib=8), sparsity={"weights": "skip", "formats": ["dense", "bitmap"]}
    )
    one, other = (simulate(net, hardware) for net in (named, own))
    assert (one.total_cycles, one.total_energy_pj) == (other.total_cycles, other.total_energy_pj)
    assert [row.weight_bits for row in one.layer_rows] == [
        row.weight_bits for row in other.layer_rows
    ]


# -- from a file -----------------------------------------------------------------------------------


def test_every_shape_that_a_mask_may_have() -> None:
    shapes: dict[str, list[tuple[int, ...]]] = {
        "plain": [(8, 4, 3, 3), (1, 8, 4, 3, 3), (4,)],
        "grouped": [(8, 4, 3, 1), (2, 4, 4, 3, 1), (8,)],
        "deep": [(8, 1, 3, 3), (8, 1, 1, 3, 3), (8,)],
        "periodic": [(8, 8, 3, 3), (1, 8, 8, 3, 3), (8,)],
        "point": [(6, 8), (6, 8, 1, 1), (1, 6, 8, 1, 1), (8,)],
        "fc": [(5, 54), (5, 54, 1, 1), (1, 5, 54, 1, 1), (54,)],
    }
    for name, allowed in shapes.items():
        for seed, shape in enumerate(allowed):
            mask = drawn(*shape, seed=seed)
            save({name: mask})
            net = load_network("own.yaml")
            layer = net.layer(name)
            dims = layer.mask.dims
            if len(shape) == 1:
                groups, _, channels, _, _ = dims
                expected = np.broadcast_to(mask.reshape(groups, 1, channels, 1, 1), dims)
            else:
                expected = mask.reshape(dims)
            assert (layer.mask.array() == expected).all()
            assert layer.weights == layer.mask.nonzeros == expected.sum()
            others = [each for each in net.layers if each.name != name]
            assert not any(each.live for each in others)
            assert name == "periodic" or net.layer("periodic").pattern == "PS2_P6"
            assert get_format("bitmap")(layer.mask, 8).total == 8 * expected.sum() + expected.size


def test_fortran_order_and_plain_savez() -> None:
    mask = drawn(8, 4, 3, 3)
    Path("own.yaml").write_text(NET)
    np.savez("masks.npz", allow_pickle=False, plain=np.asfortranarray(mask))
    assert (load_network("own.yaml").layer("plain").mask.array()[0] == mask).all()


def test_the_path_is_seen_from_the_network_file(folder: Path) -> None:
    sub = folder / "nets"
    sub.mkdir()
    (sub / "own.yaml").write_text(NET.replace("masks.npz", "more/masks.npz"))
    (sub / "more").mkdir()
    np.savez(sub / "more" / "masks.npz", allow_pickle=False, fc=drawn(5, 54))
    assert load_network("nets/own.yaml").layer("fc").live


def test_a_variant_has_masks_over_its_pattern_or_alone() -> None:
    Path("base.yaml").write_text(
        "name: base\nsource: a test\ninput: [3, 6, 6]\nlayers:\n"
        "  - {name: a, kind: conv, out: 8, kernel: 3, pad: 1}\n"
        "  - {name: b, kind: conv, out: 8, kernel: 3, pad: 1}\n"
        "  - {name: c, kind: conv, out: 8, kernel: 3, pad: 1}\n"
    )
    mask = drawn(8, 8, 3, 3)
    head = "name: own\nsource: a test\nbase: base\nmasks: masks.npz\n"
    save({"c": mask}, head + "pattern: PS4_P4\n")
    both = load_network("own.yaml")
    assert [layer.pattern for layer in both.layers] == ["dense", "PS4_P4", "irregular"]
    assert (both.base, both.pattern, both.masks) == ("base", "mixed", "masks.npz")
    assert both.dense() == load_network("base.yaml")
    assert both.with_pattern("PS4_P4").layer("c").pattern == "PS4_P4"
    save({"c": mask}, head)
    alone = load_network("own.yaml")
    assert [layer.pattern for layer in alone.layers] == ["dense", "dense", "irregular"]
    assert (alone.base, alone.pattern) == ("base", "irregular")
    save({}, head.replace("masks: masks.npz\n", ""))
    with pytest.raises(InputErrors, match="needs a `pattern:` to lay over it, or `masks:`"):
        load_network("own.yaml")


def test_the_hash_of_a_result_depends_on_what_the_mask_holds() -> None:
    hashes = set()
    for seed in range(3):
        save({"plain": drawn(8, 4, 3, 3, seed=seed), "fc": drawn(5, 54)})
        net = load_network("own.yaml")
        result = simulate(net, chip())
        hashes.add(result.settings()["network_sha256"])
        assert json.loads(result.to_json())  # the mask is plain data
    assert len(hashes) == 3
    save({"plain": drawn(8, 4, 3, 3, seed=2), "fc": drawn(5, 54)})
    again = simulate(load_network("own.yaml"), chip())
    assert again.settings()["network_sha256"] in hashes


# -- shown -----------------------------------------------------------------------------------------


def test_show_says_which_layers_have_a_mask_and_reads_back() -> None:
    plain = drawn(8, 4, 3, 3)
    channels = np.arange(8) < 2
    save({"plain": plain, "periodic": channels})
    done = call("show", "own.yaml")
    assert (done.status, done.err) == (0, "")
    Path("again.yaml").write_text(done.out)
    net = load_network("own.yaml")
    assert load_network("again.yaml").layers == net.layers
    lines = {found[1]: line for line in done.out.splitlines()
             if (found := re.search(r"name: (\w+), kind", line))}  # fmt: skip
    density = plain.sum() / plain.size
    assert lines["plain"].endswith(f"own mask of density {density:.3g}")
    assert lines["periodic"].endswith("own mask of density 0.25")
    assert "pattern" not in lines["periodic"]
    assert sum("own mask" in line for line in lines.values()) == 2
    assert "masks: masks.npz" in done.out.splitlines()


def test_masks_given_in_python_are_said_to_be_nowhere_yet() -> None:
    net = network(conv("a", 2), size=(2, 4, 4)).with_masks({"a": HAND})
    text = network_yaml(net)
    assert "# masks given in Python" in text
    text = text.replace("# masks: FILE.npz", "masks: kept.npz").replace("net+masks", "net")
    Path("net.yaml").write_text(text)
    np.savez("kept.npz", allow_pickle=False, a=HAND)
    assert load_network("net.yaml").layers == net.layers


def test_formats_are_listed_for_the_mask() -> None:
    save({"plain": drawn(8, 4, 3, 3)})
    done = call("formats", "--net", "own.yaml", "--format", "csv")
    assert (done.status, done.err) == (0, "")
    mask = load_network("own.yaml").layer("plain").mask
    stored = get_format("csr")(mask, 8)
    row = f"own,plain,irregular,288,{mask.nonzeros},csr,{stored.values},{stored.metadata}"
    assert row in done.out
    assert not re.search(r"^own,plain,.*(periodic|nm)", done.out, re.MULTILINE)


# -- from Python -----------------------------------------------------------------------------------


def test_with_masks_keeps_what_it_does_not_name() -> None:
    plain = network(conv("a", 8), conv("b", 8), size=(3, 6, 6))
    named = plain.with_pattern("PS4_P4").with_masks({"a": [True, False, True]})
    assert (named.name, named.base, named.pattern) == ("net+PS4_P4+masks", "net", "mixed")
    assert [layer.pattern for layer in named.layers] == ["channels", "PS4_P4"]
    more = named.with_masks({"b": drawn(8, 8, 3, 3)})
    assert more.name == "net+PS4_P4+masks"
    assert more.layer("a") == named.layer("a")
    assert more.dense() == plain
    assert plain.with_masks({"a": drawn(8, 3, 3, 3)}).base == "net"
    own = network(conv("a", 8), conv("b", 8, pattern="PS4_P4"), size=(3, 6, 6))
    assert own.with_masks({"a": drawn(8, 3, 3, 3)}).base is None


def test_with_masks_tells_all_mistakes() -> None:
    plain = network(conv("a1", 8), conv("b1", 8), size=(3, 6, 6))
    with pytest.raises(InputErrors) as caught:
        plain.with_masks({"a1": np.zeros((8, 3, 3, 3)), "b": [True], "b1": [False] * 8})
    assert caught.value.problems == (
        "net: layer 'a1': a mask is an array of bool, got float64. Try `array != 0`",
        "net: there is no layer named 'b'. Did you mean 'b1'?",
        "net: layer 'b1': no weight is live, so the layer computes nothing. Leave it out",
    )


# -- files that are wrong --------------------------------------------------------------------------


def refused(line: int = 3) -> str:
    """Message of the only problem, which stands at the field of the network file."""
    with pytest.raises(InputErrors) as caught:
        load_network("own.yaml")
    (problem,) = caught.value.problems
    start = f"own.yaml:{line}:8 masks: "
    assert problem.startswith(start)
    done = call("run", "--net", "own.yaml", "--hw", "edge_tpu")
    assert done.status == 2
    assert problem in done.err
    return problem.removeprefix(start)


@pytest.mark.parametrize(
    ("name", "mask", "message"),
    [
        ("plian", np.ones(4, dtype=bool), "there is no layer named 'plian'. Did you mean 'plain'?"),
        ("zzz", np.ones(4, dtype=bool), "there is no layer named 'zzz'."),
        (
            "small",
            np.ones(4, dtype=bool),
            "layer 'small' (pool) has no weights, so it takes no mask",
        ),
        (
            "plain",
            np.ones((8, 3, 3, 3), dtype=bool),
            (
                "layer 'plain': its mask has the shape [8, 4, 3, 3], [1, 8, 4, 3, 3], or [4] for"
                " whole input channels; got [8, 3, 3, 3]"
            ),
        ),
        (
            "fc",
            np.bool_(True),
            (
                "layer 'fc': its mask has the shape [5, 54], [5, 54, 1, 1], [1, 5, 54, 1, 1], or"
                " [54] for whole input channels; got []"
            ),
        ),
        (
            "plain",
            np.ones((8, 4, 3, 3), dtype=np.uint8),
            "layer 'plain': a mask is an array of bool, got uint8. Try `array != 0`",
        ),
        (
            "plain",
            np.zeros((8, 4, 3, 3), dtype=bool),
            "layer 'plain': no weight is live, so the layer computes nothing. Leave it out",
        ),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_masks_that_fit_no_layer(name: str, mask: npt.ArrayLike, message: str) -> None:
    save({name: mask})
    assert refused() == f"masks.npz: {message}"


def test_all_mistakes_are_told_at_once() -> None:
    save({"plain": np.ones(3, dtype=bool), "fcc": np.ones(3, dtype=bool), "fc": drawn(5, 54)})
    with pytest.raises(InputErrors, match=r"(?s)layer 'plain': .*named 'fcc'.*2 errors"):
        load_network("own.yaml")


def write(data: bytes) -> None:
    Path("own.yaml").write_text(NET)
    Path("masks.npz").write_bytes(data)


def good() -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, plain=drawn(8, 4, 3, 3))
    return file.getvalue()


def archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as each:
        for name, data in members.items():
            each.writestr(f"{name}.npy", data)
    return file.getvalue()


def npy(shape: str, data: bytes = b"", *, descr: str = "'|b1'", version: int = 1) -> bytes:
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + bytes([version, 0]) + len(head).to_bytes(2, "little") + head + data


def test_what_is_no_archive_is_told() -> None:
    write(good()[:-30])  # the list at the end is missing
    assert refused().startswith("masks.npz: is no .npz file of arrays, or damaged (")
    for data in (b"", b"hello", good()[:40], npy("(4,)", b"\1\1\1\1")):
        write(data)
        message = refused()
        assert "is no .npz file of arrays, or damaged (" in message
        assert message.endswith("Write it with numpy.savez(FILE, LAYER=mask, ...)")


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (b"", "does not begin"),
        (b"hello world, no array", "'plain.npy' in it does not begin as an array does"),
        (npy("(8, 4, 3, 3)", b"\1" * 200), "has the shape [8, 4, 3, 3] and 200 bytes"),
        (npy("(10**9, 10**9)"), "does not begin"),
        (npy("(1000000000, 1000000000)"), "has the shape [1000000000, 1000000000] and 0 bytes"),
        (npy("(-4,)", b""), "has the shape [-4] and 0 bytes"),
        (npy("(4,)", b"\1\1\1\1", version=9), "does not begin"),
        (npy("(4,)", b"\1\1\1\1", descr="'nonsense'"), "does not begin"),
        (npy("__import__('os').getcwd()"), "does not begin"),
    ],
)
def test_damaged_arrays_are_told(member: bytes, words: str) -> None:
    write(archive(plain=member))
    message = refused()
    assert "is no .npz file of arrays, or damaged (" in message
    assert words.lower() in message.lower()


def test_pickles_are_never_loaded(folder: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (folder / "sprung",)

    Path("own.yaml").write_text(NET)
    np.savez("masks.npz", plain=np.array([Trap()] * 4, dtype=object))
    expected = "layer 'plain': a mask is an array of bool, got object. Try `array != 0`"
    assert refused() == f"masks.npz: {expected}"
    assert not (folder / "sprung").exists()


def test_bits_that_have_changed_are_noticed() -> None:
    data = good()
    at = data.index(drawn(8, 4, 3, 3).tobytes()[:40])
    write(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert "Bad CRC-32 for file 'plain.npy'" in refused()
    # Of a large array only the head is looked at first.
    Path("own.yaml").write_text(NET.replace("out: 5", "out: 5000"))
    np.savez("masks.npz", allow_pickle=False, fc=drawn(5000, 54))
    data = Path("masks.npz").read_bytes()
    Path("masks.npz").write_bytes(data[:-400] + bytes([data[-400] ^ 1]) + data[-399:])
    message = refused()
    assert message.startswith("masks.npz: layer 'fc': the array of its mask is damaged (Bad CRC")


@pytest.mark.filterwarnings("error")
def test_no_change_of_any_byte_is_a_bug() -> None:
    random = np.random.default_rng(4)
    whole = archive(plain=npy("(8, 4, 3, 3)", drawn(8, 4, 3, 3).tobytes()))
    told = 0
    for case in range(1_500):
        data = bytearray(whole)
        if case % 3 == 0:  # inside the head of the array, with a sum that agrees
            member = bytearray(npy("(8, 4, 3, 3)", drawn(8, 4, 3, 3).tobytes()))
            for _ in range(random.integers(1, 4)):
                member[random.integers(0, 80)] = random.choice(list(b"(){}[]'\",:L0\n\t #\x00\xff"))
            data = bytearray(archive(plain=bytes(member)))
        for _ in range(random.integers(0 if case % 3 == 0 else 1, 4)):
            data[random.integers(0, len(data))] = random.integers(0, 256)
        if case % 7 == 0:
            del data[random.integers(1, len(data)) :]
        Path("fuzzed.npz").write_bytes(data)
        try:
            file = MaskFile.open("fuzzed.npz")
            for name in file.heads:
                file.read(name)
        except InputError:
            told += 1
    assert 1_000 < told < 1_500


def test_other_members_are_told() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as each:
        each.writestr("readme.txt", "hello")
    write(file.getvalue())
    assert "'readme.txt' in it is no array" in refused()
    write(archive())
    assert "holds no masks" in refused()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as each:
        each.writestr("plain.npy", npy("(4,)", b"\1\1\1\1"))
        each.writestr("other.npy", npy("(4,)", b"\0\1\1\1"))
    write(file.getvalue().replace(b"other.npy", b"plain.npy"))
    assert "holds two arrays named 'plain'" in refused()


def test_a_file_that_is_not_there() -> None:
    Path("own.yaml").write_text(NET)
    assert refused() == "masks.npz: no such file"
    Path("masks.npz").mkdir()
    assert refused() == "masks.npz: is a folder, not a file of masks"


def test_shapes_are_checked_before_the_masks() -> None:
    save({"plain": np.ones(3, dtype=bool)}, NET.replace("out: 6, kernel: 1", "out: 6, kernel: 9"))
    with pytest.raises(InputErrors) as caught:
        load_network("own.yaml")
    (problem,) = caught.value.problems
    assert "larger than the padded input" in problem


def test_without_a_network_file_the_current_folder_is_meant() -> None:
    np.savez("kept.npz", allow_pickle=False, a=HAND)
    fields = {"name": "net", "source": "a test", "input": [2, 4, 4], "layers": [conv("a", 2)]}

    def build(masks: str) -> tuple[Layer, ...]:
        spec = NetworkSpec.model_validate_json(json.dumps({**fields, "masks": masks}))
        return build_network(spec, None, load_network).layers

    assert build("kept.npz")[0].weights == 4
    with pytest.raises(InputErrors, match=r"net masks: gone.npz: no such file"):
        build("gone.npz")


def test_bits_of_another_shape_are_refused() -> None:
    shape = Shape((1, 1, 1, 4, 1, 1, 3, 1), size=(3, 1))
    with pytest.raises(InputError, match="12 weights take 2 bytes of bits, got 3"):
        Mask.from_bits(bytes(3), shape)
    own = Mask.for_layer(drawn(1, 4, 3, 1), shape)
    assert Mask.from_bits(own.live, shape) == own


def test_a_file_is_a_list_of_heads() -> None:
    save({"plain": drawn(8, 4, 3, 3), "fc": drawn(5, 54)})
    file = MaskFile.open("masks.npz")
    assert {name: (head.dtype, head.shape) for name, head in file.heads.items()} == {
        "plain": ("bool", (8, 4, 3, 3)),
        "fc": ("bool", (5, 54)),
    }
    Path("masks.npz").unlink()
    with pytest.raises(InputError, match=r"the array of its mask is damaged \(.*No such file"):
        file.read("fc")


@pytest.mark.parametrize(("run_bits", "bits"), [(5, 52), (4, 48), (3, 55)])
def test_a_run_takes_the_width_of_its_machine(run_bits: int, bits: int) -> None:
    hardware = chip()
    sparsity = hardware.sparsity.model_copy(update={"run_bits": run_bits})
    result = run(hardware.model_copy(update={"sparsity": sparsity}), weight_format="rle")
    assert result.layer_rows[0].weight_bits == bits
