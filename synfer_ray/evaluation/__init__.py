"""Figures of merit: classification, action units, and distances between image sets."""
