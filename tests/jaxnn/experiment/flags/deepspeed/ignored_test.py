"""Keys without a meaning in JAX, and keys that DeepSpeed ignores."""

import json

import pytest

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.deepspeed import keys, passing, strict, writing
from tests.jaxnn.experiment.flags.deepspeed.entries import SILENT, TUTORIAL, nested

# An acceptable value of those keys that DeepSpeed looks into.
VALUES = {
    "bool": True,
    "bool?": True,
    "int": 7,
    "int above 0": 7,
    "int from 0": 7,
    "block?": {"device": "cpu"},
    "block": {},
}


def value_of(key):
    kind = strict.KINDS.get(key)
    if kind:
        return VALUES[kind]
    if "communication_data_type" in key or key == "data_types.grad_accum_dtype":
        return "fp32"
    return {} if key in keys.OBJECTS or f"{key}.enabled" in strict.KINDS else False


WARMED = {"type": "WarmupLR", "params": {"warmup_num_steps": "auto"}}


class TestPassedOn:
    @pytest.mark.parametrize("key", keys.PASSED)
    def test_to_deepspeed_alone(self, read, key):
        stage = {"zero_optimization": {"stage": 2}}
        plain, _ = read({**SILENT, **stage})
        entries = passing.merged({**SILENT, **stage}, nested(key, value_of(key)))
        experiment, notes = read(entries)
        assert experiment.replace(ds_extra="") == plain
        assert (
            f"note: --ds_config: without a meaning in JAX, for DeepSpeed alone: {key}"
            in notes
        )
        written = writing.ds_config(experiment, 1)
        for name in key.split("."):
            written = written[name]
        assert written == value_of(key)

    def test_disks_are_memory_here(self, read):
        entries = nested(
            "zero_optimization.offload_param", {"device": "nvme", "nvme_path": "/x"}
        )
        extra = json.loads(read(entries)[0].ds_extra)
        assert extra == {"zero_optimization": {"offload_param": {"device": "cpu"}}}

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("{", "is not JSON"),
            ("[1]", "must be a JSON object"),
            ('{"train_batch_size": 4}', "train_batch_size: is not about memory"),
        ],
    )
    def test_a_flag_of_ones_own_is_checked(self, text, problem):
        with pytest.raises(UserError, match=f"^--ds_extra: {problem}"):
            passing.from_flag(text)


class TestIgnored:
    @pytest.mark.parametrize(
        "key", [key for key in keys.IGNORED if key != "optimizer.legacy_fusion"]
    )
    def test_is_named_and_changes_nothing(self, read, key):
        plain, before = read(SILENT)
        experiment, notes = read(nested(key, value_of(key)))
        assert experiment == plain
        new = [note for note in notes if note not in before]
        assert new == [
            f"note: --ds_config: ignored, without a meaning here: {key}"
        ] or (key in keys.BLOCKS and not new)

    @pytest.mark.parametrize(
        ("entries", "told"),
        [
            ({"_comment": "x", "cuda_visible_devices": 0}, "_comment, cuda_visible_de"),
            ({"max_grad_norm": 1}, "max_grad_norm (it clips nothing; it belongs in gr"),
            ({"optimizer": {"type": "Adam", "eps": 1}}, "optimizer.eps (it does not "),
            ({"lr_scheduler": {"type": "x"}}, "lr_scheduler (it makes no schedule; it"),
            ({"scheduler": {"params": {"a": 1}}}, "scheduler (it has no type)"),
            ({"optimizer": {"params": {"lr": 1}}}, "optimizer (it has no type)"),
            ({"hysteresis": 2}, "hysteresis (it changes nothing; it belongs in fp16."),
            ({"train_batch_sise": 2}, "train_batch_sise (it changes nothing; it belo"),
            ({"fp16.enabled": True}, '"fp16.enabled"'),
            ({"new\nline": 1}, '"new\\nline"'),
            ({"xyz": "auto"}, "xyz"),
            # A public project's, of bf16 and ZeRO 1.
            (
                {"optimizer": {"type": "Adam", "scheduler": WARMED}},
                "optimizer.scheduler (it makes no schedule; it belongs in scheduler)",
            ),
        ],
    )
    def test_what_deepspeed_ignores_is_told_in_one_line(self, read, entries, told):
        notes = read({**SILENT, **entries})[1]
        warnings = [note for note in notes if note.startswith("warning: ")]
        assert len(warnings) == 1
        assert warnings[0].startswith(
            "warning: --ds_config: theirs.json: DeepSpeed ignores, and so does jaxnn: "
            + told
        )

    def test_many_keys_are_counted(self, read):
        notes = read({**SILENT, **{f"k{n}": n for n in range(20_000)}})[1]
        assert notes[-1].endswith(", and 19992 more")

    def test_notes_come_from_the_first_rank_alone(self, read, monkeypatch):
        assert read(TUTORIAL)[1]
        monkeypatch.setenv("RANK", "1")
        assert read(TUTORIAL)[1] == []
