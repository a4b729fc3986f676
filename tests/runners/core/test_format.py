"""Numbers for people."""

import pytest

from runners.core import format


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "–"), (640, "640 B"), (8192, "8.0 KiB"), (1572864, "1.5 MiB"), (3 * 2**30, "3.0 GiB")],
)
def test_bytes(number, text):
    assert format.to_bytes(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "–"), (950, "950"), (2000, "2.0k"), (131_700, "132k"), (1_340_000, "1.3M")],
)
def test_count(number, text):
    assert format.to_count(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(89, "89 s"), (120, "2 min"), (7200, "2.0 h"), (3 * 86400, "3 days")],
)
def test_duration(seconds, text):
    assert format.duration(seconds) == text
