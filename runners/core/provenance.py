"""Provenance of a trial: code, versions, device, command and time."""

import datetime
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def provenance() -> dict[str, Any]:
    """The provenance of a trial that starts now.

    Commit and dirty flag are None outside a checkout of this code.
    """
    devices = jax.devices()
    commit, dirty = _git_state()
    return {
        "git_commit": commit,
        "git_dirty": dirty,
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in _PACKAGES},
        "device_kind": devices[0].device_kind,
        "device_count": len(devices),
        "platform": devices[0].platform,
        "host_platform": platform.platform(),
        # As typed; the interpreter's own path says nothing to others.
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "start_time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_state() -> tuple[str | None, bool | None]:
    """The commit of this code, and whether anything but results was changed since."""
    try:
        top, commit = _git("rev-parse", "--show-toplevel", "HEAD").splitlines()
        if not os.path.samefile(top, _ROOT):  # an installed copy inside somebody else's repository
            return None, None
        return commit, bool(_git("status", "--porcelain", "--", ".", ":(exclude)results"))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None, None


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(_ROOT), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout.strip()
