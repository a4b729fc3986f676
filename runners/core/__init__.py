"""Shared by several packages of `runners`: records, ids, names, errors, formats, progress."""
