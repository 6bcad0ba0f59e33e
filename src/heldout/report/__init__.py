"""A run becomes one HTML page that opens offline."""

from heldout.figures.page import IdentityCheck, Page, Section, Table
from heldout.report.render import render, write

__all__ = ["IdentityCheck", "Page", "Section", "Table", "render", "write"]
