"""The geometry of learned tables: what curve the embeddings of ordered tokens trace, and whether chance traces it too.

Everything starts from a `table` (n, D), one row a token, and the `tokens` (n,) as whole numbers, or from hidden rows (N, D).
Nothing here knows what a token stands for: knowledge of the domain enters as arrays and named terms.
"""
