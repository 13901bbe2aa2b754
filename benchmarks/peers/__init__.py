"""One file per candidate that is not Assay: what its own documentation would have one write for the jobs."""
