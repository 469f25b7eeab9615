"""Expressions, compound expressions and action units: names, never bare indices."""
