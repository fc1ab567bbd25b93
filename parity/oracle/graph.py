"""Computation graph of an expression: nodes, values and derivatives of the output."""

import ast
import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.errors import UserError
from parity.oracle import activations, operations
from parity.oracle.tensor import Tensor, add, gradients, multiply, power, variable

EXAMPLE = "d = b*c; e = a + d; f = d*a; g = e^f"
EXAMPLE_AT = "a=1,b=2,c=3"
"""Each input reaches g on two paths or more."""

GIVEN = "given"
TOO_LARGE = "--graph: the expression or a number in it is too large; give a smaller one"


class Edge(NamedTuple):
    """An argument of a node.

    Attributes:
      argument: name of the argument's node.
      slope: derivative of the node by this argument alone.
    """

    argument: str
    slope: float


class Node(NamedTuple):
    """One node of the graph.

    Attributes:
      name: the expression's own name, or v1, v2, ... in order of computation.
      formula: formula in the names of its arguments; "given" for an input.
      tensor: value on the tape.
      edges: its arguments that are nodes, each as often as it stands in the formula.
    """

    name: str
    formula: str
    tensor: Tensor
    edges: tuple[Edge, ...] = ()


class Operation(NamedTuple):
    """A function that an expression applies.

    Attributes:
      function: tensors -> tensor.
      arguments: expressions of its arguments.
      pattern: format string of the formula, with a field per argument.
    """

    function: Callable[..., Tensor]
    arguments: list[ast.expr]
    pattern: str


class Builder:
    """Computes formulas on the tape and keeps their nodes in order.

    Args:
      values: values of the inputs by name.

    Attributes:
      nodes: nodes so far, arguments before results.
    """

    def __init__(self, values: dict[str, float]):
        self.nodes: list[Node] = []
        self._values = values
        # Tensors by name, and numeric literals by their text.
        self._named: dict[str, Tensor] = {}

    def statement(self, tree: ast.stmt) -> str:
        """Computes a formula, or `name = formula`, and returns its node's name."""
        if isinstance(tree, ast.Expr):
            return self.name_of(tree.value)

        if not (
            isinstance(tree, ast.Assign)
            and len(tree.targets) == 1
            and isinstance(tree.targets[0], ast.Name)
        ):
            raise UserError(
                f"--graph: cannot read {_one_line(tree)!r}; write formulas such as d = "
                "b*c, with ; between"
            )
        name = tree.targets[0].id
        if name in self._named or name in self._values or name in FUNCTIONS:
            raise UserError(
                f"--graph: {name} is defined before {_one_line(tree)!r}; use another "
                "name"
            )
        return self.name_of(tree.value, name)

    def name_of(self, tree: ast.expr, name: str = "") -> str:
        """Computes a formula and returns the name of its node.

        Args:
          tree: formula.
          name: name for the node, or empty to choose one.
        """
        if isinstance(tree, ast.Constant):
            return self._number(tree, name)
        if isinstance(tree, ast.Name) and not name:
            return self._input(tree.id)

        operation = _operation(tree)
        # Recursion adds the nodes of the arguments before this one.
        names = [self.name_of(argument) for argument in operation.arguments]
        arguments = [self._named[argument] for argument in names]
        # `table` names the first node that is not finite.
        with np.errstate(all="ignore"):
            result = operation.function(*arguments)
            slopes = _slopes(operation, arguments)
        return self._keep(
            name or self._fresh_name(),
            operation.pattern.format(*names),
            result,
            self._edges(names, slopes),
        )

    def _edges(self, names: list[str], slopes: list[float]) -> tuple[Edge, ...]:
        nodes = {node.name for node in self.nodes}
        pairs = zip(names, slopes)
        return tuple(Edge(name, slope) for name, slope in pairs if name in nodes)

    def _number(self, tree: ast.Constant, name: str) -> str:
        # bool is a subclass of int.
        if isinstance(tree.value, bool) or not isinstance(tree.value, int | float):
            raise UserError(f"--graph: {_one_line(tree)} is not a number")
        literal = ast.unparse(tree)
        tensor = variable(float(tree.value))
        if name:
            return self._keep(name, literal, tensor)
        # A literal inside a formula is no node of its own.
        self._named.setdefault(literal, tensor)
        return literal

    def _input(self, name: str) -> str:
        if name not in self._named:
            if name not in self._values:
                raise UserError(f"--at: gives no value for {name}; add {name}=NUMBER")
            self._keep(name, GIVEN, variable(self._values[name]))
        return name

    def _fresh_name(self) -> str:
        taken = self._named | self._values
        return next(v for v in map("v{}".format, itertools.count(1)) if v not in taken)

    def _keep(
        self, name: str, formula: str, tensor: Tensor, edges: tuple[Edge, ...] = ()
    ) -> str:
        self.nodes.append(Node(name, formula, tensor, edges))
        self._named[name] = tensor
        return name


def _operation(tree: ast.expr) -> Operation:
    # A whitelist: the text is parsed, never evaluated as Python.
    if isinstance(tree, ast.BinOp) and type(tree.op) in OPERATORS:
        function, pattern = OPERATORS[type(tree.op)]
        return Operation(function, [tree.left, tree.right], pattern)
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        return Operation(lambda x: -x, [tree.operand], "-{}")
    if isinstance(tree, ast.Name):
        # `y = x` makes a node; times 1 gives it a tensor of its own.
        return Operation(lambda x: x * 1.0, [tree], "{}")
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name):
        name = tree.func.id
        if name in FUNCTIONS and len(tree.args) == 1 and not tree.keywords:
            return Operation(FUNCTIONS[name], tree.args, f"{name}({{}})")
    raise UserError(
        f"--graph: cannot read {_one_line(tree)!r}; it takes numbers, names, + - * "
        f"/ ^ and {', '.join(FUNCTIONS)} of one argument"
    )


def _slopes(operation: Operation, arguments: list[Tensor]) -> list[float]:
    """Returns the derivative of an operation by each argument, the others held."""
    # On a tape of its own: x*x has two arguments of one node.
    alone = [variable(argument.value) for argument in arguments]
    found = gradients(operation.function(*alone), alone)
    return [float(slope) for slope in found]


def build(text: str, values: dict[str, float]) -> list[Node]:
    """Returns the nodes of an expression: inputs, intermediate nodes, the output last.

    Args:
      text: "exp(a*(b*c))", or named formulas such as "d = b*c; g = d^a"; a power is
        written ^ or **.
      values: values of its inputs by name.

    Raises:
      UserError: the expression cannot be read, or `values` has too few or too many
        names.
    """
    builder = Builder(values)
    output = ""
    try:
        for tree in _parse(text).body:
            output = builder.statement(tree)
    except (RecursionError, OverflowError):
        # Formulas nested too deeply, or a literal beyond float64.
        raise UserError(TOO_LARGE) from None

    names = [node.name for node in builder.nodes]
    if output not in names:
        raise UserError(
            f"--graph: {text!r} computes nothing; write it as in {EXAMPLE!r}"
        )
    unused = [name for name in values if name not in names]
    if unused:
        raise UserError(f"--at: {unused[0]} is not in {text!r}; leave it out")
    return _inputs_first(builder.nodes, output)


def _inputs_first(nodes: list[Node], output: str) -> list[Node]:
    inputs = [node for node in nodes if node.formula == GIVEN]
    inputs.sort(key=lambda node: node.name)
    others = [node for node in nodes if node.formula != GIVEN]
    # A stable sort that moves the output alone, as the last formula may name a node
    # that was computed earlier.
    return sorted(inputs + others, key=lambda node: node.name == output)


def _parse(text: str) -> ast.Module:
    try:
        # Python's own ^ binds looser than + does.
        return ast.parse(text.strip().replace("^", "**"))
    except SyntaxError as error:
        raise UserError(
            f"--graph: cannot read {text!r}: {error.msg}; write it as in {EXAMPLE!r}"
        ) from None
    except (RecursionError, MemoryError):
        # The parser's own limits on nesting.
        raise UserError(TOO_LARGE) from None
    except ValueError as error:
        # Early releases of Python 3.11 raise this for a null byte.
        raise UserError(
            f"--graph: cannot read {text!r}: {error}; write it as in {EXAMPLE!r}"
        ) from None


def derivatives_of(nodes: list[Node]) -> list[float]:
    """Returns d output / d node for each node, the output being the last.

    Raises:
      UserError: a value or a derivative is not finite.
    """
    tensors = [node.tensor for node in nodes]
    with np.errstate(all="ignore"):
        derivatives = gradients(nodes[-1].tensor, tensors)
    _check_finite("value", nodes, [tensor.value for tensor in tensors])
    _check_finite("derivative", nodes, derivatives)
    return [float(derivative) for derivative in derivatives]


def table(nodes: list[Node]) -> list[str]:
    """Returns lines with each node's name, formula, value and d output / d node.

    Args:
      nodes: nodes of a graph, the output last.

    Raises:
      UserError: a value or a derivative is not finite.
    """
    output, derivatives = nodes[-1], derivatives_of(nodes)
    rows = [("node", "is", "value", f"d {output.name} / d node")]
    for node, derivative in zip(nodes, derivatives):
        value = f"{node.tensor.value:.9g}"
        rows.append((node.name, node.formula, value, f"{derivative:.9g}"))

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
    """Parses "a=1,b=2" into {"a": 1, "b": 2}.

    Raises:
      UserError: it is written otherwise.
    """
    values = {}
    for item in filter(None, items.split(",")):
        name, _, number = (field.strip() for field in item.partition("="))
        try:
            values[name] = float(number)
        except ValueError:
            raise UserError(f"--at: takes a=1,b=2 and so on, got {item!r}") from None
    return values


def _one_line(tree: ast.AST) -> str:
    return " ".join(ast.unparse(tree).split())


# To add an operator or a function: one row in one of these tables.
OPERATORS = {
    ast.Add: (add, "{} + {}"),
    ast.Sub: (lambda x, y: x - y, "{} - {}"),
    ast.Mult: (multiply, "{} * {}"),
    ast.Div: (lambda x, y: x / y, "{} / {}"),
    ast.Pow: (power, "{} ^ {}"),
}
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": operations.exp,
    "log": operations.log,
    "tanh": operations.tanh,
    "sigmoid": operations.sigmoid,
    "relu": activations.relu,
    "sqrt": lambda x: x**0.5,
}
