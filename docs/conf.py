"""Sphinx configuration: `make docs` writes build/docs/index.html and fails on any warning."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from generate_reference import write_reference

project = "debate-rl"
author = "The debate-rl authors"
version = release = installed_version("debate-rl")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

nb_execution_mode = "auto"
nb_execution_in_temp = True  # tutorials write runs/ where nothing else is
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_execution_show_tb = True
nb_merge_streams = True
nb_output_stderr = "remove"  # warnings of libraries, with the paths of this machine

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "debate-rl"
html_static_path = ["_static"]
html_theme_options = {"source_repository": "", "navigation_with_keys": True}

# Pages under reference/ are made from the code itself, so that no key, command or name can be missing or out of date.
write_reference(Path(__file__).parent / "reference")
