"""`Nodes`: build a part of an ONNX graph by calling its operators as methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Operand = str | np.generic | np.ndarray[Any, Any]
"""The name of a tensor in the graph, or a constant."""

TYPES: dict[type[np.generic], int] = {
    np.bool_: onnx.TensorProto.BOOL,
    np.uint8: onnx.TensorProto.UINT8,
    np.int32: onnx.TensorProto.INT32,
    np.int64: onnx.TensorProto.INT64,
    np.float32: onnx.TensorProto.FLOAT,
    np.float64: onnx.TensorProto.DOUBLE,
}
"""The element type in ONNX of each NumPy type that is used here."""


@dataclass
class Nodes:
    """Nodes and constants of a graph. `nodes.Add(x, np.float32(1))` appends a node and returns its output's name.

    Arguments are names of tensors, or NumPy numbers and arrays, which become constants of their own dtype; keywords are
    attributes. `name` names the output. All other names begin with `prefix`.
    """

    prefix: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def __getattr__(self, operator: str) -> Callable[..., str]:
        """Return a function that appends a node of this operator."""
        if not operator[0].isupper():
            raise AttributeError(operator)
        return partial(self._append, operator)

    def cast(self, value: Operand, kind: type[np.generic]) -> str:
        """Append a conversion to a NumPy type."""
        return self._append("Cast", value, to=TYPES[kind])

    def _append(self, operator: str, /, *operands: Operand, name: str | None = None, **attributes: Any) -> str:
        inputs = [operand if isinstance(operand, str) else self._constant(operand) for operand in operands]
        output = name or f"{self.prefix}{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], f"{output}/node", **attributes))
        return output

    def _constant(self, value: np.generic | np.ndarray[Any, Any]) -> str:
        name = f"{self.prefix}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name
