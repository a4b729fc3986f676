"""Recall of trained language models, zero-shot."""
