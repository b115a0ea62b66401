"""Plain functions on arrays and Keras graphs: surgery, cost, statistics. Knows nothing of recipes, files or devices."""
