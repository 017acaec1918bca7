"""Pages that ask no other host for anything, and weigh little."""

import importlib.util
import re
import shutil
from pathlib import Path

from fontTools import subset

MATHJAX = ["tex-chtml.js", "input/tex/extensions", "output/chtml/fonts/woff-v2"]
# Half a megabyte that blocks each page. All icons are drawn by its fonts without it.
FONTAWESOME = re.compile(
    r'\s*<script src="[^"]*fontawesome\.js[^"]*"></script>'
)
ICON = re.compile(r'((?:\.fa-[\w-]+:before,?)+)\{content:"\\(\w+)"\}')


def copy_mathjax(app, error):
    if error or app.builder.format != "html":
        return
    package = importlib.util.find_spec("sphinx-mathjax-offline").origin
    source = Path(package).parent / "static" / "mathjax"
    target = Path(app.outdir) / "_static" / "mathjax"
    for name in MATHJAX:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, dirs_exist_ok=True)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)


# Thebe is on another host; no page uses the components of sphinx-design, or has a kernel
# for the state of widgets.
UNUSED = ("thebe", "sphinx-design", "design-tabs", "widget-state")


def strip_scripts(app, pagename, templatename, context, doctree):
    for kind in ("script_files", "css_files"):
        context[kind] = [
            file
            for file in context.get(kind, [])
            if not any(name in f"{file}{vars(file)}" for name in UNUSED)
        ]


def lighten(app, error):
    """Font Awesome without its script, and with the styles and glyphs of those icons
    alone that are used."""
    if error or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    for page in Path(app.outdir).rglob("*.html"):
        page.write_text(FONTAWESOME.sub("", page.read_text()))
    for script in static.glob("scripts/fontawesome.js*"):
        script.unlink()
    read = lambda kind: "".join(
        path.read_text() for path in Path(app.outdir).rglob(f"*.{kind}")
    )
    styles = read("css")
    others = ICON.sub("", styles)
    used = set(re.findall(r"\bfa-[\w-]+", read("html") + read("js") + others))
    codes = set(re.findall(r"\\(f[0-9a-f]{3})\b", others))

    def keep(rule):
        names = set(re.findall(r"fa-[\w-]+", rule[1]))
        codes.update({rule[2]} if used & names else ())
        return rule[0] if used & names else ""

    for path in static.rglob("*.css"):
        path.write_text(ICON.sub(keep, path.read_text()))
    for path in static.glob("vendor/fontawesome/webfonts/*.woff2"):
        options = subset.Options(flavor="woff2")
        font = subset.load_font(path, options)
        subsetter = subset.Subsetter(options)
        subsetter.populate(unicodes=[int(code, 16) for code in codes])
        subsetter.subset(font)
        subset.save_font(font, path, options)
        path.with_suffix(".ttf").unlink()


def setup(app):
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", lighten)
    app.connect("html-page-context", strip_scripts, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
