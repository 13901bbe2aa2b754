"""Speed and memory, each beside its limit and beside other libraries. See README.md."""
