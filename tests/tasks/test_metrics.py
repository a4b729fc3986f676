"""Metrics, slices, and the classes of tasks that declare them."""

import numpy as np
import pytest

import tasks
from tasks import Metric, Part, Slice

ACCURACY = Metric("accuracy")
BITS = Metric("bits_per_byte", higher_is_better=False, unit="bits", digits=2)


@pytest.mark.parametrize(("metric", "good", "bad"), [(ACCURACY, 0.9, 0.1), (BITS, 1.1, 8.0)])
def test_direction(metric, good, bad):
    assert metric.better(good, bad)
    assert not metric.better(bad, good)
    assert not metric.better(good, good)
    assert metric.better(bad, None)
    assert not metric.better(None, bad)
    assert metric.reached(good, bad)
    assert metric.reached(good, good)
    assert metric.reached(np.float32(0.9), 0.9)  # as near to 0.9 as its dtype comes
    assert not metric.reached(bad, good)
    assert sorted([bad, None, good], key=metric.rank) == [good, bad, None]


def test_text():
    assert (ACCURACY.format(0.98765), BITS.format(1.2345)) == ("0.988", "1.23")
    assert (ACCURACY.heading, ACCURACY.axis) == ("accuracy", "accuracy")
    assert (BITS.heading, BITS.axis) == ("bits_per_byte ↓", "bits_per_byte in bits ↓")


@pytest.mark.parametrize("name", ["", "tv/words"])
def test_a_name_that_would_be_read_as_a_slice_is_refused(name):
    with pytest.raises(ValueError, match="expected a name without '/'"):
        Metric(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", Slice("accuracy")),
        ("tv/words=3", Slice.of("tv", words=3)),
        ("accuracy/length=64,num_kv_pairs=4", Slice.of("accuracy", length=64, num_kv_pairs=4)),
        ("a/noise=0.5", Slice.of("a", noise=0.5)),
        ("a/kind=long", Slice.of("a", kind="long")),
        ("a/easy", Slice("a", (("easy", None),))),
        # What no number prints as stays text.
        ("a/n=007", Slice.of("a", n="007")),
        ("a/n=1e3", Slice.of("a", n="1e3")),
        ("a/n=nan", Slice.of("a", n="nan")),
        ("a/n=٣", Slice.of("a", n="٣")),
        # A task's own slice, on one part of several.
        ("tv/words=3/length=64", Slice.of("tv", words="3/length=64")),
        ("a/x=1,x=1,,=", Slice("a", (("x", 1), ("x", 1), ("", None), ("", "")))),
        ("a/", Slice("a", (("", None),))),
    ],
)
def test_names_of_slices_are_parsed_and_written(name, expected):
    assert Slice.parse(name) == expected
    assert expected.name == name


def test_slices_are_sorted_by_the_names_of_their_properties_then_by_values():
    names = ["a/length=64", "a/length=128", "a/length=x", "a/length=128,n=2", "a/y"]
    shuffled = sorted(names)
    assert sorted(shuffled, key=lambda name: Slice.parse(name).order) == names


def test_parts_name_their_slices():
    part = Part("length=64,num_kv_pairs=4", 64, 10)
    assert part.slice_of("accuracy") == Slice.of("accuracy", length=64, num_kv_pairs=4)
    assert part.slice_of("tv/words=3").name == f"tv/words=3/{part.name}"
    assert Part("", 64, 10).slice_of("accuracy") == Slice("accuracy")
    names = [p.name for p in tasks.build("mqar", length=32, num_kv_pairs=2).parts("test")]
    assert names == ["length=32,num_kv_pairs=2"]


def test_a_metric_that_is_only_a_name_is_refused():
    with pytest.raises(TypeError, match=r"Old.metric is 'bits', .*: write metric = tasks.Metric"):

        class Old(tasks.Task):
            metric = "bits"


@pytest.mark.parametrize(
    ("old", "new"), [("anchors", "reference_scores"), ("anchor_metrics", "reference_metrics")]
)
def test_a_method_of_the_earlier_interface_is_refused(old, new):
    with pytest.raises(TypeError, match=rf"Old\.{old}\(\): {old}\(\) is now {new}\(\)"):
        type("Old", (tasks.Task,), {old: lambda self: {}})


@pytest.mark.parametrize("name", tasks.names())
def test_every_reference_score_is_explained(name):
    if name not in ("icll", "lm"):  # computed on the test set: see their own tests
        task = tasks.build(name)
        assert task.reference_notes().keys() == task.reference_scores().keys()
