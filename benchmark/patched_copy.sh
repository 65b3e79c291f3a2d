# To be sourced. A patched copy of an unpatched SGLang, for a machine where nothing can be installed:
# with it on the path before the original, SGLang is the fork, and finds sglang_ic's plugins.

# Usage: patched_copy SITE WORK [PYTHON]
# Copy SITE/sglang to WORK, a folder that exists and holds none, and patch the copy.
patched_copy() {
    local site=$1 work=$2 python=${3:-python3} root
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    cp -r "$site/sglang" "$work/" || return
    PYTHONPATH="$root/python" "$python" -m sglang_ic.fork apply --target "$work" || return
    plugin_entry_points "$work" "$python"
}

# Usage: plugin_entry_points WORK [PYTHON]
# SGLang finds plugins by installed entry points: put pyproject.toml's into WORK, as pip would.
plugin_entry_points() {
    local work=$1 python=${2:-python3} root
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    "$python" - "$root/pyproject.toml" "$work" <<'PYTHON'
import pathlib, sys, tomllib

project = tomllib.loads(pathlib.Path(sys.argv[1]).read_text())["project"]
name, version = project["name"], project["version"]
folder = pathlib.Path(sys.argv[2], f"{name}-{version}.dist-info")
folder.mkdir()
(folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
lines = []
for group, found in project["entry-points"].items():
    lines += [f"[{group}]", *(f"{key} = {value}" for key, value in found.items()), ""]
(folder / "entry_points.txt").write_text("\n".join(lines))
PYTHON
}
