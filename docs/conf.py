"""Settings of Sphinx: `make docs` builds the pages of this folder, and those that `_generated.py` makes, into `_build/`."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from _generated import setup  # noqa: E402, F401 - Sphinx calls it

project = "sync-clients"
author = "the authors of sync-clients"
root_doc = "README"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

suppress_warnings = ["misc.highlighting_failure"]  # SQL with the braces of dbt

myst_heading_anchors = 4
myst_links_external_new_tab = False

smartquotes = False  # `--yes` stays as it is typed
default_role = "literal"  # docstrings write `names` as Markdown does
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80

html_theme = "furo"
html_title = "sync-clients"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
pygments_style = "friendly"
