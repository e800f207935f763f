"""Every config that a prime-rl ships: the plugin makes of it what prime-rl makes of it.

With the real prime-rl when PRIME_RL_DIR names one, else with the stand-in and some configs of each kind.
"""

import pytest
from standin import make_checkout
from standins.real import Real, find_real
from standins.shipped import EQUAL, MULTI_NODE, OTHER, REFUSED, Comparison, find_configs

from medarc_plugin.host.fields import MAIN

REAL = find_real()

RL = """
[model]
name = "PrimeIntellect/Qwen3-0.6B"

[orchestrator.train]
[[orchestrator.train.source]]
name = "reverse-text"

[orchestrator.train.source.env.taskset]
id = "reverse-text"

[trainer]
[inference]
"""

MADE = {
    "configs/rl.toml": (RL, EQUAL),
    "configs/gpus.toml": (f"{RL}\n[deployment]\nnum_train_gpus = 2\nnum_infer_gpus = 4\n", EQUAL),
    "configs/key.toml": (f"bogus = 1\n{RL}", REFUSED),
    "configs/missing.toml": (RL.replace('id = "reverse-text"', 'id = "wordle"'), REFUSED),
    "configs/nodes.toml": (f'{RL}\n[deployment]\ntype = "multi_node"\n', MULTI_NODE),
    "examples/sft.toml": ("max_steps = 3\n[data]\nbatch_size = 4\n", EQUAL),
    "examples/server/inference.toml": ('[vllm]\nmodel = "A/B"\n', EQUAL),
    "examples/evals.toml": ('model = "A/B"\n[eval]\n', OTHER),
}
"""Configs of each kind, with what comes of them."""

CONFIGS = find_configs(REAL.checkout) if REAL else list(MADE)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """prime-rl and the plugin, side by side."""
    folder = tmp_path_factory.mktemp("shipped")
    host = REAL
    if host is None:
        checkout = make_checkout(folder / "prime-rl")
        for name, (text, _) in MADE.items():
            path = checkout / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        host = Real(checkout, checkout / ".venv/bin/python", MAIN)
    with Comparison(host, folder / "both", tasksets=REAL is not None) as comparison:
        yield comparison


@pytest.mark.parametrize("config", CONFIGS)
def test_a_shipped_config_is_taken_as_prime_rl_takes_it(both, config):
    found = both.compare(config)

    wanted = (EQUAL, REFUSED, MULTI_NODE, OTHER) if REAL else (MADE[config][1],)
    assert found.ending in wanted, found.detail
