"""The mean loss of a model as a function of one weight vector."""
