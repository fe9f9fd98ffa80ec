"""The page on finished runs: one HTML file that opens from a disk, and the same as Markdown."""

from codistill.reporting.page.measure import MeasureOptions, refuse_places
from codistill.reporting.page.write import require_page, write_page

__all__ = ["MeasureOptions", "refuse_places", "require_page", "write_page"]
