"""Records in, pages and tables out. Reads floor 0 only.

`html` is the whole report in one file, `pareto_svg` the chart for a README; the rest are rich renderables for the terminal.
"""

from edgewise.report.page import html
from edgewise.report.pareto import pareto_svg
from edgewise.report.terminal import compare_table, device_table, profile_table, table

__all__ = ["compare_table", "device_table", "html", "pareto_svg", "profile_table", "table"]
