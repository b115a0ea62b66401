"""How a device is reached, one way a file: open a session, push files, run the worker, pull results, leave nothing."""
