"""An ONNX file, read and checked: nodes in order, the size of every tensor, constants on demand.

Everything that can be wrong with a file is found here and said once: what it is, at which node, and
what to try. Shapes are those of ONNX's own inference. Weights are put aside before it, so that it
costs no time and no memory for them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from energysim.errors import InputError, did_you_mean
from energysim.network import LIMIT

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

OPSETS = range(9, 22)
"""Versions of ONNX's operators that are read."""

LARGEST = 2**40
"""More elements than this has no tensor of a file that means what it says."""

MAX_BYTES = 2**31
"""Protocol buffers can't be larger [byte]."""

MAX_CONSTANT = 2**28
"""Constants with more elements are not computed."""

MAX_VECTOR = 2**24
"""Constants of one dim, such as biases and lists of axes, have no more elements."""

_KEPT = 4096
"""Constants up to this size may hold shapes, so shape inference sees their values."""

_DOMAINS = ("", "ai.onnx")
_CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")
_RANDOM = re.compile("Random|Multinomial|Bernoulli")
_EXPORT = "Export the model with plain ai.onnx operators and fixed shapes"


@dataclass(frozen=True, slots=True)
class Node:
    """One operation."""

    op: str
    """its operator"""
    name: str
    """unique in the graph: its own, or that of its first output"""
    inputs: tuple[str, ...]
    """tensors, empty where an optional one is left out"""
    outputs: tuple[str, ...]
    """tensors, likewise"""
    attributes: Mapping[str, Any]
    """numbers, texts and lists of them"""

    def __str__(self) -> str:
        """How messages call it."""
        return f"{self.op} node '{self.name}'"

    def input(self, index: int) -> str:
        """Name of an input, empty where there is none."""
        return self.inputs[index] if index < len(self.inputs) else ""


@dataclass(frozen=True, slots=True)
class Graph:
    """What is left of a file once it is known to be sound."""

    path: Path
    sha256: str
    opset: int
    producer: str
    image: str
    """the one input that is no constant"""
    nodes: tuple[Node, ...]
    """in the order of computation, those left out that no output needs or that are constant"""
    idle: tuple[Node, ...]
    """those that no output needs"""
    shapes: Mapping[str, tuple[int, ...]]
    """of every tensor that has one"""
    constants: frozenset[str]
    """tensors that do not depend on the image"""
    model: ModelProto = field(repr=False)
    protos: tuple[NodeProto, ...] = field(repr=False)
    """all nodes of the file, constant ones too"""

    def shape(self, tensor: str, node: Node) -> tuple[int, ...]:
        """Size of a tensor.

        Raises
        ------
        InputError
            If it can't be inferred.
        """
        found = self.shapes.get(tensor)
        if found is None:
            raise InputError(
                f"{node}: the shape of its tensor '{tensor}' can't be inferred. {_EXPORT},"
                " for example through a constant-folding simplifier",
                where=str(self.path),
            )
        return found

    def value(self, tensor: str) -> npt.NDArray[np.generic]:
        """Compute a constant, with ONNX's reference implementation of each operator on the way.

        Raises
        ------
        InputError
            If its data are missing or damaged, or too large.
        """
        stored = {each.name: each for each in self.model.graph.initializer}
        values: dict[str, npt.NDArray[np.generic]] = {}
        for proto in _ancestors(self.protos, tensor, stop=stored):
            if proto.op_type in ("Shape", "Size"):
                values[proto.output[0]] = _measured(proto, self.shapes[proto.input[0]])
                continue
            for name in proto.input:
                if name in stored and name not in values:
                    values[name] = _stored(stored[name], self.path)
            values |= self._computed(proto, values)
        if tensor in stored:
            values[tensor] = _stored(stored[tensor], self.path)
        return values[tensor]

    def mapped(
        self,
        nodes: Sequence[Node],
        start: str,
        x: npt.NDArray[np.generic],
        *,
        skip: frozenset[str],
    ) -> npt.NDArray[np.generic]:
        """Compute what nodes that work element by element make of a tensor.

        Parameters
        ----------
        nodes : sequence of Node
            In the order of computation; the value of the last one is returned.
        start : str
            The tensor that they begin with.
        x : ndarray
            Its values, of any shape that the constants on the way can be broadcast to.
        skip : frozenset of str
            Operators whose output is taken to be their input.

        Raises
        ------
        InputError
            If a node can't be computed.
        """
        protos = {proto.output[0]: proto for proto in self.protos if proto.output}
        values = {start: x}
        last = start
        for node in nodes:
            last = node.outputs[0]
            if node.op in skip:
                values[last] = values[node.inputs[0]]
                continue
            values |= {
                name: self.value(name)
                for name in node.inputs
                if name in self.constants and name not in values
            }
            values |= self._computed(protos[last], values)
        return values[last]

    def _computed(
        self, proto: NodeProto, values: Mapping[str, npt.NDArray[np.generic]]
    ) -> dict[str, npt.NDArray[np.generic]]:
        import onnx
        from onnx.reference import ReferenceEvaluator

        largest = max((prod(self.shapes.get(name, (0,))) for name in proto.output), default=0)
        if largest > MAX_CONSTANT:
            raise InputError(
                f"{_named(proto)}: its constant has {largest} elements; at most {MAX_CONSTANT} are"
                " computed",
                where=str(self.path),
            )
        names = list(dict.fromkeys(filter(None, proto.input)))
        graph = onnx.GraphProto(name="constant", node=[proto])
        graph.input.extend(onnx.ValueInfoProto(name=name) for name in names)
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in proto.output if name)
        try:
            # Of these two only later versions are implemented, which differ in what they add.
            later = proto.op_type in ("QuantizeLinear", "DequantizeLinear")
            opset = OPSETS.stop - 1 if later else self.opset
            evaluator = ReferenceEvaluator(graph, opsets={"": opset})
            found = evaluator.run(None, {name: values[name] for name in names})
        except Exception as error:  # its operators raise whatever NumPy does
            raise InputError(
                f"{_named(proto)}: its constant can't be computed ({_brief(error)})",
                where=str(self.path),
            ) from error
        outputs = [name for name in proto.output if name]
        return dict(zip(outputs, found, strict=True))


def read_graph(
    path: Path, *, batch: int | None = None, sizes: Mapping[str, tuple[int, ...]] | None = None
) -> Graph:
    """Read a file and check it.

    Parameters
    ----------
    path : Path
        An ``.onnx`` file.
    batch : int, optional
        Images in a batch dimension that the file leaves open, by default 1.
    sizes : mapping of str to tuple of int, optional
        Shapes of inputs, for dimensions that the file leaves open.

    Raises
    ------
    InputError
        With the first thing that is wrong in it.
    """
    raw = _bytes_of(path)
    model = _inlined(_parsed(raw))
    opset = _checked_opset(model)
    _check_nodes(model.graph)
    _check_wiring(model.graph)
    _check_external(model.graph, path)
    skeleton = _skeleton(model)
    image = _settle_inputs(skeleton, model.graph, batch or 1, sizes or {})
    shapes = _inferred(skeleton)
    protos = tuple(model.graph.node)
    constants = _constants(model.graph)
    needed = _needed(model.graph)
    nodes = [
        (each, _node(each))
        for each in protos
        if not constants.issuperset(filter(None, each.output))
    ]
    return Graph(
        path=path,
        sha256=hashlib.sha256(raw).hexdigest(),
        opset=opset,
        producer=" ".join(filter(None, (model.producer_name, model.producer_version))),
        image=image,
        nodes=tuple(node for proto, node in nodes if needed.intersection(proto.output)),
        idle=tuple(node for proto, node in nodes if not needed.intersection(proto.output)),
        shapes=shapes,
        constants=constants,
        model=model,
        protos=protos,
    )


# -- reading --------------------------------------------------------------------------------------


def _bytes_of(path: Path) -> bytes:
    try:
        if not path.exists():
            raise InputError("no such file")
        if not path.is_file():
            raise InputError("is a folder or a device, not a file")
        if path.stat().st_size > MAX_BYTES:
            raise InputError(
                f"is larger than {MAX_BYTES} bytes, the most that ONNX allows. Keep the weights in"
                " a file beside it (external data)"
            )
        return path.read_bytes()
    except PermissionError:
        raise InputError("no permission to read it") from None
    except (OSError, ValueError) as error:
        raise InputError(f"can't be read: {_brief(error)}") from None


def _parsed(raw: bytes) -> ModelProto:
    import onnx

    hint = "It may be truncated, or not be ONNX at all"
    try:
        model: ModelProto = onnx.ModelProto.FromString(raw)
    except Exception as error:  # noqa: BLE001 - which one depends on how protobuf was built
        raise InputError(f"is no ONNX file, or damaged ({_brief(error)}). {hint}") from None
    if not model.HasField("graph") or not model.graph.node:
        raise InputError(f"is no ONNX file, or damaged (it has no graph). {hint}")
    if not _is_text(model):
        raise InputError("is damaged: it has names that are no text (UTF-8)")
    return model


def _is_text(message: Any) -> bool:
    """Whether all names are text; protocol buffers leave them as bytes where they are not."""
    for field_of, value in message.ListFields():
        single = isinstance(value, str | bytes) or hasattr(value, "ListFields")
        if field_of.type == field_of.TYPE_STRING:
            sound = all(isinstance(each, str) for each in ([value] if single else value))
        elif field_of.type == field_of.TYPE_MESSAGE:
            sound = all(map(_is_text, [value] if single else value))
        else:
            continue
        if not sound:
            return False
    return True


def _inlined(model: ModelProto) -> ModelProto:
    """Write the model's own functions out."""
    if not model.functions:
        return model
    from onnx import inliner

    try:
        return inliner.inline_local_functions(model)
    except Exception as error:  # noqa: BLE001 - the library's own exceptions have no common base
        raise InputError(f"its functions can't be written out ({_brief(error)})") from None


def _brief(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


# -- checks ---------------------------------------------------------------------------------------


def _checked_opset(model: ModelProto) -> int:
    versions = {each.domain: each.version for each in model.opset_import}
    version: int | None = versions.get("", versions.get("ai.onnx"))
    allowed = f"{OPSETS.start} to {OPSETS.stop - 1}"
    if version is None:
        raise InputError(f"names no version of ai.onnx's operators (opset); allowed: {allowed}")
    if version not in OPSETS:
        raise InputError(
            f"has opset {version}; allowed: {allowed}. Try onnx.version_converter.convert_version"
        )
    return version


def _named(proto: NodeProto) -> str:
    return str(_node(proto))


def _check_nodes(graph: GraphProto) -> None:
    """Refuse what can't be known before it runs, and what only its maker knows."""
    import onnx

    for proto in graph.node:
        if proto.domain not in _DOMAINS:
            raise InputError(
                f"{_named(proto)}: the operator is from the domain '{proto.domain}'; only those of"
                f" ai.onnx are known. {_EXPORT}, before any runtime has optimised it"
            )
        graphs = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
        if proto.op_type in _CONTROL_FLOW or any(each.type in graphs for each in proto.attribute):
            raise InputError(
                f"{_named(proto)}: control flow (what runs depends on the data); a network file is"
                f" a fixed list of layers. {_EXPORT}"
            )


def _check_wiring(graph: GraphProto) -> None:
    """Each tensor is made once, and before it is read."""
    stored = [each.name for each in graph.initializer]
    stored += [each.values.name for each in graph.sparse_initializer]
    for names, what in ((stored, "initialisers"), ([each.name for each in graph.input], "inputs")):
        twice = next((name for name in names if names.count(name) > 1), None) if len(
            set(names)
        ) < len(names) else None  # fmt: skip
        if twice is not None:
            raise InputError(f"has two {what} named '{twice}'; names must be unique")
    known = {*stored, *(each.name for each in graph.input)}
    later = {name: proto for proto in graph.node for name in proto.output if name}
    for proto in graph.node:
        for name in filter(None, proto.input):
            if name not in known:
                raise InputError(_unknown(name, proto, later, known))
        for name in filter(None, proto.output):
            if name in known:
                raise InputError(
                    f"{_named(proto)}: makes the tensor '{name}', which exists already; names must"
                    " be unique"
                )
            known.add(name)
    missing = next((each.name for each in graph.output if each.name not in known), None)
    if missing is not None:
        raise InputError(f"nothing makes its output '{missing}'.{did_you_mean(missing, known)}")


def _unknown(name: str, proto: NodeProto, later: Mapping[str, NodeProto], known: set[str]) -> str:
    if name in later:
        return (
            f"{_named(proto)}: reads the tensor '{name}', which {_named(later[name])} makes, itself"
            " or later: the graph has a cycle, or its nodes are not in the order of computation"
        )
    return (
        f"{_named(proto)}: reads the tensor '{name}', which is no input, no initialiser and no"
        f" output of another node.{did_you_mean(name, known)}"
    )


def _external(tensor: TensorProto) -> dict[str, str]:
    import onnx

    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return {}
    return {each.key: each.value for each in tensor.external_data}


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for proto in graph.node:
        for attribute in proto.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _check_external(graph: GraphProto, path: Path) -> None:
    """Data beside the file may only lie in its folder, or below it."""
    import onnx

    folder = path.resolve().parent
    for tensor in _tensors(graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        location = _external(tensor).get("location", "")
        try:
            inside = bool(location) and (folder / location).resolve().is_relative_to(folder)
        except (OSError, ValueError):
            inside = False
        if not inside or Path(location).is_absolute() or "\\" in location:
            raise InputError(
                f"the data of its tensor '{tensor.name}' are in '{location}', which is not in the"
                " folder of the file; allowed: a relative path in it. Put them there and save the"
                " model anew"
            )


# -- shapes ---------------------------------------------------------------------------------------


def _skeleton(model: ModelProto) -> ModelProto:
    """The model without what weighs: larger constants are inputs of known shape."""
    import onnx

    graph = model.graph
    stored = {each.name for each in graph.initializer}
    sparse = {each.values.name: each for each in graph.sparse_initializer}
    slim = onnx.GraphProto(name=graph.name or "graph", node=graph.node)
    slim.input.extend(each for each in graph.input if each.name not in stored)
    for tensor in graph.initializer:
        count = _checked_size(tensor.name, tensor.dims)
        _check_data(tensor, count)
        if count <= _KEPT and not _external(tensor):
            slim.initializer.append(tensor)
        else:
            slim.input.append(_typed(tensor.name, tensor.data_type, tensor.dims))
    for name, each in sparse.items():
        _checked_size(name, each.dims)
        slim.input.append(_typed(name, each.values.data_type, each.dims))
    slim.output.extend(graph.output)
    # From version 4 on, initialisers need not be inputs too.
    return onnx.ModelProto(
        ir_version=max(model.ir_version, 4), opset_import=model.opset_import, graph=slim
    )


def _check_data(tensor: TensorProto, count: int) -> None:
    """A tensor that claims more than it has would make shape inference take memory for it."""
    if len(tensor.dims) == 1 and count > MAX_VECTOR:
        raise InputError(
            f"its tensor '{tensor.name}' is a vector of {count} elements; at most {MAX_VECTOR} are"
            " read"
        )
    if _external(tensor):
        return
    # Two elements share a byte, or an entry of a list, at the most.
    stored = 2 * len(tensor.raw_data) or 2 * max(
        len(each)
        for each in (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data,
                     tensor.uint64_data, tensor.string_data)
    )  # fmt: skip
    if count > stored:
        raise InputError(
            f"its tensor '{tensor.name}' has the shape {list(tensor.dims)} and data for at most"
            f" {stored} elements. The file may be damaged"
        )


def _typed(name: str, element: int, dims: Any) -> ValueInfoProto:
    from onnx import helper

    return helper.make_tensor_value_info(name, element, list(dims))


def _checked_size(name: str, dims: Any) -> int:
    count: int = prod(dims)
    if any(each < 0 for each in dims) or count > LARGEST:
        raise InputError(
            f"its tensor '{name}' has the shape {list(dims)}; allowed are sizes of 1 or more, and"
            f" {LARGEST} elements at most"
        )
    return count


def _settle_inputs(
    skeleton: ModelProto,
    graph: GraphProto,
    batch: int,
    sizes: Mapping[str, tuple[int, ...]],
) -> str:
    """Give the image a size in which nothing is left open; returns its name."""
    stored = {each.name for each in graph.initializer}
    given = [each.name for each in graph.input if each.name not in stored]
    read = {name for proto in graph.node for name in proto.input}
    images = [name for name in given if name in read]
    for name in sizes:
        if name not in given:
            raise InputError(
                f"--input-shape {name}: there is no such input.{did_you_mean(name, given)}"
                f" Inputs: {', '.join(given) or 'none'}"
            )
    if len(images) != 1:
        listed = ", ".join(f"'{name}'" for name in images)
        raise InputError(
            f"has {len(images)} inputs that its nodes read{f' ({listed})' * bool(images)}; a"
            " network file has one image. Export the part of the model behind one input"
        )
    image: str = images[0]
    (info,) = [each for each in skeleton.graph.input if each.name == image]
    _settle(info, batch, sizes.get(image))
    return image


def _settle(info: ValueInfoProto, batch: int, given: tuple[int, ...] | None) -> None:
    if not info.type.HasField("tensor_type"):
        raise InputError(f"its input '{info.name}' is no tensor; allowed: one tensor")
    tensor = info.type.tensor_type
    dims = tensor.shape.dim
    if not tensor.HasField("shape"):
        if given is None:
            raise InputError(
                f"its input '{info.name}' has no shape. Try --input-shape {info.name}=1x3x224x224"
            )
        for _ in given:
            dims.add()
    if given is not None and len(given) != len(dims):
        raise InputError(
            f"--input-shape {info.name}={_times(given)}: the input has {len(dims)} dimensions, got"
            f" {len(given)}"
        )
    for index, each in enumerate(dims):
        each.dim_value = _settled(info, index, batch, given)
    sizes = [each.dim_value for each in dims]
    if max(sizes, default=1) >= LIMIT:
        raise InputError(
            f"its input '{info.name}' has the shape {sizes}; a network file takes numbers below"
            f" {LIMIT}"
        )
    _checked_size(info.name, sizes)


def _settled(info: ValueInfoProto, index: int, batch: int, given: tuple[int, ...] | None) -> int:
    each = info.type.tensor_type.shape.dim[index]
    fixed: int | None = each.dim_value if each.HasField("dim_value") else None
    if fixed is not None and (fixed < 1 or (given is not None and given[index] != fixed)):
        asked = f"; --input-shape says {given[index]}" if given is not None else ""
        raise InputError(
            f"its input '{info.name}' has the size {fixed} in dimension {index}{asked}; allowed: 1"
            " or more, and --input-shape only fills in what the file leaves open"
        )
    if fixed is not None:
        return fixed
    if given is not None:
        return given[index]
    if index == 0:
        return batch
    likely = {0: str(batch), 1: "3"}
    known = [
        str(other.dim_value) if other.HasField("dim_value") else likely.get(at, "224")
        for at, other in enumerate(info.type.tensor_type.shape.dim)
    ]
    raise InputError(
        f"its input '{info.name}' leaves dimension {index}"
        f"{f' ({each.dim_param!r})' * bool(each.dim_param)} open. Say its size: --input-shape"
        f" {info.name}={'x'.join(known)} with 'energysim import'"
    )


def _times(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


def _inferred(skeleton: ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors, by ONNX's own inference."""
    from onnx import checker, shape_inference

    try:
        checker.check_model(skeleton)
        for output in skeleton.graph.output:  # theirs may be those of another size of the image
            output.type.tensor_type.ClearField("shape")
        model = shape_inference.infer_shapes(
            skeleton, check_type=True, strict_mode=True, data_prop=True
        )
    except Exception as error:  # noqa: BLE001 - the library's own exceptions have no common base
        raise InputError(
            f"ONNX's own checks refuse it: {_brief(error)}. Try onnx.checker.check_model"
        ) from None
    graph = model.graph
    shapes = {each.name: tuple(each.dims) for each in graph.initializer}
    for info in (*graph.input, *graph.value_info, *graph.output):
        dims = info.type.tensor_type.shape.dim
        known = all(each.HasField("dim_value") for each in dims)
        if info.type.tensor_type.HasField("shape") and known:
            shapes[info.name] = tuple(each.dim_value for each in dims)
            _checked_size(info.name, shapes[info.name])
    return shapes


# -- which tensors are constant, which nodes are needed -------------------------------------------


def _constants(graph: GraphProto) -> frozenset[str]:
    known = {each.name for each in graph.initializer}
    known |= {each.values.name for each in graph.sparse_initializer}
    for proto in graph.node:
        settled = proto.op_type in ("Shape", "Size") or known.issuperset(filter(None, proto.input))
        if settled and not _RANDOM.search(proto.op_type):
            known |= set(filter(None, proto.output))
        if proto.op_type == "DynamicQuantizeLinear":  # scale and zero point: one number a tensor
            known |= set(filter(None, proto.output[1:]))
    return frozenset(known)


def _needed(graph: GraphProto) -> frozenset[str]:
    """Tensors that an output depends on."""
    needed = {each.name for each in graph.output}
    for proto in reversed(graph.node):
        if needed.intersection(proto.output):
            needed |= set(proto.input)
    return frozenset(needed - {""})


def _ancestors(
    protos: tuple[NodeProto, ...], tensor: str, *, stop: Mapping[str, Any]
) -> list[NodeProto]:
    """Nodes that a constant is computed by, in order."""
    needed = {tensor}
    found = []
    for proto in reversed(protos):
        if needed.intersection(proto.output):
            found.append(proto)
            if proto.op_type not in ("Shape", "Size"):
                needed |= {name for name in proto.input if name and name not in stop}
    return found[::-1]


def _node(proto: NodeProto) -> Node:
    from onnx import AttributeProto, helper

    plain = {}
    for each in proto.attribute:
        if each.type in (AttributeProto.TENSOR, AttributeProto.SPARSE_TENSOR):
            continue
        value = helper.get_attribute_value(each)
        plain[each.name] = value.decode(errors="replace") if isinstance(value, bytes) else value
    name = proto.name or next(filter(None, proto.output), proto.op_type)
    return Node(proto.op_type, name, tuple(proto.input), tuple(proto.output), plain)


# -- values ---------------------------------------------------------------------------------------


def _measured(proto: NodeProto, shape: tuple[int, ...]) -> npt.NDArray[np.generic]:
    import numpy as np

    if proto.op_type == "Size":
        return np.array(prod(shape), dtype=np.int64)
    attributes = _node(proto).attributes
    return np.array(shape[attributes.get("start", 0) : attributes.get("end")], dtype=np.int64)


def _stored(tensor: TensorProto, path: Path) -> npt.NDArray[np.generic]:
    from onnx import numpy_helper

    try:
        return numpy_helper.to_array(tensor, str(path.resolve().parent))
    except Exception as error:  # noqa: BLE001 - the library's own exceptions have no common base
        raise InputError(
            f"the data of its tensor '{tensor.name}' can't be read ({_brief(error)})",
            where=str(path),
        ) from None
