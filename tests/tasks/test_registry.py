import pytest

import tasks
from tasks import registry


def test_mqar_is_known_by_name():
    assert "mqar" in tasks.names()
    assert tasks.get("mqar").__name__ == "MQAR"
    assert tasks.names() == sorted(tasks.names())


def test_import_path():
    assert tasks.get("tasks.mqar:MQAR") is tasks.get("mqar")
    assert tasks.build("tasks.mqar:MQAR", vocab_size=256).vocab_size == 256


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mqra", "unknown task 'mqra': did you mean 'mqar'"),
        ("zzz", "unknown task 'zzz': known: .*mqar"),
        ("no_such_module:Task", "task 'no_such_module:Task' cannot be imported"),
        ("tasks.mqar:Nothing", "cannot be imported"),
        (":MQAR", "cannot be imported"),
        ("tasks.mqar:jnp", "not a subclass of tasks.Task"),
    ],
)
def test_unknown_task(name, message):
    with pytest.raises(ValueError, match=message) as caught:
        tasks.build(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("raise RuntimeError('no\\nluck')", "RuntimeError: no luck"), ("def", "SyntaxError: ")],
)
def test_a_module_that_cannot_be_imported(monkeypatch, tmp_path, text, reason):
    (tmp_path / "broken_tasks.py").write_text(text + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=f"broken_tasks:Copy' cannot be imported: {reason}"):
        tasks.get("broken_tasks:Copy")


def test_unknown_option():
    with pytest.raises(ValueError, match="no option 'vocab': did you mean 'vocab_size'"):
        tasks.build("mqar", vocab=64)
    with pytest.raises(ValueError, match="no option 'zzzzz': known: vocab_size, length"):
        tasks.build("mqar", zzzzz=1)


def test_a_name_is_registered_once(monkeypatch):
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))
    other = type("Other", (tasks.Task,), {})
    with pytest.raises(ValueError, match=r"'mqar' is already registered by tasks\.mqar"):
        tasks.register("mqar")(other)
    assert tasks.register("other")(other) is other
    assert tasks.get("other") is other
