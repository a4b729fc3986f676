"""Layers and functions shared by architectures."""
