"""Sharded weights: stopped and gone on as unbroken, refused where they make no sense."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from selftrain.config import TrainingConfig
from selftrain.errors import ConfigError
from selftrain.training.sharding import check_sharding, is_sharded, placed_like, whole, whole_weights

SCRIPT = """
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from selftrain.config import SFTConfig
from selftrain.processes import join
from selftrain.records import Example
from selftrain.training.fit import Interrupted, fit
from selftrain.training.sft import SFTObjective
from selftrain.training.sharding import is_sharded, whole_weights

folder, precision = Path(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
team = join()


def train(to: Path, stop_after: int) -> dict:
    torch.manual_seed(0)
    shape = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True)
    module = LlamaForCausalLM(shape)
    rows = [Example(f"q{i}", (3, 4 + i, 5), (6, 7 + i, 8, 2), "gold") for i in range(9)]
    config = SFTConfig(batch_size=3, epochs=2, learning_rate=1e-2)
    objective = SFTObjective(rows, config, seed=7, pad_id=0, encoder_decoder=False, micro_batch_tokens=8)
    done = []
    try:
        fit(module, objective, folder=to, precision=precision, team=team, sharded=True,
            on_step=lambda step, *_: done.append(step), should_stop=lambda: len(done) == stop_after)
    except Interrupted:
        return {}
    assert is_sharded(module)
    return whole_weights(module, keep=True)


unbroken = train(folder / "unbroken", -1)
assert train(folder / "broken", 2) == {}
resumed = train(folder / "broken", -1)
if team.is_main:
    save_file(unbroken, folder / "unbroken.safetensors")
    save_file(resumed, folder / "resumed.safetensors")
team.wait()
"""


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stopped_training_goes_on_from_its_gathered_checkpoint(precision: str, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    source = str(Path(__file__).resolve().parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script),
         str(tmp_path), precision],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    unbroken, resumed = (load_file(tmp_path / f"{name}.safetensors") for name in ("unbroken", "resumed"))
    assert "lm_head.weight" not in unbroken, "tied weights are saved once"
    assert len(unbroken) == 20
    for name in unbroken:
        assert torch.equal(unbroken[name], resumed[name]), name


def test_refused_for_one_process_and_for_adapters() -> None:
    check_sharding(TrainingConfig(), 1)
    check_sharding(TrainingConfig(sharded=True), 2)
    with pytest.raises(ConfigError, match="this is one"):
        check_sharding(TrainingConfig(sharded=True), 1)
    with pytest.raises(ConfigError, match="adapters cannot be sharded"):
        check_sharding(TrainingConfig.model_validate({"sharded": True, "lora": {"rank": 8}}), 2)


def test_ordinary_tensors_pass_through() -> None:
    module = torch.nn.Linear(2, 2)
    assert whole(module.weight) is module.weight
    assert placed_like(module.weight, module.bias) is module.bias
    assert not is_sharded(module)
    assert whole_weights(module, keep=False) == {}
    assert set(whole_weights(module, keep=True)) == {"weight", "bias"}
