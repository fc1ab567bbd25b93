"""The computation graph of an expression: every node with its value and the derivative
of the last node by it."""

import ast
import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.errors import UserError
from parity.oracle import activations, operations
from parity.oracle.tensor import Tensor, add, gradients, multiply, power, variable

EXAMPLE = "d = b*c; f = d*a; g = exp(f)"
EXAMPLE_AT = "a=1,b=2,c=3"
"""The graph of g = exp(a (b c)) with the names that its nodes usually bear."""

GIVEN = "given"
TOO_LARGE = "--graph: the expression or a number in it is too large; give a smaller one"


class Node(NamedTuple):
    """One node.

    Attributes:
      name: given, or v1, v2, ... in the order of computation.
      formula: by the names of its arguments; "given" of an input.
      tensor: its value on the tape.
    """

    name: str
    formula: str
    tensor: Tensor


class Builder:
    """Computes an expression on the tape and keeps its nodes in order.

    Args:
      values: of the inputs.
    """

    def __init__(self, values: dict[str, float]):
        self._values, self._named = values, {}
        self.nodes: list[Node] = []

    def statement(self, tree: ast.stmt) -> str:
        """Computes a formula, or `name = formula`, and returns the name of its node."""
        if isinstance(tree, ast.Expr):
            return self.name_of(tree.value)
        target = (
            tree.targets[0]
            if isinstance(tree, ast.Assign) and len(tree.targets) == 1
            else None
        )
        if not isinstance(tree, ast.Assign) or not isinstance(target, ast.Name):
            raise UserError(
                f"--graph: cannot read {_one_line(tree)!r}; write formulas such as d = "
                "b*c, with ; between"
            )
        if (
            target.id in self._named
            or target.id in self._values
            or target.id in FUNCTIONS
        ):
            raise UserError(
                f"--graph: {target.id} has a meaning before {_one_line(tree)!r}; use "
                "another name"
            )
        return self.name_of(tree.value, target.id)

    def name_of(self, tree: ast.expr, name: str = "") -> str:
        """The name of a formula's node; its arguments' nodes come before it."""
        if isinstance(tree, ast.Constant):
            return self._number(tree, name)
        if isinstance(tree, ast.Name) and not name:
            return self._input(tree.id)
        function, arguments, pattern = self._operation(tree)
        names = [self.name_of(argument) for argument in arguments]
        name = name or next(
            v
            for v in map("v{}".format, itertools.count(1))
            if v not in self._named | self._values
        )
        with np.errstate(all="ignore"):  # what is not finite is named at the end
            result = function(*(self._named[argument] for argument in names))
        return self._keep(name, pattern.format(*names), result)

    def _operation(
        self, tree: ast.expr
    ) -> tuple[Callable[..., Tensor], list[ast.expr], str]:
        if isinstance(tree, ast.BinOp) and type(tree.op) in OPERATORS:
            function, pattern = OPERATORS[type(tree.op)]
            return function, [tree.left, tree.right], pattern
        if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
            return (lambda x: -x), [tree.operand], "-{}"
        if isinstance(tree, ast.Name):
            return (lambda x: x * 1.0), [tree], "{}"
        called = (
            tree.func.id
            if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name)
            else ""
        )
        if (
            isinstance(tree, ast.Call)
            and called in FUNCTIONS
            and len(tree.args) == 1
            and not tree.keywords
        ):
            return FUNCTIONS[called], tree.args, f"{called}({{}})"
        raise UserError(
            f"--graph: cannot read {_one_line(tree)!r}; it takes numbers, names, + - * "
            f"/ ** and {', '.join(FUNCTIONS)} of one argument"
        )

    def _number(self, tree: ast.Constant, name: str) -> str:
        if isinstance(tree.value, bool) or not isinstance(tree.value, int | float):
            raise UserError(f"--graph: {_one_line(tree)} is not a number")
        literal, tensor = ast.unparse(tree), variable(float(tree.value))
        if name:
            return self._keep(name, literal, tensor)
        self._named.setdefault(literal, tensor)
        return literal

    def _input(self, name: str) -> str:
        if name not in self._named:
            if name not in self._values:
                raise UserError(f"--at: gives no value for {name}; add {name}=NUMBER")
            self._keep(name, GIVEN, variable(self._values[name]))
        return name

    def _keep(self, name: str, formula: str, tensor: Tensor) -> str:
        self.nodes.append(Node(name, formula, tensor))
        self._named[name] = tensor
        return name


def build(text: str, values: dict[str, float]) -> list[Node]:
    """The nodes of an expression: its inputs, then the rest in the order of
    computation; the last is the output.

    Args:
      text: "exp(a*(b*c))", or formulas with names and ; between them: "d = b*c; g =
        exp(d*a)".
      values: of its inputs.

    Raises:
      UserError: the expression cannot be read, or the values are not those of its
        inputs.
    """
    builder, output = Builder(values), ""
    try:
        for tree in _parse(text).body:
            output = builder.statement(tree)
    except (RecursionError, OverflowError):
        raise UserError(TOO_LARGE) from None
    names = [node.name for node in builder.nodes]
    if output not in names:
        raise UserError(
            f"--graph: {text!r} computes nothing; write it as in {EXAMPLE!r}"
        )
    unused = [name for name in values if name not in names]
    if unused:
        raise UserError(f"--at: {unused[0]} is not in {text!r}; leave it out")
    inputs = sorted(
        (node for node in builder.nodes if node.formula == GIVEN),
        key=lambda node: node.name,
    )
    others = [node for node in builder.nodes if node.formula != GIVEN]
    return sorted(inputs + others, key=lambda node: node.name == output)


def _parse(text: str) -> ast.Module:
    try:
        return ast.parse(text.strip())
    except SyntaxError as error:
        raise UserError(
            f"--graph: cannot read {text!r}: {error.msg}; write it as in {EXAMPLE!r}"
        ) from None
    except (RecursionError, MemoryError):
        raise UserError(TOO_LARGE) from None
    except ValueError as error:
        raise UserError(
            f"--graph: cannot read {text!r}: {error}; write it as in {EXAMPLE!r}"
        ) from None


def table(nodes: list[Node]) -> list[str]:
    """Lines with each node's name, formula, value and derivative of the last node by
    it.

    Raises:
      UserError: a value or a derivative is not finite.
    """
    output, tensors = nodes[-1], [node.tensor for node in nodes]
    with np.errstate(all="ignore"):
        derivatives = gradients(output.tensor, tensors)
    _check_finite("value", nodes, [tensor.value for tensor in tensors])
    _check_finite("derivative", nodes, derivatives)
    rows = [("node", "is", "value", f"d {output.name} / d node")]
    rows += [
        (node.name, node.formula, f"{node.tensor.value:.9g}", f"{derivative:.9g}")
        for node, derivative in zip(nodes, derivatives)
    ]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        f"{name:{widths[0]}}  {formula:{widths[1]}}  {value:>{widths[2]}}  "
        f"{derivative:>{widths[3]}}"
        for name, formula, value, derivative in rows
    ]


def _check_finite(what: str, nodes: list[Node], numbers: list[np.ndarray]) -> None:
    for node, number in zip(nodes, numbers):
        if not np.isfinite(number):
            raise UserError(
                f"--at: the {what} at {node.name} ({node.formula}) is {number}; choose "
                "other values"
            )


def parse_values(items: str) -> dict[str, float]:
    """ "a=1,b=2" -> {"a": 1, "b": 2}.

    Raises:
      UserError: it is written otherwise.
    """
    values = {}
    for item in filter(None, items.split(",")):
        name, _, number = (part.strip() for part in item.partition("="))
        try:
            values[name] = float(number)
        except ValueError:
            raise UserError(f"--at: takes a=1,b=2 and so on, got {item!r}") from None
    return values


def _one_line(tree: ast.AST) -> str:
    return " ".join(ast.unparse(tree).split())


OPERATORS = {
    ast.Add: (add, "{} + {}"),
    ast.Sub: (lambda x, y: x - y, "{} - {}"),
    ast.Mult: (multiply, "{} * {}"),
    ast.Div: (lambda x, y: x / y, "{} / {}"),
    ast.Pow: (power, "{} ** {}"),
}
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": operations.exp,
    "log": operations.log,
    "tanh": operations.tanh,
    "sigmoid": operations.sigmoid,
    "relu": activations.relu,
    "sqrt": lambda x: x**0.5,
}
