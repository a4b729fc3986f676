"""Handwritten digits as sequences of pixels: real images that come with scikit-learn.

1,797 scans of 8×8 pixels in 17 shades of grey (Alpaydin & Kaynak 1998, UCI Machine Learning
Repository), read row by row, as the Long Range Arena (arXiv 2011.04006) reads larger images.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tasks.batch import SPLITS, Split
from tasks.registry import register
from tasks.sources import DataMissingError, Report
from tasks.stored import Rows, StoredTask

_SHUFFLE_SEED = 1998
_SIZES = {"train": 1197, "validation": 300, "test": 300}
_COMMONEST = 38  # of the test digits are sevens: known without the images, as tables need it


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Pixels [1797, 64] uint8 and labels [1797], in an order in which writers are mixed."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(_SHUFFLE_SEED).permutation(len(labels))
    return pixels[order].astype(np.uint8), labels[order].astype(np.int32)


@register("digits")
class Digits(StoredTask):
    """Classification of a digit from 64 pixels, one at a time, each a feature between −1 and 1.

    Splits: 1,197 to train on, 300 to validate on and 300 to test on, drawn once. The same people
    wrote the digits of all three.
    """

    vocab_size = None
    num_features = 1
    num_classes = 10
    max_length = 64

    def __init__(self):
        self.num_examples = dict(_SIZES)
        self.spec = {
            "inputs": jax.ShapeDtypeStruct((64,), jnp.uint8),
            "label": jax.ShapeDtypeStruct((), jnp.int32),
        }

    def prepare(self, report: Report | None = None) -> None:
        """Raises DataMissingError if scikit-learn, which brings the images, is not installed."""
        try:
            _digits()
        except ImportError as error:
            raise DataMissingError(
                "digits needs scikit-learn, which holds the images: pip install -e '.[data]'"
            ) from error

    def read(self, split: Split, indices: np.ndarray) -> Rows:
        before = SPLITS[: SPLITS.index(split)]
        start = sum(_SIZES[name] for name in before)
        pixels, labels = _digits()
        return {"inputs": pixels[start + indices], "label": labels[start + indices]}

    def features(self, inputs: jax.Array) -> jax.Array:
        return inputs.astype(jnp.float32)[..., None] / 8 - 1  # 0 … 16 becomes −1 … 1

    def reference_scores(self) -> dict[str, float]:
        """The commonest digit; no ceiling is known."""
        return {"majority": _COMMONEST / _SIZES["test"]}

    def reference_notes(self) -> dict[str, str]:
        return {"majority": "always answers the commonest digit"}
