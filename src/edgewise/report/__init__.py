"""Records in, pages and tables out. Reads floor 0 only.

`html` is the whole report in one file, `family_html` that of several speedups made in one run, `pareto_svg` the chart for a README; the
rest are rich renderables for the terminal.
"""

from edgewise.report.family import family_html
from edgewise.report.family_terminal import family_table
from edgewise.report.page import html
from edgewise.report.pareto import pareto_svg
from edgewise.report.terminal import compare_table, device_table, profile_table, table

__all__ = ["compare_table", "device_table", "family_html", "family_table", "html", "pareto_svg", "profile_table", "table"]
