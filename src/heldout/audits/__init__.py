"""`heldout audit SPEC.yaml`: a user's own network, splits and readings, through the same engine and report as studies."""
