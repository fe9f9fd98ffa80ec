"""The page on finished runs: one HTML file that opens from a disk, and the same as Markdown."""

from codistill.page.write import write_page

__all__ = ["write_page"]
