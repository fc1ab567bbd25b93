"""The arrows of the design: who may import whom, and what a process then holds."""

import importlib
import pathlib
import subprocess
import sys
import tomllib

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
    def test_contracts_of_pyproject_are_kept(self):
        """No circle, no arrow upwards; import-linter names what breaks one."""
        linter = pathlib.Path(sys.executable).with_name("lint-imports")
        done = subprocess.run([linter], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        assert "0 broken" in done.stdout

    def test_scripts_of_pyproject_are_commands(self):
        project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]
        for target in project["scripts"].values():
            module, _, name = target.partition(":")
            assert callable(getattr(importlib.import_module(module), name)), target

    def test_only_parallel_says_pmap(self):
        assert [str(path) for path in SOURCES if "pmap(" in path.read_text()] == [
            "jaxnn/parallel.py"
        ]

    def test_entry_modules_define_no_flags_on_import(self):
        assert not [path for path in SOURCES if "flags.FLAGS" in path.read_text()]
