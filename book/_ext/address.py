"""The repository's address stands in _config.yml; everything else follows from it.

`make restamp` writes it into the notebooks' setup cells, the texts and the metadata;
`make restamp URL=https://github.com/you/fork` changes it first. While the site is built,
the address of the published pages follows from it, as GitHub Pages has it.
"""

import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

import nbformat

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "_config.yml"
ADDRESS = re.compile(r"https://github\.com/[\w.-]+/[\w.-]*\w")


def address():
    return re.search(rf"url: ({ADDRESS.pattern})", CONFIG.read_text())[1]


def pages(url):
    """https://github.com/owner/name is published at https://owner.github.io/name/."""
    owner, name = urlsplit(url).path.strip("/").split("/")
    if name.lower() == f"{owner}.github.io".lower():
        return f"https://{name}/"
    return f"https://{owner.lower()}.github.io/{name}/"


def restamp(url):
    if not ADDRESS.fullmatch(url):
        raise SystemExit(
            f"URL: expected https://github.com/owner/name, got {url}"
        )
    texts = [CONFIG, ROOT / "pyproject.toml", ROOT / "CITATION.cff"]
    for path in [*texts, *ROOT.glob("*.md")]:
        path.write_text(ADDRESS.sub(url, path.read_text()))
    for path in ROOT.glob("book/**/*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            cell.source = ADDRESS.sub(url, cell.source)
        nbformat.write(notebook, path)


def settings(app, config):
    site = pages(config.html_theme_options["repository_url"])
    config.html_baseurl = config.ogp_site_url = site
    config.notfound_urls_prefix = home = urlsplit(site).path
    lost = config.notfound_context
    config.notfound_context = lost | {"body": lost["body"].format(home=home)}


def setup(app):
    app.connect("config-inited", settings, priority=0)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    restamp(sys.argv[1] if len(sys.argv) > 1 else address())
