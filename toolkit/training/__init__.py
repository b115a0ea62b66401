"""Making a trained model: what [train] says, and carrying it out."""
