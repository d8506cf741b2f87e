"""Pictures of results. Each function draws a table into axes and gives them back."""

from __future__ import annotations

from energysim.plot.style import FORMS, STYLE, check_form, save
from energysim.plot.validation import validation

__all__ = ["FORMS", "STYLE", "check_form", "save", "validation"]
