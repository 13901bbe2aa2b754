"""What the audits measure with: statements, instructions and neutral prose. Each folder of data has its README."""
