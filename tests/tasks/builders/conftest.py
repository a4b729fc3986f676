"""No test here touches the network, the user's data, or TensorFlow."""

import socket
import sys

import pytest
from tensorflow_datasets.core.download import checksums


class WithoutTensorFlow:
    """A finder of modules that finds no TensorFlow, should it be installed."""

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            return None
        return self.finder.find_spec(name, path, target)


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """Data in a temporary folder; every connection fails, and so does importing TensorFlow."""

    def refuse(*args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(sys, "meta_path", [WithoutTensorFlow(finder) for finder in sys.meta_path])


@pytest.fixture
def manual(tmp_path):
    """The folder of files that people provide."""
    folder = tmp_path / "data" / "downloads" / "manual"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def known(monkeypatch):
    """known(builder class, path) makes the file at `path` the one that the builder expects."""

    def make_known(builder_class, path):
        (address,) = builder_class.url_infos
        info = checksums.compute_url_info(path)
        monkeypatch.setattr(builder_class, "url_infos", {address: info})

    return make_known
