"""This package carries out studies: those that evaluate the trained model, and those that train and evaluate variants."""
