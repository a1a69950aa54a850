"""How studies are carried out: those that evaluate the trained model, and those that train and evaluate variants of it."""
