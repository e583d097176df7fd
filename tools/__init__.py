"""What the Makefile calls for this project's dependencies; nothing here is installed with the package."""
