"""What a representation holds of some features: how loudly, how densely, how readably, and how much it matters.

Everything starts from activations (n, D) and a table of labels (`labels`). What is of the nature of a variance is made
from joint moments gathered in one pass (`moments`, `variance`, `factorial`, `density`, `principal`, `invariance`); what
needs rows is not (`decode`, `codelength`, `steering`, `reliance`).
"""
