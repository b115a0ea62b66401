"""How a trained model is read into a `core.Model`, one file a kind; and how models rest between stages."""
