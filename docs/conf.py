"""The documentation site: ``make docs`` builds docs/_build/html, strictly and without a network."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "extensions"), str(HERE.parent)]

import matplotlib  # noqa: E402

from advfeat import __version__ as release  # noqa: E402

matplotlib.use("agg")
project, author, language = "advfeat", "the advfeat developers", "en"
version = release
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "sphinx-mathjax-offline",
    "outside_pages",
    "plain_formulas",
    "command_options",
    "public_names",
]
exclude_patterns = ["_build", "_templates", "gallery/**/*.ipynb", "gallery/**/*.py", "gallery/**/*.md5"]
templates_path = ["_templates"]
nitpicky = True  # a reference to what is not there is a warning, and `make docs` fails on warnings

myst_enable_extensions = ["dollarmath", "attrs_inline"]
myst_heading_anchors = 3
autosummary_ignore_module_all = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False  # the classes' own pages show them
default_role = "code"

sphinx_gallery_conf = {
    "examples_dirs": ["../examples/gallery"],
    "gallery_dirs": ["gallery"],
    "backreferences_dir": "gallery/backreferences",
    "doc_module": ("advfeat",),
    "abort_on_example_error": True,
    "filename_pattern": r"/",
    "remove_config_comments": True,
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,  # that page loads scripts from elsewhere
}

html_theme = "pydata_sphinx_theme"
html_title = f"advfeat {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "advfeat"},
    "navbar_align": "left",
    "show_prev_next": False,
    "header_links_before_dropdown": 7,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
}
copyright = "the advfeat developers, MIT license"
