"""What a run computes: one module with one readable function per task."""
