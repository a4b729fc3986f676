"""Recall of trained models of text, without training for it."""
