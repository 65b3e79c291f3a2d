"""Make an environment that holds upstream's own SGLang and shares every other package with another.

    .venv/bin/python requirements/stock_env.py .venv-stock

The upstream wheel is unpacked as it is, so each file matches the wheel's RECORD. The site-packages
of the running interpreter come after it on the path, so they lend torch and the rest, but not their
patched sglang; this package and its entry points are visible through them too.
"""

import base64
import csv
import hashlib
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

from sglang_ic.fork.fetch import running_python, upstream_wheel
from sglang_ic.fork.upstream import Pin, load_pin

ROOT = Path(__file__).resolve().parent.parent


def main(target: Path) -> None:
    pin = load_pin(ROOT / "patches")
    wheel = upstream_wheel(pin, ROOT / ".cache", running_python())
    shared = sysconfig.get_path("purelib")
    venv.EnvBuilder(clear=True, symlinks=True, with_pip=False).create(target)
    python = target / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.check_output([python, "-c", ask], text=True).strip())
    zipfile.ZipFile(wheel).extractall(site)
    # addsitedir, not a plain path: the shared directory has .pth files of its own (this package's).
    (site / "_shared.pth").write_text(f"import site; site.addsitedir({shared!r})\n")
    count = check(site, pin)
    print(f"{target}: {pin.package} {pin.version}, {count} files as in RECORD; shares {shared}")


def check(site: Path, pin: Pin) -> int:
    """Compare every file with RECORD and return how many there are.

    Raises:
        SystemExit: a file differs.
    """
    with (site / pin.upstream_dist_info / "RECORD").open(newline="") as file:
        rows = [(path, digest) for path, digest, _ in csv.reader(file) if digest]
    for path, recorded in rows:
        digest = base64.urlsafe_b64encode(hashlib.sha256((site / path).read_bytes()).digest())
        if recorded != f"sha256={digest.rstrip(b'=').decode()}":
            raise SystemExit(f"error: {site / path} differs from RECORD: run `make stock` again")
    return len(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
