"""The arrows of the design: who may import whom, read from the source and checked in
fresh processes."""

import ast
import pathlib
import subprocess
import sys

import pytest

HEAVY = {"jax", "flax", "optax", "torch", "deepspeed", "sklearn", "matplotlib", "rich"}
SOURCES = sorted(
    path
    for package in ("jaxnn", "torch_ref", "parity")
    for path in pathlib.Path(package).rglob("*.py")
)


def loaded(*modules: str) -> set[str]:
    """Which heavy libraries a fresh process holds after importing the modules."""
    code = (
        "import sys; "
        + "; ".join(f"import {m}" for m in modules)
        + "; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return HEAVY & set(done.stdout.split())


def imported(path: pathlib.Path) -> set[str]:
    """Every module that a source file names in an import, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules(folder: str) -> list[str]:
    return [
        ".".join(path.with_suffix("").parts)
        for path in SOURCES
        if path.is_relative_to(folder)
    ]


class TestLoaded:
    def test_experiment_needs_neither_stack(self):
        shared = [
            name
            for name in modules("jaxnn/experiment")
            if not name.endswith("__init__") and "plots" not in name
        ]
        assert loaded(*shared) == set()

    def test_training_in_jax_waits_with_the_slow_imports(self):
        assert loaded("jaxnn.train") == {
            "jax",
            "flax",
            "optax",
            "rich",
        }  # flax brings rich

    def test_torch_ref_never_loads_jax(self):
        files = [name for name in modules("torch_ref") if not name.endswith("__init__")]
        assert loaded(*files) == {"torch"}

    def test_parity_never_loads_torch(self):
        files = [name for name in modules("parity") if not name.endswith("__init__")]
        assert "torch" not in loaded(*files)


class TestSource:
    @pytest.mark.parametrize("path", SOURCES, ids=str)
    def test_arrows_point_one_way(self, path):
        names = imported(path)
        package = path.parts[0]
        forbidden = {
            "jaxnn": ("torch_ref", "parity"),
            "torch_ref": ("parity", "jax.", "flax"),
            "parity": ("torch_ref", "torch"),
        }[package]
        assert not [name for name in names if name.startswith(forbidden)]
        if package == "torch_ref":
            assert not [
                name
                for name in names
                if name.startswith("jaxnn.") and not name.startswith("jaxnn.experiment")
            ]

    @pytest.mark.parametrize("stack", ["jaxnn", "torch_ref"])
    def test_losses_optimizers_models_and_metrics_stand_alone(self, stack):
        parts = ("losses", "optimizers", "models", "metrics")
        for part in parts:
            paths = [
                p
                for p in SOURCES
                if p.parts[0] == stack and p.with_suffix("").parts[1] == part
            ]
            others = tuple(f"{stack}.{other}" for other in parts if other != part)
            assert paths
            assert not [
                name
                for path in paths
                for name in imported(path)
                if name.startswith(others)
            ]

    def test_only_parallel_says_pmap(self):
        assert [str(path) for path in SOURCES if "pmap(" in path.read_text()] == [
            "jaxnn/parallel.py"
        ]

    def test_entry_modules_define_no_flags_on_import(self):
        assert not [path for path in SOURCES if "flags.FLAGS" in path.read_text()]
