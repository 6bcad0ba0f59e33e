"""Degeneracy: interaction edges between the features of neighbouring layers, ablations, and ranks."""
