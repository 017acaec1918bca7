"""Bring what the tests need and pip cannot install: a Chromium.

`python tests/bring.py` fails, and says why, if it can't be had.
"""

import os
import shutil
import subprocess
import sys

from playwright.sync_api import sync_playwright

NAMES = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
]


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


if __name__ == "__main__":
    bring_chromium()
