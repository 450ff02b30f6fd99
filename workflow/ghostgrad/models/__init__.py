"""Network architectures and their initialization."""
