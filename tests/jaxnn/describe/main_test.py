"""The description of a network: parameters, FLOPs and bytes against counts by hand, and
the command around them."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from jaxnn.describe import __main__ as describe
from jaxnn.describe import abstract_step, layer_table, report, step_memory
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment

ROWS, FEATURES, HIDDEN, OUTPUTS = 5, 3, 4, 2
PARAMS = (FEATURES + 1) * HIDDEN + (HIDDEN + 1) * OUTPUTS


def mlp(**changes) -> abstract_step.AbstractStep:
    settings = dict(
        model="mlp",
        hidden_sizes=(HIDDEN,),
        precision="fp32",
        batch_size=ROWS,
        optimizer="sgd",
    )
    return abstract_step.build(
        Experiment(**{**settings, **changes}), Signature((FEATURES,), OUTPUTS)
    )


def rows(step: abstract_step.AbstractStep) -> dict[str, layer_table.Layer]:
    return {layer.name: layer for layer in layer_table.trace(step).layers}


class TestLayers:
    def test_mlp_by_hand(self):
        layers = rows(mlp())
        assert list(layers) == ["(network)", "hidden_0", "output", "(loss)"]
        assert [layer.kind for layer in layers.values()] == [
            "MLP",
            "Dense",
            "Dense",
            "",
        ]
        assert layers["hidden_0"].num_params == FEATURES * HIDDEN + HIDDEN
        assert layers["output"].num_params == HIDDEN * OUTPUTS + OUTPUTS
        assert layers["hidden_0"].output.shape == (ROWS, HIDDEN)
        assert layers["hidden_0"].flops == 2 * ROWS * FEATURES * HIDDEN + ROWS * HIDDEN
        assert layers["output"].flops == 2 * ROWS * HIDDEN * OUTPUTS + ROWS * OUTPUTS
        assert layers["(network)"].flops == ROWS * HIDDEN  # ReLU

    def test_cnn_by_hand(self):
        # 3x3 kernels on 6x6 pixels, zeros around: along an axis 2 of 6 positions miss
        # one of 3 products, 16 are left.
        experiment = Experiment(
            model="cnn",
            channels=(4,),
            kernel_size=3,
            convolution="direct",
            batch_size=ROWS,
            loss="cross_entropy",
            precision="fp32",
            pool="max",
        )
        layers = rows(abstract_step.build(experiment, Signature((6, 6, 2), 10)))
        assert layers["conv_0"].num_params == 3 * 3 * 2 * 4 + 4
        assert layers["conv_0"].flops == 2 * ROWS * 2 * 4 * 16 * 16 + ROWS * 6 * 6 * 4
        assert layers["conv_0"].output.shape == (ROWS, 6, 6, 4)
        assert layers["output"].num_params == 3 * 3 * 4 * 10 + 10
        assert layers["output"].flops == 2 * ROWS * 36 * 10 + ROWS * 10

    def test_modules_in_modules_and_no_parameter_twice(self):
        experiment = Experiment(
            model="transformer",
            num_layers=2,
            width=8,
            num_heads=2,
            batch_size=ROWS,
            loss="cross_entropy",
            precision="fp32",
        )
        step = abstract_step.build(experiment, Signature((6,), 11, 11, per_step=True))
        traced = layer_table.trace(step)
        layers = {layer.name: layer for layer in traced.layers}
        assert layers["block_1/qkv"].num_params == 8 * 24 + 24
        assert layers["block_1/qkv"].flops == ROWS * 6 * (2 * 8 * 24 + 24)
        held = sum(x.size for x in jax.tree.leaves(step.state.params))
        assert sum(layer.num_params for layer in traced.layers) == held
        assert sum(layer.flops for layer in traced.layers) == traced.forward_flops
        assert sum(layer.kept for layer in traced.layers) == sum(traced.kept.values())

    def test_recurrence_counts_each_step(self):
        def flops(steps: int) -> int:
            experiment = Experiment(
                model="rnn", hidden_sizes=(4,), batch_size=ROWS, precision="fp32"
            )
            return rows(abstract_step.build(experiment, Signature((steps, 1), 1)))[
                "layer_0"
            ].flops

        assert flops(20) == 2 * flops(10) > 0

    def test_resnet_50_is_the_published_one(self):
        experiment = Experiment(
            model="resnet",
            resnet_depth=50,
            convolution="direct",
            loss="cross_entropy",
            precision="fp16",
            batch_size=2,
        )
        traced = layer_table.trace(
            abstract_step.build(experiment, Signature((224, 224, 3), 1000))
        )
        assert (
            sum(layer.num_params for layer in traced.layers) == 25_557_032
        )  # torchvision's resnet50
        # torchvision says 4.09e9 multiply-adds an image, zeros of padding multiplied;
        # norms and ReLU are 1e-2 of that.
        assert traced.forward_flops / 2 / 2 == pytest.approx(4.09e9, rel=0.03)
        # Everything but the first convolution (1.4 % of the whole) has both gradients.
        assert traced.gradient_flops / traced.forward_flops == pytest.approx(
            3, abs=0.05
        )


class TestKept:
    def test_relu_keeps_its_output_and_its_sign(self):
        assert rows(mlp())["(network)"].kept == ROWS * HIDDEN * (4 + 1)

    def test_fp16_halves_the_numbers(self):
        assert rows(mlp(precision="fp16"))["(network)"].kept == ROWS * HIDDEN * (2 + 1)

    def test_dropout_keeps_its_mask(self):
        assert rows(mlp(dropout_rates=(0.5,)))["(network)"].kept == ROWS * HIDDEN * (
            4 + 1 + 1
        )

    def test_linear_keeps_nothing_but_the_loss(self):
        layers = rows(mlp(model="linear", hidden_sizes=()))
        assert layers["(network)"].kept == layers["output"].kept == 0
        assert layers["(loss)"].kept >= ROWS * OUTPUTS * 4  # outputs - targets

    def test_a_part_of_the_batch_is_kept_at_a_time(self):
        assert rows(mlp(batch_size=12, accumulation_steps=3))[
            "(network)"
        ].kept == 4 * HIDDEN * (4 + 1)


class TestHeld:
    @pytest.mark.parametrize(
        ("optimizer", "size"),
        [
            ("sgd", 0),
            ("momentum", 4 * PARAMS),
            ("adam", 2 * 4 * PARAMS + 4),
            ("rmsprop", 4 * PARAMS),
        ],
    )
    def test_optimizer_state(self, optimizer, size):
        held = dict(step_memory.held(mlp(optimizer=optimizer)))
        assert (
            held.get(f"state of {optimizer}", 0) == size
        )  # adam: two moments and the count of its updates

    def test_fp32_has_one_copy_of_the_parameters(self):
        assert step_memory.held(mlp()) == [
            ("parameters, float32", 4 * PARAMS),
            ("gradients of the backward pass, float32", 4 * PARAMS),
            ("inputs of the batch, float32", 4 * ROWS * FEATURES),
        ]

    def test_fp16_has_weights_and_masters(self):
        assert step_memory.held(mlp(precision="fp16", optimizer="adam")) == [
            ("weights of the passes, float16", 2 * PARAMS),
            ("master parameters, float32", 4 * PARAMS),
            ("gradients of the backward pass, float16", 2 * PARAMS),
            ("gradients of the optimizer, float32", 4 * PARAMS),
            ("state of adam", 2 * 4 * PARAMS + 4),
            ("inputs of the batch, float16", 2 * ROWS * FEATURES),
        ]


class TestCompiled:
    def test_arguments_are_the_state_and_the_batch(self):
        step = mlp(optimizer="adam")
        compiled = step_memory.compile_step(step)
        # The state beside parameters and moments is five numbers of 4 bytes; the loss
        # scale of fp32 is not read, and what is not read is no argument. The table of
        # learning rates has one entry.
        tensors = 3 * 4 * PARAMS + 4
        batch = 4 * ROWS * (FEATURES + OUTPUTS + 1)
        assert 0 <= compiled.arguments - tensors - batch <= 6 * 4
        assert compiled.temporaries > 0

    def test_forward_flops_agree_with_the_count_from_shapes(self):
        # Of large layers: XLA counts comparisons and selections too, a few for each of
        # 128 x 64 activations.
        step = mlp(batch_size=128, hidden_sizes=(64, 64))
        counted = layer_table.trace(step).forward_flops
        assert (
            counted
            <= step_memory.compile_forward(step).flops
            <= counted + 10 * 128 * 64 * 2
        )


class TestReport:
    def test_sizes_and_counts(self):
        assert [report.size(n) for n in (0, 999, 1000, 14_207_143_936)] == [
            "0 B",
            "999 B",
            "1 kB",
            "14.2 GB",
        ]
        assert [report.count(n) for n in (7, 999_700, 2.043e12)] == [
            "7",
            "1 M",
            "2.04 T",
        ]

    @pytest.mark.parametrize(
        ("changes", "is_example"),
        [
            ({}, True),
            ({"precision": "fp32"}, False),
            ({"batch_size": 128}, False),
            ({"resnet_depth": 18}, False),
        ],
    )
    def test_published_figures_stand_beside_their_network_alone(
        self, changes, is_example
    ):
        settings = dict(
            model="resnet",
            resnet_depth=50,
            loss="cross_entropy",
            precision="fp16",
            batch_size=256,
        )
        step = abstract_step.build(
            Experiment(**{**settings, **changes}), Signature((224, 224, 3), 1000)
        )
        assert report.is_published_example(step) is is_example

    def test_every_line_fits(self):
        console = Console(
            width=describe.WIDTH, highlight=False, markup=False, record=True, quiet=True
        )
        step = mlp()
        traced = layer_table.trace(step)
        with console.capture() as captured:
            report.print_layers(step, traced, console)
            report.print_memory(step, traced, console)
        assert all(len(line) <= describe.WIDTH for line in captured.get().splitlines())


class TestBatch:
    @pytest.mark.parametrize(
        ("loss", "signature", "shape", "dtype"),
        [
            ("mse", Signature((3,), 2), (7, 2), jnp.float32),
            ("cross_entropy", Signature((3,), 4), (7,), jnp.int32),
            ("perceptron", Signature((3,), 1), (7, 1), jnp.float32),
            ("perceptron", Signature((3,), 4), (7,), jnp.int32),
            ("cross_entropy", Signature((6,), 9, 9, True), (7, 6), jnp.int32),
        ],
    )
    def test_targets_fit_the_loss(self, loss, signature, shape, dtype):
        targets = abstract_step.batch(Experiment(loss=loss), signature, 7).targets
        assert (targets.shape, targets.dtype) == (shape, dtype)


def ends(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of jaxnn.describe."""
    monkeypatch.setattr(sys, "argv", ["jaxnn.describe", *arguments])
    with pytest.raises(SystemExit) as end:
        command_line.run(
            describe.main,
            describe.__doc__,
            default_precision="fp32",
            define_more=describe.define_more,
        )
    return end.value.code, *capsys.readouterr()


class TestCommand:
    def test_describes_the_network_of_a_data_set(self, monkeypatch, capsys):
        code, out, err = ends(monkeypatch, capsys, "--model=mlp", "--hidden_sizes=8")
        assert (code, err) == (0, "")
        for text in (
            "mlp, fp32: 32 x 1 at once",
            "hidden_0",
            "32x8",
            "state of adam",
            "Compiled for",
        ):
            assert text in out

    @pytest.mark.parametrize(("devices", "is_told"), [(1, False), (2, True)])
    def test_several_ranks_hold_by_zero_stage(
        self, monkeypatch, capsys, devices, is_told
    ):
        shape = ("--input_shape=4", "--num_outputs=1", "--nocompile")
        ranks = (f"--num_devices={devices}", "--zero_stage=3")
        code, out, _ = ends(monkeypatch, capsys, *shape, *ranks)
        assert code == 0
        assert ("3 <- --zero_stage" in out) is is_told

    def test_needs_no_data_with_a_shape(self, monkeypatch, capsys):
        code, out, _ = ends(
            monkeypatch,
            capsys,
            "--dataset=cifar10",
            "--data_path=/nowhere",
            "--model=mlp",
            "--hidden_sizes=8",
            "--loss=cross_entropy",
            "--input_shape=4,4,3",
            "--num_outputs=10",
            "--nocompile",
        )
        assert code == 0
        assert f"{48 * 8 + 8 + 8 * 10 + 10}" in out
        assert "Compiled" not in out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                ["--input_shape=4,x"],
                "--input_shape: takes whole numbers above 0 separated by commas, got "
                "'4,x'",
            ),
            (["--input_shape=4,0"], "--input_shape: takes whole numbers"),
            (["--input_shape=4"], "--num_outputs: --input_shape needs it"),
            (["--num_outputs=4"], "--num_outputs, --num_tokens: are the data set's"),
            (
                ["--input_shape=4", "--num_outputs=-1"],
                "--num_outputs, --num_tokens: must be at least 0",
            ),
            (
                ["--input_shape=4,4", "--num_tokens=9"],
                "--num_tokens: a language model reads --input_shape=STEPS",
            ),
            (
                ["--input_shape=4", "--num_outputs=4", "--loss=hinge"],
                "--loss: hinge does not fit --num_outputs=4",
            ),
            (["--model=nope"], "--model: unknown value 'nope'"),
        ],
    )
    def test_bad_input(self, monkeypatch, capsys, arguments, message):
        code, out, err = ends(monkeypatch, capsys, *arguments)
        assert (code, out) == (2, "")
        assert err.startswith(f"error: {message}")
        assert err.count("\n") == 1

    def test_imports_no_other_stack(self):
        code = "import sys, jaxnn.describe.__main__; print(*sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert not {"torch", "sklearn", "matplotlib"} & set(done.stdout.split())
