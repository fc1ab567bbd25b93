"""Tests of torch_ref/watch under what wraps a model: DDP, Accelerate, Trainer, and
DeepSpeed where it is given more than a precision."""

import importlib.util
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from jaxnn.experiment.files.trace import Reader, select
from jaxnn.experiment.flags.config import Experiment
from torch_ref import kernels, ranks, watch

X = torch.arange(12, dtype=torch.float32).reshape(4, 3) / 8 - 0.5
Y = torch.arange(8, dtype=torch.float32).reshape(4, 2) / 4


def main(folder: pathlib.Path) -> None:
    """Records all of them in turn, in one process."""
    ranks.join()
    kernels.fp16_kernels(Experiment())
    autocast(folder / "autocast")
    first_overflow(folder / "overflow")
    torch_style(folder / "torch_style")
    offload(folder / "offload")
    ddp(folder / "ddp")
    if importlib.util.find_spec("transformers"):
        engine_of_a_trainer(folder)
    # Last: DeepSpeed gives every later engine of the process a scaler as well.
    autocast_fp16(folder / "autocast_fp16")
    ranks.shut_down()


def engine_of(net: nn.Module, optimizer=torch.optim.AdamW, **config):
    import deepspeed

    config = {
        "train_micro_batch_size_per_gpu": 4,
        "zero_allow_untested_optimizer": True,
        "gradient_clipping": 0.0,
        **config,
    }
    trained = [param for param in net.parameters() if param.requires_grad]
    with kernels.quiet():
        engine, *_ = deepspeed.initialize(
            model=net, optimizer=optimizer(trained, lr=0.125), config=config
        )
    return engine


def train(engine, steps: int, dtype=torch.float32, factor=1.0) -> None:
    for _ in range(steps):
        output = engine(X.to(dtype))
        engine.backward(((output.float() - Y) ** 2).mean() * factor)
        engine.step()


def autocast(folder: pathlib.Path) -> None:
    engine = engine_of(
        nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)),
        zero_optimization={"stage": 1},
        torch_autocast={"enabled": True, "dtype": "bfloat16"},
    )
    with watch.record(engine, folder, 1):
        train(engine, 1)


def autocast_fp16(folder: pathlib.Path) -> None:
    """torch's own scaler, which DeepSpeed brings along."""
    for stage in range(4):
        engine = engine_of(
            nn.Linear(3, 2),
            zero_optimization={"stage": stage},
            torch_autocast={"enabled": True, "dtype": "float16"},
        )
        with watch.record(engine, folder / str(stage), 2):
            train(engine, 1, factor=2.0**-8)
            train(engine, 1)


def first_overflow(folder: pathlib.Path) -> None:
    """A scale of 2^16 that is too large from the first step on."""
    for stage in range(4):
        engine = engine_of(
            nn.Linear(3, 2),
            zero_optimization={"stage": stage},
            fp16={"enabled": True, "initial_scale_power": 16, "hysteresis": 1},
        )
        with watch.record(engine, folder / str(stage), 2):
            train(engine, 1, torch.half, torch.inf)
            train(engine, 1, torch.half, 2.0**-16)


def torch_style(folder: pathlib.Path) -> None:
    """`loss.backward()`, which DeepSpeed takes at stages 1 to 3."""
    engine = engine_of(
        nn.Linear(3, 2),
        zero_optimization={"stage": 2},
        gradient_accumulation_steps=2,
        fp16={"enabled": True, "initial_scale_power": 4},
    )
    with watch.record(engine, folder, 1):
        for _ in range(2):
            loss = ((engine(X.half()).float() - Y) ** 2).mean()
            engine.scale(loss).backward()
            engine.step()


def offload(folder: pathlib.Path) -> None:
    """The optimizer's state on the CPU, under torch's own Adam."""
    for stage in (1, 2, 3):
        engine = engine_of(
            nn.Linear(3, 2),
            zero_optimization={"stage": stage, "offload_optimizer": {"device": "cpu"}},
            zero_force_ds_cpu_optimizer=False,
        )
        with watch.record(engine, folder / str(stage), 2):
            train(engine, 2)


def ddp(folder: pathlib.Path) -> None:
    torch.manual_seed(0)
    net = nn.parallel.DistributedDataParallel(nn.Linear(3, 2))
    optimizer = torch.optim.SGD(net.parameters(), 0.5, momentum=0.5)
    with watch.record(net, folder, 2, optimizer=optimizer):
        for _ in range(2):
            optimizer.zero_grad()
            ((net(X) - Y) ** 2).mean().backward()
            optimizer.step()


def trainer_of(folder: pathlib.Path, steps: int, kind=None, **arguments):
    """A Trainer, which is to record two steps, and its callback."""
    import transformers

    from torch_ref.watch.callback import RecordCallback

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(3, 2)

        def forward(self, x, labels=None):
            output = self.last(x)
            return {"loss": ((output - labels) ** 2).mean(), "logits": output}

    settings = transformers.TrainingArguments(
        output_dir=str(folder / "out"),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_steps=steps,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        **arguments,
    )
    rows = [{"x": x, "labels": y} for x, y in zip(X, Y)]
    trainer = (kind or transformers.Trainer)(Net(), settings, train_dataset=rows)
    callback = RecordCallback(folder / "trainer", steps=2)
    trainer.add_callback(callback)
    return trainer, callback


def engine_of_a_trainer(folder: pathlib.Path) -> None:
    config = {
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 2,
        "zero_optimization": {"stage": 2},
        "zero_allow_untested_optimizer": True,
    }
    trainer, _ = trainer_of(folder, 2, deepspeed=config)
    trainer.train()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wrapped")
    done = subprocess.run(
        [sys.executable, "-m", "tests.torch_ref.watch.wrapped_test", folder],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def gradient(tensors) -> tuple[float, np.ndarray]:
    """Loss and gradient of a linear model's bias in float64."""
    weight, bias = (tensors[f"params/{n}"].astype(float) for n in ("weight", "bias"))
    residual = X.double().numpy() @ weight.T + bias - Y.double().numpy()
    return np.mean(residual**2), residual.mean(axis=0)


class TestDeepSpeed:
    def test_autocast(self, folder):
        """Layers compute in bfloat16, parameters stay float32."""
        trace = Reader(folder / "autocast")
        assert (trace.meta["precision"], trace.meta["autocast"]) == ("fp32", "bf16")
        output = trace.read(0)["passes/0/activations/0"]
        assert output.dtype == np.float32
        assert not (output.view(np.uint32) & 0xFFFF).any()

    @pytest.mark.parametrize("stage", range(4))
    def test_autocast_in_fp16_is_unscaled(self, folder, stage):
        """Of a loss so small that 2^16 of it are no overflow; in full it is one."""
        trace = Reader(folder / "autocast_fp16" / str(stage))
        tensors = trace.read(0)
        loss, bias = gradient(tensors)
        assert tensors["loss_scale"] == 2.0**16
        # A few roundings to FP16.
        np.testing.assert_allclose(tensors["loss"] * 2**8, loss, 8 * 2.0**-11)
        np.testing.assert_allclose(tensors["grads/bias"] * 2**8, bias, 0, 8 * 2.0**-11)
        assert not tensors["skipped"]
        assert (
            bool(trace.read(1)["skipped"])
            != np.isfinite(trace.read(1)["grads/bias"]).all()
        )

    @pytest.mark.parametrize("stage", range(4))
    def test_overflow_from_the_first_step_on(self, folder, stage):
        trace = Reader(folder / "overflow" / str(stage))
        skipped, done = trace.read(0), trace.read(1)
        early = stage == 0
        assert bool(skipped["skipped"])
        assert not bool(done["skipped"])
        assert skipped["grad_norm"] == np.inf
        assert skipped["optimizer_step"] == done["optimizer_step"] == early
        assert skipped["loss_scale"] == 2 * done["loss_scale"] == 2**16
        for kind in ("moments", "updated_moments"):
            assert not skipped[f"{kind}/first/weight"].any()
        for name in ("weight", "bias"):
            np.testing.assert_array_equal(
                skipped[f"updated/{name}"], skipped[f"params/{name}"]
            )

    def test_backward_of_the_loss_itself(self, folder):
        tensors = Reader(folder / "torch_style").read(0)
        loss, bias = gradient(tensors)
        assert tensors["passes/1/weight"] == 0.5
        # A few roundings to FP16.
        np.testing.assert_allclose(tensors["loss"], loss, 8 * 2.0**-11)
        np.testing.assert_allclose(tensors["grads/bias"], bias, 0, 8 * 2.0**-11)

    @pytest.mark.parametrize("stage", [1, 2, 3])
    def test_offload(self, folder, stage):
        trace = Reader(folder / "offload" / str(stage))
        for step in range(2):
            tensors = trace.read(step)
            np.testing.assert_allclose(
                tensors["grads/bias"], gradient(tensors)[1], 1e-5
            )
            np.testing.assert_allclose(
                tensors["updated_moments/first/bias"],
                0.9 * tensors["moments/first/bias"] + 0.1 * tensors["grads/bias"],
                1e-5,
            )
            assert tensors["optimizer_step"] == step


class TestDdp:
    def test_names_and_momentum(self, folder):
        trace = Reader(folder / "ddp")
        tensors = trace.read(1)
        assert trace.meta["order"]["params"] == ["weight", "bias"]
        np.testing.assert_allclose(tensors["grads/bias"], gradient(tensors)[1], 1e-5)
        np.testing.assert_allclose(
            tensors["updated_moments/first/bias"],
            0.5 * tensors["moments/first/bias"] + tensors["grads/bias"],
            1e-6,
        )
        assert tensors["optimizer_step"] == 1
        assert not trace.read(0)["moments/first/bias"].any()


class TestTrainer:
    @pytest.fixture(autouse=True)
    def transformers(self):
        return pytest.importorskip("transformers")

    def test_callback(self, tmp_path):
        trainer_of(tmp_path, 3)[0].train()
        trace = Reader(tmp_path / "trainer")
        assert len(trace) == 2
        assert trace.meta["passes"] == 2
        tensors = trace.read(0)
        assert sorted(select(tensors, "passes/0/inputs")) == ["labels", "x"]
        assert "grads/last.bias" in tensors
        assert trace.meta["scheduler"] == "LambdaLR"

    def test_callback_finds_the_engine(self, folder):
        """Its rows are shuffled; together they are all of them."""
        trace = Reader(folder / "trainer")
        assert (trace.meta["stack"], trace.meta["zero_stage"]) == ("deepspeed", 2)
        assert len(trace) == trace.meta["passes"] == 2
        tensors = trace.read(0)
        renamed = {
            f"params/{name}": tensors[f"params/last.{name}"]
            for name in ("weight", "bias")
        }
        loss, bias = gradient(renamed)
        np.testing.assert_allclose(tensors["loss"], loss, 1e-6)
        np.testing.assert_allclose(tensors["grads/last.bias"], bias, 1e-5)

    def test_a_training_that_raises_can_be_unhooked(self, tmp_path, transformers):
        class Breaking(transformers.Trainer):
            def training_step(self, *args, **kwargs):
                if self.state.global_step:
                    raise RuntimeError("of the trainer")
                return super().training_step(*args, **kwargs)

        original = torch.autograd.backward
        trainer, callback = trainer_of(tmp_path, 3, Breaking)
        with pytest.raises(RuntimeError, match="of the trainer"):
            trainer.train()
        callback.close()
        assert torch.autograd.backward is original
        assert not trainer.model._forward_hooks
        assert len(Reader(tmp_path / "trainer")) == 1


class TestAccelerate:
    @pytest.fixture
    def accelerate(self):
        """As new: the Trainer has left another precision, and half a step."""
        accelerate = pytest.importorskip("accelerate")
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
        accelerate.state.GradientState._reset_state()
        return accelerate

    def test_wrapped_optimizer(self, tmp_path, accelerate):
        accelerator = accelerate.Accelerator(cpu=True, mixed_precision="bf16")
        net = nn.Sequential(nn.Linear(3, 2))
        net, optimizer = accelerator.prepare(net, torch.optim.SGD(net.parameters(), 1))
        with watch.record(net, tmp_path / "t", 1, optimizer=optimizer):
            accelerator.backward(((net(X) - Y) ** 2).mean())
            optimizer.step()
        trace = Reader(tmp_path / "t")
        assert trace.meta["autocast"] == "bf16"
        assert trace.meta["optimizer"] == "SGD"
        assert sorted(select(trace.read(0), "grads")) == ["0.bias", "0.weight"]

    def test_its_scaler(self, tmp_path, accelerate):
        """As in fp16; on a CPU it brings none."""
        accelerator = accelerate.Accelerator(cpu=True)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
        net = nn.Linear(3, 2)
        net, optimizer = accelerator.prepare(net, torch.optim.SGD(net.parameters(), 1))
        with watch.record(net, tmp_path / "t", 2, optimizer=optimizer):
            for factor in (1.0, torch.inf):
                accelerator.backward(((net(X) - Y) ** 2).mean() * factor)
                optimizer.step()
                optimizer.zero_grad()
        trace = Reader(tmp_path / "t")
        tensors = trace.read(0)
        loss, bias = gradient(tensors)
        assert tensors["loss_scale"] == 16
        np.testing.assert_allclose(tensors["loss"], loss, 1e-6)
        np.testing.assert_allclose(tensors["grads/bias"], bias, 1e-5)
        assert [bool(trace.read(step)["skipped"]) for step in (0, 1)] == [False, True]


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
    ranks.leave(0)
