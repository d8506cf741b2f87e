"""The file door: what is read, what is refused and where, and what is written."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from energysim import yamlio
from energysim.errors import InputError, InputErrors
from energysim.files import write_atomically
from energysim.mistakes import Source
from energysim.yamlio import load_model, parse_model, to_yaml


class _Base(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Anything(_Base):
    v: JsonValue = None


class Conv(_Base):
    kind: Literal["conv"]
    kernel: Annotated[int, Field(ge=1)] | tuple[int, int]
    pad: int | tuple[int, int] | tuple[int, int, int, int] | Literal["same"] = 0


class Pool(_Base):
    kind: Literal["pool"]
    size: int = 2


class Net(_Base):
    name: Annotated[str, Field(min_length=1)]
    energy: Annotated[float, Field(ge=0)] = 0.0
    count: Annotated[int, Field(gt=0, le=9)] = 1
    on: bool = False
    mode: Literal["keep", "refetch"] = "keep"
    input: tuple[int, int, int] = (1, 1, 1)
    layers: Annotated[
        tuple[Annotated[Conv | Pool, Field(discriminator="kind")], ...], Field(max_length=3)
    ] = ()
    sizes: dict[Literal["weight", "input"], float] = Field(default_factory=dict)


def value(text: str) -> object:
    return parse_model(f"v: {text}", Anything, name="f.yaml")[0].v


def problems(text: str, model: type[BaseModel] = Net) -> tuple[str, ...]:
    with pytest.raises(InputErrors) as caught:
        parse_model(text, model, name="f.yaml")
    return caught.value.problems


def refusal(text: str, model: type[BaseModel] = Anything) -> str:
    with pytest.raises(InputError) as caught:
        parse_model(text, model, name="f.yaml")
    assert not isinstance(caught.value, InputErrors)
    return str(caught.value)


def file_refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_model(path, Anything)
    return str(caught.value)


@pytest.fixture(params=["C parser", "Python parser"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run everything with both parsers: systems without libyaml have only the second."""
    loader = yaml.SafeLoader if request.param == "Python parser" else yaml.CSafeLoader
    monkeypatch.setattr(yamlio, "_LOADER", loader)
    return str(request.param)


# Scalars


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("True", True),
        ("false", False),
        ("False", False),
        ("0", 0),
        ("-12", -12),
        ("+7", 7),
        ("1e-12", 1e-12),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("3E+2", 300.0),
        ("0.0", 0.0),
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("TRUE", "TRUE"),
        ("12:30", "12:30"),
        ("2020-01-01", "2020-01-01"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("1e", "1e"),
        ("nan", "nan"),
        ("'1e-12'", "1e-12"),
        ('"010"', "010"),
        ('"~"', "~"),
        ("[1, [2, {a: b}]]", [1, [2, {"a": "b"}]]),
        ("{a: 1, on: 2}", {"a": 1, "on": 2}),
        ("&anchor 3", 3),
        ("µ-bus", "µ-bus"),
    ],
)
def test_scalars_follow_the_core_schema(text: str, expected: object) -> None:
    read = value(text)
    assert read == expected
    assert type(read) is type(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("010", "f.yaml:1:4 v: '010' has a leading zero. Write 10, or quote it if it is text"),
        ("-007", "f.yaml:1:4 v: '-007' has a leading zero. Write -7, or quote it if it is text"),
        (".nan", "f.yaml:1:4 v: must be a finite number, got .nan"),
        ("-.INF", "f.yaml:1:4 v: must be a finite number, got -.INF"),
        ("1e999", "f.yaml:1:4 v: '1e999' is too large a number"),
        ("9223372036854775808", "f.yaml:1:4 v: '9223372036854775808' is too large a number"),
        ("[&x 1, *x]", "f.yaml:1:11 v.1: aliases are not supported. Write the value again"),
        (
            "!!int '3'",
            "f.yaml:1:4 v: tags are not supported (tag:yaml.org,2002:int). Write a plain value",
        ),
    ],
)
def test_scalars_that_are_refused(text: str, message: str) -> None:
    assert problems(f"v: {text}", Anything) == (message,)


def test_number_with_thousands_of_digits_is_shortened_in_its_message() -> None:
    (line,) = problems(f"v: {'9' * 6000}", Anything)
    assert line.startswith("f.yaml:1:4 v: '9999")
    assert len(line) < 120


def test_python_tags_construct_nothing() -> None:
    (line,) = problems("v: !!python/object/apply:os.system ['true']", Anything)
    assert line.startswith("f.yaml:1:4 v: tags are not supported")


# Structure


def test_duplicate_fields_name_both_positions() -> None:
    assert problems("name: a\nenergy: 1\nname: {b: [c]}\n") == (
        "f.yaml:3:1 name: given twice, first at line 1, column 1",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\n3: x", "f.yaml:2:1: the name of a field must be text, got '3'"),
        ("name: a\n~: x", "f.yaml:2:1: the name of a field must be text, got '~'"),
        ("name: a\n010: x", "f.yaml:2:1: the name of a field must be text, got '010'"),
        ("name: a\n? [b, c]\n: x", "f.yaml:2:3: the name of a field must be plain text"),
    ],
)
def test_field_names_are_text(text: str, message: str) -> None:
    assert problems(text) == (message,)


def test_merge_keys_are_ordinary_unknown_fields() -> None:
    (line,) = problems("name: a\n<<: {energy: 1}")
    assert line.startswith("f.yaml:2:1 <<: unknown field. Allowed: name, energy,")


def test_problems_of_text_and_of_meaning_come_together_in_file_order() -> None:
    text = "name: ''\nenergy: .inf\ncount: 0\nlayers: &x []\nsizes: *x\n"
    assert problems(text) == (
        "f.yaml:1:7 name: must not be empty",
        "f.yaml:2:9 energy: must be a finite number, got .inf",
        "f.yaml:3:8 count: must be > 0, got 0",
        "f.yaml:5:8 sizes: aliases are not supported. Write the value again",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b", "f.yaml:1:1: must be a mapping (field: value), got a list"),
        ("just words", "f.yaml:1:1: must be a mapping (field: value), got 'just words'"),
        ("# only a comment\n", "f.yaml: the file has no fields, only comments"),
        ("---\n", "f.yaml:2:1: must be a mapping (field: value), got nothing"),
        ("v: 1\n---\nv: 2\n", "f.yaml:2:1: a second document starts here ('---'); a file has one"),
    ],
)
def test_roots_that_are_no_mapping(text: str, message: str) -> None:
    assert refusal(text) == message


@pytest.mark.parametrize(
    ("text", "start", "words"),
    [
        ("v: [1, 2\nw: 3\n", "f.yaml:2:", "not valid YAML"),
        ("v:\n\t- 1\n", "f.yaml:2:1", "a tab stands here. Indent with spaces"),
        ("a: b: c\n", "f.yaml:1:5", "':' is not expected here"),
        ("v: @home\n", "f.yaml:1:4", "a value can't start with '@'. Quote it"),
        ("v: 'open\n", "f.yaml:", "not valid YAML"),
        ("v: 1\n  w: 2\n", "f.yaml:2:", "not valid YAML"),
        ("v: \x07\n", "f.yaml:1:4", "the control character U+0007 is not allowed"),
        ("v: *unknown", "f.yaml:1:4", "aliases are not supported"),
    ],
)
def test_syntax_errors_have_a_position_and_a_sentence(text: str, start: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_model(text, Anything, name="f.yaml")
    message = str(caught.value)
    assert message.startswith(start)
    assert words in message


# Hostile text


@pytest.mark.parametrize("text", ["[" * 200_000, "{a: " * 100_000, "- " * 100_000])
def test_deep_nesting_is_refused(text: str) -> None:
    message = "lists and mappings are nested deeper than 32 levels"
    assert refusal(f"v:\n {text}").endswith(message)


def test_deep_nesting_in_a_duplicate_field_is_skipped_without_recursion() -> None:
    text = f"v: 1\nv: {'[' * 900}{']' * 900}\n"
    assert problems(text, Anything) == ("f.yaml:2:1 v: given twice, first at line 1, column 1",)


def test_alias_bomb_is_refused_without_expansion() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    started = time.monotonic()
    lines_refused = problems("\n".join(lines), Anything)
    assert sum("aliases are not supported" in line for line in lines_refused) == 29 * 9
    assert time.monotonic() - started < 5


def test_too_many_values_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamlio, "MAX_VALUES", 100)
    assert refusal(f"v: [{'1,' * 200}]") == "f.yaml:1:201: the file has more than 100 values"


# Files


def test_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "eyeriss.yaml").write_text("v: 1")
    path = tmp_path / "eyeris.yaml"
    assert file_refusal(path) == f"{path}: no such file. Did you mean 'eyeriss.yaml'?"
    path = tmp_path / "gone" / "chip.yaml"
    assert file_refusal(path) == f"{path}: no such file. There is no folder {path.parent} either"


def test_folder(tmp_path: Path) -> None:
    assert file_refusal(tmp_path) == f"{tmp_path}: is a folder, not a file"


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.yaml"
    path.write_text("v: 1")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # tests may run as root, who may read everything
    assert file_refusal(path) == f"{path}: no permission to read it"


def test_file_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("v: 1")
    assert "can't be read: Not a directory" in file_refusal(path / "b.yaml")


def test_name_with_a_zero_byte() -> None:
    assert "can't be read" in file_refusal(Path("a\0b.yaml"))


def test_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    assert file_refusal(path) == f"{path}: larger than 10 MB, so it is not read"


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_endless_device_is_read_no_further_than_the_limit() -> None:
    assert file_refusal(Path("/dev/zero")) == "/dev/zero: larger than 10 MB, so it is not read"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "{}: the file is empty"),
        (b" \n\n", "{}: the file is empty"),
        (b"\x89PNG\r\n\0\0\0", "{}: is not a text file (it has zero bytes)"),
        ("v: 1".encode("utf-16"), "{}: is not a text file (it has zero bytes)"),
        (b"v: 1\nw: \xff\xfe", "{}:2: is not UTF-8 text"),
    ],
)
def test_files_that_are_no_text(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(raw)
    assert file_refusal(path) == message.format(path)


def test_byte_order_mark_and_dos_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbfv: \r\n  - 1\r\n  - no\r\n")
    loaded, source = load_model(path, Anything)
    assert loaded.v == [1, "no"]
    assert source.path == path
    assert source.where(("v", 1)) == f"{path}:3:5"


# Validation


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("energy: 1", "f.yaml:1:1: missing field 'name'"),
        ("name: a\nenergi: 1", "f.yaml:2:1 energi: unknown field. Did you mean 'energy'?"),
        (
            "name: a\nzzz: 1",
            (
                "f.yaml:2:1 zzz: unknown field. "
                "Allowed: name, energy, count, on, mode, input, layers, sizes"
            ),
        ),
        ("name: 5", "f.yaml:1:7 name: must be text, got 5"),
        ("name:", "f.yaml:1:6 name: must be text, got nothing"),
        ("name: a\nenergy: -0.2", "f.yaml:2:9 energy: must be >= 0, got -0.2"),
        ("name: a\nenergy: '5'", "f.yaml:2:9 energy: must be a number, got '5'"),
        ("name: a\nenergy: true", "f.yaml:2:9 energy: must be a number, got true"),
        ("name: a\ncount: 1.0", "f.yaml:2:8 count: must be an integer, got 1.0"),
        ("name: a\ncount: abc", "f.yaml:2:8 count: must be an integer, got 'abc'"),
        ("name: a\ncount: 10", "f.yaml:2:8 count: must be <= 9, got 10"),
        ("name: a\non: yes", "f.yaml:2:5 on: must be true or false, got 'yes'"),
        (
            "name: a\nmode: refetsh",
            (
                "f.yaml:2:7 mode: must be one of 'keep', 'refetch', got 'refetsh'. "
                "Did you mean 'refetch'?"
            ),
        ),
        ("name: a\nmode: 3", "f.yaml:2:7 mode: must be one of 'keep', 'refetch', got 3"),
        ("name: a\ninput: 3", "f.yaml:2:8 input: must be a list, got 3"),
        ("name: a\ninput: [3, 4]", "f.yaml:2:8 input: must have more entries: entry 3 is missing"),
        ("name: a\ninput: [3, 4, 5, 6]", "f.yaml:2:8 input: must have at most 3 entries, got 4"),
        ("name: a\ninput: [3, 4, x]", "f.yaml:2:15 input.2: must be an integer, got 'x'"),
        (
            "name: a\nsizes: {weihgt: 1}",
            (
                "f.yaml:2:9 sizes.weihgt: must be one of 'weight', 'input', got 'weihgt'. "
                "Did you mean 'weight'?"
            ),
        ),
        ("name: a\nsizes: 3", "f.yaml:2:8 sizes: must be a mapping, got 3"),
        ("name: a\nlayers: {a: b}", "f.yaml:2:9 layers: must be a list, got a mapping"),
        ("name: a\nlayers:\n - 5", "f.yaml:3:4 layers.0: must be a mapping, got 5"),
        ("name: a\nlayers:\n - {size: 2}", "f.yaml:3:4 layers.0: missing field 'kind'"),
        (
            "name: a\nlayers:\n - {kind: poll}",
            (
                "f.yaml:3:11 layers.0.kind: must be one of 'conv', 'pool', got 'poll'. "
                "Did you mean 'pool'?"
            ),
        ),
        (
            "name: a\nlayers:\n - {kind: pool, sice: 2}",
            "f.yaml:3:17 layers.0.sice: unknown field. Did you mean 'size'?",
        ),
        (
            "name: a\nlayers:\n - {kind: pool, kernel: 2}",
            "f.yaml:3:17 layers.0.kernel: unknown field. Allowed: kind, size",
        ),
        ("name: a\nlayers:\n - kind: conv", "f.yaml:3:4 layers.0: missing field 'kernel'"),
        (
            "name: a\nlayers:\n - {kind: conv, kernel: abc}",
            "f.yaml:3:25 layers.0.kernel: must be an integer or a list, got 'abc'",
        ),
        (
            "name: a\nlayers:\n - {kind: conv, kernel: 0}",
            "f.yaml:3:25 layers.0.kernel: must be >= 1, got 0",
        ),
        (
            "name: a\nlayers:\n - {kind: conv, kernel: [1, x]}",
            "f.yaml:3:29 layers.0.kernel.1: must be an integer, got 'x'",
        ),
        (
            "name: a\nlayers:\n - {kind: conv, kernel: 3, pad: [1, 2, 3]}",
            "f.yaml:3:33 layers.0.pad: must have 2 or 4 entries, got 3",
        ),
        (
            "name: a\nlayers:\n - {kind: conv, kernel: 3, pad: sam}",
            "f.yaml:3:33 layers.0.pad: must be an integer or a list or 'same', got 'sam'",
        ),
    ],
)
def test_each_mistake_has_its_position_and_sentence(text: str, message: str) -> None:
    assert problems(text) == (message,)


class Even(_Base):
    number: Annotated[int, Field(multiple_of=2)]
    word: Annotated[str, Field(max_length=3)] = ""
    form: Annotated[int, Field(ge=5)] | Annotated[float, Field(multiple_of=2)] = 6


def test_other_mistakes_keep_the_words_of_pydantic() -> None:
    assert problems("number: 3\nword: long\nform: 3", Even) == (
        "f.yaml:1:9 number: must be a multiple of 2, got 3",
        "f.yaml:2:7 word: string should have at most 3 characters, got 'long'",
        "f.yaml:3:7 form: must be >= 5, got 3, or must be a multiple of 2, got 3",
    )


def test_all_mistakes_at_once_in_file_order() -> None:
    text = "energy: -1\nlayers:\n  - {kind: conv, kernel: 0}\n  - {kind: pool, sise: 3}\non: 1\n"
    with pytest.raises(InputErrors) as caught:
        parse_model(text, Net, name="f.yaml")
    assert str(caught.value).splitlines() == [
        "f.yaml:1:1: missing field 'name'",
        "f.yaml:1:9 energy: must be >= 0, got -1",
        "f.yaml:3:26 layers.0.kernel: must be >= 1, got 0",
        "f.yaml:4:18 layers.1.sise: unknown field. Did you mean 'size'?",
        "f.yaml:5:5 on: must be true or false, got 1",
        "5 errors",
    ]


def test_long_values_are_shortened() -> None:
    (line,) = problems(f"name: a\ncount: {'x' * 1_000_000}")
    assert len(line) < 120


def test_many_mistakes_take_reasonable_time() -> None:
    layers = ",".join("{kind: conv, kernel: abc}" for _ in range(3000))
    started = time.monotonic()
    lines = problems(f"name: a\nlayers: [{layers}]")
    assert len(lines) == 3000
    assert time.monotonic() - started < 20


# Positions


def test_where_finds_the_nearest_value_and_skips_tags() -> None:
    text = "name: a\nlayers:\n  - kind: conv\n    kernel: [3, 5]\n"
    _, source = parse_model(text, Net, name="f.yaml")
    assert source.where(()) == "f.yaml:1:1"
    assert source.where(("layers", 0)) == "f.yaml:3:5"
    assert source.where(("layers", 0, "kernel", 1)) == "f.yaml:4:17"
    assert source.where(("layers", 0, "conv", "kernel", 1)) == "f.yaml:4:17"
    assert source.where(("layers", 0, "kernel"), key=True) == "f.yaml:4:5"
    assert source.where(("layers", 0, "pad")) == "f.yaml:3:5"
    assert source.where(("layers", 7, "pad")) == "f.yaml:3:3"
    assert source.problem(("layers", 0, "pad"), "is odd") == "f.yaml:3:5 layers.0.pad: is odd"


def test_source_without_a_file() -> None:
    source = Source.none("--scan")
    assert source.path is None
    assert source.where(("levels", 3)) == "--scan"
    assert source.problem((), "is empty") == "--scan: is empty"


# Writing


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12)
NUMBERS = st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
TRICKY = st.sampled_from(
    ["010", "1e5", ".5", "no", "~", "", "12:30", ".nan", "08", "-0", "<<", "=", "a: b", "# c", "!x"]
)
PLAIN = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT | TRICKY,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | TRICKY, inner, max_size=4),
    max_leaves=12,
)


@given(PLAIN)
def test_what_is_written_is_read_back(data: object) -> None:
    loaded, _ = parse_model(to_yaml({"v": data}), Anything, name="f.yaml")
    assert loaded.v == data
    assert repr(loaded.v) == repr(data)


def test_written_form() -> None:
    shared = ["rows", "cols"]
    data = {
        "name": "chip",
        "energy": 1e-12,
        "size": 8.0,
        "bits": {"weight": 8, "input": 16},
        "unroll": {"rows": ["C"]},
        "levels": [{"name": "A", "per": shared}, {"name": "B", "per": shared}],
        "none": None,
    }
    assert to_yaml(data) == (
        "name: chip\nenergy: 1e-12\nsize: 8.0\nbits: {weight: 8, input: 16}\n"
        "unroll:\n  rows: [C]\nlevels:\n- name: A\n  per: [rows, cols]\n"
        "- name: B\n  per: [rows, cols]\nnone: null\n"
    )


def test_objects_are_written_without_null_fields() -> None:
    assert to_yaml(Anything(v=None)) == "{}\n"


def test_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    write_atomically(path, "old, longer text\n")
    write_atomically(path, b"new\n")
    assert path.read_text() == "new\n"
    assert list(tmp_path.iterdir()) == [path]


def test_write_honours_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "out", "x")
    finally:
        os.umask(old)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o640


def test_write_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "file").write_text("old")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"


def test_write_to_a_device_leaves_the_device(tmp_path: Path) -> None:
    write_atomically(Path(os.devnull), "x")
    assert not Path(os.devnull).is_file()


def write_refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        write_atomically(path, "x")
    return str(caught.value)


def test_write_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gone" / "out.csv"
    assert write_refusal(path) == f"{path}: the folder {path.parent} does not exist"
    assert write_refusal(tmp_path) == f"{tmp_path}: is a folder, not a file to write"
    (tmp_path / "file").write_text("old")
    assert "can't be written: Not a directory" in write_refusal(tmp_path / "file" / "out")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # tests may run as root, who may write everywhere
    path = tmp_path / "out.csv"
    assert write_refusal(path) == f"{path}: no permission to write in {tmp_path}"


def test_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert write_refusal(path) == f"{path}: can't be written: No space left on device"
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="modes are a matter of POSIX")
def test_a_file_keeps_its_mode_when_it_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old", encoding="utf-8")
    path.chmod(0o640)
    write_atomically(path, "new")
    assert (path.read_text(encoding="utf-8"), path.stat().st_mode & 0o777) == ("new", 0o640)
