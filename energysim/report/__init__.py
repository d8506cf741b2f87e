"""One page about a run, whole in itself: numbers, pictures, constants and where they are from."""

from __future__ import annotations

from energysim.report.page import Report, check_extra, page

__all__ = ["Report", "check_extra", "page"]
