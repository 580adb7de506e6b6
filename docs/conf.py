"""The pages as a site: ``sphinx-build -nW -b html docs build/docs``."""

from importlib.metadata import version as _version

project = "ondevice"
version = release = _version("ondevice")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_copybutton"]
html_theme = "furo"
html_title = f"ondevice {version}"
exclude_patterns = ["build"]
myst_heading_anchors = 3
myst_enable_extensions = ["linkify"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
add_module_names = False
html_show_copyright = False
# With `-n` a reference that leads nowhere is a warning, but for other projects' names and for
# short ones, which stand for types of annotations.
nitpick_ignore_regex = [
    ("py:.*", r"(mlx|mx|nn|numpy|np|Image|collections|pathlib|os|typing)\..*"),
    ("py:.*", r"\w+"),
]
