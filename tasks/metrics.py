"""Metrics: name, direction, unit and format of a score."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Metric:
    """A score."""

    name: str
    higher_is_better: bool = True

    def better(self, a: float, b: float) -> bool:
        """Is a better than b?"""
        return a > b if self.higher_is_better else a < b

    def reached(self, score: float, target: float) -> bool:
        """Is the score as good as the target?"""
        return score >= target if self.higher_is_better else score <= target

    def format(self, value: float) -> str:
        """Text."""
        return f"{value:.3f}"
