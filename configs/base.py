"""Base configuration: every key of a trial once, with its default.

A study states what differs, by the same dotted keys as a sweep or the command line:

    base("mqar", {"train.steps": 1000, "train.stop_at": 0.999}, preset=preset)

Sources of the defaults:

- `model`, `task`: Zoology's figure 2 (Arora et al. 2023, arXiv 2312.04927): two layers of one
  mixer, layer norm, no channel mixer, on MQAR. The width of 32 is a laptop's. No positions and no
  dropout: a study that wants them says so.
- `optimizer`: AdamW at 1e-3 with weight decay 0.1 and a cosine, no warm-up, no clipping: the
  protocol of Zoology and Based (Arora et al. 2024, arXiv 2402.18668). `b1`, `b2` and `epsilon` are
  those of Adam (Kingma and Ba 2015, arXiv 1412.6980), `ssm_learning_rate` is that of S4 (Gu et al.
  2021, arXiv 2111.00396).
- `train`, `evaluation`: batches for a laptop. Every study sets one of `train.steps` and
  `train.epochs`.

These are defaults of studies, apart from the rules of the keys (`runners/study/schema.py`): configs
import no runners, and a default may change, upon which the studies that rely on it have new trials.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict


def base(study: str, changes: Mapping[str, Any], **own: Any) -> ConfigDict:
    """Returns the base trial of a study.

    Args:
      study: its name, by which its results are filed.
      changes: values that differ from the defaults, by `section.key`.
      own: keys of the study's own, such as `preset`, for its `sweep`.

    Raises:
      ValueError: a change outside the sections.
    """
    config: dict[str, Any] = {
        "study": study,
        **own,
        "seed": 0,
        "model": {
            "mixer": "attention",
            "mixer_options": {},
            "d_model": 32,
            "num_layers": 2,
            "channel_mixer": "none",
            "norm": "layer",
            "position_embedding": False,
            "embedding_dropout": 0.0,
            "dropout": 0.0,
            "compute_dtype": "float32",
            "remat": False,
        },
        "task": {"name": "mqar", "options": {}},
        "optimizer": {
            "learning_rate": 1e-3,
            "ssm_learning_rate": 1e-3,
            "weight_decay": 0.1,
            "b1": 0.9,
            "b2": 0.999,
            "epsilon": 1e-8,
            "schedule": "cosine",
            "warmup_fraction": 0.0,
            "clip_norm": None,
        },
        "train": {
            "batch_size": 32,
            "steps": None,
            "epochs": None,
            "eval_every": 100,
            "stop_at": None,
            "z_loss": 0.0,
        },
        "evaluation": {"batch_size": 256},
    }
    sections = {name: values for name, values in config.items() if isinstance(values, dict)}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        if section not in sections or not name:
            raise ValueError(
                f"unknown key {key!r}: expected one of the sections {', '.join(sections)}, a dot, "
                "and a key of the section"
            )
        sections[section][name] = value
    return ConfigDict(config)
