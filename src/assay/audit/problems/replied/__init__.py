"""What the audit of transcripts is made of: conversations in, read-outs of their last replies and their twins out."""
