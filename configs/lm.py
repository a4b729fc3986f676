"""Language modelling: which architectures model text, and what do they lack?

The text is Python source code (`tasks/text/corpora.py`), byte by byte: names that are introduced
once and used again separate architectures that can recall from those that cannot (Zoology, Arora
et al. 2023, arXiv 2312.04927). All models of a preset see the same rows in the same order. A preset
has a budget, in tokens or in time, and the number of steps follows from it.

On a laptop, two layers of width 128, 0.3 to 0.6 million parameters:

`laptop` (the bare name): six architectures of different families, one seed, 0.66 MB of text each.
10 minutes on 2 CPU cores.

    python -m runners.sweep --config lm.py

`seeds`: three seeds of these and of Hyena and a hybrid of convolution and attention, in the same
study: it adds to the trials of `laptop`. 35 minutes; on a CPU `--population_size 1` is a little
faster.

    python -m runners.sweep --config lm.py:seeds

`laptop_time`: equal time instead of equal text, 30 seconds of training each, as in the Languini
Kitchen (Stanić et al. 2023, arXiv 2309.11197): what is faster sees more text. 8 minutes.

`overnight`: attention, convolutions and the hybrid, 10 MB of text, three seeds. 2 hours.

With `--keep_weights`, `python -m runners.evaluate --workdir results/lm` asks what the models
recall, and `python -m runners.generate` lets them write.

With the models of the papers, at their size (`arch/model/published_sizes.py`):

`130m`, `340m`, `1.3b`: see `_PUBLISHED`. For accelerators; never run here. `--accumulate 8` cuts
the batch of a step into 8 parts where it does not fit.

    python -m runners.sweep --config lm.py:340m --config.task.options.corpus='/data/*.jsonl'

On text of your own, in a file, a folder or a glob (text, .jsonl or .parquet):

    python -m runners.sweep --config lm.py --workdir results/my_text \\
        --config.task.options.corpus='/data/my_text/*.txt'

A budget of your own: `--config.tokens=5e6`, or `--config.accelerator_hours=0.5` with the speed of
every mixer, `--config.tokens_per_second='{"attention": 20000, …}'`. A trial of `runners.train` of
some steps measures it: `examples_per_second` of its record times the length of a row. The speeds of
`laptop_time` are those of the committed trials.

What decides the score: with 0.66 MB, mixers with a short convolution or gates are ahead, for they
learn the local statistics first, and attention still learns what an n-gram is; one seed of three
has done so (2.89 bits per byte, 3.15 and 3.16). With 10 MB attention is ahead of the short
convolution, and Hyena and the hybrid are ahead of both. Small batches and many steps use the bytes
best: attention came to 2.65 with 1,000 steps of 1,024 bytes at a learning rate of 2e-3 (2.86 at
4e-3), and to 3.16 with 300 steps of 4,096 bytes at 3e-3 (one seed and 200 test rows each).

RMS norm, SwiGLU, β₂ = 0.95, clipping at 1, warm-up and a cosine are usual for language models; the
learning rate, the batch and the number of steps are a laptop's. One learning rate for all: it was
chosen on attention, and no row is tuned. A block of Mamba has no separate channel mixer, and
so Mamba has twice the layers (Gu & Dao 2023, arXiv 2312.00752, section 3.4).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

import tasks
from arch.model.published_sizes import MODELS
from configs.base import base

_LAPTOP: dict[str, Any] = {
    "model.d_model": 128,
    "model.num_layers": None,
    "model.norm": "rms",
    "model.channel_mixer": "swiglu",
    "task.name": "lm",
    "task.options": {"num_validation_rows": 100, "num_long_rows": 32},
    "optimizer.learning_rate": 2e-3,
    "optimizer.b2": 0.95,
    "optimizer.warmup_fraction": 0.1,
    "optimizer.clip_norm": 1.0,
    "train.batch_size": 4,
    "evaluation.batch_size": 25,
}
_HYBRID = ["base_conv", "attention"]
_MIXERS = ("attention", "base_conv", "gated_deltanet", "gla", "lstm", "mamba")
_MORE = (_HYBRID, "hyena")
_LAPTOP_TOKENS = 655_360
# Training speed on 2 cores of a laptop, bytes a second, from the records of the study "lm".
LAPTOP_SPEED = {
    "attention": 20_200,
    "base_conv": 32_700,
    "base_conv+attention": 31_200,
    "gated_deltanet": 8_000,
    "gla": 13_800,
    "hyena": 15_700,
    "lstm": 5_300,
    "mamba": 7_700,
}

# After the papers, with packed rows and bfloat16. 130m: Mamba (arXiv 2312.00752, appendix E.2):
# GPT-3's batch, five times its learning rate, 20 tokens per parameter. 340m and 1.3b: GLA (arXiv
# 2312.06635, section 5.1), whose recipe DeltaNet took over; the authors' trainer, flame, has the
# same peak learning rate, row length, clipping and schedule. Batches, warm-up and weight decay are
# not checked against the papers' text: do so before a run is called a reproduction. Where we
# differ: the cosine ends at 0 instead of a tenth, and all models have one vocabulary, a BPE of
# 32,000 tokens trained on the text. The papers train on the Pile and on SlimPajama, which have to
# be given as files; PG-19 comes by TFDS.
_PUBLISHED: dict[str, Any] = {
    "model.norm": "rms",
    "model.compute_dtype": "bfloat16",
    "model.remat": True,
    "task.name": "lm",
    "task.options": {
        "corpus": "tfds:pg19",
        "tokenizer": "bpe",
        "vocab_size": 32_000,
        "length": 2048,
        "packing": "packed",
        "ar_context": 1,
    },
    "optimizer.b2": 0.95,
    "optimizer.clip_norm": 1.0,
    "train.z_loss": 0.0,
    "evaluation.batch_size": 8,
}


def _recipe(rate: float, decay: float, warmup: float, rows: int) -> dict[str, Any]:
    """A published recipe: peak learning rate, weight decay, share of warm-up, rows of a batch."""
    return _PUBLISHED | {
        "optimizer.learning_rate": rate,
        "optimizer.ssm_learning_rate": rate,
        "optimizer.weight_decay": decay,
        "optimizer.warmup_fraction": warmup,
        "train.batch_size": rows,
    }


class _Preset(NamedTuple):
    """A preset.

    Attributes:
      study: the name that its results are filed by.
      models: names of published models, or a mixer or pattern of mixers each.
      tokens: budget of a trial.
      changes: of the base configuration.
      seeds: trials of each model.
      seconds: a budget of time instead, at the speeds of `LAPTOP_SPEED`.
      evaluations: in the course of training.
    """

    study: str
    models: Sequence[str | list[str]]
    tokens: float
    changes: Mapping[str, Any]
    seeds: int = 1
    seconds: float | None = None
    evaluations: int = 4


_PRESETS = {
    "laptop": _Preset("lm", _MIXERS, _LAPTOP_TOKENS, _LAPTOP),
    "seeds": _Preset("lm", (*_MIXERS, *_MORE), _LAPTOP_TOKENS, _LAPTOP, seeds=3),
    "laptop_time": _Preset("lm_time", (*_MIXERS, *_MORE), _LAPTOP_TOKENS, _LAPTOP, seconds=30.0),
    "overnight": _Preset(
        "lm_overnight",
        ("attention", "base_conv", _HYBRID, "hyena"),
        10e6,
        _LAPTOP | {"train.batch_size": 8},
        seeds=3,
        evaluations=10,
    ),
    "130m": _Preset(
        "lm_130m",
        ("transformer-125m", "mamba-130m", "mamba2-130m"),
        2.5e9,
        _recipe(3e-3, 0.1, warmup=0.1, rows=256),
        evaluations=20,
    ),
    "340m": _Preset(
        "lm_340m",
        ("transformer-340m", "gla-340m", "deltanet-340m"),
        15e9,
        _recipe(3e-4, 0.01, warmup=0.5 / 15, rows=256),
        evaluations=20,
    ),
    "1.3b": _Preset(
        "lm_1.3b",
        ("transformer-1.3b", "gla-1.3b", "deltanet-1.3b", "mamba-1.4b", "mamba2-1.3b"),
        100e9,
        _recipe(3e-4, 0.01, warmup=0.01, rows=1024),
        evaluations=20,
    ),
}


def get_config(preset: str = "laptop") -> ConfigDict:
    """The base trial of a preset, with its first model, for `complete` to fill in.

    Raises:
      ValueError: an unknown preset.
    """
    if preset not in _PRESETS:
        raise ValueError(f"unknown preset {preset!r}; known: {', '.join(_PRESETS)}")
    chosen = _PRESETS[preset]
    hours = None if chosen.seconds is None else chosen.seconds / 3600
    first = MODELS.get(str(chosen.models[0]))
    model = {} if first is None else first.backbone
    own = {f"model.{key}": value for key, value in model.items() if key != "vocab_size"}
    return base(
        chosen.study,
        {**chosen.changes, **own, "train.eval_every": None},
        preset=preset,
        tokens=float(chosen.tokens),
        accelerator_hours=hours,
        tokens_per_second={} if hours is None else LAPTOP_SPEED,
    )


def sweep(config: ConfigDict) -> Iterator[dict[str, Any]]:
    """The trials of the base configuration's preset, as overrides; see `get_config`."""
    chosen = _PRESETS[config.preset]
    for model in chosen.models:
        for seed in range(chosen.seeds):
            yield {"model" if str(model) in MODELS else "model.mixer": model, "seed": seed}


def complete(config: ConfigDict) -> None:
    """Fills in a trial's depth, the steps that its budget pays for, and those between evaluations.

    Raises:
      ValueError: an impossible budget, or one of hours for a model without a speed.
    """
    if config.model.num_layers is None:
        config.model.num_layers = 4 if config.model.mixer == "mamba" else 2
    if config.train.steps is None and config.train.epochs is None:
        length = tasks.build(config.task.name, **config.task.options).max_length
        steps = round(_tokens(config) / (config.train.batch_size * length))
        if steps < 1:
            raise ValueError(
                f"the budget of {_tokens(config):.4g} tokens is less than one batch of "
                f"{config.train.batch_size} × {length} tokens: set tokens or accelerator_hours"
            )
        config.train.steps = steps
    if config.train.eval_every is None and config.train.steps is not None:
        evaluations = _PRESETS[config.preset].evaluations
        config.train.eval_every = -(-config.train.steps // evaluations)


def _tokens(config: ConfigDict) -> float:
    """The budget of a trial."""
    if config.accelerator_hours is None:
        return config.tokens
    mixer = config.model.mixer
    name = mixer if isinstance(mixer, str) else "+".join(mixer)
    if name not in config.tokens_per_second:
        raise ValueError(
            f"tokens_per_second has no {name!r}, expected the speed of every model: train it for "
            "some steps, and take examples_per_second of its record times the length"
        )
    return 3600 * config.accelerator_hours * config.tokens_per_second[name]
