"""Fixtures: a ds_config as jaxnn and as DeepSpeed itself reads it."""

import inspect
import json
import types
import warnings

import pytest
import torch

from jaxnn.experiment.flags import command_line


@pytest.fixture
def read(tmp_path, capsys):
    """read(entries or text, flags...) -> (the experiment, its notes)."""

    def run(entries, *arguments):
        path = tmp_path / "theirs.json"
        path.write_text(entries if isinstance(entries, str) else json.dumps(entries))
        capsys.readouterr()
        experiment, _ = command_line.parse(
            ["prog", f"--ds_config={path}", *arguments], "fp32"
        )
        return experiment.replace(ds_config=""), capsys.readouterr().err.replace(
            f"{path}", "theirs.json"
        ).splitlines()

    return run


@pytest.fixture(scope="session")
def theirs():
    """DeepSpeed's DeepSpeedConfig(entries), for a world of `world_size` ranks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from deepspeed.runtime import config

    def parse(entries, world_size=1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(config.dist, "get_rank", lambda: 0)
            patch.setattr(config.dist, "get_world_size", lambda: world_size)
            return config.DeepSpeedConfig(entries)

    return parse


@pytest.fixture(scope="session")
def build_optimizer(theirs):
    """The optimizer that DeepSpeed's engine builds, with FusedAdam uncompiled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from deepspeed.runtime.engine import DeepSpeedEngine

    def build(entries, params):
        settings = theirs(entries)
        engine = types.SimpleNamespace(
            optimizer_params=lambda: settings.optimizer_params,
            optimizer_name=lambda: settings.optimizer_name,
            zero_use_cpu_optimizer=lambda: False,
        )
        engine.get_optimizer_configuration = types.MethodType(
            DeepSpeedEngine.get_optimizer_configuration, engine
        )
        return DeepSpeedEngine._configure_basic_optimizer(engine, params)

    return build


@pytest.fixture(autouse=True)
def uncompiled_fused_adam(monkeypatch):
    """Replaces FusedAdam, which compiles C++, by its arguments."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from deepspeed.ops import adam

    signature = inspect.signature(adam.FusedAdam.__init__)

    class FusedAdam(torch.optim.Optimizer):
        def __init__(self, params, **settings):
            bound = signature.bind(self, params, **settings)
            bound.apply_defaults()
            super().__init__(
                params,
                {
                    k: v
                    for k, v in bound.arguments.items()
                    if k not in ("self", "params")
                },
            )

    monkeypatch.setattr(adam, "FusedAdam", FusedAdam)
