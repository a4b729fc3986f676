"""A task judged by a loss: smaller is better, it has a unit, and the optimum may be unknown."""

import tasks


class Bits(tasks.Task):
    """Prediction of bytes, only as far as a leaderboard asks."""

    metric = tasks.Metric("bits_per_byte", higher_is_better=False, unit="bits", digits=2)
    vocab_size = 256
    max_length = 8

    def __init__(self, *, length: int = 8, known: bool = False):
        self.known = known

    def reference_scores(self):
        scores = {"uniform": 8.0, "unigram": 4.5}
        return scores | {"entropy": 1.0} if self.known else scores

    def reference_notes(self):
        notes = {"uniform": "gives all bytes one probability", "unigram": "counts bytes"}
        return notes | {"entropy": "knows the source"}
