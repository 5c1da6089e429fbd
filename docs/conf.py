"""How the pages are built: ``nox -s docs``; links to other sites: ``nox -s docs -- linkcheck``."""

from __future__ import annotations

from spoco_zoo import __version__

project, author, release = "spoco-zoo", "the spoco-zoo authors", __version__
copyright = author
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
# Links to headings of other pages, as in page.md#heading.
myst_heading_anchors = 3
exclude_patterns = ["_build", "tutorial.ipynb"]
html_theme = "furo"
html_title = f"spoco-zoo {release}"
napoleon_google_docstring = False
napoleon_use_rtype = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
linkcheck_timeout = 20
