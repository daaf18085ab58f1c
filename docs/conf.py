"""The documentation site: `make docs` writes it to site/, without a network.

Pages are read where they are in the repository. README.md is the first one. CONTENTS says which
pages come below which; its patterns find new guides and methods.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

from docutils import nodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from docs.recipe_keys import recipe_keys  # noqa: E402
from mgrpo import __version__  # noqa: E402
from mgrpo.report.page import source_hash  # noqa: E402

CONTENTS = {
    "README": {
        "Examples": ["examples/README"],
        "Guides": ["docs/install", "docs/guides/*"],
        "Methods": ["docs/methods/README"],
        "Results": ["docs/results/*", "docs/architectures", "benchmarks/README"],
        "Reference": ["docs/architecture", "docs/metrics", "docs/reference/*"],
        "Project": ["CONTRIBUTING", "CHANGELOG", "CODE_OF_CONDUCT", "SECURITY", "docs/log"],
    },
    "benchmarks/README": {"Measured": ["docs/benchmarks/*"]},
    "docs/methods/README": {"Each method": ["mgrpo/methods/*/README"]},
    "examples/README": {"Each example": ["examples/*/README"]},
}
"""The pages below a page, by caption, as entries of Sphinx's `toctree`."""
GENERATED = {"docs/reference/recipe_keys": recipe_keys}
"""What is added to a page when the site is built."""

THEME_SCRIPT = """
      document.body.dataset.theme = localStorage.getItem("theme") || "auto";
    """
"""The one script that Furo writes into its pages."""
POLICY = (
    f"default-src 'none'; script-src 'self' '{source_hash(THEME_SCRIPT)}'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; "  # Furo's colours and icons
    "connect-src 'self'; "  # the search reads the pages that it has found
    "form-action 'self'; base-uri 'none'"
)
"""The content security policy of each page: no page runs a script that it contains but Furo's."""
COMMENT = re.compile(r"\s*<!--(?:(?!-->).)*-->\s*", flags=re.DOTALL)

project = "mgrpo"
release = version = __version__
html_title = f"mgrpo {__version__}"
copyright = "the mgrpo authors, Apache-2.0"

root_doc = "README"
include_patterns = ["docs/**.md", *(f"{page}.md" for page in CONTENTS)]
include_patterns += [
    f"{page}.md" for below in CONTENTS.values() for pages in below.values() for page in pages
]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]

myst_heading_anchors = 4  # for links such as page.md#a-heading

html_theme = "furo"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False

autodoc_default_options = {"members": True, "undoc-members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
default_role = "code"


def complete(app: Sphinx, page: str, source: list[str]) -> None:
    """Add to a page what is generated, and the pages below it."""
    if page in GENERATED:
        source[0] += "\n" + GENERATED[page]()
    for caption, pages in CONTENTS.get(page, {}).items():
        found = [entry for entry in pages if "*" not in entry or any(ROOT.glob(f"{entry}.md"))]
        entries = "".join(f"/{entry}\n" for entry in found)
        source[0] += f"\n```{{toctree}}\n:hidden:\n:glob:\n:caption: {caption}\n\n{entries}```\n"


def keep_layout(
    app: Sphinx, kind: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Adapt a docstring, before Napoleon reads it, so that the page shows what the code says."""
    if kind == "module":  # lists and trees
        paragraphs = [
            f"::\n\n{indent(text, '    ')}" if text.startswith("    ") or "──" in text else text
            for text in "\n".join(lines).split("\n\n")
        ]
        lines[:] = "\n\n".join(paragraphs).splitlines()
    elif kind in ("attribute", "data", "property"):  # else "a: b" would be a type and its text
        lines.insert(0, "")


def show_html(app: Sphinx, page: nodes.document) -> None:
    """Show HTML in a page as the text that it is, and leave out its comments."""
    for raw in list(page.findall(nodes.raw)):
        text = raw.astext()
        if COMMENT.fullmatch(text):
            raw.parent.remove(raw)
        elif isinstance(raw.parent, nodes.TextElement):
            raw.replace_self(nodes.literal(text, text))
        else:
            raw.replace_self(nodes.literal_block(text, text, language="text"))


def add_policy(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Put the content security policy before all that it is about."""
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    context["metatags"] = policy + context.get("metatags", "")


def add_index(app: Sphinx, failure: Exception | None) -> None:
    """Have the site's address show its first page."""
    if failure is None and app.builder.name == "html":
        shutil.copy(app.outdir / f"{root_doc}.html", app.outdir / "index.html")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", complete)
    app.connect("autodoc-process-docstring", keep_layout, priority=400)
    app.connect("doctree-read", show_html)
    app.connect("html-page-context", add_policy)
    app.connect("build-finished", add_index)
