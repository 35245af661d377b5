"""Programs of Node.js, with the packages that their folder asks for."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

from tests.engines.kafka import CACHE

EXAMPLE = Path(__file__).parents[2] / "examples" / "node"


def installed(folder: Path = EXAMPLE) -> Path:
    """Return a folder with the programs of `folder` and their packages, which are kept by its `package.json`."""
    for program, package in (("node", "nodejs"), ("npm", "npm")):
        if shutil.which(program) is None:
            raise AssertionError(
                f"{program} is missing, which runs the example: apt-get install {package}"
            )
    wanted = (folder / "package.json").read_bytes()
    kept = CACHE / f"node-{hashlib.sha256(wanted).hexdigest()[:16]}"
    kept.mkdir(parents=True, exist_ok=True)
    with (kept / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (kept / "complete").exists():
            (kept / "package.json").write_bytes(wanted)
            command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(command, cwd=kept, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"npm install failed:\n{done.stdout}{done.stderr}"
            (kept / "complete").touch()
        for program in folder.glob("*.mjs"):
            shutil.copy(program, kept)
    return kept
