"""N:M, own supports, channel and irregular masks; what patterns cover; network files with them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from energysim.axes import Shape
from energysim.cli.describe import network_yaml
from energysim.errors import InputError, InputErrors
from energysim.network import Network, NetworkSpec, build_network
from energysim.sparsity import (
    ALL_TAPS,
    CORNERS,
    PAIRS,
    PATTERNS,
    SINGLES,
    Mask,
    Pattern,
    coverage,
    get_pattern,
)
from energysim.yamlio import parse_model


def layer(filters: int, channels: int, *, groups: int = 1, kernel: int = 3) -> Shape:
    return Shape((1, groups, filters, channels, 1, 1, kernel, kernel), size=(kernel, kernel))


@st.composite
def own_patterns(draw: st.DrawFn) -> Pattern:
    height, width = draw(st.sampled_from([(3, 3), (5, 5), (7, 7), (1, 3), (2, 5)]))
    taps = st.lists(st.integers(0, height * width - 1), min_size=1, unique=True)
    few = st.none() | st.integers(1, 8)
    supports = draw(st.lists(taps, min_size=1, max_size=6))
    return Pattern.of(supports, (height, width), period=draw(few), fdk_every=draw(few))


# -- own supports ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("supports", "period", "every", "name"),
    [
        (CORNERS, 4, None, "PS4_P4"),
        (CORNERS, None, None, "PS4_P4"),
        (PAIRS, 6, None, "PS2_P6"),
        (SINGLES, None, None, "PS1_P9"),
        (CORNERS, 4, 8, "PSD4_P8"),
        (CORNERS, None, 8, "PSD4_P8"),
        (CORNERS, 4, 16, "PSD4_P16"),
        (PAIRS, 8, 8, "PSD2_P8"),
        (PAIRS, None, 16, "PSD2_P16"),
        (SINGLES, None, 8, "PSD1_P8"),
        (SINGLES, 16, 16, "PSD1_P16"),
        (((1, 0, 4, 3), *CORNERS[1:]), None, None, "PS4_P4"),
    ],
)
def test_the_patterns_of_the_papers_as_own_ones(
    supports: tuple[tuple[int, ...], ...], period: int | None, every: int | None, name: str
) -> None:
    assert Pattern.of(supports, period=period, fdk_every=every) is PATTERNS[name]


@given(own_patterns(), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))
def test_array_follows_the_slot_rule(
    pattern: Pattern, groups: int, filters: int, channels: int
) -> None:
    """Written out again: the variants cycle, and a dense kernel takes the place of every F-th."""
    if pattern.kernel is None or pattern.name in PATTERNS:
        return
    height, width = pattern.kernel
    shape = Shape((1, groups, filters, channels, 1, 1, height, width), size=(height, width))
    mask = Mask.of(pattern, shape)
    array = mask.array().reshape(groups, filters, channels, -1)
    words = pattern.name.split("_")
    supports = [set(map(int, word.split("."))) for word in words[1:] if word[0] not in "PF"]
    marks = {word[0]: int(word[1:]) for word in words[1:] if word[0] in "PF"}
    every = marks.get("F", 0)
    cycle = marks.get("P", every or len(supports))
    for g, k, c in product(range(groups), range(filters), range(channels)):
        number = g * filters + k + g * channels + c + 1
        live = set(np.flatnonzero(array[g, k, c]).tolist())
        if every and number % every == 0:
            assert live == set(range(height * width))
        else:
            assert live == supports[(number - 1) % cycle % len(supports)]
    assert mask.nonzeros == array.sum()
    assert (mask.support_sizes() == array.sum(axis=-1)).all()
    expected = max(
        int(array[g, k : k + 2, c : c + 3].sum())
        for g in range(groups)
        for k in range(0, filters, 2)
        for c in range(0, channels, 3)
    )
    assert mask.max_tile_nonzeros(2, 3)[0, 0] == expected


@given(own_patterns())
def test_names_of_own_patterns_find_them_again(pattern: Pattern) -> None:
    assert get_pattern(pattern.name) == pattern
    assert get_pattern(pattern.name.lower()) == pattern
    assert len(pattern.slots) == pattern.period


def test_own_patterns_say_all_that_is_wrong() -> None:
    with pytest.raises(InputErrors) as caught:
        Pattern.of([[0, 9], [1, 1], []], period=0, fdk_every=-1)
    assert caught.value.problems == (
        "a 3x3 kernel has the taps 0 to 8, numbered row by row; got 9",
        "tap 1 stands in a support twice; write it once",
        "a support needs at least one live tap, got an empty list",
        "must be 1 or more, got 0",
        "must be 1 or more, got -1",
    )
    with pytest.raises(InputErrors, match="needs at least one support"):
        Pattern.of([])
    with pytest.raises(InputErrors, match="a height and a width of 1 or more"):
        Pattern.of([[0]], (0, 3))
    with pytest.raises(InputErrors, match="repeats after 130 kernels, and at most 128 are allowed"):
        Pattern.of([[0], [1]], period=13, fdk_every=10)
    with pytest.raises(InputErrors, match="5x5 kernel has the taps 0 to 24"):
        get_pattern("5x5_0.25")


# -- what a pattern covers -------------------------------------------------------------------------


@given(own_patterns() | st.sampled_from([each for each in PATTERNS.values() if not each.random]))
def test_coverage_equals_a_count_of_masks(pattern: Pattern) -> None:
    """Counted from the mask of one filter over two periods."""
    height, width = pattern.kernel or (3, 3)
    period = pattern.period
    shape = Shape((1, 1, 1, 2 * period, 1, 1, height, width), size=(height, width))
    kernels = Mask.of(pattern, shape).array().reshape(2 * period, -1)
    found = coverage(pattern)
    one = kernels[:period]
    assert found.live == tuple(one.sum(axis=0).tolist())
    assert found.union == tuple(np.flatnonzero(one.any(axis=0)).tolist())
    assert found.missing == tuple(np.flatnonzero(~one.any(axis=0)).tolist())
    sparse = one[~one.all(axis=1)]
    assert found.union_without_fdk == tuple(np.flatnonzero(sparse.any(axis=0)).tolist())
    assert found.mean_kss == pytest.approx(one.sum() / period)
    assert found.variants == len({tuple(kernel) for kernel in sparse.tolist()})
    assert found.dense_kernels == period - len(sparse)
    repeats = [each for each in range(1, period + 1) if (kernels[each:] == kernels[:-each]).all()]
    assert found.true_period == next(each for each in repeats if period % each == 0)


def test_coverage_tells_what_a_user_may_have_missed() -> None:
    doubled = coverage(Pattern.of([[0, 4], [4, 8], [0, 4], [4, 8]]))
    assert (doubled.period, doubled.true_period, doubled.variants) == (4, 2, 2)
    assert doubled.missing == (1, 2, 3, 5, 6, 7)
    short = coverage(Pattern.of([[0], [1], [2]], period=2))
    assert (short.unused, short.variants) == (((2,),), 2)
    assert coverage("PSD4_P8").dense_kernels == 1
    assert coverage("PS4_P4").union_without_fdk == ALL_TAPS
    assert coverage("dense").mean_kss == 9


@pytest.mark.parametrize("name", ["pSC4", "2:4"])
def test_coverage_needs_a_period(name: str) -> None:
    with pytest.raises(InputError, match=f"pattern {name} has no period"):
        coverage(name)
    with pytest.raises(InputError, match="no table of supports"):
        Mask.of(name, layer(4, 4)).table()


def test_mean_of_kernels_that_are_none() -> None:
    with pytest.raises(InputError, match="pattern 2:4 has no kernel variants"):
        _ = get_pattern("2:4").mean_kss


# -- N:M -------------------------------------------------------------------------------------------


@given(
    st.integers(2, 9).flatmap(lambda m: st.tuples(st.integers(1, m - 1), st.just(m))),
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 20),
    st.sampled_from([1, 3, 5]),
    st.integers(0, 99),
)
def test_n_of_m_channels_are_live(
    blocks: tuple[int, int], groups: int, filters: int, channels: int, kernel: int, seed: int
) -> None:
    live, block = blocks
    shape = layer(filters, channels, groups=groups, kernel=kernel)
    mask = Mask.of(f"{live}:{block}", shape, seed)
    array = mask.array()
    assert array.shape == mask.dims
    for first in range(0, channels, block):
        piece = array[:, :, first : first + block]
        assert (piece.sum(axis=2) == min(live, piece.shape[2])).all()
    assert mask.nonzeros == array.sum()
    assert (mask.support_sizes() == array.sum(axis=(3, 4))).all()
    assert (array == Mask.of(f"{live}:{block}", shape, seed).array()).all()


def test_choice_of_n_of_m_is_drawn_and_even() -> None:
    """4096 blocks of 2:4: a channel is live with probability 1/2, standard deviation 0.008."""
    mask = Mask.of("2:4", layer(64, 256, kernel=1), 3)
    blocks = mask.array().reshape(-1, 4)
    assert np.abs(blocks.mean(axis=0) - 0.5).max() < 0.04
    assert len({tuple(block) for block in blocks.tolist()}) == 6
    assert (mask.array() != Mask.of("2:4", layer(64, 256, kernel=1), 4).array()).any()


def test_drawn_blocks_never_change() -> None:
    """A result must be repeatable from its name and seed, so the draw itself is pinned."""
    array = Mask.of("1:4", layer(1, 12, kernel=1), 7).array().reshape(3, 4)
    assert array.argmax(axis=1).tolist() == [3, 2, 3]


@pytest.mark.parametrize("name", ["0:4", "4:4", "5:4", "1:65"])
def test_n_of_m_that_is_none(name: str) -> None:
    with pytest.raises(InputError, match=rf"pattern {name}: in N:M, N must be .* Try 2:4 or 1:4"):
        get_pattern(name)


# -- channel and irregular masks -------------------------------------------------------------------


def test_dead_channels() -> None:
    live = np.array([True, False, True, True, False, True])
    mask = Mask.from_channels(layer(5, 3, groups=2), live)
    array = mask.array()
    for g, c in product(range(2), range(3)):
        assert (array[g, :, c] == live[g * 3 + c]).all()
    assert mask.nonzeros == 4 * 5 * 9
    with pytest.raises(InputError, match=r"an array of 6 bool, got bool \[3\]"):
        Mask.from_channels(layer(5, 3, groups=2), live[:3])
    with pytest.raises(InputError, match=r"an array of 6 bool, got int64 \[6\]"):
        Mask.from_channels(layer(5, 3, groups=2), live.astype(np.int64))


@given(st.integers(0, 999), st.integers(1, 8), st.integers(1, 8), st.integers(1, 9))
def test_any_array_is_a_mask(seed: int, k_tile: int, c_tile: int, channels: int) -> None:
    random = np.random.default_rng(seed)
    array = random.random((2, 5, channels, 3, 3)) < random.random()
    mask = Mask.from_array(array)
    assert (mask.array() == array).all()
    assert mask.nonzeros == array.sum()
    assert (mask.support_sizes() == array.sum(axis=(3, 4))).all()
    assert mask.max_tile_nonzeros(k_tile, c_tile)[0, 0] == max(
        array[g, k : k + k_tile, c : c + c_tile].sum()
        for g in range(2)
        for k in range(0, 5, k_tile)
        for c in range(0, channels, c_tile)
    )


def test_irregular_masks_are_told_apart() -> None:
    """Caches go by the text of the pattern, so it must differ wherever the mask does."""
    array = np.ones((1, 2, 3, 3, 3), dtype=np.bool_)
    one, same = Mask.from_array(array), Mask.from_array(array.copy())
    array[0, 1, 2, 0, 0] = False
    other = Mask.from_array(array)
    turned = Mask.from_array(np.ones((1, 3, 2, 3, 3), dtype=np.bool_))
    assert one == same
    assert hash(one) == hash(same)
    assert len({repr(each.pattern) for each in (one, same, other, turned)}) == 3
    assert "live" not in repr(one)


def test_arrays_that_are_no_masks() -> None:
    with pytest.raises(InputError, match=r"array of bool, got float64. Try `array != 0`"):
        Mask.from_array(np.ones((1, 2, 3, 3, 3)))
    with pytest.raises(InputError, match=r"got \[2, 3, 3, 3\]. Try `array\[None\]`"):
        Mask.from_array(np.ones((2, 3, 3, 3), dtype=np.bool_))
    with pytest.raises(InputError, match=r"got \[1, 0, 3, 3, 3\]"):
        Mask.from_array(np.ones((1, 0, 3, 3, 3), dtype=np.bool_))
    dense = np.ones((1, 2, 6, 3, 3), dtype=np.bool_)
    with pytest.raises(InputError, match="4 live weights in 4 neighbouring channels; 2:4 allows 2"):
        Mask.from_array(dense, blocks=(2, 4))
    assert Mask.from_array(dense[:, :, :2], blocks=(2, 4)).nonzeros == 36


# -- network files ---------------------------------------------------------------------------------

HEAD = "name: net\nsource: a test\ninput: [8, 12, 12]\nlayers:\n"
BASE = (
    HEAD
    + "  - {name: a, kind: conv, out: 8, kernel: 3, pad: 1}\n"
    + "  - {name: b, kind: conv, out: 16, kernel: 3, pad: 1}\n"
    + "  - {name: c, kind: conv, out: 16, kernel: 1}\n"
    + "  - {name: d, kind: depthwise, kernel: 3, pad: 1}\n"
    + "  - {name: fc, kind: linear, out: 10}\n"
)
VARIANT = "name: own\nsource: a test\nbase: net\npattern: "


def read(text: str) -> Network:
    spec, source = parse_model(text, NetworkSpec, name="net.yaml")
    return build_network(spec, source, lambda _name: read(BASE))


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(InputErrors) as caught:
        read(text)
    return caught.value.problems


def patterns(network: Network) -> list[str]:
    return [each.pattern for each in network.layers]


def test_a_variant_of_own_supports() -> None:
    network = read(
        VARIANT + "{supports: [[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]],"
        " period: 4, fdk_every: 8}\n"
    )
    assert patterns(network) == ["dense", "PSD4_P8", "dense", "dense", "dense"]
    assert network.pattern == "PSD4_P8"
    crosses = read(VARIANT + "\n  supports: [[0, 4, 8], [2, 4, 6]]\n  fdk_every: 4\n")
    assert patterns(crosses)[1] == crosses.pattern == "3x3_0.4.8_2.4.6_F4"
    # 8 x 16 kernels, 32 of them dense
    assert crosses.layer("b").weights == 96 * 3 + 32 * 9


def test_n_of_m_covers_1x1_convolutions_too() -> None:
    network = read(VARIANT + "2:4\n")
    assert patterns(network) == ["dense", "2:4", "2:4", "dense", "dense"]
    for name in "bc":
        assert network.layer(name).weights * 2 == network.layer(name).weights_dense
    assert network.layer("b").mask.seed != network.layer("c").mask.seed


def test_layers_of_their_own_supports() -> None:
    network = read(
        HEAD
        + "  - {name: a, kind: conv, out: 8, kernel: 5, pattern: {supports: [[0, 12], [24]]}}\n"
        + "  - {name: b, kind: conv, out: 8, kernel: 7, pattern: 7x7_48_f2}\n"
        + "  - {name: c, kind: conv, out: 8, kernel: [1, 2], pattern: 1:2}\n"
    )
    assert patterns(network) == ["5x5_0.12_24", "7x7_48_F2", "1:2"]
    assert [each.weights for each in network.layers] == [32 * 3, 32 * 50, 64]
    assert network.pattern == "mixed"


@pytest.mark.parametrize(
    "text",
    [
        VARIANT + "{supports: [[0, 4, 8], [2, 4, 6]], period: 3, fdk_every: 4}\n",
        VARIANT + "1:4\n",
        HEAD
        + "  - {name: a, kind: conv, out: 8, kernel: 5, pattern: {supports: [[0, 12], [24]]}}\n",
    ],
)
def test_networks_written_out_are_read_back(text: str) -> None:
    network = read(text)
    assert read(network_yaml(network)).layers == network.layers


MISTAKES = [
    ("{supports: [[0, 9]]}", "[0, 9]", ".supports.0: a 3x3 kernel has the taps 0 to 8, numbered"),
    ("{supports: [[0], [1, 2, 1]]}", "[1, 2", ".supports.1: tap 1 stands in a support twice"),
    ("{supports: []}", "[]", ".supports: must have at least 1 entry, got 0"),
    ("{supports: [[]]}", "[]", ".supports.0: a support needs at least one live tap"),
    ("{supports: [[-1]]}", "-1", ".supports.0.0: must be >= 0, got -1"),
    ("{supports: [[0]], perod: 4}", "perod", ".perod: unknown field. Did you mean 'period'?"),
    ("{supports: [[0]], period: 0}", "0}", ".period: must be >= 1, got 0"),
    (
        "{supports: [[0]], period: 13, fdk_every: 10}",
        "13",
        ".period: the pattern repeats after 130",
    ),
    ("{period: 4}", "{period", ": missing field 'supports'"),
    ("{supports: [[0]], kernel: 5}", "{supports", ": layer 'a': pattern 5x5_0 is defined for 5x5"),
    ("4:2", "4:2", ": pattern 4:2: in N:M, N must be at least 1 and less than M, and M at most 64"),
    ("PS4P4", "PS4P4", ": no pattern named 'PS4P4'. Did you mean 'PS4_P4'? Known: dense, pSC4"),
    ("[1, 2]", "[1", ": must be text or a mapping, got a list"),
]


@pytest.mark.parametrize(("pattern", "place", "message"), MISTAKES)
def test_mistakes_are_named_where_they_stand(pattern: str, place: str, message: str) -> None:
    line = f"  - {{name: a, kind: conv, out: 8, kernel: 3, pattern: {pattern}}}"
    column = line.index("pattern: ") + len("pattern: ") + pattern.index(place) + 1
    (problem,) = problems(f"{HEAD}{line}\n")
    assert problem.startswith(f"net.yaml:5:{column} layers.0.pattern{message}")


def test_n_of_m_on_a_depthwise_layer() -> None:
    (problem,) = problems(HEAD + "  - {name: a, kind: depthwise, kernel: 3, pattern: 2:4}\n")
    assert "pattern 2:4 thins out input channels, and a depthwise layer has one for each" in problem


def test_a_variant_whose_kernels_fit_no_layer() -> None:
    (problem,) = problems(VARIANT + "{supports: [[12]], kernel: 5}\n")
    assert problem.startswith("net.yaml:4:10 pattern: layer 'b' has a 3x3 kernel; pattern 5x5_12")
    assert "is defined for 5x5 kernels" in problem
