"""Other tools' ways to an int8 file: those of this environment, and scripts for environments of their own."""
