"""How delivered files are run, one runtime a file; `toolkit/worker/` has the part that travels to the device."""
