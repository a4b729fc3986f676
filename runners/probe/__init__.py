"""N-gram heads in trained models; `python -m runners.probe`."""
