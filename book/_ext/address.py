"""The repository's address stands in _config.yml; everything else follows from it.

`make restamp` writes it into the notebooks' setup cells, the texts and the metadata;
`make restamp URL=https://github.com/you/fork` changes it first. While the site is built,
the address of the published pages follows from it, as GitHub Pages has it.
"""

import re
import sys
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote, urlsplit

import nbformat

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "_config.yml"
COLAB = "colab.research.google.com/github"
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
    """Another address for the book, in all places where it stands, and for nothing else."""
    if not ADDRESS.fullmatch(url) or url.endswith(".git"):
        raise SystemExit(
            f"URL: expected https://github.com/owner/name, got {url}"
        )
    site = lambda url: pages(url).rstrip("/")
    kinds = (str, site, lambda url: url.replace("github.com", COLAB))
    swaps = [
        (re.compile(rf"{re.escape(kind(address()))}(?![\w.-]*\w)"), kind(url))
        for kind in kinds
    ]

    def new(text):
        for old, with_ in swaps:
            text = old.sub(with_, text)
        return text

    texts = [CONFIG, ROOT / "pyproject.toml", ROOT / "CITATION.cff"]
    for path in [*texts, *ROOT.glob("*.md")]:
        path.write_text(new(path.read_text()))
    for path in ROOT.glob("book/**/*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            cell.source = new(cell.source)
        nbformat.write(notebook, path)


def settings(app, config):
    site = pages(config.html_theme_options["repository_url"])
    config.html_baseurl = config.ogp_site_url = site
    config.notfound_urls_prefix = home = urlsplit(site).path
    lost = config.notfound_context
    config.notfound_context = lost | {"body": lost["body"].format(home=home)}


FOOT = (
    '<a href="{site}differentiating-equilibria.pdf">The book as PDF</a> · '
    'deqlib {version} · <a href="{url}#citing">How to cite</a> · '
    '<a href="{url}/issues/new?template=mistake.yml&page={page}">'
    "Report a mistake on this page</a>"
)


def foot(app, pagename, templatename, context, doctree):
    context["theme_extra_footer"] = FOOT.format(
        site=app.config.html_baseurl,
        version=version("deqlib"),
        url=app.config.html_theme_options["repository_url"],
        page=quote(pagename),
    )


INDEX = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<link rel="canonical" href="{first}">
{cards}
<meta http-equiv="refresh" content="0; url={page}">
</head>
<body><a href="{page}">{title}</a></body>
</html>
"""


def write_index(app, error):
    """The address that people share has the first page's title and card; and a sitemap."""
    if error or app.builder.format != "html":
        return
    out, site = Path(app.outdir), app.config.html_baseurl
    page = app.builder.get_target_uri(app.config.root_doc)
    cards = re.findall(
        r'<meta (?:property="og|name="(?:twitter|description)).*?/>',
        (out / page).read_text(),
    )
    index = INDEX.format(
        title=app.config.project,
        first=site + page,
        page=page,
        cards="\n".join(cards),
    )
    (out / "index.html").write_text(index)
    urls = [
        site + app.builder.get_target_uri(n) for n in sorted(app.env.found_docs)
    ]
    listed = "".join(f"<url><loc>{url}</loc></url>\n" for url in urls)
    (out / "sitemap.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
        f"{listed}</urlset>\n"
    )


def setup(app):
    app.connect("config-inited", settings, priority=0)
    app.connect("html-page-context", foot, priority=900)
    app.connect("build-finished", write_index)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    restamp(sys.argv[1] if len(sys.argv) > 1 else address())
