"""The wire formats: provider bytes to chunk data, chunks to client frames, and requests of both. Sans-IO throughout."""
