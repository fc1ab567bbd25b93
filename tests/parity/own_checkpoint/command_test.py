"""`parity.convert --port`: what it prints and refuses, on files written by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from parity.own.environment import of_a_port
from tests.parity.own_checkpoint.converting import convert
from tests.torch_ref.foreign.written import adam, common, flat, params, save, zero

PORT = """
import optax
def convert(state):
    return {"kernel": state["a.weight"].T, "bias": state["b.bias"]}
optimizer = optax.adam(0.1)
"""


@pytest.fixture
def case(tmp_path):
    """A function that converts; it returns arrays and what was printed."""
    return Conversion(tmp_path)


class Conversion:
    def __init__(self, folder):
        self.folder = folder
        self.port(PORT)

    def port(self, text):
        (self.folder / "port.py").write_text(text)

    def checkpoint(self, model=None, ranks=None):
        ranks = [zero()] if ranks is None else ranks
        return save(self.folder / "ckpt", model or common(), ranks)

    def there(self, source=None):
        source = source or self.checkpoint()
        convert(source, self.folder / "port.py", self.folder / "tree")
        return artifacts.read_arrays(self.folder / "tree" / "state.safetensors", "")

    def back(self, source, template=""):
        template = template or self.folder / "ckpt"
        convert(source, self.folder / "port.py", self.folder / "back", template)

    def refused(self, *arguments):
        with pytest.raises(UserError) as caught:
            convert(*arguments)
        assert "\n" not in str(caught.value)
        # Nothing half-written.
        left = {path.name for path in self.folder.iterdir()}
        assert left <= {"port.py", "ckpt", "tree", "given", "given.safetensors"}
        return str(caught.value)


class TestThere:
    def test_prints_what_was_converted(self, case, capsys):
        tree = case.there()
        # DeepSpeed says first that there is no accelerator.
        assert capsys.readouterr().out.splitlines()[-4:] == [
            f"{case.folder}/ckpt/global_step7: ZeRO stage 1, 1 rank, float32, "
            "DeepSpeed 0.12.6",
            "tensors: 2 params, 0 frozen, 1 buffers; exp_avg, exp_avg_sq -> 2 leaves, "
            "5 of 5 arrays of opt_state",
            "step 7, updates 5, optimizer step 5, loss scale 1",
            f"wrote {case.folder}/tree",
        ]
        np.testing.assert_array_equal(tree["params/kernel"], params()["a.weight"].T)
        assert tree["opt_state/0/count"] == 5

    def test_without_an_optimizer_moments_are_kept_by_torchs_names(self, case, capsys):
        case.port(PORT.replace("optimizer =", "unused ="))
        tree = case.there()
        moment = params()["b.bias"] + 10
        np.testing.assert_array_equal(tree["moments/exp_avg/bias"], moment)
        assert (
            "exp_avg: opt_state has no place for it; kept as" in capsys.readouterr().out
        )

    def test_a_moment_without_a_place(self, case, capsys):
        case.port(PORT.replace("adam(0.1)", "lion(0.1)"))
        tree = case.there()
        assert "moments/exp_avg_sq/kernel" in tree
        assert "moments/exp_avg/kernel" not in tree
        said = capsys.readouterr().out
        assert "note: exp_avg_sq: opt_state has no place for it; kept as" in said
        case.back(case.folder / "tree")
        assert "tensors: 0 of 7 are not as in --template" in capsys.readouterr().out

    def test_a_part_of_the_state_without_a_counterpart(self, case, capsys):
        case.port(PORT.replace("adam(0.1)", "amsgrad(0.1)"))
        tree = case.there()
        assert not tree["opt_state/0/nu_max/bias"].any()
        said = capsys.readouterr().out
        assert "note: opt_state/0/nu_max (ScaleByAmsgradState.nu_max) has no" in said

    @pytest.mark.parametrize("own_chain", [False, True])
    def test_momentum_that_optax_multiplies_by_the_rate(self, case, capsys, own_chain):
        state = {"square_avg": flat(5), "momentum_buffer": flat(6), "step": 5}
        ranks = [zero(adam() | {"state": {0: state}})]
        chain = "chain(optax.scale_by_rms(), optax.trace(0.9), optax.scale(-0.1))"
        rmsprop = chain if own_chain else "rmsprop(0.1, momentum=0.9)"
        case.port(PORT.replace("adam(0.1)", rmsprop))
        tree = case.there(case.checkpoint(ranks=ranks))
        said = capsys.readouterr().out
        assert (
            "optax.rmsprop keeps momentum times the learning rate" in said
        ) != own_chain
        assert ("moments/momentum_buffer/bias" in tree) != own_chain
        if own_chain:
            wanted = params()["b.bias"] + 6
            np.testing.assert_array_equal(tree["opt_state/1/trace/bias"], wanted)

    @pytest.mark.parametrize(
        ("model", "inputs"),
        [
            ("nn.Dense(3)", "inputs = (jnp.zeros((1, 2)),)"),
            ("nnx.Linear(2, 3, rngs=nnx.Rngs(0))", ""),
        ],
    )
    def test_without_convert_a_map_is_proposed_and_printed(
        self, case, capsys, model, inputs
    ):
        case.port(
            "import flax.linen as nn, jax.numpy as jnp, optax\nfrom flax import nnx\n"
            f"model = {model}\n{inputs}\noptimizer = optax.adam(0.1)\n"
        )
        tree = case.there()
        np.testing.assert_array_equal(tree["params/kernel"], params()["a.weight"].T)
        said = capsys.readouterr().out
        assert "convert = {'bias': 'b.bias', 'kernel': ('a.weight', (1, 0))}" in said

    def test_variables_of_flax_stand_for_themselves(self, case):
        case.port(
            "import optax\ndef convert(state):\n"
            '    return {"params": {"k": state["a.weight"], "b": state["b.bias"]},\n'
            '            "batch_stats": {"mean": state["mean"]}}\n'
            "optimizer = optax.adam(0.1)\n"
        )
        tree = case.there()
        assert {"params/k", "batch_stats/mean", "opt_state/0/mu/k"} <= tree.keys()
        case.back(case.folder / "tree")

    def test_a_state_with_a_random_key(self, case, capsys):
        noisy = "chain(optax.add_noise(0.1, 0.1, 0), optax.adam(0.1))"
        case.port(PORT.replace("adam(0.1)", noisy))
        assert "opt_state/0/rng_key" in case.there()
        assert "rng_key (AddNoiseState.rng_key) has no" in capsys.readouterr().out

    def test_not_finite(self, case):
        ranks = [zero(single_partition_of_fp32_groups=[flat() / 0])]
        source = case.checkpoint(ranks=ranks)
        message = case.refused(source, case.folder / "port.py", case.folder / "new")
        assert "--from: params/a.weight of" in message
        assert "is not finite" in message


class TestBack:
    def test_what_optax_trained_since(self, case, capsys):
        """An Orbax checkpoint of a user: parameters and state alone."""
        case.port(PORT.replace("adam(0.1)", "adam(lambda count: 0.1)"))
        case.there()
        like = {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}
        optimizer = optax.adam(lambda count: 0.1)
        with ocp.StandardCheckpointer() as reader:
            tree = reader.restore(case.folder / "tree" / "orbax")
        like = jax.tree.map(jnp.asarray, {key: tree["params"][key] for key in like})
        state = restored(optimizer.init(like), tree["opt_state"])
        with of_a_port():
            for _ in range(3):
                updates, state = optimizer.update(like, state, like)
                like = optax.apply_updates(like, updates)
        with ocp.StandardCheckpointer() as writer:
            kept = {"params": like, "opt_state": state}
            writer.save(case.folder / "given", kept)
        case.back(case.folder / "given")
        said = capsys.readouterr().out
        assert "tensors: 6 of 7 are not as in --template" in said
        # Two of seven steps were skipped, three more were not.
        assert "step 10, updates 8, optimizer step 8" in said
        assert "note: not all of step, updates" in said

    def test_leaves_that_are_missing_or_of_another_shape(self, case):
        tree = case.there()
        port, ckpt = case.folder / "port.py", case.folder / "ckpt"
        given = case.folder / "given.safetensors"

        def message(change):
            changed = {n: a for n, a in (tree | change).items() if a is not None}
            artifacts.write_arrays(given, changed)
            return case.refused(given, port, case.folder / "new", ckpt)

        bias = {"params/bias": np.zeros(4, np.float32)}
        assert "--from: params/bias is (4,), (3,) in the port's tree" in message(bias)
        assert "params/bias (3,) is missing" in message({"params/bias": None})
        assert "opt_state/0/mu/bias (3,) is missing" in message(
            {"opt_state/0/mu/bias": None}
        )
        extra = {"opt_state/0/x": np.zeros(1, np.float32)}
        assert "opt_state/0/x is not in the state of the port" in message(extra)
        nan = {"params/bias": np.float32([1, np.nan, 1])}
        assert "--from: params/bias is not finite" in message(nan)

    def test_a_template_without_moments(self, case, capsys):
        case.there()
        empty = adam() | {"state": {}}
        template = save(case.folder / "early", common(), [zero(empty)])
        case.back(case.folder / "tree", template)
        said = capsys.readouterr().out
        assert (
            "note: opt_state/0/mu (ScaleByAdamState.mu) has no counterpart in" in said
        )

    def test_tied_leaves_that_were_trained_apart(self, case, capsys):
        case.port(PORT.replace('"bias"', '"again": state["a.weight"], "bias"'))
        tree = case.there()
        tree["params/again"] = tree["params/again"] + 1
        artifacts.write_arrays(case.folder / "given.safetensors", tree)
        case.back(case.folder / "given.safetensors")
        said = capsys.readouterr().out
        assert "kernel and again hold one tensor of torch and differ" in said


class TestBadInput:
    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ('state["b.bias"]', 'state["b.bias"] ** 2', "convert must only rearrange"),
            ('state["b.bias"]', '2 * state["b.bias"]', "bias is scaled or shifted, 2"),
            (
                ', "bias": state["b.bias"]',
                "",
                "3 of 3 entries of b.bias are in no leaf",
            ),
            ("b.bias", "c.bias", "convert: it raised KeyError: 'c.bias'"),
            ("optax.adam(0.1)", "3", "optimizer: a int has no init and update"),
            ("def convert", "def converts", "--port: it defines no `convert`"),
            ("import optax", "import no_such", "it raised ModuleNotFoundError"),
        ],
    )
    def test_ports(self, case, old, new, message):
        case.port(PORT.replace(old, new))
        arguments = case.checkpoint(), case.folder / "port.py", case.folder / "new"
        assert message in case.refused(*arguments)

    def test_a_model_that_convert_does_not_make(self, case):
        more = "\nfrom flax import nnx\nmodel = nnx.Linear(2, {}, rngs=nnx.Rngs(0))\n"
        case.port(PORT + more.format(3))
        case.there()
        case.port(PORT + more.format(4))
        arguments = case.folder / "ckpt", case.folder / "port.py", case.folder / "new"
        message = "convert: bias is (4,) in the model, (3,) in what convert makes"
        assert message in case.refused(*arguments)

    def test_names_of_files(self, case):
        ckpt, port, new = (
            case.checkpoint(),
            case.folder / "port.py",
            case.folder / "new",
        )
        assert "--from: not given" in case.refused("", port, new)
        assert "--from: nowhere is not there" in case.refused("nowhere", port, new)
        assert "--to: not given" in case.refused(ckpt, port, "")
        assert f"--to: {ckpt} exists already" in case.refused(ckpt, port, ckpt)
        assert "--port: not given" in case.refused(ckpt, "", new, ckpt)
        assert "no such file" in case.refused(ckpt, case.folder / "no.py", new)
        assert "holds neither state.safetensors" in case.refused(ckpt, port, new, ckpt)
        case.there(ckpt)
        message = case.refused(case.folder / "tree", port, new)
        assert "--template: not given" in message
        (case.folder / "ckpt" / "latest").unlink()
        assert "--from: " in case.refused(ckpt, port, new)
        assert "--template: " in case.refused(case.folder / "tree", port, new, ckpt)

    def test_it_is_one_line_and_exit_code_2(self, run, case):
        (case.checkpoint() / "latest").unlink()
        done = run(
            "parity.convert",
            f"--from={case.folder / 'ckpt'}",
            f"--port={case.folder / 'port.py'}",
            f"--to={case.folder / 'new'}",
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            f"error: --from: {case.folder}/ckpt has no file latest; give one of its "
            "folders, global_step7\n"
        )


def restored(like, tree):
    """An optax state of Orbax's nested lists and dicts."""
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }
    paths, definition = jax.tree_util.tree_flatten_with_path(like)
    names = [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in paths]
    return jax.tree.unflatten(definition, [jnp.asarray(leaves[name]) for name in names])
