"""What a file would cost on a device that is not there: rooflines, compilers' own figures, microcontrollers."""
