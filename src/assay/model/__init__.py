"""One loaded model: what its modules are called here, how a forward pass is driven, and the proof that the names are true."""
