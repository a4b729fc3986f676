"""What is missing is named, with where to get it and where to put it."""

import io
import pathlib

import pytest
import requests
import tensorflow_datasets as tfds

from tasks import DataMissingError
from tasks.builders import downloads, prepared
from tasks.builders.image import LraImage
from tasks.builders.text import LraText

PAGES = {
    LraText: "http://ai.stanford.edu/~amaas/data/sentiment",
    LraImage: "https://www.cs.toronto.edu/~kriz",
}
FILES = {LraText: "aclImdb_v1.tar.gz", LraImage: "cifar-10-binary.tar.gz"}


@pytest.fixture(params=PAGES, ids=lambda cls: cls.name)
def builder(request):
    return request.param()


def test_without_a_network(builder, tmp_path, capfd):
    with pytest.raises(DataMissingError) as caught:
        prepared.prepare(builder)
    message = str(caught.value)
    assert "\n" not in message
    assert f"{builder.name} needs {FILES[type(builder)]}" in message
    assert f"download {PAGES[type(builder)]}/{FILES[type(builder)]}" in message
    assert f"put it into {tmp_path / 'data' / 'downloads' / 'manual'}" in message
    assert "no network in tests" in message  # why
    assert not pathlib.Path(builder.data_dir).exists()
    assert capfd.readouterr() == ("", "")


def test_a_silent_network_is_not_waited_for(builder, monkeypatch):
    """TFDS, which would try again and again, is not even asked."""
    limits = []

    def get(address, timeout, **options):
        limits.append(timeout)
        raise requests.ConnectTimeout("timed out")

    monkeypatch.setattr(requests, "get", get)
    with pytest.raises(DataMissingError, match="ConnectTimeout: timed out"):
        downloads.fetched(builder, None)  # no download manager is needed
    assert len(limits) == 1
    assert sum(limits[0]) <= 20  # seconds to connect and to answer


def test_a_page_that_is_gone(builder, monkeypatch):
    response = requests.Response()
    response.status_code, response.reason, response.raw = 404, "Not Found", io.BytesIO()
    monkeypatch.setattr(requests, "get", lambda *args, **options: response)
    with pytest.raises(DataMissingError, match="404"):
        downloads.fetched(builder, None)


def test_a_wrong_file_is_named(builder, manual):
    (manual / FILES[type(builder)]).write_bytes(b"an error page")
    with pytest.raises(DataMissingError, match=r"NonMatchingChecksumError: .*wrong checksum") as e:
        prepared.prepare(builder)
    assert "\n" not in str(e.value)


def test_what_is_expected_is_what_tfds_expects(builder):
    """Addresses, sizes and checksums are those of its own builders."""
    source = {LraText: "imdb_reviews", LraImage: "cifar10"}[type(builder)]
    assert tfds.builder_cls(source).url_infos.items() >= builder.url_infos.items()


def test_what_was_downloaded_before_is_not_asked_for_again(builder, tmp_path):
    ((address, known),) = builder.url_infos.items()
    name = downloads.resource.get_dl_fname(address, known.checksum)
    path = tmp_path / "data" / "downloads" / builder.name / name
    path.parent.mkdir(parents=True)
    path.touch()

    class Manager:
        def download(self, wanted):
            assert wanted == address
            return path

    assert downloads.fetched(builder, Manager()) == path


@pytest.mark.parametrize("folder", ["lra_release", "lra_release/lra_release"])
def test_the_lra_release_in_one_folder_or_two(manual, folder):
    path = manual / folder / "tsv_data" / "file"
    path.parent.mkdir(parents=True)
    path.touch()
    assert downloads.lra_release(LraText(), "tsv_data", "file") == path


def test_no_lra_release(manual):
    with pytest.raises(DataMissingError) as caught:
        downloads.lra_release(LraText(), "tsv_data", "file")
    assert str(caught.value) == (
        "lra_text needs lra_release/lra_release/tsv_data/file: download "
        "https://storage.googleapis.com/long-range-arena/lra_release.gz (7.7 GB) and unpack it "
        f"(tar -xzf lra_release.gz) in {manual}"
    )
